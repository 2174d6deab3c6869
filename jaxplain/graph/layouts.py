"""Where each entry of a value stands after moves that keep every entry: reshape, transpose, rev.

A layout describes a moved copy of a value: for each of its axes, the digits `(stride, size)` that
its index runs over in the flat value. Two copies are the same when their layouts are:

    x of shape (2, 3)         (((3, 2),), ((1, 3),))
    x.T                       (((1, 3),), ((3, 2),))
    x.T.reshape(6)            (((1, 3), (3, 2)),)
    x.T.reshape(6).reshape(3, 2).T, which is x again
"""

import math
from collections.abc import Sequence
from itertools import product

from jaxplain.graph.ir import Node
from jaxplain.graph.primitives import Role

Layout = tuple[tuple[tuple[int, int], ...], ...]


def original(shape: Sequence[int]) -> Layout:
    """The layout of a value that was not moved."""
    axes: list[tuple[tuple[int, int], ...]] = []
    stride = 1
    for size in reversed(shape):
        axes.insert(0, ((stride, size),) if size != 1 else ())
        stride *= size
    return tuple(axes)


def after(node: Node, layout: Layout) -> Layout | None:
    """The layout of a move's output from that of its input.

    None where an axis of the output takes parts of several digits, as in a reshape of (2, 3) to
    (3, 2).
    """
    role, params = node.info.role, node.params
    if role is Role.CAST:
        return layout
    if role is Role.TRANSPOSE:
        return tuple(layout[axis] for axis in params["permutation"])
    if role is Role.REVERSAL:
        return tuple(
            tuple((-stride if i in params["dimensions"] else stride, size) for stride, size in axis)
            for i, axis in enumerate(layout)
        )
    if role is Role.RESHAPE:
        layout = tuple(layout[axis] for axis in axes_read(node))
    return _regrouped(layout, node.outputs[0].shape)


def axes_read(node: Node) -> tuple[int, ...]:
    """The axes of a reshape's operand in the order in which it reads them."""
    order = node.params.get("dimensions") if "new_sizes" in node.params else None
    return tuple(range(len(node.inputs[0].shape)) if order is None else order)


def meeting_axes(node: Node) -> set[tuple[int, int]]:
    """The pairs (axis of the input, axis of the output) of a move that run over the same entries.

    All pairs where the digits do not fit.
    """
    before, layout = node.inputs[0].shape, after(node, original(node.inputs[0].shape))
    if layout is None:
        return set(product(range(len(before)), range(len(node.outputs[0].shape))))
    pairs = set()
    for i, axis in enumerate(original(before)):
        for j, digits in enumerate(layout):
            pairs |= {(i, j) for a in axis for b in digits if _overlap(a, b)}
    return pairs


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two digits run over some of the same strides."""
    (low, high), (start, end) = ((abs(s), abs(s) * n) for s, n in (a, b))
    return low < end and start < high


def shape(layout: Layout) -> tuple[int, ...]:
    """The shape of a value of the given layout."""
    return tuple(math.prod(size for _, size in axis) for axis in layout)


def is_move(node: Node) -> bool:
    """Whether an operation moves or casts one value, and keeps every entry once.

    Scaling by a number, or adding one, gives the same before and behind it: (2 x).T is 2 x.T.
    """
    role = node.info.role
    if role is Role.BROADCAST:
        return math.prod(node.inputs[0].shape) == math.prod(node.outputs[0].shape)
    return role in _MOVES and len(node.outputs) == 1


_MOVES = (Role.RESHAPE, Role.TRANSPOSE, Role.CAST, Role.REVERSAL)


def _regrouped(layout: Layout, shape: Sequence[int]) -> Layout | None:
    """The same digits, grouped into other axes."""
    if 0 in shape:
        return None
    digits = [digit for axis in layout for digit in axis]
    axes = []
    for size in shape:
        axis: list[tuple[int, int]] = []
        while size > 1:
            stride, count = digits.pop(0)
            if count > size:  # the digit is split
                if count % size:
                    return None
                digits.insert(0, (stride, count // size))
                stride, count = stride * (count // size), size
            elif size % count:
                return None
            size //= count
            if axis and axis[-1][0] == stride * count:  # one digit again
                count *= axis.pop()[1]
            axis.append((stride, count))
        axes.append(tuple(axis))
    return tuple(axes)
