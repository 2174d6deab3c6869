"""Linear subgraphs without a kernel: sums and concatenations of scaled, moved copies of one value.

Taken, a rotation as rotary embeddings write it:

    b c = split a; d = neg c; e = concatenate d b; f = mul a 0.8; g = mul e 0.6; h = add f g

Refused, as each entry is only moved and nothing is scaled or added (its parts are Structure):

    b = rev a; c = concatenate a b
"""

from jaxplain.graph.ir import Node, Var
from jaxplain.graph.primitives import Kind, Role
from jaxplain.graph.recognizers.core import Core, linear_core
from jaxplain.graph.recognizers.facts import Facts, Subgraph

_JOINS = (Role.SUM, Role.DIFFERENCE, Role.CONCATENATION)


def match(node: Node, end: Var, facts: Facts) -> Core | None:
    """The linear subgraph that ends at a value."""
    if len(node.outputs) != 1 or len(facts.flow.active_inputs[node]) < 2:
        return None
    start = facts.dominators.of(node)
    subgraph = facts.subgraph(start, end, lambda n: is_linear(n, facts))
    if subgraph is None or not any(map(_scales, subgraph.nodes)):
        return None
    return linear_core("Affine", "linear", subgraph.nodes, (subgraph.input,))


def is_linear(node: Node, facts: Facts) -> bool:
    """Whether an operation is linear without mixing the entries of one value."""
    info, flow = node.info, facts.flow
    active = flow.active_inputs[node]
    if any(v not in flow.carries_relevance for v in active):
        return False
    if info.role in _JOINS:
        return True
    if info.role is Role.QUOTIENT and node.inputs[0] not in active:
        return False
    if info.role in (Role.PRODUCT, Role.QUOTIENT) and sum(v in active for v in node.inputs) > 1:
        return False  # x * x
    return info.kind in (Kind.DIAGONAL, Kind.STRUCTURAL) and len(active) == 1


def moved_pieces(end: Var, facts: Facts) -> Subgraph | None:
    """Pieces of one value, moved and scaled, put together again: each output reads one entry.

    Reflecting padding is an example. Only a kernel with a scale before it takes them.
    """
    node = end.producer
    if node is None or node.info.role is not Role.CONCATENATION:
        return None
    start = facts.dominators.before(node)
    return facts.subgraph(start, end, lambda n: _is_move(n, facts))


def _is_move(node: Node, facts: Facts) -> bool:
    single = sum(v in facts.flow.active for v in node.inputs) == 1
    return is_linear(node, facts) and (single or node.info.role is Role.CONCATENATION)


def _scales(node: Node) -> bool:
    return node.info.kind is Kind.DIAGONAL
