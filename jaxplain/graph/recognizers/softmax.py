"""Softmax, log-softmax and log-sum-exp, with the stabilising shift, temperature and mask before.

Taken, a softmax: invariant when its exponentials are scaled, as a normalisation of them is:

    b = exp a; c = reduce_sum[axes=(1,)] b; d = broadcast_in_dim c; e = div b d

Taken, a log-softmax: invariant under x -> x + c through an exponential:

    b = exp a; c = reduce_sum[axes=(1,)] b; d = log c; e = broadcast_in_dim d; f = sub a e

Refused, as the 1.0 in the sum does not scale with the exponentials:

    b = exp a; c = reduce_sum[axes=(1,)] b; d = add c 1.0; e = broadcast_in_dim d; f = div b e
"""

from collections.abc import Sequence

from jaxplain.graph.analyses import invariance
from jaxplain.graph.ir import Node, Var
from jaxplain.graph.layouts import is_move
from jaxplain.graph.primitives import Kind, Role
from jaxplain.graph.recognizers.core import Core, linear_core
from jaxplain.graph.recognizers.facts import Facts, in_order

#: The operations that turn the one softmax into the other: `exp(log_softmax(x))` is a softmax.
_INVERSE = {Role.EXP: ("log_softmax", "softmax"), Role.LOG: ("softmax", "log_softmax")}


def match(node: Node, end: Var, facts: Facts) -> Core | None:
    """The softmax that ends at a value."""
    if len(facts.flow.active_inputs[node]) == 1:
        return _of_one_value(node, facts)
    subgraph = facts.local_subgraph(end)
    if subgraph is None:
        return None
    nodes, source = subgraph
    exponential = _exponential(source, facts)
    inner = facts.core(exponential[0].outputs[0]) if exponential else None
    of_softmax = inner is not None and inner.kind == "Softmax"  # divided by another norm
    if exponential and not of_softmax and invariance.of_norm(nodes, source, end) is not None:
        start = exponential[0].inputs[0]
        return _softmax("softmax", [*exponential, *nodes], start, facts)
    op = _log_op(nodes, source, end)
    return _softmax(op, nodes, source, facts) if op else None


def _of_one_value(node: Node, facts: Facts) -> Core | None:
    """The exponential of a log-softmax, the logarithm of a softmax or of a sum of exponentials."""
    (source,) = facts.flow.active_inputs[node]
    if node.info.role not in _INVERSE or source not in facts.flow.carries_relevance:
        return None
    before, op = _INVERSE[node.info.role]
    moves, value = facts.before_moves(source)
    inner = facts.core(value)
    if inner is not None and inner.op == before:
        return linear_core("Softmax", op, (*inner.nodes, *moves, node), inner.inputs)
    summed = _exponential(source, facts, sums=True) if node.info.role is Role.LOG else None
    if summed is None:
        return None
    return _softmax("logsumexp", [*summed, node], summed[0].inputs[0], facts)


def _log_op(nodes: Sequence[Node], source: Var, end: Var) -> str:
    """Whether `x - logsumexp(x)` ends here, or the shifted and unshifted logsumexp itself."""
    node, roles = nodes[-1], {n.info.role for n in nodes}
    if node.info.role not in (Role.SUM, Role.DIFFERENCE) or Role.EXP not in roles:
        return ""
    if not invariance.reduces(nodes):
        return ""
    weights = invariance.shift_weights(nodes, source)
    if weights is None:
        return ""
    terms = [weights.get(v, 0) for v in node.inputs]
    if weights[end] == 1 and sorted(terms, key=str) == [0, 1]:
        return "logsumexp"
    if weights[end] == 0 and terms == [1, 1] and node.info.role is Role.DIFFERENCE:
        return "log_softmax"
    return ""


def _exponential(var: Var, facts: Facts, sums: bool = False) -> list[Node] | None:
    """The operations from an exp to a value, with only moves and masks (or a sum) between them."""
    nodes: list[Node] = []
    summed = False
    while var.producer is not None:
        node = var.producer
        active = facts.flow.active_inputs.get(node, ())
        if len(active) != 1:
            return None
        nodes.insert(0, node)
        role = node.info.role
        if role is Role.EXP:
            return nodes if summed or not sums else None
        summed |= role is Role.SUM_REDUCTION
        masks = _moves(node) or role is Role.PRODUCT
        passes = masks or (sums and role in (Role.SUM_REDUCTION, Role.BROADCAST))
        if not passes:
            return None
        (var,) = active
    return None


def _softmax(op: str, nodes: Sequence[Node], source: Var, facts: Facts) -> Core:
    """A softmax with the stabilising shift, temperature and mask before its exponential."""
    while (step := _before(source, facts)) is not None:
        before, source = step
        nodes = [*before, *nodes]
    return linear_core("Softmax", op, in_order(nodes), (source,))


def _before(var: Var, facts: Facts) -> tuple[Sequence[Node], Var] | None:
    """The operations before a value that belong to the softmax behind it, and their input."""
    node = var.producer
    if node is None or var not in facts.flow.carries_relevance or var in facts.flow.explained:
        return None
    role, active = node.info.role, facts.flow.active_inputs[node]
    if role is Role.DIFFERENCE and len(active) == 2:  # x - max(x)
        subgraph = facts.local_subgraph(var)
        weights = None if subgraph is None else invariance.shift_weights(*subgraph)
        return subgraph if weights is not None and weights[var] == 0 else None
    if len(active) != 1 or active[0] not in facts.flow.carries_relevance:
        return None
    (operand,) = active
    scales = role in (Role.PRODUCT, Role.NEGATION) or (
        role is Role.QUOTIENT and node.inputs[0] is operand
    )
    adds = role in (Role.SUM, Role.DIFFERENCE)
    if adds and not all(v.uniform for v in node.inputs if v is not operand):
        adds = not _is_classifier(operand, facts)  # an array behind a kernel is its bias, no mask
    if scales or adds or _moves(node):
        return (node,), operand
    return None


def _moves(node: Node) -> bool:
    """Whether an operation moves or masks one value."""
    return is_move(node) or node.info.role is Role.SELECT


def _is_classifier(var: Var, facts: Facts) -> bool:
    """Whether a value is a kernel applied to one value, perhaps rescaled or moved."""
    while var.producer is not None and len(facts.flow.inputs.get(var.producer, ())) == 1:
        node = var.producer
        if node.info.multiplies:
            return True
        if node.info.kind not in (Kind.DIAGONAL, Kind.STRUCTURAL):
            return False
        (var,) = facts.flow.inputs[node]
    return False
