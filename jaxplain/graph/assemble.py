"""Steps from cores and their neighbours, found on demand from the outputs backward.

A value inside one step that a later step reads too gets a step of its own that ends at it, so that
no relevance is lost.
"""

import heapq
from collections.abc import Sequence
from dataclasses import replace

from jaxplain.graph import boundaries
from jaxplain.graph.ir import Control, Node, Program, Var
from jaxplain.graph.layer import Block, Step
from jaxplain.graph.primitives import Kind
from jaxplain.graph.recognizers.core import Core, linear_core
from jaxplain.graph.recognizers.facts import Facts, in_order
from jaxplain.graph.recognizers.operation import single


def assemble(program: Program, outputs: Sequence[Var], facts: Facts) -> Block[Step]:
    """The steps between the explained values and the outputs, each found when a later one reads it.

    Args:
        program: the program.
        outputs: the values that relevance starts from.
        facts: the facts about the program.
    """
    steps: dict[Var, Step] = {}
    pending = [(-v.index, v) for v in dict.fromkeys(outputs) if v in facts.flow.carries_relevance]
    heapq.heapify(pending)
    asked = {v for _, v in pending}
    while pending:
        _, var = heapq.heappop(pending)
        if var.producer is None or var in steps or var in facts.flow.explained:
            continue
        step = step_ending_at(var, facts)
        steps |= dict.fromkeys(step.outputs, step)
        for value in step.inputs:
            if value not in asked:
                asked.add(value)
                heapq.heappush(pending, (-value.index, value))
    ordered = sorted(dict.fromkeys(steps.values()), key=lambda step: step.output.index)
    return Block(program, tuple(outputs), tuple(ordered))


def step_ending_at(end: Var, facts: Facts) -> Step:
    """The step that produces a value."""
    core = facts.core(end)
    if core is not None:
        return _with_neighbours(core, (), facts)
    gap = boundaries.gap_before(end, facts)
    if gap.core is not None and gap.behind == len(gap.nodes):
        return _with_neighbours(gap.core, gap.nodes, facts)
    left = gap.nodes[max(gap.behind, gap.unshared) :]
    if all(node.info.kind is Kind.STRUCTURAL for node in left):
        assert end.producer is not None
        return _with_neighbours(single("Structure", end.producer, facts), (), facts)
    alone = gap.unshared == 0 and not facts.flow.shared(gap.start)
    if gap.core is not None and gap.core.kind == "Merge" and alone:
        return _with_neighbours(gap.core, gap.nodes, facts)
    return _with_neighbours(
        linear_core("Affine", "scale", left, facts.flow.inputs[left[0]]), (), facts
    )


def _with_neighbours(core: Core, behind: Sequence[Node], facts: Facts) -> Step:
    """The step of a core with the operations `behind` it, and with the ones it takes before it."""
    if core.kind == "Activation":
        core = boundaries.whole_activation(core, facts)
    taken, inputs = list(behind), []
    for value in core.inputs:
        before = boundaries.taken_before(core, value, facts)
        inputs.append(facts.flow.inputs[before[0]][0] if before else value)
        taken += before
    outputs = behind[-1].outputs if behind else core.outputs
    nodes = in_order((*taken, *core.nodes)) if taken else core.nodes
    path = core.affine_vars
    if path:
        path |= {v for n in taken for v in n.outputs} | set(inputs)
    step = Step(core.kind, core.op, nodes, tuple(dict.fromkeys(inputs)), outputs, path, core.mixing)
    if core.kind == "Activation":
        op = "elementwise" if behind and core.op == "rectifier" else core.op
        moves = facts.moves_between(step.inputs[0], step.output)
        assert moves is not None
        return replace(step, op=op, moves=moves, argument=core.inputs[0])
    if step.control is not None:
        return replace(step, blocks=_blocks(step.control, facts))
    return step


def _blocks(control: Control, facts: Facts) -> tuple[Block[Step], ...]:
    return tuple(assemble(body, body.outputs, facts.body(body)) for body in control.bodies)
