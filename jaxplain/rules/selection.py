"""Maxima: relevance goes to the inputs that were selected."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxplain.rules.base import Arrays, LayerView, Rule, reduced
from jaxplain.rules.identity import Move


@dataclass(frozen=True)
class WinnerTakesAll(Rule):
    """Each output's relevance goes to the input it was selected from; ties to the first.

    References:
        Bach et al., PLOS ONE 2015 (max-pooling).
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"Selection"})
    multi_output: ClassVar[bool] = True

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        if len(x) == 1 and layer.axes:
            return (_first_winner(x[0], z, r, layer.axes),)
        if len(x) == 2 and layer.compares:
            first = x[0] == z
            return (reduced(jnp.where(first, r, 0), x[0]), reduced(jnp.where(first, 0, r), x[1]))
        if layer.running is not None:
            return layer.vjp(r, at=(_ranks(x[0], *layer.running),))
        return Move().relevance(layer, x, z, r)


def _ranks(x: jax.Array, axis: int, sign: int) -> jax.Array:
    """The places of x along an axis, in order; of equals the first wins, as largest or smallest."""
    order = jnp.argsort(sign * x, axis)  # stable
    return sign * jnp.argsort(order, axis).astype(x.dtype)


def _first_winner(x: jax.Array, z: jax.Array, r: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    winners = x == jnp.expand_dims(z, axes)
    kept = [i for i in range(x.ndim) if i not in axes]
    order = (*kept, *axes)
    flat = winners.transpose(order).reshape(*(x.shape[i] for i in kept), -1)
    place = jax.lax.broadcasted_iota(int, flat.shape, flat.ndim - 1)
    chosen = place == jnp.argmax(flat, axis=-1, keepdims=True)
    chosen = chosen.reshape([x.shape[i] for i in order])
    chosen = chosen.transpose([order.index(i) for i in range(x.ndim)])
    return jnp.where(chosen, jnp.expand_dims(r, axes), 0)
