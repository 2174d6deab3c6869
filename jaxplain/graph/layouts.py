"""Where each entry of a value stands in the one that it was moved from: reshape, transpose, rev.

A layout is a shape and, for the value's flat index, the digits `(stride, size)` that it runs over
in the flat original, the most significant first; copies have stride 0. For x of shape (2, 3):

    x                               (2, 3): (1, 6)
    x.T                             (3, 2): (1, 3) (3, 2)
    x.T.reshape(6)                  (6,): (1, 3) (3, 2)
    x.T.reshape(6).reshape(3, 2).T  (2, 3): (1, 6), which is x again
    x[:, 1:]                        (2, 2): (3, 2) (1, 2), from 1 on
    broadcast_to(x, (4, 2, 3))      (4, 2, 3): (0, 4) (1, 6)
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any, NamedTuple

from jax import lax

from jaxplain.graph.ir import Node, Var
from jaxplain.graph.primitives import Kind, Role

#: The part of a flat index that a digit or an axis runs over: [3, 6) for a digit of stride 3 and
#: size 2, and for the first axis of shape (2, 3).
Span = tuple[int, int]
_Digits = tuple[tuple[int, int], ...]


class Layout(NamedTuple):
    """A value's shape, and the digits of its flat index in the value it was moved from.

    Attributes:
        shape: the shape.
        digits: stride and size of each digit.
        start: the place of the first entry.
    """

    shape: tuple[int, ...]
    digits: _Digits
    start: int = 0

    def parts(self, copies: bool) -> list[Span]:
        """The parts of the flat index along which entries are copies, or differ."""
        parts = zip(self._spans(), self.digits, strict=True)
        return [part for part, (stride, _) in parts if copies == (stride == 0)]

    def read(self, axes: Iterable[int]) -> list[Span]:
        """The parts of the original's flat index that some axes run over."""
        along = spans(self.shape)
        cut = (piece for axis in axes for piece in self._within(*along[axis]))
        return [(abs(s) * low // one, -(abs(s) * -high // one)) for (one, _), s, low, high in cut]

    def axes(self) -> list[_Digits] | None:
        """The digits of each axis; None where one runs over parts of digits that do not fit."""
        axes: list[_Digits] = []
        for part in spans(self.shape):
            axis: list[tuple[int, int]] = []
            for (one, end), stride, low, high in self._within(*part):
                if low % one or high % low or end % high:
                    return None
                axis.append((stride * (low // one), high // low))
            axes.append(tuple(axis))
        return None if 0 in self.shape else axes

    def _within(self, low: int, high: int) -> Iterator[tuple[Span, int, int, int]]:
        """The digits in a part of the flat index: all that each runs over, its stride, the part."""
        for whole, (stride, _) in zip(self._spans(), self.digits, strict=True):
            start, end = max(low, whole[0]), min(high, whole[1])
            if start < end:
                yield whole, stride, start, end

    def _spans(self) -> list[Span]:
        return spans([size for _, size in self.digits])


def original(shape: Sequence[int]) -> Layout:
    """The layout of a value that was not moved."""
    return Layout(tuple(shape), _merged([(1, math.prod(shape))]))


def after(node: Node, layout: Layout) -> Layout | None:
    """The layout behind a move, a slice, a broadcast or an entrywise operation.

    None where it moves an axis that takes parts of several digits, as in a transpose of (2, 3) that
    was reshaped to (3, 2).

    Args:
        node: the operation.
        layout: the layout of its operand.
    """
    role, to = node.info.role, node.outputs[0].shape
    order = axes_read(node)
    if role in (Role.RESHAPE, Role.BROADCAST) and is_move(node) and list(order) == sorted(order):
        return layout._replace(shape=to)
    if role is Role.CAST or (node.info.kind is not Kind.STRUCTURAL and to == layout.shape):
        return layout
    axes, start = layout.axes(), layout.start
    if axes is None:
        return None
    if role is Role.SLICE:
        return _cut(node, axes, start)
    if role is Role.TRANSPOSE or role is Role.RESHAPE:
        axes = [axes[axis] for axis in order]
    elif role is Role.REVERSAL:
        for axis in node.params["dimensions"]:
            start += sum(stride * (size - 1) for stride, size in axes[axis])
            axes[axis] = tuple((-stride, size) for stride, size in axes[axis])
    else:
        last = range(len(to) - len(axes), len(to))
        kept = node.params["broadcast_dimensions"] if role is Role.BROADCAST else last
        digits = dict(zip(kept, axes, strict=True))
        axes = [digits.get(axis) or ((0, size),) for axis, size in enumerate(to)]
    return Layout(to, _merged(chain(*axes)), start)


def _cut(node: Node, axes: list[_Digits], start: int) -> Layout | None:
    """The layout of a slice, from the digits of its operand's axes."""
    params, to = node.params, node.outputs[0].shape
    steps = params["strides"] or (1,) * len(to)
    for i, (size, whole) in enumerate(zip(to, node.inputs[0].shape, strict=True)):
        if size != whole:
            if len(axes[i]) != 1:
                return None
            ((stride, _),) = axes[i]
            start += stride * params["start_indices"][i]
            axes[i] = ((stride * steps[i], size),)
    return Layout(to, _merged(chain(*axes)), start)


def joined(node: Node, pieces: Sequence[Layout]) -> Layout | None:
    """The layout of what a concatenation or stack makes of pieces; None where they do not fit."""
    axis = node.params.get("dimension")
    if axis is None:
        axis = node.params["axis"]
        pieces = [p._replace(shape=(*p.shape[:axis], 1, *p.shape[axis:])) for p in pieces]
    all_axes = [piece.axes() for piece in pieces]
    rests = [axes for axes in all_axes if axes is not None]
    own = [axes.pop(axis) for axes in rests]
    if len(rests) < len(pieces) or any(rest != rests[0] for rest in rests):
        return None
    sizes, equal = [piece.shape[axis] for piece in pieces], own[1:] == own[:-1]
    places = list(accumulate([1 if equal else size for size in sizes[:-1]], initial=0))
    step = (pieces[-1].start - pieces[0].start) // max(1, places[-1])
    runs = [equal or digits == _merged([(step, n)]) for digits, n in zip(own, sizes, strict=True)]
    starts = [pieces[0].start + step * place for place in places]
    if starts != [piece.start for piece in pieces] or not all(runs):
        return None
    # equal pieces are counted by a digit of their own
    digits = ((step, len(pieces)), *own[0]) if equal else ((step, sum(sizes)),)
    axes = chain(*rests[0][:axis], digits, *rests[0][axis:])
    return Layout(node.outputs[0].shape, _merged(axes), starts[0])


def mover(layout: Layout, shape: Sequence[int], dtype: Any) -> Callable[[Any], Any] | None:
    """The function that moves a value of a shape to a layout of all its entries, and to a dtype.

    None for a layout that leaves some out, or repeats them.
    """
    digits = layout.digits
    order = sorted(range(len(digits)), key=lambda i: -abs(digits[i][0]))
    whole = _merged((abs(digits[i][0]), digits[i][1]) for i in order)
    turned = [i for i, (stride, _) in enumerate(digits) if stride < 0]
    start = sum(-digits[i][0] * (digits[i][1] - 1) for i in turned)
    if whole != original(shape).digits or layout.start != start:
        return None

    def move(x: Any) -> Any:
        x = x.reshape([digits[i][1] for i in order])
        x = x.transpose([order.index(i) for i in range(len(order))])
        return (lax.rev(x, turned) if turned else x).reshape(layout.shape).astype(dtype)

    return move


def of_copies(var: Var) -> Layout:
    """The layout of a constant from the value that it is a moved or broadcast copy of."""
    node = var.producer
    layout = after(node, of_copies(node.inputs[0])) if node is not None and copies(node) else None
    return layout or original(var.shape)


def varying_axes(var: Var) -> set[int]:
    """The axes along which a constant may vary."""
    varying = of_copies(var).parts(copies=False)
    return {axis for axis, span in enumerate(spans(var.shape)) if meet([span], varying)}


def is_move(node: Node) -> bool:
    """Whether an operation moves or casts one value, and keeps every entry once.

    Scaling by a number, or adding one, gives the same before and behind it: (2 x).T is 2 x.T.
    """
    role = node.info.role
    if role is Role.BROADCAST:
        return math.prod(node.inputs[0].shape) == math.prod(node.outputs[0].shape)
    return role in _MOVES and len(node.outputs) == 1


def copies(node: Node) -> bool:
    """Whether each entry of an operation's output is a copy of one of its input, all of them."""
    return is_move(node) or node.info.role is Role.BROADCAST


_MOVES = (Role.RESHAPE, Role.TRANSPOSE, Role.CAST, Role.REVERSAL)


def axes_read(node: Node) -> Sequence[int]:
    """The axes of a transpose's or reshape's operand in the order in which it reads them."""
    params = node.params
    order = params.get("permutation") or ("new_sizes" in params and params["dimensions"])
    return order or range(len(node.inputs[0].shape))


def spans(shape: Sequence[int]) -> list[Span]:
    """The part of the flat index that each axis runs over; (3, 6), (1, 3) for shape (2, 3)."""
    return list(pairwise(accumulate(reversed(shape), lambda a, b: a * b, initial=1)))[::-1]


def meet(some: Iterable[Span], others: Sequence[Span]) -> bool:
    """Whether any two parts of a flat index overlap."""
    return any(low < end and start < high for low, high in some for start, end in others)


def _merged(digits: Iterable[tuple[int, int]]) -> _Digits:
    """Digits of which those that count on are one, and none has size 1."""
    merged: list[tuple[int, int]] = []
    for stride, size in digits:
        if merged and size != 1 and merged[-1][0] == stride * size:
            size *= merged.pop()[1]
        if size != 1:
            merged.append((stride, size))
    return tuple(merged)
