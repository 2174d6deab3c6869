"""Rules, the view that they have of a layer, and the arithmetic that they share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain.affine.dtypes import wide
from jaxplain.affine.matrix import Affine, Linear, is_splittable, pull_back
from jaxplain.arguments import check_number, describe_value, fits
from jaxplain.by_value import ByValue
from jaxplain.graph.ir import Var
from jaxplain.graph.layer import Layer

Arrays = tuple[jax.Array, ...]
Stabilizer = float | Callable[[jax.Array], Any]

#: Sinks of relevance: the columns of the ledger for relevance that no input receives.
TERMS = {
    "bias": "the share of the bias",
    "stabilizer": "what the stabiliser of a denominator takes",
    "dead": "outputs that nothing contributed to",
    "constants": "outputs that are constants: padding, masked values",
    "remainder": "the constant term of a Taylor expansion, what a rule does not share out",
}


def _linear_map(attribute: Any) -> Callable[["LayerView"], Linear]:
    """A method for a linear map of the layer: `layer.positive()` is its `Affine.positive`."""

    def method(view: "LayerView") -> Linear:
        linear: Linear = attribute.__get__(view._affine)
        return linear

    method.__doc__ = attribute.__doc__
    return method


class LayerView:
    """A layer as a rule sees it: the function, and its affine map where it has one.

    A rule tells the ledger where the relevance went that it does not hand to the inputs: with
    `divide` for the share of a stabiliser, with `record` for the rest.

    Attributes:
        function: the layer itself, a function of its inputs.
        kind, op, name, axes, compares, running, nonnegative, gates, examples: as in `Layer`.
        state: arrays for the rule to read, such as the layer's pattern: a pytree, or None.
        recorded: the recorded amounts, by term; None when nobody reads the ledger.
    """

    def __init__(
        self,
        layer: Layer,
        function: Callable[..., jax.Array],
        constants: Mapping[Var, Any],
        xs: Arrays,
        state: Any = None,
        audited: bool = False,
    ):
        self._layer = layer
        self._constants = constants
        self._xs = xs
        self.function = function
        self.state = state
        self.recorded: dict[str, jax.Array] | None = {} if audited else None
        self.kind, self.op, self.name = layer.kind, layer.op, layer.name
        self.axes, self.compares, self.running = layer.axes, layer.compares, layer.running
        self.nonnegative, self.gates, self.examples = layer.nonnegative, layer.gates, layer.examples

    @cached_property
    def _affine(self) -> Affine:
        return Affine(self._layer, self._constants, self._xs)

    def linear(self, x: Arrays) -> jax.Array:
        """A x."""
        return self._affine.linear(x)

    def transpose(self, s: jax.Array) -> Arrays:
        """A^T s."""
        return self._affine.linear.transpose(s)

    @property
    def bias(self) -> jax.Array:
        """b, in the shape of the output."""
        return self._affine.bias

    @property
    def biased(self) -> bool:
        """Whether the layer adds anything: b may be other than 0."""
        return self._affine.biased

    positive = _linear_map(Affine.positive)
    negative = _linear_map(Affine.negative)
    signed = _linear_map(Affine.signed)
    contributions = _linear_map(Affine.contributions)
    abs = _linear_map(Affine.abs)
    square = _linear_map(Affine.square)
    flat = _linear_map(Affine.flat)

    def pattern(self, weighted: bool = False) -> Linear:
        """The layer's pattern a as a map, with the kernel's in `state`; w * a where `weighted`."""
        return self._affine.pattern(self.state, weighted)

    def edges(self, x: Arrays) -> jax.Array:
        """The flow |A| |x| over all connections of an output, by magnitude."""
        flow = self._affine.abs(tuple(map(jnp.abs, x)))
        return flow if is_splittable(self._layer) else jnp.abs(flow)  # no entry is known

    def divide(
        self,
        r: jax.Array,
        z: jax.Array,
        epsilon: Stabilizer = 0.0,
        flow: Callable[[], jax.Array] | None = None,
        sign: int = 0,
    ) -> jax.Array:
        """r / stabilize(z), as `divide`; the ledger gets the stabiliser's share of r.

        Args:
            r: relevance.
            z: the sum of contributions that it is shared among, bias included.
            epsilon: the stabiliser.
            flow: gives the sum of their magnitudes; |z| when they all have one sign.
            sign: that sign, where it is known.
        """
        s = divide(r, z, epsilon, sign)
        if self.recorded is not None:
            dead = z == 0  # nothing flowed here: no stabiliser is to blame
            self.record("dead", lambda: jnp.where(dead, r, 0))
            taken = lambda: s * (stabilize(z, epsilon, sign) - z)  # noqa: E731
            self.record("stabilizer", lambda: jnp.where(dead, 0, taken()))
            self.record("flow", lambda: jnp.abs(s) * (jnp.abs(z) if flow is None else flow()))
        return s

    def record(self, term: str, amount: Callable[[], jax.Array]) -> None:
        """Tells the ledger how much relevance of each output did not reach an input.

        Args:
            term: where it went, one of `jaxplain.rules.TERMS`.
            amount: computes it, one number per output; called only when somebody reads the ledger.

        Raises:
            ValueError: there is no such term.
        """
        if term not in TERMS and term != "flow":
            raise ValueError(f"the ledger has the terms {', '.join(TERMS)}, not {term!r}")
        if self.recorded is not None:
            total = jnp.sum(amount())
            self.recorded[term] = self.recorded[term] + total if term in self.recorded else total

    def indicator(self) -> jax.Array:
        """1 where an output is one of the inputs, 0 where it is a constant."""
        return self.jvp(tuple(map(jnp.ones_like, self._xs)))

    def jvp(self, x: Arrays, at: Arrays | None = None) -> jax.Array:
        """J x: the layer's linear part at its inputs, or at others."""
        at = self._at(at)
        tangents = tuple(t.astype(v.dtype) for t, v in zip(x, at, strict=True))
        tangent = jax.jvp(self.function, at, tangents)[1]
        return tangent.astype(wide(tangent.dtype))

    def vjp(self, s: jax.Array, at: Arrays | None = None) -> Arrays:
        """J^T s: the gradient through the layer at its inputs, or at others."""
        z, pullback = jax.vjp(self.function, *self._at(at))
        return pull_back(pullback, s, z.dtype)

    def _at(self, others: Arrays | None) -> Arrays:
        if others is None:
            return self._xs
        return tuple(v.astype(x.dtype) for v, x in zip(others, self._xs, strict=True))


@dataclass(frozen=True)
class Rule(ByValue):
    """How relevance crosses one layer.

    A rule is a frozen dataclass with one method, `relevance`, and is used by naming it in a
    composite. To add one, write a class; nothing else changes.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Halved(jxp.rules.Rule):
        ...     def relevance(self, layer, x, z, r):
        ...         return jxp.rules.times(x, layer.transpose(0.5 * r / z))
        >>> w = jnp.array([[1.0], [2.0]])
        >>> print(jxp.lrp(lambda x: x @ w, Halved())(jnp.array([[3.0, 1.0]])))
        [[1.5 1. ]]
    """

    #: The kinds of layer that the rule can be given to.
    kinds: ClassVar[frozenset[str]] = frozenset({"Affine", "Merge", "Normalization"})
    #: Whether the rule reads the signs, squares or connectivity of the layer's matrix.
    needs_matrix_entries: ClassVar[bool] = False
    #: Whether its shares depend on the contributions x_i A_ji alone: inputs and weights may change
    #: places.
    weights_like_inputs: ClassVar[bool] = False
    #: Whether operations with several outputs (sort, top_k) may keep their gradient under it.
    multi_output: ClassVar[bool] = False

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """The relevance of the layer's inputs.

        Args:
            layer: the layer.
            x: its inputs.
            z: its output.
            r: the relevance of its output, in the shape of `z`.

        Returns:
            One array per input, in its shape.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no method relevance(self, layer, x, z, r)"
        )

    def objection(self, layer: Layer) -> str:
        """Why the rule cannot be given to a layer; "" when it can."""
        if layer.kind not in self.kinds:
            return f"{self!r} is for {', '.join(sorted(self.kinds))} layers, not {layer.kind}"
        if len(layer.outputs) > 1 and not self.multi_output:
            return f"{self!r} is for layers with one output; {layer.op} has {len(layer.outputs)}"
        if self.needs_matrix_entries and not is_splittable(layer):
            return f"{self!r} needs the entries of the layer's matrix, which {layer.kind} has not"
        return ""


class Stabilized(Rule):
    """A rule with a stabiliser among its fields: a function, or a number >= 0."""

    epsilon: Stabilizer

    def __post_init__(self) -> None:
        if not callable(self.epsilon):
            check_number(self.epsilon, "epsilon", " or a function of z")


def times(x: Arrays, y: Arrays) -> Arrays:
    """x * y, array by array."""
    return tuple(a * b for a, b in zip(x, y, strict=True))


def plus(x: Arrays, y: Arrays) -> Arrays:
    """x + y, array by array."""
    return tuple(a + b for a, b in zip(x, y, strict=True))


def minus(x: Arrays, y: Arrays) -> Arrays:
    """x - y, array by array."""
    return tuple(a - b for a, b in zip(x, y, strict=True))


def stabilize(z: jax.Array, epsilon: Stabilizer, sign: int = 0) -> jax.Array:
    """z + epsilon * sgn(z); `epsilon` a number or a function of z.

    sgn(0) is +1, or `sign` where that is what z has unless it is 0.
    """
    amount = epsilon(z) if callable(epsilon) else epsilon
    if not fits(amount, z.shape):
        raise ValueError(
            "epsilon must return a real array that broadcasts to z, of shape "
            f"{z.shape}, got {describe_value(amount)}"
        )
    amount = jnp.asarray(amount, z.dtype) if callable(epsilon) else np.asarray(amount, z.dtype)
    if sign:
        return z + amount if sign > 0 else z - amount
    return z + jnp.where(z < 0, -amount, amount)


def divide(r: jax.Array, z: jax.Array, epsilon: Stabilizer = 0.0, sign: int = 0) -> jax.Array:
    """r / stabilize(z), and 0 where the denominator is exactly 0."""
    denominator = stabilize(z, epsilon, sign)
    if not callable(epsilon) and epsilon >= jnp.finfo(z.dtype).tiny:
        return r / denominator  # never 0: no need to look
    zero = denominator == 0
    return jnp.where(zero, 0, r / jnp.where(zero, 1, denominator))


def reduced(r: jax.Array, like: jax.Array) -> jax.Array:
    """Sums `r` over the axes along which `like`, perhaps a scalar, was repeated to its shape."""
    if not like.ndim:
        return r.sum()
    axes = tuple(i for i, n in enumerate(like.shape) if n == 1 and r.shape[i] != 1)
    return r.sum(axes, keepdims=True)


def misfit(rule: Rule, layer: Layer, **arrays: Any) -> str:
    """Which of a rule's arrays does not broadcast to an input of a layer; "" when all do."""
    for source in layer.inputs:
        for name, array in arrays.items():
            if not fits(array, source.shape):
                return (
                    f"{name} of {type(rule).__name__} has shape {np.shape(array)}, which does not "
                    f"broadcast to the layer's input of shape {source.shape}"
                )
    return ""
