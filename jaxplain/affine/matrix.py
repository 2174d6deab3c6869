"""The affine map that a layer is, `x -> A x + b`, and the maps that rules make of its matrix.

`Affine` never builds A. It re-evaluates the layer's operations with transformed constants: every
entry of A is one weight times the scales before and behind it, so |A|, A*A and the connectivity
come from |.|, the square and one applied to each constant. For the positive and negative parts of A
the scales are folded into the weights where they vary along the weights' own features, as those of
a BatchNorm behind a convolution; elsewhere every operation is run on two values, the sums over the
positive and over the negative entries of A.

Half precision layers are applied in float32, where sums neither overflow nor lose relevance: z+ may
be far larger than z. Kernels in bfloat16 stay so and only accumulate wider; their transposes run as
written, behind quotients scaled to 1. float16 has too small a range for that.
"""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from operator import add
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import _compat
from jaxplain.affine import folding
from jaxplain.affine.dtypes import wide
from jaxplain.graph.analyses.constants import literal_value
from jaxplain.graph.ir import Node, Var, compute, read
from jaxplain.graph.layer import Layer
from jaxplain.graph.primitives import Operand

Arrays = tuple[jax.Array, ...]


class _Ones(enum.IntEnum):
    """The factors that a map replaces by one."""

    NONE = 0
    SIGNS = 1  # the -1 of subtractions and negations
    SCALES = 2  # and all scales


_FACTORS = (Operand.FACTOR, Operand.DIVISOR)
_ADDED = (Operand.TERM, Operand.SUBTRAHEND, Operand.MOVED)


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear map of a list of arrays, with its transpose.

    Attributes:
        apply: the map.
        back: the same map in the form to be transposed, possibly in other dtypes.
        inputs: the abstract values of the arrays that `back` takes.
        dtype: the dtype that `back` gives.
    """

    apply: Callable[..., Any]
    back: Callable[..., Any]
    inputs: Sequence[Any]
    dtype: Any

    def __call__(self, xs: Arrays) -> Any:
        """A x."""
        return self.apply(*xs)

    def transpose(self, s: Any) -> Arrays:
        """A^T s, one array per input."""
        return pull_back(self._transposed, s, self.dtype)

    @cached_property
    def _transposed(self) -> Callable[..., Any]:
        return jax.linear_transpose(self.back, *self.inputs)

    def __add__(self, other: "Linear") -> "Linear":
        pairs = ((self.apply, other.apply), (self.back, other.back))
        apply, back = (lambda *xs, f=f, g=g: f(*xs) + g(*xs) for f, g in pairs)
        return Linear(apply, back, self.inputs, self.dtype)

    def scaled(self, factor: float) -> "Linear":
        """factor * A."""
        apply, back = (lambda *xs, f=f: factor * f(*xs) for f in (self.apply, self.back))
        return Linear(apply, back, self.inputs, self.dtype)


def pull_back(transposed: Callable[[Any], Any], s: Any, dtype: Any) -> Arrays:
    """The result of a linear map whose argument, one array or several, must be in `dtype`.

    The quotients s of a rule are wider than half precision layers, and out of float16's range: they
    are scaled to 1 on the way in.
    """
    leaves = jax.tree.leaves(s)
    wide = leaves[0].dtype
    if wide == dtype:
        return tuple(transposed(s))
    largest = reduce(jnp.maximum, (jnp.max(jnp.abs(v), initial=0) for v in leaves))
    scale = jnp.exp2(jnp.floor(jnp.log2(jnp.where(largest > 0, largest, 1))))  # exact
    scaled = jax.tree.map(lambda v: (v / scale).astype(dtype), s)
    return tuple(v.astype(wide) * scale for v in transposed(scaled))


class Affine:
    """A layer's affine map at given constants.

    Args:
        layer: the layer.
        constants: the values of the layer's constants, such as weights.
        xs: the layer's inputs (their shapes matter, and for normalisations their values).
    """

    def __init__(self, layer: Layer, constants: Mapping[Var, Any], xs: Arrays):
        self._layer = layer
        floats = {v for n in layer.nodes for v in (*n.inputs, *n.outputs) if v.floating}
        dtypes = {v.aval.dtype for v in floats}
        self._dtype = None if dtypes == {wide(*dtypes)} else wide(*dtypes)
        self._narrow = jnp.bfloat16 in dtypes and jnp.float16 not in dtypes
        self._env = dict(constants)
        self._inputs = xs
        self._nodes = tuple(n for n in layer.nodes if n.outputs[0] in layer.affine_vars)
        frozen = [n for n in layer.nodes if n.outputs[0] not in layer.affine_vars]
        if frozen:  # the statistic of a normalisation
            env = {**self._env, **dict(zip(layer.inputs, xs, strict=True))}
            compute(layer.nodes, env)
            self._env |= {v: env[v] for n in frozen for v in n.outputs}

    @cached_property
    def linear(self) -> Linear:
        """A."""
        return self._map(_identity)

    @cached_property
    def abs(self) -> Linear:
        """|A|."""
        return self._map(jnp.abs, ones=_Ones.SIGNS)

    @cached_property
    def square(self) -> Linear:
        """A * A, elementwise."""
        squared = lambda v: jnp.square(jnp.asarray(v, self._dtype))  # noqa: E731
        return self._map(squared, ones=_Ones.SIGNS, exact=True)

    @cached_property
    def flat(self) -> Linear:
        """1 where an input is connected to an output, whatever the weight."""
        return self._map(jnp.ones_like, ones=_Ones.SCALES)

    @cached_property
    def positive(self) -> Linear:
        """max(A, 0)."""
        return self._part(0, _up)

    @cached_property
    def negative(self) -> Linear:
        """min(A, 0)."""
        return self._part(1, _down)

    @cached_property
    def signed(self) -> Linear:
        """The pair max(A, 0) x and min(A, 0) x."""
        return self._linear(self._parts)

    @cached_property
    def contributions(self) -> Linear:
        """The pair A+ x+ + A- x- and A- x+ + A+ x-, of an input in two parts (*x+, *x-)."""
        return self._linear(self._parts, halves=2)

    @property
    def biased(self) -> bool:
        """Whether anything is added to A x."""
        return any(map(self._adds, self._nodes))

    @cached_property
    def bias(self) -> jax.Array:
        """b: the layer at 0, in the shape of its output."""
        env: dict[Var, Any] = {}  # a missing value is zero: kernels of zero cost nothing
        for node in self._nodes:
            if not self._adds(node) and not any(v in env for v in node.inputs):
                continue
            values = [self._value(env, v) for v in node.inputs]
            env.update(zip(node.outputs, node.evaluate(values, self._dtype), strict=True))
        return self._value(env, self._layer.output)

    def pattern(self, pattern: jax.Array | None, weighted: bool) -> Linear:
        """The map whose entries are those of the layer's pattern, one per entry of A.

        The pattern of a scale s is 1 / s: of the kernel times s it is a / s, and still w . a = 1.

        Args:
            pattern: the kernel's pattern a, in the shape of its weights; None without a kernel.
            weighted: take w * a instead, entry by entry.
        """
        weights = {}
        if pattern is not None:
            kernel = self._layer.mixing[0]
            weight = read(self._env, self._constants(kernel, _FACTORS)[0])
            dtype = wide(weight.dtype)
            used = jnp.asarray(pattern, dtype)
            weights[kernel] = jnp.asarray(weight, dtype) * used if weighted else used
        change = _share if weighted else _inverse
        return self._map(change, weights, ones=_Ones.SIGNS if weighted else _Ones.NONE, exact=True)

    def behind(self, start: Node) -> Linear:
        """The map from the output of an operation to the layer's output, with all scales one."""
        nodes = self._nodes[self._nodes.index(start) + 1 :]
        apply = self._walk(nodes, (start.outputs[0],), jnp.ones_like, ones=_Ones.SCALES)
        apply = partial(apply, None)
        return Linear(apply, apply, [start.outputs[0].aval], self._layer.output.aval.dtype)

    def _value(self, env: Mapping[Var, Any], var: Var) -> Any:
        if var not in self._layer.affine_vars:
            return read(self._env, var)
        return env[var] if var in env else _compat.zeros(var.aval, self._dtype or var.aval.dtype)

    def _linear(self, apply: Callable[..., Any], exact: bool = False, halves: int = 1) -> Linear:
        """The map that `apply(dtype, *xs)` computes; a `dtype` of None: as the layer is written."""
        written = self._dtype is None or (self._narrow and not exact)
        dtype = None if written else self._dtype
        inputs = [_compat.retyped(x, dtype or x.dtype) for x in self._inputs] * halves
        made = dtype or self._layer.output.aval.dtype
        return Linear(partial(apply, self._dtype), partial(apply, dtype), inputs, made)

    def _map(
        self,
        change: Callable[[Any], Any],
        weights: Mapping[Node, Any] | None = None,
        ones: _Ones = _Ones.NONE,
        exact: bool = False,
    ) -> Linear:
        """The linear part with `change` applied to every constant factor.

        Args:
            change: applied to weights and scales.
            weights: kernels to use as they are instead of the layer's own.
            ones: the factors to replace by one.
            exact: whether nothing may be in half precision.
        """
        apply = self._walk(self._nodes, self._layer.inputs, change, weights, ones)
        return self._linear(apply, exact)

    def _walk(
        self,
        nodes: Sequence[Node],
        sources: Sequence[Var],
        change: Callable[[Any], Any],
        weights: Mapping[Node, Any] | None = None,
        ones: _Ones = _Ones.NONE,
    ) -> Callable[..., jax.Array]:
        """The linear part of some operations in a row, from `sources` on; see `_map`."""
        (end,) = nodes[-1].outputs if nodes else sources

        def apply(dtype: Any, *xs: jax.Array) -> jax.Array:
            env = dict(zip(sources, xs, strict=True))
            for node in nodes:
                constants = () if _counts_as_one(node, ones) else self._constants(node, _FACTORS)
                factors = {
                    v: (weights or {}).get(node, change(read(self._env, v))) for v in constants
                }
                outputs = self._step(node, env, factors, ones, dtype)
                env.update(zip(node.outputs, outputs, strict=True))
            return env[end]

        return apply

    def _adds(self, node: Node) -> bool:
        """Whether the operation may add constants."""
        return "fill_value" in node.params or bool(self._constants(node, _ADDED))

    def _constants(self, node: Node, kinds: Sequence[Operand]) -> tuple[Var, ...]:
        """The constants among the operands of some kinds."""
        path = self._layer.affine_vars
        return tuple(var for kind, var in node.operands if kind in kinds and var not in path)

    def _step(
        self,
        node: Node,
        env: Mapping[Var, Any],
        factors: Mapping[Var, Any],
        ones: _Ones,
        dtype: Any,
    ) -> list[Any]:
        """The outputs of one operation without its offset: added and moved constants are zero."""
        if node.info.adds:
            return _total(node, env, env, ones)
        if _counts_as_one(node, ones):
            (value,) = (env[v] for v in node.inputs if v in env)
            return [jnp.broadcast_to(value, node.outputs[0].shape)]
        values = []
        for kind, var in node.operands:
            if var in env:
                values.append(env[var])
            elif var in factors:
                values.append(factors[var])
            elif kind in _ADDED:
                values.append(_compat.zeros(var.aval, var.aval.dtype))
            else:
                values.append(read(self._env, var))
        return node.evaluate(values, dtype, linear=True)

    @cached_property
    def _folded(self) -> jax.Array | None:
        """The only kernel's weights with all scales in them; None where they do not fold."""
        layer = self._layer
        if len(layer.mixing) != 1 or not layer.mixing[0].info.multiplies:
            return None
        scales = [n for n in self._nodes if _is_scale(n, layer)]
        (kernel,) = self._constants(layer.mixing[0], _FACTORS)

        def through(nodes: Sequence[Node], start: Var) -> Callable[[jax.Array], jax.Array]:
            return partial(self._walk(nodes, (start,), _identity), None)

        weights = jnp.asarray(read(self._env, kernel))
        return folding.fold(layer, self._nodes, scales, weights, through)

    def _part(self, place: int, part: Callable[[Any], Any]) -> Linear:
        """The map of the entries of A with one sign: of one kernel where the scales fold."""
        if self._folded is None:
            return self._linear(lambda *args: self._parts(*args)[place])
        return self._map(jnp.ones_like, {self._layer.mixing[0]: part(self._folded)}, _Ones.SCALES)

    def _parts(self, dtype: Any, *xs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The (positive, negative) parts of the output; `xs` is x, or (*x+, *x-).

        The two never mix: an output with weights of one sign only is exactly zero in the other.
        """
        sources, output = self._layer.inputs, self._layer.output
        above: dict[Var, Any] = dict(zip(sources, xs, strict=False))
        below: dict[Var, Any] = dict(zip(sources, xs[len(sources) :], strict=False))
        for node in self._nodes:
            parts = self._split(node, above, below, dtype)
            for env, part in zip((above, below), parts, strict=True):
                env.update(zip(node.outputs, part, strict=False))
        zero = _compat.zeros(output.aval, dtype or output.aval.dtype)
        return above.get(output, zero), below.get(output, zero)

    def _split(
        self, node: Node, above: Mapping[Var, Any], below: Mapping[Var, Any], dtype: Any
    ) -> tuple[list[Any], list[Any]]:
        """The outputs of one operation on either part; none for a part that is zero throughout."""
        ones = _Ones.NONE if self._folded is None else _Ones.SCALES

        def run(env: Mapping[Var, Any], factors: Mapping[Var, Any] = {}) -> list[Any]:
            if not set(node.inputs) & set(env):
                return []
            return self._step(node, env, factors, ones, dtype)

        constants = self._constants(node, _FACTORS)
        if node.info.adds and ones is _Ones.NONE:
            return _total(node, above, below), _total(node, below, above)
        if _counts_as_one(node, ones) or not constants:
            return run(above), run(below)
        (constant,) = constants
        c = read(self._env, constant)
        if node.info.multiplies:
            weights = c if self._folded is None else self._folded
            positive, negative = {constant: _up(weights)}, {constant: _down(weights)}
            kept = _sum(run(above, positive), run(below, negative))
            return kept, _sum(run(above, negative), run(below, positive))
        kept, crossed = run(above, {constant: c}), run(below, {constant: c})
        value = literal_value(constant)
        if value is not None and value > 0:
            return kept, crossed
        return _choose(c > 0, kept, crossed), _choose(c > 0, crossed, kept)


def _total(
    node: Node, added: Mapping[Var, Any], subtracted: Mapping[Var, Any], ones: _Ones = _Ones.NONE
) -> list[Any]:
    """The sum that an operation makes of known values; an empty list where there are none."""
    terms = []
    for kind, var in node.operands:
        turned = ones is _Ones.NONE and kind is Operand.SUBTRAHEND
        values = subtracted if turned else added
        if var in values:
            terms.append(-values[var] if turned else values[var])
    return [jnp.broadcast_to(reduce(add, terms), node.outputs[0].shape)] if terms else []


def _sum(a: list[Any], b: list[Any]) -> list[Any]:
    """a + b, output by output; an empty list is zero."""
    return [x + y for x, y in zip(a, b, strict=True)] if a and b else a or b


def _choose(condition: Any, a: list[Any], b: list[Any]) -> list[Any]:
    """a where the condition holds, else b, output by output; an empty list is zero."""
    if not a and not b:
        return []
    (x,), (y,) = a or [0], b or [0]
    return [jnp.where(condition, x, y)]


def _identity(x: Any) -> Any:
    return x


def _up(x: Any) -> jax.Array:
    return jnp.maximum(x, 0)


def _down(x: Any) -> jax.Array:
    return jnp.minimum(x, 0)


def _inverse(scale: Any) -> jax.Array:
    """1 / s; a scale that cuts a connection (a factor 0, a divisor of infinity) stays as it is."""
    scale = jnp.asarray(scale)
    cut = (scale == 0) | jnp.isinf(scale)
    return jnp.where(cut, scale, 1 / jnp.where(cut, 1, scale))


def _share(scale: Any) -> jax.Array:
    """s * (1 / s), which is 1 where the connection is not cut."""
    scale = jnp.asarray(scale)
    return jnp.where((scale == 0) | jnp.isinf(scale), scale, 1)


def _counts_as_one(node: Node, ones: _Ones) -> bool:
    """Whether all factors of an operation are replaced by one."""
    turns = node.info.adds and Operand.SUBTRAHEND in node.info.operands
    return (turns and ones >= _Ones.SIGNS) or (node.info.scales and ones >= _Ones.SCALES)


def _is_scale(node: Node, layer: Layer) -> bool:
    """Whether the operation scales its input or turns its sign, and sums nothing."""
    if node.info.adds:
        return any(k is Operand.SUBTRAHEND and v in layer.affine_vars for k, v in node.operands)
    einsum = node.info.multiplies and node not in layer.mixing  # without a sum
    return node.info.scales or einsum


def is_splittable(layer: Layer) -> bool:
    """Whether every entry of A is one product of constants, as the sign split of A needs."""
    return layer.kind in ("Affine", "Merge") and layer.op != "linear"
