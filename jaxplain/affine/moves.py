"""The inverse of moves: from a value behind reshapes and transposes to the value before them."""

from collections.abc import Sequence

import jax

from jaxplain.graph.ir import Node


def undone(moves: Sequence[Node], value: jax.Array) -> jax.Array:
    """The value before moves in a row from the one behind them."""
    if not moves:
        return value

    def move(x: jax.Array) -> jax.Array:
        for node in moves:
            (x,) = node.evaluate([x])
        return x

    before = jax.ShapeDtypeStruct(moves[0].inputs[0].shape, value.dtype)
    return jax.linear_transpose(move, before)(value)[0]
