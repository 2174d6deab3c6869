"""Moves and casts that undo each other: `x.T.T`, `concatenate(split(x))`, a cast up and back.

Their output is replaced by the value itself. Moves with an operation in between, as in
`(x.T + 1).T`, stay: `boundaries` looks through them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxplain import _compat
from jaxplain.graph import layouts
from jaxplain.graph.ir import Node, Var
from jaxplain.graph.layouts import Layout
from jaxplain.graph.primitives import Role, lookup


class _Moved(NamedTuple):
    """A value that is `base`, moved to a layout and in a dtype that holds all its numbers."""

    base: Var
    layout: Layout


class _Piece(NamedTuple):
    """A value that is `base[start:stop]` along an axis, its axes in another order."""

    base: Var
    order: tuple[int, ...]
    axis: int
    start: int
    stop: int

    @property
    def is_row(self) -> bool:
        """Whether it is one entry along the axis, its axes in their own order."""
        return self.stop - self.start == 1 and self.order == tuple(range(len(self.order)))

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of such a piece without the axis."""
        return (*self.base.shape[: self.axis], *self.base.shape[self.axis + 1 :])


class Identities:
    """The moved values and pieces so far.

    Args:
        nodes: the operations of the program; a transpose may be added to them.
    """

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes
        self._moved: dict[Var, _Moved] = {}
        self._pieces: dict[Var, _Piece] = {}
        self._rows: dict[Var, _Piece] = {}  # pieces without the axis that they were cut along

    def outputs(self, node: Node) -> tuple[Var, ...]:
        """The operation's outputs, an earlier value in the place of an output that equals it."""
        role = node.info.role
        if _takes_all(node):
            return node.inputs[:1]
        if role is Role.SLICE:
            self._cut(node)
        elif role is Role.CONCATENATION:
            return (self._whole(node) or node.outputs[0],)
        elif layouts.is_move(node) and (role is not Role.CAST or _widens(node)):
            return (self._back(node) or node.outputs[0],)
        return node.outputs

    def _back(self, node: Node) -> Var | None:
        (operand,), (out,) = node.inputs, node.outputs
        piece = self._pieces.get(operand)
        if piece is not None and node.info.role is Role.TRANSPOSE:
            order = tuple(piece.order[axis] for axis in node.params["permutation"])
            self._pieces[out] = piece._replace(order=order)
        elif piece is not None and piece.is_row and out.shape == piece.row_shape:
            self._rows[out] = piece
        base, layout = self._moved.get(operand, (operand, layouts.original(operand.shape)))
        moved = layouts.after(node, layout)
        if moved is None:
            return None
        same = out.shape == base.shape and out.aval.dtype == base.aval.dtype
        if same and moved == layouts.original(base.shape):
            return base
        if _holds(out.aval.dtype, base.aval.dtype):
            self._moved[out] = _Moved(base, moved)
        return None

    def _cut(self, node: Node) -> None:
        base, params = node.inputs[0], node.params
        order = tuple(range(len(base.shape)))
        (out,), starts, strides = node.outputs, params["start_indices"], params["strides"]
        axes = [i for i, (n, m) in enumerate(zip(base.shape, out.shape, strict=True)) if n != m]
        if len(axes) == 1 and (strides is None or strides[axes[0]] == 1):
            start = starts[axes[0]]
            self._pieces[out] = _Piece(base, order, axes[0], start, start + out.shape[axes[0]])

    def _whole(self, node: Node) -> Var | None:
        """The value that is put together from all its pieces, perhaps transposed."""
        joins = "dimension" in node.params  # else it stacks
        pieces = [(self._pieces if joins else self._rows).get(v) for v in node.inputs]
        first, end = pieces[0], 0
        for piece in pieces:
            if first is None or piece is None or piece[:3] != first[:3] or piece.start != end:
                return None
            end = piece.stop
        axis = node.params["dimension" if joins else "axis"]
        if first is None or first.order[axis] != first.axis:
            return None
        if end != first.base.shape[first.axis]:
            return None
        whole = _transposed(first.base, first.order, node)
        self._nodes += whole
        return whole[0].outputs[0] if whole else first.base


def _transposed(var: Var, order: tuple[int, ...], like: Node) -> list[Node]:
    """The operation that gives a value's axes another order; none where it is the same."""
    if order == tuple(range(len(order))):
        return []
    jaxpr, _ = _compat.open_jaxpr(jax.make_jaxpr(lambda x: x.transpose(order))(var.aval))
    (eqn,) = jaxpr.eqns
    info = lookup(_compat.primitive_name(eqn))
    return [Node(eqn, info, [var], like.names[0], like.origins, like.remat)]


def _takes_all(node: Node) -> bool:
    """Whether a slice takes the whole value, or a padding adds nothing."""
    if "padding_config" in node.params:
        return not any(map(any, node.params["padding_config"]))
    whole = node.info.role is Role.SLICE or "reps" in node.params or _is_dynamic_slice(node)
    return whole and node.outputs[0].shape == node.inputs[0].shape


def _is_dynamic_slice(node: Node) -> bool:
    return "slice_sizes" in node.params and "dimension_numbers" not in node.params


def _widens(node: Node) -> bool:
    """Whether a cast converts between floating dtypes; a cast to integers or a barrier does not."""
    return "new_dtype" in node.params and node.inputs[0].floating and node.outputs[0].floating


def _holds(wide: Any, narrow: Any) -> bool:
    """Whether every number of one dtype is one of another."""
    if wide == narrow:
        return True
    a, b = jnp.finfo(wide), jnp.finfo(narrow)
    return bool(a.nmant >= b.nmant and a.maxexp >= b.maxexp and a.minexp <= b.minexp)
