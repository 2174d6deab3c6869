"""The facts that a recognizer reads: the program's analyses, and the cores found so far."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from jaxplain.graph.analyses.constants import evaluated, literal_value
from jaxplain.graph.analyses.dominators import Dominators
from jaxplain.graph.analyses.flow import Flow
from jaxplain.graph.ir import Node, Program, Var
from jaxplain.graph.layouts import is_move
from jaxplain.graph.primitives import Kind, Operand, Role
from jaxplain.graph.recognizers.core import Core

_LARGEST = 2000  # nodes; bounds the work on deep elementwise subgraphs
_FEW = 6  # operations of a guard against NaN


class Subgraph(NamedTuple):
    """The operations between one input and one output, in topological order."""

    nodes: tuple[Node, ...]
    input: Var


class Facts:
    """The facts about a program, or about the body of a loop or branch.

    Args:
        program: the program.
        sources: the values that it is a function of.
        flow: where relevance flows in it, and in the program around it.
        recognizers: functions that find the core that ends at a value; the first core found counts.
        normalizations: whether a normalisation is one layer; else its squares, sums, roots and
            quotients are layers.
    """

    def __init__(
        self,
        program: Program,
        sources: Iterable[Var],
        flow: Flow,
        recognizers: "Sequence[Recognizer]",
        normalizations: bool = True,
    ):
        self.flow = flow
        self.dominators = Dominators(program, flow, sources)
        self.normalizations = normalizations
        self._recognizers = recognizers
        self._cores: dict[Var, Core | None] = {}
        self._local: dict[Var, Subgraph | None] = {}
        self._guards: dict[Node, bool] = {}

    def body(self, program: Program) -> "Facts":
        """The facts of the body of a loop or branch."""
        sources = [v for v in program.inputs if v in self.flow.active]
        return Facts(program, sources, self.flow, self._recognizers, self.normalizations)

    def core(self, end: Var) -> Core | None:
        """The core that ends at a value; None at inputs, and behind scales, offsets and moves."""
        if end not in self._cores:
            self._cores[end] = self._find(end)
        return self._cores[end]

    def _find(self, end: Var) -> Core | None:
        node = end.producer
        if node is None or end in self.flow.explained or end not in self.flow.carries_relevance:
            return None
        for match in self._recognizers:
            if (core := match(node, end, self)) is not None:
                return core
        return None

    def steps_back(self, end: Var) -> Iterator[Node]:
        """The operations between a value and the core or input before it, the last one first."""
        flow = self.flow
        while end in flow.carries_relevance and end not in flow.explained and not self.core(end):
            node = end.producer
            if node is None:
                return
            yield node
            (end,) = flow.inputs[node]

    def local_subgraph(self, end: Var) -> Subgraph | None:
        """The single-input subgraph that ends at a value, of operations that are `is_local`.

        `logistic` and `mul`, back to a, for `a * logistic(a)`. None where the last operation has
        one active operand, or the subgraph holds a kernel or drops entries.
        """
        if end not in self._local:
            node = end.producer
            assert node is not None
            joins = len(node.outputs) == 1 and len(self.flow.active_inputs[node]) > 1
            start = self.dominators.of(node) if joins else None
            self._local[end] = self.subgraph(start, end, self.is_local)
        return self._local[end]

    def subgraph(
        self, start: Var | None, end: Var, allowed: Callable[[Node], bool]
    ) -> Subgraph | None:
        """The operations from one value to another; None when one of them is not allowed."""
        if start is None or start not in self.flow.carries_relevance:
            return None
        nodes: set[Node] = set()
        stack = [end]
        while stack:
            var = stack.pop()
            node = var.producer
            if var is start or node is None or node in nodes:
                continue
            if not allowed(node) or len(nodes) > _LARGEST:
                return None
            nodes.add(node)
            stack.extend(self.flow.active_inputs[node])
        return Subgraph(in_order(nodes), start)

    def before_moves(self, var: Var) -> tuple[tuple[Node, ...], Var]:
        """The moves that end at a value, and the value before them."""
        moves: list[Node] = []
        while (node := var.producer) is not None and is_move(node):
            moves.insert(0, node)
            (var,) = node.inputs
        return tuple(moves), var

    def moves_between(self, start: Var, end: Var) -> tuple[Node, ...] | None:
        """The moves on a path of entrywise operations between two values; None without a path.

        Between the ends of an activation or a softmax, all paths have the same moves.
        """
        pending: list[tuple[Var, tuple[Node, ...]]] = [(end, ())]
        seen = {end}
        while pending:
            var, moves = pending.pop()
            if var is start:
                return moves
            node = var.producer
            if node is None or not (is_move(node) or node.info.kind in _ENTRYWISE):
                continue
            behind = (node, *moves) if is_move(node) and node.info.role is not Role.CAST else moves
            for value in reversed(self.flow.inputs[node]):
                if value not in seen and math.prod(value.shape) == math.prod(var.shape):
                    seen.add(value)
                    pending.append((value, behind))
        return None

    def is_local(self, node: Node) -> bool:
        """Whether an operation may stand inside an activation, a normalisation or a softmax."""
        if node.info.multiplies:  # a norm; with a constant operand it is a kernel
            return node.info.local and all(v in self.flow.active for v in node.inputs)
        moves = node.info.kind is Kind.STRUCTURAL
        frozen = moves and self.flow.carries_relevance.isdisjoint(node.outputs)
        return (node.info.local or frozen) and len(node.outputs) == 1

    def is_guard(self, node: Node) -> bool:
        """Whether an operation leaves every finite number as it is: `where(isnan(x), 0, x)`."""
        if node.info.role is not Role.SELECT or len(self.flow.inputs[node]) != 1:
            return False
        if node not in self._guards:
            self._guards[node] = self._guards_finite_numbers(node, *self.flow.inputs[node])
        return self._guards[node]

    def guards_nothing(self, node: Node) -> bool:
        """Whether an operation is a guard behind a sum, whose numbers are finite.

        What guards a logarithm or a quotient bends.
        """
        if not self.is_guard(node):
            return False
        (start,) = self.flow.inputs[node]
        for step in self.steps_back(start):
            (start,) = self.flow.inputs[step]
        core = self.core(start)
        return core is None or core.kind in ("Affine", "Merge")

    def _guards_finite_numbers(self, node: Node, source: Var) -> bool:
        nodes: list[Node] = []
        pending: list[Node | None] = [node]
        while pending:
            maker = pending.pop()
            if maker is None or len(maker.outputs) > 1 or len(nodes) == _FEW:
                return False
            nodes.append(maker)
            pending += [v.producer for v in self.flow.active_inputs[maker] if v is not source]
        limits = jnp.finfo(source.aval.dtype)
        samples = [0.0, 1.0, -1.5, *map(float, (limits.tiny, limits.max, limits.min))]
        size, order = math.prod(source.shape), in_order(nodes)
        some = [samples[i : i + size] for i in range(0, len(samples), max(1, size))]
        pairs = (evaluated(order, source, numbers) for numbers in some)
        return size > 0 and all(found is not None and (x == found).all() for x, found in pairs)

    def is_diagonal(self, node: Node) -> bool:
        """Whether an operation scales one value by constants or adds some, entry by entry."""
        flow = self.flow
        if node.info.kind is not Kind.DIAGONAL or len(flow.active_inputs[node]) != 1:
            return False
        (operand,) = flow.active_inputs[node]
        if operand not in flow.carries_relevance or node.outputs[0].shape != operand.shape:
            return False
        treated = [kind for kind, v in node.operands if v is operand]
        return len(treated) == 1 and Operand.DIVISOR not in treated

    def sign(self, node: Node) -> int:
        """1 where an operation only adds constants to one value, -1 for `c - x`, 0 elsewhere."""
        carries = self.flow.carries_relevance
        turns = any(kind is Operand.SUBTRAHEND and v in carries for kind, v in node.operands)
        return (-1 if turns else 1) * (node.info.adds and self.is_diagonal(node))

    def is_linear(self, node: Node) -> bool:
        """Whether an operation is linear in one value: a kernel, scale, offset or move."""
        flow = self.flow
        if node.info.kind not in _LINEAR or len(node.outputs) != 1 or len(flow.inputs[node]) != 1:
            return False
        (operand,) = flow.inputs[node]
        if "padding_config" in node.params and math.isinf(literal_value(node.inputs[1]) or 0):
            return False  # what a maximum never chooses is no bias
        for kind, var in node.operands:
            if var is operand and kind not in _LINEAR_IN:
                return False
            if kind is Operand.CONDITION and var in flow.active and not self.guards_nothing(node):
                return False
        if len(node.inputs) > 2 and [k for k, _ in node.operands].count(Operand.FACTOR) > 2:
            return False  # a product of three
        return node.inputs.count(operand) == 1 or node.info.adds


_LINEAR_IN = (Operand.FACTOR, Operand.TERM, Operand.SUBTRAHEND, Operand.MOVED)
_ENTRYWISE = (Kind.DIAGONAL, Kind.ELEMENTWISE, Kind.STRUCTURAL)
_LINEAR = (Kind.DIAGONAL, Kind.STRUCTURAL, Kind.MIXING)

#: Finds the core that ends at a value, the output of an operation.
Recognizer = Callable[[Node, Var, Facts], Core | None]


def in_order(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Operations in topological order, each once."""
    return tuple(sorted(set(nodes), key=lambda n: n.outputs[0].index))
