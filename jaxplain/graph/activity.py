"""Which values relevance flows through: every value is constant, frozen or carrying.

*Active* values depend on an explained input. Of these, *carrying* ones are floating, are reached
from an explained input without crossing a discrete operation, and reach an output likewise. Active
values that do not carry (comparisons, argmax, stop_gradient) are *frozen*: evaluated, then treated
as constants. In a loop this holds of a value when it holds in any iteration.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial

from jaxplain import _compat
from jaxplain.graph.primitives import Class
from jaxplain.graph.program import Node, Program, Var


def mark(program: Program, explained: Iterable[Var], outputs: Collection[Var]) -> None:
    """Sets `active`, `carries`, `consumers` and `wanted` on every value of the program."""
    nodes = list(program.walk())
    values = {v for n in nodes for v in (*n.inputs, *n.outputs)}
    bodies = [body for n in nodes if n.control for body in n.control.bodies]
    values.update(v for body in bodies for v in (*body.inputs, *body.outputs))
    values.update(explained, outputs)

    active, flowing = set(explained), reached(program, explained)
    _depend(program, active)
    needed = {v for v in outputs if v in flowing}
    _need(program, flowing, needed)

    for var in values:
        var.active, var.carries, var.consumers = var in active, var in needed, []
        var.wanted = var in outputs
    for body in bodies:
        for var in body.outputs:
            var.wanted = var.carries
    for node in nodes:
        if any(v.carries for v in node.outputs):
            for var in node.carrying:
                var.consumers.append(node)
        if node.control is not None and node.control.kind == "Loop":
            for var in _repeated(node.control.bodies[0], node.control.flow.fixed):
                var.wanted |= var.carries


def reached(
    program: Program, starts: Iterable[Var], can: Callable[[Var], bool] = lambda var: True
) -> set[Var]:
    """What values reach through floating values that `can` be reached."""
    found = set(starts)
    _reach(program, found, can)
    return found


def _repeated(body: Program, fixed: int) -> Iterator[Var]:
    """What all iterations of a loop compute alike, and where they begin to differ.

    As it would without the loop, such a value has its relevance from all of them: it ends a layer.
    """
    varying = set(body.inputs[fixed:])
    _depend(body, varying)
    pending = [body]
    while pending:
        for node in pending.pop().nodes:
            if not varying.isdisjoint(node.outputs):
                yield from (v for v in node.inputs if v not in varying)
            if node.control is not None and node.control.kind == "Loop":
                pending += node.control.bodies


def _depend(program: Program, found: set[Var]) -> None:
    """Adds what depends on the values found."""
    for node in program.nodes:
        decides = node.inputs
        if node.control is not None:
            decides = node.control.selectors
            node.control.spread(found, [partial(_depend, b, found) for b in node.control.bodies])
        if not found.isdisjoint(decides):
            found.update(node.outputs)


def _reach(
    program: Program, found: set[Var], can: Callable[[Var], bool] = lambda var: True
) -> None:
    """Adds what the values found reach without crossing a discrete operation."""
    for node in program.nodes:
        if node.control is not None:
            through = [partial(_reach, b, found, can) for b in node.control.bodies]
            node.control.spread(found, through, can)
        for inputs, outputs in _ways(node):
            if not found.isdisjoint(inputs):
                found.update(v for v in outputs if v.floating and can(v))


def _need(program: Program, reached: set[Var], found: set[Var]) -> None:
    """Adds the reached values that reach the ones found likewise."""
    for node in reversed(program.nodes):
        if node.control is not None:
            through = [partial(_need, b, reached, found) for b in node.control.bodies]
            node.control.spread_back(found, through, reached.__contains__)
        for inputs, outputs in _ways(node):
            if not found.isdisjoint(outputs):
                found.update(v for v in inputs if v in reached)


def cuts(program: Program, explained: Iterable[Var]) -> Iterator[Node]:
    """The operations at which what flows from the explained values ends."""
    found = reached(program, explained)
    for node in program.walk():
        read = node.control is None and not found.isdisjoint(node.inputs)
        if read and found.isdisjoint(node.outputs):
            yield node


_PARALLEL = (Class.STRUCTURAL, Class.SELECTION, Class.MIXING)


def _ways(node: Node) -> list[tuple[tuple[Var, ...], tuple[Var, ...]]]:
    """Which operands flow to which outputs; nothing flows through a discrete operation.

    What moves or sorts several arrays at once sends each to its own output: the values sorted by an
    active key are chosen by it, but no part of it.
    """
    if node.row.cls is Class.DISCRETE or node.control is not None:
        return []
    if node.row.cls in _PARALLEL and len(node.inputs) == len(node.outputs):
        return [((x,), (y,)) for x, y in zip(node.inputs, node.outputs, strict=True)]
    return [(node.inputs[_compat.deciding(node.eqn) :], node.outputs)]
