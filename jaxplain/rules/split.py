"""The sign split that z+, alpha-beta and DeepLIFT share.

With x = x+ + x- and A = A+ + A-, the contributions x_i A_ji that are positive are those of (x+, A+)
and (x-, A-); the negative ones those of (x+, A-) and (x-, A+).
"""

import jax
import jax.numpy as jnp

from jaxplain.rules.base import Arrays, LayerView, plus, times


class Contributions:
    """A layer's contributions, the positive and the negative ones apart.

    Args:
        layer: the layer.
        x: its inputs, or others.
        one_sided: none of them is less than 0; by default, as the layer knows of its inputs.
    """

    def __init__(self, layer: LayerView, x: Arrays, one_sided: bool | None = None):
        self._one_sided = all(layer.nonnegative) if one_sided is None else one_sided
        self._maps = layer.signed() if self._one_sided else layer.contributions()
        self._parts = x if self._one_sided else sum(_halves(x), ())

    def totals(self) -> tuple[jax.Array, jax.Array]:
        """The sums of the positive and of the negative contributions to each output."""
        return self._maps(self._parts)

    def share(self, up: jax.Array, down: jax.Array) -> Arrays:
        """sum_j c+_ji up_j + c-_ji down_j for each input i."""
        shares = times(self._parts, self._maps.transpose((up, down)))
        if self._one_sided:
            return shares
        half = len(shares) // 2
        return plus(shares[:half], shares[half:])


class Excitation:
    """The positive contributions alone.

    Args:
        layer: the layer.
        x: its inputs.
    """

    def __init__(self, layer: LayerView, x: Arrays):
        self._same, self._opposite = layer.positive(), layer.negative()
        self._one_sided = all(layer.nonnegative)
        self._above, self._below = (x, x) if self._one_sided else _halves(x)

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


def _halves(x: Arrays) -> tuple[Arrays, Arrays]:
    """x+ and x-."""
    return tuple(jnp.maximum(v, 0) for v in x), tuple(jnp.minimum(v, 0) for v in x)
