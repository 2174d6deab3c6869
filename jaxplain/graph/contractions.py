"""The axes of dot products and convolutions, described alike for both."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxplain.graph.ir import Node
from jaxplain.graph.primitives import Role


class Contraction(NamedTuple):
    """How the axes of two operands become those of their product.

    Attributes:
        runs_along: for each operand, the axes of the output that run along one of its axes, entry
            by entry: `{0: 0}` for the left operand of `x @ w`, `{1: 1}` for the right one.
        features: for each operand, the axes in `runs_along` along which an entry of the operand
            reaches one index of the output only. The rows of an image are not among them: a
            convolution slides over them.
        contracted: for each operand, the axes that are summed over, in matching order.
        shared: for each operand, the axes that the output has once for both (batch axes), in
            matching order.
        groups: the number of groups that a convolution divides the features of its input into.
        slides: whether the operation is a convolution.
        batch: the axis of the input that a convolution takes for examples.
    """

    runs_along: tuple[Mapping[int, int], Mapping[int, int]]
    features: tuple[Mapping[int, int], Mapping[int, int]]
    contracted: tuple[tuple[int, ...], tuple[int, ...]]
    shared: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    groups: int = 1
    slides: bool = False
    batch: int | None = None


def contraction(node: Node) -> Contraction | None:
    """The axes of a dot product or convolution; None for other operations, and where unknown."""
    if node.info.role is not Role.CONTRACTION:
        return None
    numbers = node.params["dimension_numbers"]
    if hasattr(numbers, "lhs_spec"):
        return _convolution(node)
    contracted, shared = (((*a,), (*b,)) for a, b in numbers)
    axes: list[dict[int, int]] = []
    start = len(shared[0])
    for k, operand in enumerate(node.inputs):
        free = [i for i in range(len(operand.shape)) if i not in (*contracted[k], *shared[k])]
        axes.append(dict(enumerate(shared[k])) | {start + i: axis for i, axis in enumerate(free)})
        start += len(free)
    both = (axes[0], axes[1])
    return Contraction(both, both, contracted, shared)


def _convolution(node: Node) -> Contraction:
    numbers = node.params["dimension_numbers"]
    spaces = zip(numbers.out_spec[2:], numbers.lhs_spec[2:], strict=True)
    image = dict(spaces)
    if node.params["batch_group_count"] != 1:
        return Contraction((image, {}), ({}, {}), ((), ()), slides=True)
    examples = {numbers.out_spec[0]: numbers.lhs_spec[0]}
    weights = {numbers.out_spec[1]: numbers.rhs_spec[0]}
    return Contraction(
        (image | examples, weights),
        ({}, weights),
        ((numbers.lhs_spec[1],), (numbers.rhs_spec[1],)),
        groups=node.params["feature_group_count"],
        slides=True,
        batch=numbers.lhs_spec[0],
    )


def summed_axes(node: Node, operand: int) -> tuple[int, ...] | None:
    """The axes of an operand that an output sums over; None where unknown.

    A convolution sums over all axes of its weights but that of the output's features.
    """
    axes = contraction(node)
    if axes is None or (axes.slides and (operand != 1 or axes.batch is None)):
        return None
    kept = set(axes.features[operand].values())
    return tuple(i for i in range(len(node.inputs[operand].shape)) if i not in kept)
