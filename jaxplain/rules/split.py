"""The sign split that z+, alpha-beta and gamma share.

With x = x+ + x- and A = A+ + A-, the contributions x_i A_ji that are positive are those of (x+, A+)
and (x-, A-); the negative ones those of (x+, A-) and (x-, A+).
"""

import jax
import jax.numpy as jnp

from jaxplain.rules.base import Arrays, View, plus, times


class Contributions:
    """A layer's contributions, the positive and the negative ones apart.

    Args:
        layer: the layer.
        x: its inputs, or others.
        one_sided: none of them is less than 0; by default, as the layer knows of its inputs.
    """

    def __init__(self, layer: View, x: Arrays, one_sided: bool | None = None):
        self._maps = layer.signed()
        self._one_sided = all(layer.nonnegative) if one_sided is None else one_sided
        self._above, self._below = _halves(x, self._one_sided)

    def totals(self) -> tuple[jax.Array, jax.Array]:
        """The sums of the positive and of the negative contributions to each output."""
        up, down = self._maps(self._above)
        if self._one_sided:
            return up, down
        falling, rising = self._maps(self._below)
        return up + rising, down + falling

    def share(self, up: jax.Array, down: jax.Array) -> Arrays:
        """sum_j c+_ji up_j + c-_ji down_j for each input i."""
        above = times(self._above, self._maps.transpose((up, down)))
        if self._one_sided:
            return above
        return plus(above, times(self._below, self._maps.transpose((down, up))))


class Excitation:
    """The positive contributions alone.

    Args:
        layer: the layer.
        x: its inputs.
    """

    def __init__(self, layer: View, x: Arrays):
        self._same, self._opposite = layer.positive(), layer.negative()
        self._one_sided = all(layer.nonnegative)
        self._above, self._below = _halves(x, self._one_sided)

    def total(self) -> jax.Array:
        """The sum of the positive contributions to each output."""
        total = self._same(self._above)
        return total if self._one_sided else total + self._opposite(self._below)

    def share(self, s: jax.Array) -> Arrays:
        """sum_j c+_ji s_j for each input i."""
        above = times(self._above, self._same.transpose(s))
        if self._one_sided:
            return above
        return plus(above, times(self._below, self._opposite.transpose(s)))


def _halves(x: Arrays, one_sided: bool) -> tuple[Arrays, Arrays]:
    """x+ and x-."""
    above = x if one_sided else tuple(jnp.maximum(v, 0) for v in x)
    return above, tuple(jnp.minimum(v, 0) for v in x)
