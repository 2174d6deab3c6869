"""Which values relevance flows through: every value is constant, frozen or carrying.

*Active* values depend on an explained input. Of these, *carrying* ones are floating, are reached
from an explained input without crossing a discrete operation, and reach an output likewise. Active
values that do not carry (comparisons, argmax, stop_gradient) are *frozen*: evaluated, then treated
as constants.
"""

from collections.abc import Collection, Iterable

from jaxplain.graph.primitives import Class
from jaxplain.graph.program import Program, Var


def mark(program: Program, explained: Iterable[Var], outputs: Collection[Var]) -> None:
    """Sets `active`, `carries`, `consumers` and `is_output` on every value of the program."""
    for var in (v for n in program.nodes for v in (*n.inputs, *n.outputs)):
        var.active = var.carries = var.is_output = False
        var.consumers = []
    for var in outputs:
        var.is_output = True

    reached: set[Var] = set()
    for var in explained:
        var.active = True
        reached.add(var)
    for node in program.nodes:
        active = any(v.active for v in node.inputs)
        flows = node.row.cls is not Class.DISCRETE and any(v in reached for v in node.inputs)
        for var in node.outputs:
            var.active = active
            if flows and var.floating:
                reached.add(var)

    needed = {v for v in outputs if v in reached}
    for node in reversed(program.nodes):
        if node.row.cls is not Class.DISCRETE and any(v in needed for v in node.outputs):
            needed.update(v for v in node.inputs if v in reached)

    for var in needed:
        var.carries = True
    for node in program.nodes:
        if any(v.carries for v in node.outputs):
            for var in node.carrying:
                var.consumers.append(node)
