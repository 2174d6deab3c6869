"""Moves and casts that undo each other: `x.T.T`, `concatenate(split(x))`, a cast up and back.

Their output is replaced by the value itself, or by the value moved once, where pieces of it are put
together in another order of its axes. Moves with an operation in between, as in `(x.T + 1).T`,
stay: `boundaries` looks through them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxplain.graph import layouts
from jaxplain.graph.ir import Node, Var
from jaxplain.graph.layouts import Layout
from jaxplain.graph.primitives import Role

#: Applies a function to a value of the program.
Apply = Callable[[Callable[[Any], Any], Var], Var]


class _Moved(NamedTuple):
    """A value that is `base`, or a piece of it, moved, in a dtype that holds all its numbers."""

    base: Var
    layout: Layout


class Identities:
    """The moved values and pieces so far."""

    def __init__(self) -> None:
        self._moved: dict[Var, _Moved] = {}

    def outputs(self, node: Node, apply: Apply) -> tuple[Var, ...]:
        """The operation's outputs, an earlier value in the place of an output that equals it."""
        if _takes_all(node):
            return node.inputs[:1]
        moved = self._after(node)
        if moved is None:
            return node.outputs
        (out,), (base, layout) = node.outputs, moved
        dtype = out.aval.dtype
        if dtype == base.aval.dtype and layout == layouts.original(base.shape):
            return (base,)
        joins = node.info.role is Role.CONCATENATION
        if joins and (move := layouts.mover(layout, base.shape)) is not None:
            return (apply(lambda x: move(x).astype(dtype), base),)
        if _holds(dtype, base.aval.dtype):
            self._moved[out] = moved
        return node.outputs

    def _after(self, node: Node) -> _Moved | None:
        """The value that an operation moves or puts together from its pieces."""
        role = node.info.role
        known = [self._moved.get(v) or _Moved(v, layouts.original(v.shape)) for v in node.inputs]
        layout: Layout | None = None
        if role is Role.CONCATENATION:
            if len({base for base, _ in known}) == 1:
                layout = layouts.joined(node, [layout for _, layout in known])
        elif role is Role.SLICE or (layouts.is_move(node) and _keeps_numbers(node)):
            layout = layouts.after(node, known[0].layout)
        return None if layout is None else _Moved(known[0].base, layout)


def _takes_all(node: Node) -> bool:
    """Whether a slice takes the whole value, or a padding adds nothing."""
    params = node.params
    if "padding_config" in params:
        return not any(map(any, params["padding_config"]))
    slices = "slice_sizes" in params and "dimension_numbers" not in params
    whole = slices or "reps" in params or node.info.role is Role.SLICE
    return whole and node.outputs[0].shape == node.inputs[0].shape


def _keeps_numbers(node: Node) -> bool:
    """Whether an operation is no cast to or from integers, and no barrier."""
    floating = node.inputs[0].floating and node.outputs[0].floating
    return node.info.role is not Role.CAST or ("new_dtype" in node.params and floating)


def _holds(wide: Any, narrow: Any) -> bool:
    """Whether every number of one dtype is one of another."""
    if wide == narrow:
        return True
    a, b = jnp.finfo(wide), jnp.finfo(narrow)
    return bool(a.nmant >= b.nmant and a.maxexp >= b.maxexp and a.minexp <= b.minexp)
