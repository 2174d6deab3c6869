"""Where each entry of a value stands in the one that it was moved from: reshape, transpose, rev.

A layout is a shape and, for the value's flat index, the digits `(stride, size)` that it runs over
in the flat original, the most significant first; copies have stride 0. For x of shape (2, 3):

    x                               (2, 3): (1, 6)
    x.T                             (3, 2): (1, 3) (3, 2)
    x.T.reshape(6)                  (6,): (1, 3) (3, 2)
    x.T.reshape(6).reshape(3, 2).T  (2, 3): (1, 6), which is x again
    broadcast_to(x, (4, 2, 3))      (4, 2, 3): (0, 4) (1, 6)
"""

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

from jaxplain.graph.ir import Node, Var
from jaxplain.graph.primitives import Role

#: From which stride to which an axis or a digit runs over a flat value: `[3, 6)` for (3, 2).
Span = tuple[int, int]
_Digits = tuple[tuple[int, int], ...]


class Layout(NamedTuple):
    """A value's shape, and the digits of its flat index in the value it was moved from."""

    shape: tuple[int, ...]
    digits: _Digits

    def moved(self) -> list[Span]:
        """The parts of the flat index along which entries differ, not copies."""
        return [p for p, (stride, _) in zip(self._spans(), self.digits, strict=True) if stride]

    def copied(self) -> list[Span]:
        """The parts of the flat index along which entries are copies."""
        return [p for p, (stride, _) in zip(self._spans(), self.digits, strict=True) if not stride]

    def along(self, axes: Iterable[int]) -> list[Span]:
        """The parts of the flat index that some axes run over."""
        return [spans(self.shape)[axis] for axis in axes]

    def read(self, axes: Iterable[int]) -> list[Span]:
        """The parts of the original's flat index that some axes run over."""
        along = self.along(axes)
        parts = zip(self._spans(), self.digits, strict=True)
        return [(abs(s), abs(s) * n) for part, (s, n) in parts if meet([part], along)]

    def _spans(self) -> list[Span]:
        return spans([size for _, size in self.digits])

    def axes(self) -> list[_Digits] | None:
        """The digits of each axis; None where one runs over parts of digits that do not fit."""
        axes: list[_Digits] = []
        if 0 in self.shape:
            return None
        for low, high in spans(self.shape):
            axis: list[tuple[int, int]] = []
            for (start, end), (stride, _) in zip(self._spans(), self.digits, strict=True):
                bottom, top = max(low, start), min(high, end)
                if bottom < top:
                    if bottom % start or top % bottom or end % top:
                        return None
                    axis.append((stride * (bottom // start), top // bottom))
            axes.append(tuple(axis))
        return axes


def original(shape: Sequence[int]) -> Layout:
    """The layout of a value that was not moved."""
    return Layout(tuple(shape), _joined([(1, math.prod(shape))]))


def after(node: Node, layout: Layout) -> Layout | None:
    """The layout behind a move, a broadcast or an entrywise operation, from that of its input.

    None where it moves an axis that takes parts of several digits, as in a transpose of (2, 3) that
    was reshaped to (3, 2).
    """
    role, to = node.info.role, node.outputs[0].shape
    reads = axes_read(node) if role is Role.RESHAPE else ()
    if role is Role.RESHAPE and reads == tuple(range(len(reads))):
        return Layout(to, layout.digits)
    if role in _REARRANGES or to != layout.shape:
        axes = layout.axes()
        return None if axes is None else Layout(to, _joined(chain(*_rearranged(node, axes))))
    return layout


def _rearranged(node: Node, axes: list[_Digits]) -> list[_Digits]:
    """The digits of the axes behind an operation, from those before it."""
    role, params, to = node.info.role, node.params, node.outputs[0].shape
    if role in (Role.TRANSPOSE, Role.RESHAPE):
        order = axes_read(node) if role is Role.RESHAPE else params["permutation"]
        return [axes[axis] for axis in order]
    if role is Role.REVERSAL:
        turned = params["dimensions"]
        return [
            tuple((-stride if axis in turned else stride, size) for stride, size in digits)
            for axis, digits in enumerate(axes)
        ]
    kept = (
        params["broadcast_dimensions"]
        if role is Role.BROADCAST
        else range(len(to) - len(axes), len(to))
    )
    digits = dict(zip(kept, axes, strict=True))
    return [digits.get(axis) or ((0, size),) for axis, size in enumerate(to)]


def through(nodes: Iterable[Node], shape: Sequence[int]) -> Layout | None:
    """The layout of a value of the given shape behind several operations; None where unknown."""
    layout: Layout | None = original(shape)
    for node in nodes:
        layout = layout and after(node, layout)
    return layout


def of_copies(var: Var) -> Layout:
    """The layout of a constant from the value that it is a moved or broadcast copy of."""
    node = var.producer
    if node is not None and copies(node):
        layout = after(node, of_copies(node.inputs[0]))
        if layout is not None:
            return layout
    return original(var.shape)


def varying_axes(var: Var) -> set[int]:
    """The axes along which a constant may vary."""
    varying = of_copies(var).moved()
    return {axis for axis, span in enumerate(spans(var.shape)) if meet([span], varying)}


def copies(node: Node) -> bool:
    """Whether each entry of an operation's output is a copy of one of its input."""
    return is_move(node) or node.info.role is Role.BROADCAST


def axes_read(node: Node) -> tuple[int, ...]:
    """The axes of a reshape's operand in the order in which it reads them."""
    order = node.params.get("dimensions") if "new_sizes" in node.params else None
    return tuple(range(len(node.inputs[0].shape)) if order is None else order)


def spans(shape: Sequence[int]) -> list[Span]:
    """The part of the flat index that each axis runs over; (3, 6), (1, 3) for shape (2, 3)."""
    ends = list(accumulate(reversed(shape), lambda a, b: a * b, initial=1))
    return list(pairwise(ends))[::-1]


def meet(some: Iterable[Span], others: Sequence[Span]) -> bool:
    """Whether any two parts of a flat index overlap."""
    return any(low < end and start < high for low, high in some for start, end in others)


def is_move(node: Node) -> bool:
    """Whether an operation moves or casts one value, and keeps every entry once.

    Scaling by a number, or adding one, gives the same before and behind it: (2 x).T is 2 x.T.
    """
    role = node.info.role
    if role is Role.BROADCAST:
        return math.prod(node.inputs[0].shape) == math.prod(node.outputs[0].shape)
    return role in _MOVES and len(node.outputs) == 1


_REARRANGES = (Role.BROADCAST, Role.RESHAPE, Role.REVERSAL, Role.TRANSPOSE)
_MOVES = (Role.RESHAPE, Role.TRANSPOSE, Role.CAST, Role.REVERSAL)


def _joined(digits: Iterable[tuple[int, int]]) -> _Digits:
    """Digits of which those that count on are one, and none has size 1."""
    joined: list[tuple[int, int]] = []
    for stride, size in digits:
        if joined and size != 1 and joined[-1][0] == stride * size:
            size *= joined.pop()[1]
        if size != 1:
            joined.append((stride, size))
    return tuple(joined)
