"""Layers from steps: each gets its name, its index and the results of the analyses."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, fields
from functools import partial

from jaxplain.graph.analyses.axes import Axes
from jaxplain.graph.analyses.bounds import bounds_of
from jaxplain.graph.analyses.flow import Flow
from jaxplain.graph.intervals import ANYTHING, UNIT, Bounds
from jaxplain.graph.ir import Var
from jaxplain.graph.layer import RULELESS, Block, Layer, Step
from jaxplain.graph.naming import names_of

_ROUNDING = 1e-6  # the bound 6 times a factor 1 / 6 may be a little more than 1


def describe(block: Block[Step], flow: Flow, axes: Axes, batched: bool) -> Block[Layer]:
    """The layers of a function.

    Args:
        block: its steps.
        flow: where relevance flows in it.
        axes: for the axes of every value, the axis of the input that they run along.
        batched: whether the leading axis of the input counts examples.
    """
    softmax = (s for s in block.walk() if s.kind == "Softmax" and s.op == "softmax")
    first: set[Step] = set()
    last: set[Step] = set()
    _mark_first(block.steps, set(), first)
    _mark_last(block.steps, set(), last, flow)
    names = names_of(block.steps, flow)
    ruled = [step for step in block.walk() if step.kind not in RULELESS]
    describer = _Describer(
        names,
        {step: index for index, step in enumerate(ruled)},
        first,
        last,
        bounds_of(block.program, {s.output: UNIT for s in softmax}),
        axes if batched else None,
        flow.active,
    )
    return describer.block(block, ())


@dataclass(frozen=True)
class _Describer:
    """The results of the analyses, by step."""

    names: dict[Step, str]
    indices: dict[Step, int]
    first: set[Step]
    last: set[Step]
    bounds: dict[Var, Bounds]
    axes: Axes | None
    active: Set[Var]

    def block(self, block: Block[Step], around: tuple[Layer, ...]) -> Block[Layer]:
        steps = tuple(self.layer(step, around) for step in block.steps)
        return Block(block.program, block.explained_outputs, steps)

    def layer(self, step: Step, around: tuple[Layer, ...]) -> Layer:
        name = self.names.get(step, "")
        within = [self.bounds.get(v, ANYTHING) for v in step.inputs]
        examples: tuple[int | None, ...] = ()
        if self.axes is not None:
            examples = tuple(map(self.axes.examples_of, (*step.inputs, step.output)))
        facts = {field.name: getattr(step, field.name) for field in fields(Step)}
        layer = Layer(
            **facts,
            name=name,
            index=self.indices.get(step, -1),
            first=step in self.first,
            last=step in self.last,
            nonnegative=tuple(b.low >= 0 for b in within),
            gates=tuple(b.low >= 0 and b.high <= 1 + _ROUNDING for b in within),
            examples=examples,
            around=around,
            active=self.active,
        )
        # a loop and the layers inside of it know each other
        blocks = tuple(self.block(block, (*around, layer)) for block in step.blocks)
        object.__setattr__(layer, "blocks", blocks)
        return layer


def _mark_first(steps: Sequence[Step], below: set[Var], first: set[Step]) -> None:
    """Marks the kernel layers with no kernel upstream; `below` are the values behind a kernel."""
    for step in steps:
        if step.control is not None:
            through = [partial(_mark_first, b.steps, below, first) for b in step.blocks]
            step.control.spread(below, through)
            continue
        reached = any(v in below for v in step.inputs)
        _mark(first, step, step.is_kernel and not reached)
        if reached or step.is_kernel:
            below.update(step.outputs)


def _mark_last(steps: Sequence[Step], above: set[Var], last: set[Step], flow: Flow) -> None:
    """Marks the kernel layers with no kernel downstream; `above` are the values before a kernel."""
    for step in reversed(steps):
        if step.control is not None:
            through = [partial(_mark_last, b.steps, above, last, flow) for b in step.blocks]
            step.control.spread_back(above, through, flow.carries_relevance.__contains__)
            continue
        reached = any(v in above for v in step.outputs)
        _mark(last, step, step.is_kernel and not reached)
        if reached or step.is_kernel:
            above.update(step.inputs)


def _mark(marked: set[Step], step: Step, whether: bool) -> None:
    """Marks or unmarks a step: the next pass over a loop's body may correct the one before."""
    (marked.add if whether else marked.discard)(step)


def ends_in_probabilities(block: Block[Layer], flow: Flow) -> bool:
    """Whether an output is a softmax's value, perhaps moved."""
    found, ends = False, set(block.explained_outputs)

    def back(steps: Sequence[Layer]) -> None:
        nonlocal found
        for layer in reversed(steps):
            if layer.control is not None:
                through = [partial(back, inner.steps) for inner in layer.blocks]
                layer.control.spread_back(ends, through, flow.carries_relevance.__contains__)
            elif not ends.isdisjoint(layer.outputs):
                found |= layer.kind == "Softmax" and layer.op != "logsumexp"
                ends.update(layer.inputs if layer.kind == "Structure" else ())

    back(block.steps)
    return found
