"""The sign split that z+, alpha-beta and gamma share.

With x = x+ + x- and A = A+ + A-, the contributions x_i A_ji that are positive are those of (x+, A+)
and (x-, A-); the negative ones those of (x+, A-) and (x-, A+).
"""

import jax
import jax.numpy as jnp

from jaxplain.graph.linear import Linear
from jaxplain.rules.base import Arrays, View, plus, times


class Part:
    """All contributions of one sign.

    Args:
        same, opposite: the maps for x+ and for x-.
        x: the inputs.
        nonnegative: which inputs are known to have no negative part.
    """

    def __init__(self, same: Linear, opposite: Linear, x: Arrays, nonnegative: tuple[bool, ...]):
        self._same, self._opposite = same, opposite
        self._one_sided = all(nonnegative)
        self._above = x if self._one_sided else tuple(jnp.maximum(v, 0) for v in x)
        self._below = tuple(jnp.minimum(v, 0) for v in x)

    def total(self) -> jax.Array:
        """The sum of the contributions to each output."""
        total = self._same(self._above)
        return total if self._one_sided else total + self._opposite(self._below)

    def share(self, s: jax.Array) -> Arrays:
        """sum_j contribution_ji s_j for each input i."""
        above = times(self._above, self._same.transpose(s))
        if self._one_sided:
            return above
        return plus(above, times(self._below, self._opposite.transpose(s)))


def excitation(layer: View, x: Arrays) -> Part:
    """The positive contributions."""
    return Part(layer.positive(), layer.negative(), x, layer.nonnegative)


def inhibition(layer: View, x: Arrays) -> Part:
    """The negative contributions."""
    return Part(layer.negative(), layer.positive(), x, layer.nonnegative)
