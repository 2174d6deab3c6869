"""Regions: operations between one source and one exit that together mean one thing.

A region is found from its last operation: the walk goes back from there to the value that dominates
it and gives up at the first operation that cannot belong (a kernel, a slice, control flow), so that
a residual block is never swallowed. What the region *is* follows from how it behaves: elementwise
regions are activations, the others are told apart by `invariance`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from jaxplain.graph import invariance
from jaxplain.graph.dominators import Dominators
from jaxplain.graph.primitives import Class, Role
from jaxplain.graph.program import Node, Program, Var

_LARGEST = 2000  # nodes; bounds the work on deep elementwise chains


@dataclass(frozen=True)
class Region:
    """A pure function of one value.

    Attributes:
        kind, op: what it is (see `layers.Layer`).
        nodes: its operations in topological order.
        source: the value it is a function of.
        live: for a normalisation, the values that stay affine when the statistic is frozen.
        logits: for a softmax, the largest source of the exit's own shape.
    """

    kind: str
    op: str
    nodes: tuple[Node, ...]
    source: Var
    live: frozenset[Var] = field(default_factory=frozenset)
    logits: Var | None = None


class Regions:
    """Finds the region that ends at a value, if any.

    Args:
        program: the program.
        sources: the values that it is a function of.
        normalizations: whether to look for normalisations.
    """

    def __init__(self, program: Program, sources: Iterable[Var], normalizations: bool = True):
        self.sources = frozenset(sources)
        self._dominators = Dominators(program, self.sources)
        self._normalizations = normalizations
        self._found: dict[Var, Region | None] = {}

    def of(self, body: Program) -> "Regions":
        """The regions of a loop's or branch's body."""
        return Regions(body, [v for v in body.inputs if v.active], self._normalizations)

    def ending_at(self, exit_: Var) -> Region | None:
        """The activation, normalisation, softmax or linear region whose last value is `exit_`."""
        if exit_ not in self._found:
            self._found[exit_] = self._find(exit_)
        return self._found[exit_]

    def moving(self, exit_: Var) -> Region | None:
        """Pieces of one value, moved and scaled, put together again: each output reads one entry.

        A region of its own only where a kernel takes it; see `Chains.prefixed`.
        """
        node = exit_.producer
        if node is None or node.row.role is not Role.CONCATENATION:
            return None
        source = self._dominators.before(node)
        if source is None or not source.carries:
            return None
        nodes = self._walk(exit_, source, _is_move)
        return None if nodes is None else Region("Affine", "linear", tuple(nodes), source)

    def _find(self, exit_: Var) -> Region | None:
        node = exit_.producer
        if node is None or not exit_.carries or len(node.outputs) != 1:
            return None
        if len(node.active) == 1:
            return self._single(node, exit_)
        source = self._dominators.of(node)
        if source is None or not source.carries:
            return None
        nodes = self._walk(exit_, source, _is_local)
        if nodes is not None:
            region = (
                _activation(nodes, source)
                or self._normalization(nodes, source, exit_)
                or self._log_softmax(nodes, source, exit_)
            )
            if region is not None:
                return region
        nodes = self._walk(exit_, source, _is_linear)
        if nodes is not None and any(n.row.cls is Class.DIAGONAL for n in nodes):
            return Region("Affine", "linear", tuple(nodes), source)
        return None

    def _single(self, node: Node, exit_: Var) -> Region | None:
        """A nonlinear operation of one value."""
        source = node.active[0]
        if not source.carries:
            return None
        if node.row.role in _UNDONE:
            before, op = _UNDONE[node.row.role]
            inner = self.ending_at(source)
            if inner is not None and inner.op == before:
                both = (*inner.nodes, node)
                return Region("Softmax", op, both, inner.source, logits=inner.logits)
        if node.row.role is Role.LOG:
            summed = _exponential(source, sums=True)
            if summed is not None:
                nodes = [*summed, node]
                return self._softmax("logsumexp", nodes, summed[0].inputs[0], exit_)
        squares = node.row.role is Role.PRODUCT and len(node.inputs) == 2 == _count(node, source)
        nonlinear = node.row.cls is Class.ELEMENTWISE or (
            node.row.role is Role.QUOTIENT and node.inputs[1] is source
        )
        if (squares or nonlinear) and exit_.shape == source.shape:
            return Region("Activation", _activation_op([node]), (node,), source)
        return None

    def _walk(self, exit_: Var, source: Var, allowed: Callable[[Node], bool]) -> list[Node] | None:
        """The operations from `source` to `exit_`; None when one of them is not allowed."""
        found: set[Node] = set()
        stack = [exit_]
        while stack:
            var = stack.pop()
            node = var.producer
            if var is source or node is None or node in found:
                continue
            if not allowed(node) or len(found) > _LARGEST:
                return None
            found.add(node)
            stack.extend(node.active)
        return sorted(found, key=lambda n: n.outputs[0].index)

    def _normalization(self, nodes: list[Node], source: Var, exit_: Var) -> Region | None:
        if not any(n.row.role in _REDUCTIONS for n in nodes):
            return None
        weights = invariance.scale_weights(nodes, source)
        if weights is None or weights[exit_] != 0:
            return None
        exponential = _exponential(source)
        if exponential is not None and not self._ends_softmax(exponential[0]):
            inside = [*exponential, *nodes]
            return self._softmax("softmax", inside, exponential[0].inputs[0], exit_)
        live = invariance.affine_path(nodes, exit_, weights) if self._normalizations else None
        if live is None:
            return None
        centred = self._centring(source)
        if centred is not None:
            before, source = centred
            nodes = before + nodes
            live |= {v for n in before for v in n.inputs if v.active}
        return Region(
            "Normalization", "normalization", tuple(nodes), source, frozenset(live | {source})
        )

    def _ends_softmax(self, exponential: Node) -> bool:
        """Whether the exponential is that of a log-softmax: what it normalises is one already."""
        inner = self.ending_at(exponential.outputs[0])
        return inner is not None and inner.kind == "Softmax"

    def _centring(self, var: Var) -> tuple[list[Node], Var] | None:
        """The operations and source of `u - mean(u)`, when that is what `var` is."""
        node = var.producer
        if node is None or node.row.role is not Role.DIFFERENCE or len(node.active) != 2:
            return None
        source = self._dominators.of(node)
        if source is None:
            return None
        nodes = self._walk(var, source, lambda n: _is_linear(n) or _is_sum(n))
        return (nodes, source) if nodes and any(map(_is_sum, nodes)) else None

    def _log_softmax(self, nodes: list[Node], source: Var, exit_: Var) -> Region | None:
        """`x - logsumexp(x)`, or the shifted and unshifted logsumexp itself."""
        node, roles = exit_.producer, {n.row.role for n in nodes}
        if node is None or node.row.role not in (Role.SUM, Role.DIFFERENCE):
            return None
        if Role.EXP not in roles or not roles & set(_REDUCTIONS):
            return None
        weights = invariance.shift_weights(nodes, source)
        if weights is None:
            return None
        terms = [weights.get(v, 0) for v in node.inputs]
        if weights[exit_] == 1 and sorted(terms, key=str) == [0, 1]:
            return self._softmax("logsumexp", nodes, source, exit_)
        if weights[exit_] == 0 and terms == [1, 1] and node.row.role is Role.DIFFERENCE:
            return self._softmax("log_softmax", nodes, source, exit_)
        return None

    def _softmax(self, op: str, nodes: list[Node], source: Var, exit_: Var) -> Region:
        """A softmax with what comes before its exponential: stabilisation, scale and mask."""
        logits = source if source.shape == exit_.shape else None
        while (step := self._before_softmax(source)) is not None:
            before, source = step
            nodes = before + nodes
            if source.shape == exit_.shape:
                logits = source
        ordered = sorted(set(nodes), key=lambda n: n.outputs[0].index)
        return Region("Softmax", op, tuple(ordered), source, logits=logits)

    def _before_softmax(self, var: Var) -> tuple[list[Node], Var] | None:
        node = var.producer
        if node is None or not var.carries:
            return None
        role, active = node.row.role, node.active
        if role is Role.DIFFERENCE and len(active) == 2:  # x - max(x)
            source = self._dominators.of(node)
            nodes = None if source is None else self._walk(var, source, _is_local)
            if source is None or nodes is None or not source.carries:
                return None
            weights = invariance.shift_weights(nodes, source)
            return (nodes, source) if weights is not None and weights[var] == 0 else None
        if len(active) != 1 or not active[0].carries:
            return None
        operand = active[0]
        scale = role in (Role.PRODUCT, Role.NEGATION) or (
            role is Role.QUOTIENT and node.inputs[0] is operand
        )
        offset = role in (Role.SUM, Role.DIFFERENCE)
        if offset and not all(v.uniform for v in node.inputs if v is not operand):
            offset = not _is_classifier(operand)  # an array after a kernel is its bias, not a mask
        moves = role in (Role.CAST, Role.TRANSPOSE, Role.RESHAPE, Role.SELECT)
        if scale or offset or moves:
            return [node], operand
        return None


_UNDONE = {Role.EXP: ("log_softmax", "softmax"), Role.LOG: ("softmax", "log_softmax")}
_REDUCTIONS = (Role.SUM_REDUCTION, Role.EXTREMUM_REDUCTION, Role.DOT)


def _count(node: Node, var: Var) -> int:
    return sum(v is var for v in node.inputs)


def _is_local(node: Node) -> bool:
    if node.row.role is Role.DOT:  # a norm; with a constant operand it is a kernel
        return all(v.active for v in node.inputs)
    return node.row.local and len(node.outputs) == 1  # of several, each is moved on its own


def _is_sum(node: Node) -> bool:
    return node.row.role is Role.SUM_REDUCTION


def _is_linear(node: Node) -> bool:
    """Linear without mixing: sums and concatenations of scaled, moved copies of one value."""
    row, active = node.row, node.active
    if any(not v.carries for v in active):
        return False
    if row.role in (Role.SUM, Role.DIFFERENCE, Role.CONCATENATION):
        return True
    if row.role is Role.QUOTIENT and node.inputs[0] not in active:
        return False
    if row.role in (Role.PRODUCT, Role.QUOTIENT) and sum(v.active for v in node.inputs) > 1:
        return False  # x * x
    return row.cls in (Class.DIAGONAL, Class.STRUCTURAL) and len(active) == 1


def _is_move(node: Node) -> bool:
    """Linear, and each output is made of one entry."""
    single = sum(v.active for v in node.inputs) == 1
    return _is_linear(node) and (single or node.row.role is Role.CONCATENATION)


def _activation(nodes: list[Node], source: Var) -> Region | None:
    """Every operation elementwise on the source's own shape, at least one of them nonlinear."""
    nonlinear = False
    for node in nodes:
        row = node.row
        structural = row.cls is Class.STRUCTURAL and row.role not in (Role.CAST, Role.SELECT)
        reduces = row.cls in (Class.MIXING, Class.SELECTION, Class.UNKNOWN)
        if structural or reduces or any(v.shape != source.shape for v in node.outputs):
            return None
        nonlinear |= row.cls in (Class.ELEMENTWISE, Class.DISCRETE)
        nonlinear |= row.role is Role.PRODUCT and all(v.active for v in node.inputs)
        nonlinear |= row.role is Role.QUOTIENT and node.inputs[1].active
    if not nonlinear:
        return None
    return Region("Activation", _activation_op(nodes), tuple(nodes), source)


def _activation_op(nodes: list[Node]) -> str:
    """Either "rectifier" (straight lines), the name of a single operation, or "elementwise"."""

    def is_straight(node: Node) -> bool:
        product = node.row.role in (Role.PRODUCT, Role.QUOTIENT) and len(node.carrying) != 1
        return node.row.piecewise or (node.row.cls is not Class.ELEMENTWISE and not product)

    squares = len(nodes) == 1 and nodes[0].row.role in (Role.PRODUCT, Role.QUOTIENT)
    if all(map(is_straight, nodes)) and not squares:
        return "rectifier"
    return nodes[0].primitive if len(nodes) == 1 else "elementwise"


def _exponential(var: Var, sums: bool = False) -> list[Node] | None:
    """The operations from an exp to `var`, when only moves and masks (or a sum) lie between."""
    nodes: list[Node] = []
    while var.producer is not None and len(var.producer.active) == 1:
        node = var.producer
        nodes.insert(0, node)
        if node.row.role is Role.EXP:
            return nodes if not sums or any(map(_is_sum, nodes)) else None
        moves = node.row.role in (Role.CAST, Role.SELECT, Role.TRANSPOSE, Role.RESHAPE)
        if not moves and not (sums and (_is_sum(node) or node.row.role is Role.BROADCAST)):
            return None
        var = node.active[0]
    return None


def _is_classifier(var: Var) -> bool:
    """Whether `var` is a kernel applied to one carrying value, perhaps rescaled."""
    while var.producer is not None and len(var.producer.carrying) == 1:
        node = var.producer
        if node.row.role in (Role.DOT, Role.CONVOLUTION):
            return True
        if node.row.cls not in (Class.DIAGONAL, Class.STRUCTURAL):
            return False
        var = node.carrying[0]
    return False
