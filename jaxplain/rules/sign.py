"""SIGN: the input's sign instead of its value."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxplain.arguments import check_number
from jaxplain.graph.layer import Layer
from jaxplain.rules.base import Arrays, LayerView, Rule, misfit, times


@dataclass(frozen=True)
class Sign(Rule):
    """SIGN, for a first layer: R_i = sgn(x_i - mu) sum_j A_ji R_j / z_j, with sgn(0) = +1.

    Relevance does not vanish where the input is small; it is not conserved.

    Attributes:
        mu: the threshold of the input: a number or an array that broadcasts to the input.
        low: the value of sgn below mu.
        high: the value of sgn from mu on.

    Raises:
        ValueError: `mu` does not broadcast to the layer's input, when the plan is made.

    References:
        Gumpfer et al., "SIGNed explanations: Unveiling relevant features by reducing bias",
        Information Fusion 2023.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> f = lambda x: x @ jnp.array([[1.0], [2.0]])
        >>> print(jxp.lrp(f, jxp.rules.Sign())(jnp.array([[-1.0, 2.0]])))
        [[-1.  2.]]
    """

    mu: Any = 0.0
    low: float = -1.0
    high: float = 1.0
    kinds: ClassVar[frozenset[str]] = frozenset({"Affine"})

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        s = layer.divide(r, z, flow=lambda: layer.edges(x))
        signs = tuple(map(self.signs, x))
        layer.record("remainder", lambda: s * (z - layer.linear(signs)))
        return times(signs, layer.transpose(s))

    def signs(self, x: jax.Array) -> jax.Array:
        """`low` below mu, `high` from mu on."""
        return jnp.where(x < jnp.asarray(self.mu, x.dtype), self.low, self.high).astype(x.dtype)

    def objection(self, layer: Layer) -> str:
        """mu must fit the layer's inputs."""
        return misfit(self, layer, mu=self.mu) or super().objection(layer)


@dataclass(frozen=True)
class StdEpsilon(Rule):
    """LRP-epsilon with a stabiliser in units of the input: epsilon = factor * std(x).

    Attributes:
        factor: how many standard deviations of the layer's input.
        batch: take the deviation over the whole batch; else per example.

    Raises:
        ValueError: the layer has no axis that counts examples, because a reshape merged it with
            another, when the plan is made.

    References:
        Gumpfer et al., Information Fusion 2023.
    """

    factor: float = 0.25
    batch: bool = False

    def __post_init__(self) -> None:
        check_number(self.factor, "factor")

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        epsilon = self.factor * self._deviation(layer, x, z)
        s = layer.divide(r, z, lambda z: epsilon, flow=lambda: layer.edges(x))
        layer.record("bias", lambda: s * layer.bias)
        return times(x, layer.transpose(s))

    def objection(self, layer: Layer) -> str:
        """The layer must keep examples apart."""
        if not self.batch and None in layer.examples:
            return (
                f"{self!r} takes the deviation of each example, but the axis that counts examples "
                "is lost on the way to the layer: keep it, or give batch=True"
            )
        return super().objection(layer)

    def _deviation(self, layer: LayerView, x: Arrays, z: jax.Array) -> jax.Array:
        if self.batch or not layer.examples:
            return jnp.concatenate([v.ravel() for v in x]).std()
        *sources, exit_ = layer.examples
        assert exit_ is not None
        axes = [(v, i or 0) for v, i in zip(x, sources, strict=True)]
        rows = [jnp.moveaxis(v, axis, 0).reshape(v.shape[axis], -1) for v, axis in axes]
        deviation = jnp.concatenate(rows, 1).std(1)
        return deviation.reshape([-1 if i == exit_ else 1 for i in range(z.ndim)])
