"""Layers from steps: each gets its name, its index and the results of the analyses."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from jaxplain.graph.analyses.axes import Axes
from jaxplain.graph.analyses.bounds import bounds_of
from jaxplain.graph.analyses.flow import Flow
from jaxplain.graph.intervals import ANYTHING, UNIT
from jaxplain.graph.ir import Var
from jaxplain.graph.layer import RULELESS, Block, Layer, Step
from jaxplain.graph.naming import names_of
from jaxplain.graph.rewrites.output_activation import is_sigmoid

_Step = TypeVar("_Step", bound=Step)
_ROUNDING = 1e-6  # the bound 6 times a factor 1 / 6 may be a little more than 1


def describe(block: Block[Step], flow: Flow, axes: Axes, batched: bool) -> Block[Layer]:
    """The layers of a function.

    Args:
        block: its steps.
        flow: where relevance flows in it.
        axes: for the axes of every value, the axis of the input that they run along.
        batched: whether the leading axis of the input counts examples.
    """
    ruled = (step for step in block.walk() if step.kind not in RULELESS)
    indices = {step: index for index, step in enumerate(ruled)}
    names = names_of(block.steps, flow)
    softmax = (s for s in block.walk() if s.kind == "Softmax" and s.op == "softmax")
    bounds = bounds_of(block.program, {s.output: UNIT for s in softmax})
    below, above = set[Var](), set[Var]()
    _spread(block.steps, below, lambda step, near: near or step.is_kernel, flow)
    _spread(block.steps, above, lambda step, near: near or step.is_kernel, flow, back=True)

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


def ends_in_probabilities(block: Block[Layer], flow: Flow) -> str:
    """The softmax or sigmoid whose value an output is, perhaps moved; else empty."""
    ends = set(block.explained_outputs)
    _spread(
        block.steps, ends, lambda step, near: near and step.kind == "Structure", flow, back=True
    )
    for step in block.walk():
        if not ends.isdisjoint(step.outputs):
            if step.kind == "Softmax" and step.op != "logsumexp":
                return "softmax"
            if step.kind == "Activation" and is_sigmoid(step.nodes, *step.inputs):
                return "sigmoid"
    return ""


def _spread(
    steps: Sequence[_Step],
    marked: set[Var],
    passes: Callable[[_Step, bool], bool],
    flow: Flow,
    back: bool = False,
) -> None:
    """Marks the values behind steps, or before them.

    Args:
        steps: the steps in order.
        marked: the values that are marked already; others are added.
        passes: whether a step marks its outputs, told whether it reads a marked value.
        flow: where relevance flows.
        back: from the outputs of a step to its inputs instead.
    """
    for step in reversed(steps) if back else steps:
        reads, makes = (step.outputs, step.inputs) if back else (step.inputs, step.outputs)
        if step.control is not None:
            inner = [partial(_spread, b.steps, marked, passes, flow, back) for b in step.blocks]
            step.control.spread(marked, inner, flow.carries_relevance.__contains__, back)
        elif passes(step, not marked.isdisjoint(reads)):
            marked.update(makes)
