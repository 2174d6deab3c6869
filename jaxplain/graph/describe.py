"""Layers from steps: each gets its name and index, and what the analyses know of it."""

from collections.abc import Sequence
from functools import partial

from jaxplain.graph.analyses.axes import Axes
from jaxplain.graph.analyses.bounds import bounds_of
from jaxplain.graph.analyses.flow import Flow
from jaxplain.graph.intervals import ANYTHING, UNIT
from jaxplain.graph.ir import Var
from jaxplain.graph.layer import RULELESS, Block, Layer, Step
from jaxplain.graph.naming import names_of

_ROUNDING = 1e-6  # of a factor such as 1 / 6, which makes of 6 a little more than 1


def describe(block: Block[Step], flow: Flow, axes: Axes, batched: bool) -> Block[Layer]:
    """The layers of a function.

    Args:
        block: its steps.
        flow: where relevance flows in it.
        axes: along which axis of the input each axis of a value runs.
        batched: whether the leading axis of the input counts examples.
    """
    ruled = (step for step in block.walk() if step.kind not in RULELESS)
    indices = {step: index for index, step in enumerate(ruled)}
    names = names_of(block.steps, flow)
    softmax = (s for s in block.walk() if s.kind == "Softmax" and s.op == "softmax")
    bounds = bounds_of(block.program, {s.output: UNIT for s in softmax})
    below, above = set[Var](), set[Var]()
    _below_kernels(block.steps, below)
    _above_kernels(block.steps, above, flow)

    def described(block: Block[Step], around: tuple[Layer, ...]) -> Block[Layer]:
        steps = tuple(layer_of(step, around) for step in block.steps)
        return Block(block.program, block.explained_outputs, steps)

    def layer_of(step: Step, around: tuple[Layer, ...]) -> Layer:
        within = [bounds.get(v, ANYTHING) for v in step.inputs]
        layer = Layer(
            **vars(step),
            name=names.get(step, ""),
            index=indices.get(step, -1),
            first=step.is_kernel and below.isdisjoint(step.inputs),
            last=step.is_kernel and above.isdisjoint(step.outputs),
            nonnegative=tuple(b.low >= 0 for b in within),
            gates=tuple(b.low >= 0 and b.high <= 1 + _ROUNDING for b in within),
            examples=tuple(map(axes.examples_of, (*step.inputs, step.output)) if batched else ()),
            around=around,
            active=flow.active,
        )
        # a loop and the layers inside of it know each other
        blocks = tuple(described(block, (*around, layer)) for block in step.blocks)
        object.__setattr__(layer, "blocks", blocks)
        return layer

    return described(block, ())


def _below_kernels(steps: Sequence[Step], below: set[Var]) -> None:
    """Adds the values that a kernel comes before to those that are known to have one there."""
    for step in steps:
        if step.control is not None:
            through = [partial(_below_kernels, b.steps, below) for b in step.blocks]
            step.control.spread(below, through)
        elif step.is_kernel or not below.isdisjoint(step.inputs):
            below.update(step.outputs)


def _above_kernels(steps: Sequence[Step], above: set[Var], flow: Flow) -> None:
    """As `_below_kernels`, the values that a kernel comes behind."""
    for step in reversed(steps):
        if step.control is not None:
            through = [partial(_above_kernels, b.steps, above, flow) for b in step.blocks]
            step.control.spread(above, through, flow.carries_relevance.__contains__, back=True)
        elif step.is_kernel or not above.isdisjoint(step.outputs):
            above.update(step.inputs)


def ends_in_probabilities(block: Block[Layer], flow: Flow) -> bool:
    """Whether values of a softmax are among the outputs, moved at most."""
    found, ends = False, set(block.explained_outputs)

    def back(steps: Sequence[Layer]) -> None:
        nonlocal found
        for layer in reversed(steps):
            if layer.control is not None:
                through = [partial(back, inner.steps) for inner in layer.blocks]
                layer.control.spread(ends, through, flow.carries_relevance.__contains__, back=True)
            elif not ends.isdisjoint(layer.outputs):
                found |= layer.kind == "Softmax" and layer.op != "logsumexp"
                ends.update(layer.inputs if layer.kind == "Structure" else ())

    back(block.steps)
    return found
