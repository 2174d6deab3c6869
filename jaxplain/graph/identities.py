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
        self._moved: dict[Var, list[_Moved]] = {}  # by value, its first origin first

    def outputs(self, node: Node, apply: Apply) -> tuple[Var, ...]:
        """The operation's outputs, an earlier value in the place of an output that equals it."""
        if _takes_all(node):
            return node.inputs[:1]
        known = self._after(node)
        if not known:
            return node.outputs
        (out,) = node.outputs
        dtype = out.aval.dtype
        for base, layout in () if _is_barrier(node) else known:
            if layout == layouts.original(base.shape) and dtype == base.aval.dtype:
                return (base,)
        for base, layout in known if node.info.role is Role.CONCATENATION else ():
            if (move := layouts.mover(layout, base.shape, dtype)) is not None:
                return (apply(move, base),)
        self._moved[out] = [moved for moved in known if _holds(dtype, moved.base.aval.dtype)]
        return node.outputs

    def _after(self, node: Node) -> list[_Moved]:
        """The values that an operation moves, or puts together from their pieces."""
        role, pieces = node.info.role, [v for v in node.inputs if 0 not in v.shape]
        joins = role is Role.CONCATENATION
        if not pieces or not (joins or role is Role.SLICE or _moves(node)):
            return []
        own = {v: _Moved(v, layouts.original(v.shape)) for v in pieces}
        first, *others = (dict([*self._moved.get(v, ())[:_MOST], own[v]]) for v in pieces)
        found = []
        for base, layout in first.items():
            each = [layout, *(known[base] for known in others if base in known)]
            behind = layouts.joined(node, each) if joins else layouts.after(node, layout)
            if behind is not None and len(each) == len(pieces):
                found.append(_Moved(base, behind))
        return found


_MOST = 4  # origins of one value; bounds the work on long rows of moves


def _takes_all(node: Node) -> bool:
    """Whether a slice takes the whole value, or a padding adds nothing."""
    params = node.params
    if "padding_config" in params:
        return not any(map(any, params["padding_config"]))
    slices = "slice_sizes" in params and "dimension_numbers" not in params
    whole = slices or "reps" in params or node.info.role is Role.SLICE
    return whole and node.outputs[0].shape == node.inputs[0].shape


def _moves(node: Node) -> bool:
    """Whether an operation moves numbers, or casts them to another floating dtype."""
    if node.info.role is not Role.CAST:
        return layouts.is_move(node)
    before, after = node.inputs[0], node.outputs[0]
    if _is_barrier(node):
        return before.aval == after.aval and "exponent_bits" not in node.params
    return before.floating and after.floating


def _is_barrier(node: Node) -> bool:
    """Whether an operation is there for the compiler, as `optimization_barrier` is."""
    return node.info.role is Role.CAST and "new_dtype" not in node.params


def _holds(wide: Any, narrow: Any) -> bool:
    """Whether every number of one dtype is one of another."""
    if wide == narrow:
        return True
    a, b = jnp.finfo(wide), jnp.finfo(narrow)
    return bool(a.nmant >= b.nmant and a.maxexp >= b.maxexp and a.minexp <= b.minexp)
