"""Where outputs end in a softmax, and how they become its logits.

The softmax may stand before casts, reshapes and concatenations, and at the end of a body: of a loop
that stacks it, of every case of a branch, of what runs on many devices.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from jaxplain.graph.control import Control
from jaxplain.graph.layers import Layer
from jaxplain.graph.primitives import Role
from jaxplain.graph.program import Node, Program, Var
from jaxplain.graph.regions import Regions

_MOVES = (Role.CAST, Role.RESHAPE, Role.TRANSPOSE)


class End(NamedTuple):
    """How an output ends.

    Attributes:
        softmax: "softmax", "log_softmax", or "" for something else.
        logits: makes what the output would be without it; the output itself where there is none.
    """

    softmax: str
    logits: Callable[[], Var]


def of(var: Var, program: Program, regions: Regions) -> End:
    """How an output ends."""
    return _end(var, program, regions, whole=True)


def _end(var: Var, program: Program, regions: Regions, *, whole: bool, readers: int = 0) -> End:
    """How a value ends.

    Args:
        var: an output, or a part of one.
        program: the program.
        regions: its regions.
        whole: it is no part: the logits may keep their own, better precision.
        readers: how many operations on the way to the output read it.
    """
    nothing = End("", lambda: var)
    end, moves = var, list[Node]()
    while end.carries and end.producer is not None and end.producer.row.role in _MOVES:
        moves.insert(0, end.producer)
        end = end.producer.inputs[0]
    node = end.producer
    if node is None or not end.carries:
        return nothing
    if node.control is not None:
        between = {end, *(v for move in moves for v in move.outputs)}
        reads = sum(v in between for other in program.nodes for v in other.inputs)
        alone = reads == len(moves) + readers  # nothing else sees the probabilities
        return _opened(end, var, node, regions) if alone else nothing
    if node.row.role is Role.CONCATENATION:
        parts = [_end(v, program, regions, whole=False, readers=1) for v in node.inputs]
        op = _common(parts)

        def joined() -> Var:
            operands = [part.logits() for part in parts]
            return _moved(program, _again(program, node, operands), moves)

        return End(op, joined) if op else nothing
    region = regions.ending_at(end)
    if region is None or region.kind != "Softmax" or region.op == "logsumexp":
        return nothing
    logits = region.logits
    if logits is None:
        return nothing
    if whole and all(move.row.role is Role.CAST for move in moves):
        moves = []
    return End(region.op, lambda: _moved(program, logits, moves))


def _opened(output: Var, var: Var, node: Node, regions: Regions) -> End:
    """How all bodies of a loop, branch or mesh end; `var` is its output, perhaps moved."""
    control = node.control
    assert control is not None
    place = node.outputs.index(output)
    if place < control.flow.carried:
        return End("", lambda: var)
    parts = [_end(b.outputs[place], b, regions.of(b), whole=False) for b in control.bodies]

    def leave_out() -> Var:
        for body, part in zip(control.bodies, parts, strict=True):
            body.outputs[place] = part.logits()
        node.control = Control(control.flow, node.eqn, control.bodies, node.inputs, node.outputs)
        return var

    op = _common(parts)
    return End(op, leave_out if op else lambda: var)


def _common(parts: Sequence[End]) -> str:
    """The softmax that all of them end in; "" where they do not."""
    names = {part.softmax for part in parts}
    return names.pop() if len(names) == 1 else ""


def _moved(program: Program, var: Var, moves: Iterable[Node]) -> Var:
    """A value, reshaped as another one is (a model of batches under vmap drops an axis)."""
    for node in moves:
        var = _again(program, node, [var])
    return var


def _again(program: Program, node: Node, operands: Sequence[Var]) -> Var:
    """What an operation makes of other operands."""
    copy = Node(node.eqn, node.row, operands, node.names[0], node.origins)
    (var,) = copy.outputs
    var.index = 1 + max(v.index for n in program.nodes for v in n.outputs)
    program.nodes.append(copy)
    return var


def are_probabilities(steps: Sequence[Layer], heads: Iterable[Var]) -> bool:
    """Whether values of a softmax are among the outputs, moved at most."""
    found, ends = False, set(heads)

    def back(steps: Sequence[Layer]) -> None:
        nonlocal found
        for layer in reversed(steps):
            if layer.control is not None:
                through = [partial(back, block.steps) for block in layer.blocks]
                layer.control.spread_back(ends, through, lambda var: var.carries)
            elif not ends.isdisjoint(layer.outputs):
                found |= layer.kind == "Softmax" and layer.op != "logsumexp"
                ends.update(layer.inputs if layer.kind == "Structure" else ())

    back(steps)
    return found
