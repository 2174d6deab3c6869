"""The program without the softmax or sigmoid that its outputs end in: the outputs become logits.

It may stand before casts, reshapes and concatenations, and at the end of a body: of a loop
that stacks it, of every case of a branch, of a program that runs on many devices.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxplain.graph.analyses.constants import evaluated
from jaxplain.graph.ir import Control, Node, Program, Var
from jaxplain.graph.primitives import Kind, Role
from jaxplain.graph.recognizers import boundaries
from jaxplain.graph.recognizers.facts import Facts


def without_output_activation(
    program: Program, facts: Facts, sigmoids: bool = True
) -> tuple[Program, tuple[Var, ...], str]:
    """Leaves a trailing softmax or sigmoid out of a program.

    Args:
        program: the program.
        facts: the facts about it.
        sigmoids: whether a sigmoid is left out too.

    Returns:
        The program, which computes the logits too, with the outputs of the function; the values
        that take the place of its outputs; and what was left out: "softmax", "log_softmax" or
        "sigmoid", "" for nothing.
    """
    ends = [_end(v, program, facts, whole=True) for v in program.outputs]
    found = next((end.activation for end in ends if end.activation), "")
    if not found or (found == "sigmoid" and not sigmoids):
        return program, tuple(program.outputs), ""
    rewriter = _Rewriter(program)
    logits = [end.logits(rewriter) for end in ends]
    rewritten, renewed = rewriter.finish(program.outputs)
    return rewritten, tuple(renewed.get(v, v) for v in logits), found


def is_sigmoid(nodes: Sequence[Node], source: Var) -> bool:
    """Whether operations on one value are 1 / (1 + exp(-x)), in whatever way it is written."""
    if all(n.info.piecewise or n.info.kind is not Kind.ELEMENTWISE for n in nodes):
        return False
    x, found = evaluated(nodes, source, np.linspace(-5.0, 5.0, 11).tolist())
    if found is None or found.shape != x.shape:
        return False
    found, x = (np.sort(np.ravel(v).astype(float)) for v in (found, x))  # perhaps moved
    tolerance = 20 * float(jnp.finfo(source.aval.dtype).eps)
    return bool(np.abs(found - 1 / (1 + np.exp(-x))).max(initial=0) < tolerance)


def _before_sigmoid(end: Var, facts: Facts) -> Var | None:
    """The value that an output is the sigmoid of; None for other outputs.

    Numbers on either side of an activation count: `0.5 * (tanh(0.5 * x) + 1)` is one.
    """
    behind = boundaries.gap_before(end, facts)
    core = facts.core(end) or behind.core
    if core is None or core.kind != "Activation":
        return None
    for whole in (core, boundaries.whole_activation(core, facts)):
        nodes = [*whole.nodes, *behind.nodes]
        (source,) = whole.inputs
        before = boundaries.gap_before(source, facts).nodes
        for node in (*before[::-1], None):
            if is_sigmoid(nodes, source):
                return source
            if node is None or not facts.is_diagonal(node):
                break
            nodes.insert(0, node)
            (source,) = facts.flow.inputs[node]
    return None


class _Rewriter:
    """A program with operations added, and some replaced."""

    def __init__(self, program: Program):
        self._program = program
        self._added: list[Node] = []
        self._replaced: dict[Node, Node] = {}
        self._next = 1 + max((v.index for n in program.nodes for v in n.outputs), default=-1)

    def again(self, node: Node, operands: Sequence[Var]) -> Var:
        """The output of a copy of an operation, which reads other operands."""
        copy = node.rebuilt(operands)
        (var,) = copy.outputs
        var.index, self._next = self._next, self._next + 1
        self._added.append(copy)
        return var

    def moved(self, var: Var, moves: Iterable[Node]) -> Var:
        """A value behind the given moves: the logits, moved as the softmax was."""
        for node in moves:
            var = self.again(node, [var])
        return var

    def bodies(self, node: Node) -> tuple[Program, ...]:
        """The current bodies of a loop or branch."""
        return self._replaced.get(node, node).bodies

    def replace_bodies(self, node: Node, bodies: Sequence[Program]) -> None:
        """Gives a loop or branch other bodies."""
        self._replaced[node] = _copy(node, node.inputs, bodies)

    def finish(self, outputs: Sequence[Var]) -> tuple[Program, dict[Var, Var]]:
        """The program, and the new value for each value behind a replaced operation."""
        renewed: dict[Var, Var] = {}
        nodes = []
        for node in (*self._program.nodes, *self._added):
            new = self._replaced.get(node, node)
            if not renewed.keys().isdisjoint(node.inputs):
                inputs = [renewed.get(v, v) for v in node.inputs]
                new = _copy(new, inputs, new.bodies)
            if new is not node:
                renewed.update(zip(node.outputs, new.outputs, strict=True))
            nodes.append(new)
        outputs = [renewed.get(v, v) for v in outputs]
        return replace(self._program, nodes=nodes, outputs=outputs), renewed


def _copy(node: Node, inputs: Sequence[Var], bodies: Sequence[Program]) -> Node:
    copy = node.rebuilt(inputs)
    for new, old in zip(copy.outputs, node.outputs, strict=True):
        new.index, new.uniform = old.index, old.uniform
    if node.control is not None:
        copy.control = Control(copy, node.control.flow, bodies)
    return copy


class _End(NamedTuple):
    """The softmax or sigmoid that an output ends in.

    Attributes:
        activation: "softmax", "log_softmax", "sigmoid", or "" for something else.
        logits: adds the output without it to a program and returns it; the output itself where
            there is none.
    """

    activation: str
    logits: Callable[[_Rewriter], Var]


def _end(var: Var, program: Program, facts: Facts, *, whole: bool, readers: int = 0) -> _End:
    """The softmax that a value ends in.

    Args:
        var: an output, or a part of a concatenated one.
        program: the program.
        facts: the facts about it.
        whole: whether it is a whole output: the logits may then keep their own dtype, without the
            casts behind the softmax.
        readers: the number of operations on the way to the output that read it.
    """
    nothing = _End("", lambda rewriter: var)
    moves, end = facts.before_moves(var)
    node = end.producer
    if node is None or not {var, end} <= facts.flow.carries_relevance:
        return nothing
    if node.control is not None:
        between = {end, *(v for move in moves for v in move.outputs)}
        reads = sum(v in between for other in program.nodes for v in other.inputs)
        alone = reads == len(moves) + readers  # nothing else sees the probabilities
        return (_inside(end, var, node, node.control, facts) if alone else None) or nothing
    if node.info.role is Role.CONCATENATION:
        parts = [_end(v, program, facts, whole=False, readers=1) for v in node.inputs]
        op = _common(parts)

        def joined(rewriter: _Rewriter) -> Var:
            operands = [part.logits(rewriter) for part in parts]
            return rewriter.moved(rewriter.again(node, operands), moves)

        return _End(op, joined) if op else nothing
    core = facts.core(end)
    if core is not None and core.kind == "Softmax" and core.op != "logsumexp":
        (logits,), op = core.inputs, core.op
    elif (argument := _before_sigmoid(end, facts)) is not None:
        logits, op = argument, "sigmoid"
    else:
        return nothing
    inside = facts.moves_between(logits, end)
    if inside is None:
        return nothing
    moves = (*inside, *moves)
    if whole and all(move.info.role is Role.CAST for move in moves):
        moves = ()
    return _End(op, lambda rewriter: rewriter.moved(logits, moves))


def _inside(output: Var, var: Var, node: Node, control: Control, facts: Facts) -> _End | None:
    """The softmax that all bodies of a loop, branch or shard_map end in; None for none.

    Args:
        output: the output of the loop.
        var: the same value, perhaps moved.
        node: the loop.
        control: its bodies.
        facts: the facts about the program around it.
    """
    place = node.outputs.index(output)
    if place < control.flow.carried:
        return None
    parts = [
        _end(body.outputs[place], body, facts.body(body), whole=False) for body in control.bodies
    ]

    def leave_out(rewriter: _Rewriter) -> Var:
        bodies = []
        for body, part in zip(rewriter.bodies(node), parts, strict=True):
            inner = _Rewriter(body)
            outputs = list(body.outputs)
            outputs[place] = part.logits(inner)
            bodies.append(inner.finish(outputs)[0])
        rewriter.replace_bodies(node, bodies)
        return var

    op = _common(parts)
    return _End(op, leave_out) if op else None


def _common(parts: Sequence[_End]) -> str:
    """The softmax that all parts end in; "" where they differ."""
    names = {part.activation for part in parts}
    return names.pop() if len(names) == 1 else ""
