"""Rules as iNNvestigate computes them, where its numbers differ: for comparison only."""

from dataclasses import dataclass
from typing import ClassVar

import jax

from jaxplain.rules.alpha_beta import AlphaBeta
from jaxplain.rules.base import Arrays, LayerView, Rule, times


@dataclass(frozen=True)
class AlphaBetaWholeBias(AlphaBeta):
    """LRP-alpha-beta with the whole bias in both denominators.

    R_i = sum_j (alpha c+_ji / (z+_j + b_j) - beta c-_ji / (z-_j + b_j)) R_j: the bias counts
    twice, with its sign, so that denominators may vanish or flip. `AlphaBeta` puts its positive
    part into one and its negative part into the other.
    """

    epsilon: float = 0.0

    def _quotient(self, layer: LayerView, r: jax.Array, total: jax.Array, sign: int) -> jax.Array:
        bias = layer.bias  # not only what has the sign
        s = layer.divide(r, total + bias, self.epsilon, flow=lambda: abs(total) + abs(bias))
        layer.record("bias", lambda: s * bias)
        return s


@dataclass(frozen=True)
class ZPlusFast(Rule):
    """z+ for inputs that are not negative: R_i = sum_j x_i A+_ji R_j / sum_i x_i A+_ji.

    Where an input is negative its contributions count as they are, which z+ would leave out.
    """

    needs_matrix_entries: ClassVar[bool] = True

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        positive = layer.positive()
        s = layer.divide(r, positive(x), flow=lambda: layer.edges(x))
        return times(x, positive.transpose(s))
