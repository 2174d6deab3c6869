"""Normalisations: invariant under x -> c x, with a statistic; affine once that is held constant.

Taken, the root mean square:

    b = square a; c = reduce_sum[axes=(1,)] b; d = div c 4.0; e = add d 1e-6; f = rsqrt e
    g = broadcast_in_dim f; h = mul a g

Refused, as 1.0 is too large for the epsilon of a norm, and the quotient is not invariant:

    b = abs a; c = reduce_sum[axes=(1,)] b; d = add c 1.0; e = broadcast_in_dim d; f = div a e
"""

from jaxplain.graph.analyses import invariance
from jaxplain.graph.ir import Node, Var
from jaxplain.graph.primitives import Role
from jaxplain.graph.recognizers import linear_subgraph
from jaxplain.graph.recognizers.core import Behind, Core
from jaxplain.graph.recognizers.facts import Facts, Subgraph


def match(node: Node, end: Var, facts: Facts) -> Core | None:
    """The normalisation that ends at a value."""
    subgraph = facts.local_subgraph(end) if facts.normalizations else None
    weights = None if subgraph is None else invariance.of_norm(*subgraph, end)
    if subgraph is None or weights is None:
        return None
    nodes, source = subgraph
    path = invariance.affine_path(nodes, end, weights)
    if path is None:
        return None
    moves, value = facts.before_moves(source)
    centred = _centring(value, facts)
    if centred is not None:
        before = (*centred.nodes, *moves)
        nodes, source = (*before, *nodes), centred.input
        path |= {v for n in before for v in facts.flow.active_inputs[n]}
    affine_vars, behind = frozenset(path | {source}), Behind.CONSTANTS
    return Core(
        "Normalization", "normalization", nodes, (source,), (end,), affine_vars, behind=behind
    )


def _centring(var: Var, facts: Facts) -> Subgraph | None:
    """The operations and source of `u - mean(u)`, where `var` is that."""
    node = var.producer
    if node is None or node.info.role is not Role.DIFFERENCE:
        return None
    if len(facts.flow.active_inputs[node]) != 2:
        return None
    start = facts.dominators.of(node)
    subgraph = facts.subgraph(start, var, lambda n: _sums(n) or linear_subgraph.is_linear(n, facts))
    return subgraph if subgraph is not None and any(map(_sums, subgraph.nodes)) else None


def _sums(node: Node) -> bool:
    return node.info.role is Role.SUM_REDUCTION
