"""Steps from cores and their neighbours, found on demand from the outputs backward.

A value inside one step that a later step reads too gets a step of its own that ends at it, so that
no relevance is lost.
"""

from collections.abc import Sequence
from dataclasses import replace

from jaxplain.graph.ir import Program, Var
from jaxplain.graph.layer import Block, Step
from jaxplain.graph.recognizers import boundaries
from jaxplain.graph.recognizers.facts import Facts, in_order


def assemble(program: Program, outputs: Sequence[Var], facts: Facts) -> Block[Step]:
    """The steps between the explained values and the outputs, each found when a later one reads it.

    Args:
        program: the program.
        outputs: the values that relevance starts from.
        facts: the facts about the program.
    """
    steps: dict[Var, Step] = {}
    asked = {v for v in outputs if v in facts.flow.carries_relevance}
    for var in (v for node in reversed(program.nodes) for v in reversed(node.outputs)):
        if var in asked and var not in steps and var not in facts.flow.explained:
            step = step_ending_at(var, facts)
            steps |= dict.fromkeys(step.outputs, step)
            asked.update(step.inputs)
    ordered = sorted(dict.fromkeys(steps.values()), key=lambda step: step.output.index)
    return Block(program, tuple(outputs), tuple(ordered))


def step_ending_at(end: Var, facts: Facts) -> Step:
    """The step that produces a value."""
    core, behind = boundaries.core_behind(end, facts)
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
        bodies = step.control.bodies
        blocks = tuple(assemble(body, body.outputs, facts.body(body)) for body in bodies)
        return replace(step, blocks=blocks)
    return step
