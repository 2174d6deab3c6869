"""Rules for the first layer: they do not scale relevance with the input's value."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _compat
from jaxplain.rules.base import Arrays, LayerView, Stabilized, Stabilizer, minus, misfit, times


@dataclass(frozen=True)
class ZBox(Stabilized):
    """zB, for inputs within a box: R_i = sum_j (x_i A_ji - l_i A+_ji - h_i A-_ji) R_j / z'_j.

    z' is the sum of the same terms over the inputs; the bias cancels.

    Attributes:
        low, high: the smallest and largest values of the layer's inputs, in their units: scalars or
            arrays that broadcast against the input.
        epsilon: the stabiliser.

    Raises:
        ValueError: `low` exceeds `high` somewhere, or they do not broadcast against the input.

    References:
        Montavon et al., "Explaining NonLinear Classification Decisions with Deep Taylor
        Decomposition", Pattern Recognition 2017.
    """

    low: Any
    high: Any
    epsilon: Stabilizer = 1e-6
    needs_matrix_entries: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds = (self.low, self.high)
        if not any(isinstance(v, jax.core.Tracer) for v in bounds) and not _ordered(*bounds):
            raise ValueError(
                "ZBox needs numbers low <= high (scalars or arrays that broadcast to the input), "
                f"got low={self.low!r}, high={self.high!r}"
            )

    def objection(self, layer: Any) -> str:
        """Bounds must fit the layer's inputs."""
        return misfit(self, layer, low=self.low, high=self.high) or super().objection(layer)

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        low = tuple(jnp.broadcast_to(jnp.asarray(self.low, v.dtype), v.shape) for v in x)
        high = tuple(jnp.broadcast_to(jnp.asarray(self.high, v.dtype), v.shape) for v in x)
        up, down = layer.positive(), layer.negative()
        z = layer.linear(x) - up(low) - down(high)
        s = layer.divide(
            r, z, self.epsilon, flow=lambda: sum(map(layer.edges, (x, low, high)), jnp.zeros(()))
        )
        received = times(x, layer.transpose(s))
        return minus(minus(received, times(low, up.transpose(s))), times(high, down.transpose(s)))


@dataclass(frozen=True)
class WSquare(Stabilized):
    """w^2: R_i = sum_j A_ji^2 R_j / sum_i A_ji^2.

    Attributes:
        epsilon: the stabiliser.
        bias: whether b^2 counts in the denominator.

    References:
        Montavon et al., Pattern Recognition 2017.
    """

    epsilon: Stabilizer = 1e-6
    bias: bool = False
    needs_matrix_entries: ClassVar[bool] = True

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        square = layer.square()
        total = square(tuple(map(jnp.ones_like, x)))
        if self.bias:
            total = total + jnp.square(layer.bias)
        s = layer.divide(r, total, self.epsilon, sign=+1)
        if self.bias:
            layer.record("bias", lambda: s * jnp.square(layer.bias))
        return square.transpose(s)


@dataclass(frozen=True)
class Flat(Stabilized):
    """Flat: every output spreads its relevance evenly over the inputs it is connected to.

    Connectivity is structural: a zero weight connects, padding does not.

    Attributes:
        epsilon: the stabiliser.

    References:
        Lapuschkin et al., "Unmasking Clever Hans Predictors and Assessing What Machines Really
        Learn", Nature Communications 2019.
    """

    epsilon: Stabilizer = 1e-6
    needs_matrix_entries: ClassVar[bool] = True
    weights_like_inputs: ClassVar[bool] = True

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        flat = layer.flat()
        count = flat(tuple(map(jnp.ones_like, x)))
        return flat.transpose(layer.divide(r, count, self.epsilon, sign=+1))


def _ordered(low: Any, high: Any) -> bool:
    if _compat.aval(low) is None or _compat.aval(high) is None:
        return False
    try:
        return bool(np.all(np.asarray(low) <= np.asarray(high)))
    except ValueError:  # they do not broadcast
        return False
