"""The affine map that a layer is, `x -> A x + b`, and the maps that rules make of its matrix.

`Affine` never builds A. It re-evaluates the layer's operations with transformed constants: every
entry of A is one weight times the scales before and behind it, so |A|, A*A and the connectivity
come from |.|, the square and one applied to each constant. For the positive and negative parts of A
the scales are folded into the weights where they vary along the weights' own features; elsewhere
what came through weights of either sign is carried through the operations apart.

Half precision layers are applied in float32, where sums neither overflow nor lose relevance: z+ may
be far larger than z. Kernels in bfloat16 stay so and only accumulate wider; their transposes run as
written, behind quotients scaled to 1. float16 has too small a range for that.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial, reduce
from operator import add
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import _compat
from jaxplain.affine import folding
from jaxplain.affine.dtypes import wide
from jaxplain.graph.chains import is_kernel
from jaxplain.graph.invariance import literal_value
from jaxplain.graph.layers import Layer
from jaxplain.graph.primitives import Class, Role
from jaxplain.graph.program import Node, Var, compute, read

Arrays = tuple[jax.Array, ...]

# Operations that a map takes for multiplications by one.
_NONE: frozenset[Role] = frozenset()
_SIGNS = frozenset({Role.NEGATION, Role.DIFFERENCE})
_SCALES = _SIGNS | {Role.PRODUCT, Role.QUOTIENT}


class Linear:
    """A linear map of a list of arrays, with its transpose.

    Args:
        apply: the map.
        back: the same map, as it is transposed: possibly in other dtypes.
        inputs: the abstract values of the arrays that `back` takes.
        dtype: of what `back` gives.
    """

    def __init__(
        self,
        apply: Callable[..., Any],
        back: Callable[..., Any],
        inputs: Sequence[Any],
        dtype: Any,
    ):
        self._apply = apply
        self._back = back
        self._inputs = tuple(inputs)
        self._dtype = dtype

    def __call__(self, xs: Arrays) -> Any:
        """A x."""
        return self._apply(*xs)

    def transpose(self, s: Any) -> Arrays:
        """A^T s, one array per input."""
        return pull_back(self._transposed, s, self._dtype)

    @cached_property
    def _transposed(self) -> Callable[..., Any]:
        return jax.linear_transpose(self._back, *self._inputs)

    def __add__(self, other: "Linear") -> "Linear":
        def plus(f: Callable[..., Any], g: Callable[..., Any]) -> Callable[..., Any]:
            return lambda *xs: f(*xs) + g(*xs)

        apply, back = plus(self._apply, other._apply), plus(self._back, other._back)
        return Linear(apply, back, self._inputs, self._dtype)

    def scaled(self, factor: float) -> "Linear":
        """factor * A."""
        apply, back = (lambda *xs, f=f: factor * f(*xs) for f in (self._apply, self._back))
        return Linear(apply, back, self._inputs, self._dtype)


def pull_back(transposed: Callable[[Any], Any], s: Any, dtype: Any) -> Arrays:
    """Applies a linear map that wants its argument, one array or several, in `dtype`.

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
        constants: the values of everything the layer does not compute on its affine path.
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
        self._nodes = tuple(n for n in layer.nodes if n.outputs[0] in layer.live)
        frozen = [n for n in layer.nodes if n.outputs[0] not in layer.live]
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
        return self._map(jnp.abs, ones=_SIGNS)

    @cached_property
    def square(self) -> Linear:
        """A * A, elementwise."""
        squared = lambda v: jnp.square(jnp.asarray(v, self._dtype))  # noqa: E731
        return self._map(squared, ones=_SIGNS, exact=True)

    @cached_property
    def flat(self) -> Linear:
        """1 where an input is connected to an output, whatever the weight."""
        return self._map(jnp.ones_like, ones=_SCALES)

    @cached_property
    def positive(self) -> Linear:
        """max(A, 0)."""
        return self._linear(self._one_part(_up) or (lambda *args: self._parts(*args)[0]))

    @cached_property
    def negative(self) -> Linear:
        """min(A, 0)."""
        return self._linear(self._one_part(_down) or (lambda *args: self._parts(*args)[1]))

    @cached_property
    def signed(self) -> Linear:
        """Both, as a pair: max(A, 0) x and min(A, 0) x."""
        return self._linear(self._parts)

    @cached_property
    def contributions(self) -> Linear:
        """As `signed`, of inputs in two parts: A+ x+ + A- x- and A- x+ + A+ x-, of (*x+, *x-)."""
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
            weight = read(self._env, self._factors(kernel)[0])
            dtype = wide(weight.dtype)
            used = jnp.asarray(pattern, dtype)
            weights[kernel] = jnp.asarray(weight, dtype) * used if weighted else used
        change = _share if weighted else _inverse
        return self._map(change, weights, ones=_SIGNS if weighted else _NONE, exact=True)

    def behind(self, start: Node) -> Linear:
        """Where the outputs of one of the layer's operations end up in the layer's output."""
        nodes = self._nodes[self._nodes.index(start) + 1 :]
        apply = self._walk(nodes, (start.outputs[0],), jnp.ones_like, ones=_SCALES)
        start_, exit_ = start.outputs[0].aval, self._layer.output.aval
        return Linear(partial(apply, None), partial(apply, None), [start_], exit_.dtype)

    def _value(self, env: Mapping[Var, Any], var: Var) -> Any:
        if var not in self._layer.live:
            return read(self._env, var)
        return env[var] if var in env else _compat.zeros(var.aval, self._dtype or var.aval.dtype)

    def _linear(self, apply: Callable[..., Any], exact: bool = False, halves: int = 1) -> Linear:
        """A map that `apply` computes in the dtype it is given; None: as the layer is written."""
        written = self._dtype is None or (self._narrow and not exact)
        dtype = None if written else self._dtype
        inputs = [_compat.retyped(x, dtype or x.dtype) for x in self._inputs] * halves
        exit_ = dtype or self._layer.output.aval.dtype
        return Linear(partial(apply, self._dtype), partial(apply, dtype), inputs, exit_)

    def _map(
        self,
        change: Callable[[Any], Any],
        weights: Mapping[Node, Any] | None = None,
        ones: frozenset[Role] = _NONE,
        exact: bool = False,
    ) -> Linear:
        """The linear part with `change` applied to every constant factor.

        Args:
            change: applied to weights and scales.
            weights: kernels to use as they are instead of the layer's own.
            ones: the operations that multiply by one.
            exact: nothing may be in half precision.
        """
        apply = self._walk(self._nodes, self._layer.inputs, change, weights, ones)
        return self._linear(apply, exact)

    def _walk(
        self,
        nodes: Sequence[Node],
        sources: Sequence[Var],
        change: Callable[[Any], Any],
        weights: Mapping[Node, Any] | None = None,
        ones: frozenset[Role] = _NONE,
    ) -> Callable[..., jax.Array]:
        """Some of the layer's operations, from `sources` to its exit, as `_map` wants them."""

        def apply(dtype: Any, *xs: jax.Array) -> jax.Array:
            env = dict(zip(sources, xs, strict=True))
            for node in nodes:
                constants = () if node.row.role in ones else self._factors(node)
                factors = {
                    v: (weights or {}).get(node, change(read(self._env, v))) for v in constants
                }
                outputs = self._step(node, env, factors, ones, dtype)
                env.update(zip(node.outputs, outputs, strict=True))
            return env[self._layer.output]

        return apply

    def _adds(self, node: Node) -> bool:
        """Whether the operation may add constants."""
        return _offsets(node) and any(v not in self._layer.live for v in node.inputs)

    def _factors(self, node: Node) -> tuple[Var, ...]:
        """The constants that the operation multiplies by."""
        return tuple(v for v in node.inputs if v not in self._layer.live and _is_factor(node))

    def _step(
        self,
        node: Node,
        env: Mapping[Var, Any],
        factors: Mapping[Var, Any],
        ones: frozenset[Role],
        dtype: Any,
    ) -> list[Any]:
        """One operation without its offset: constants other than factors count as zero."""
        role, shape = node.row.role, node.outputs[0].shape
        live = [v for v in node.inputs if v in env]
        if role in (Role.SUM, Role.DIFFERENCE):
            terms = [env.get(v) for v in node.inputs]
            if role is Role.DIFFERENCE and role not in ones and terms[1] is not None:
                terms[1] = -terms[1]
            total = reduce(add, (t for t in terms if t is not None))
            return [jnp.broadcast_to(total, shape)]
        if role in ones:
            return [jnp.broadcast_to(env[live[0]], shape)]
        values = []
        for var in node.inputs:
            if var in env:
                values.append(env[var])
            elif var in factors:
                values.append(factors[var])
            elif var.floating:
                values.append(_compat.zeros(var.aval, var.aval.dtype))
            else:
                values.append(read(self._env, var))
        return node.evaluate(values, dtype, linear=True)

    @cached_property
    def _folded(self) -> jax.Array | None:
        """The only kernel's weights with all scales in them; None where they do not fold."""
        layer = self._layer
        if len(layer.mixing) != 1 or not is_kernel(layer.mixing[0]):
            return None
        scales = [n for n in self._nodes if _is_scale(n, layer)]
        return folding.fold(layer, self._nodes, scales, self._env)

    def _one_part(self, part: Callable[[Any], Any]) -> Callable[..., jax.Array] | None:
        """The map of the entries of A with one sign, where one kernel has them."""
        if self._folded is None:
            return None
        weights = {self._layer.mixing[0]: part(self._folded)}
        return self._walk(self._nodes, self._layer.inputs, jnp.ones_like, weights, _SCALES)

    def _parts(self, dtype: Any, *xs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What is positive and what negative, of inputs that are or of two halves of either sign.

        The two never mix, so that what has only weights of one sign is exactly zero in the other.
        """
        sources, exit_ = self._layer.inputs, self._layer.output
        above: dict[Var, Any] = dict(zip(sources, xs, strict=False))
        below: dict[Var, Any] = dict(zip(sources, xs[len(sources) :], strict=False))
        for node in self._nodes:
            parts = self._split(node, above, below, dtype)
            for env, part in zip((above, below), parts, strict=True):
                env.update(zip(node.outputs, part, strict=False))
        zero = _compat.zeros(exit_.aval, dtype or exit_.aval.dtype)
        return above.get(exit_, zero), below.get(exit_, zero)

    def _split(
        self, node: Node, above: Mapping[Var, Any], below: Mapping[Var, Any], dtype: Any
    ) -> tuple[list[Any], list[Any]]:
        """One operation on values of either sign; what is zero throughout has no outputs."""
        ones = _NONE if self._folded is None else _SCALES

        def run(env: Mapping[Var, Any], factors: Mapping[Var, Any] = {}) -> list[Any]:
            if not set(node.inputs) & set(env):
                return []
            return self._step(node, env, factors, ones, dtype)

        role, constants = node.row.role, self._factors(node)
        if role is Role.NEGATION and role not in ones:
            return run(below), run(above)
        if role is Role.DIFFERENCE and role not in ones:
            first, second = node.inputs
            plus = {v: env[v] for v, env in ((first, above), (second, below)) if v in env}
            minus = {v: env[v] for v, env in ((first, below), (second, above)) if v in env}
            return run(plus), run(minus)
        if role in ones or not constants:
            return run(above), run(below)
        (constant,) = constants
        c = read(self._env, constant)
        folded = self._folded if node in self._layer.mixing else None
        if is_kernel(node) and (folded is not None or not ones):
            weights = c if folded is None else folded
            up, down = {constant: _up(weights)}, {constant: _down(weights)}
            kept = _sum(run(above, up), run(below, down))
            return kept, _sum(run(above, down), run(below, up))
        factors = {constant: jnp.ones_like(c) if ones else c}
        kept, crossed = run(above, factors), run(below, factors)
        value = literal_value(constant)
        if ones or (value is not None and value > 0):
            return kept, crossed
        return _choose(c > 0, kept, crossed), _choose(c > 0, crossed, kept)


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
    """1 / s; what cuts a connection, a factor of zero or a divisor of infinity, still does."""
    scale = jnp.asarray(scale)
    cut = (scale == 0) | jnp.isinf(scale)
    return jnp.where(cut, scale, 1 / jnp.where(cut, 1, scale))


def _share(scale: Any) -> jax.Array:
    """s * (1 / s), which is 1 where the connection is not cut."""
    scale = jnp.asarray(scale)
    return jnp.where((scale == 0) | jnp.isinf(scale), scale, 1)


def _is_factor(node: Node) -> bool:
    """Whether the operation multiplies by its constants."""
    return node.row.role in (Role.PRODUCT, Role.QUOTIENT, Role.DOT, Role.CONVOLUTION)


def _offsets(node: Node) -> bool:
    """Whether the operation may add its constants."""
    sums = node.row.cls is Class.MIXING and node.row.role is not Role.SCATTER_SUM
    return not _is_factor(node) and not sums


def _is_scale(node: Node, layer: Layer) -> bool:
    """Whether the operation multiplies its live operand by something else than one."""
    role = node.row.role
    if role is Role.DIFFERENCE:
        return node.inputs[1] in layer.live
    if role is Role.DOT:  # an einsum without a sum
        return node not in layer.mixing
    return role in (Role.NEGATION, Role.PRODUCT, Role.QUOTIENT)


def is_splittable(layer: Layer) -> bool:
    """Whether every entry of A is one product of constants, as the sign split of A needs."""
    return layer.kind in ("Affine", "Merge") and layer.op != "linear"
