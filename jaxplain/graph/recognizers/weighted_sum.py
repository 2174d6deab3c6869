"""Dot products spelled out: a sum over an axis along which the weights of a product vary.

Taken, a dense layer:

    b = broadcast_in_dim[shape=(2, 3, 4)] a; c = mul b w; d = reduce_sum[axes=(1,)] c

Refused, as w of shape (2, 1) has one entry along the axis summed over: a scale before a sum:

    b = mul a w; c = reduce_sum[axes=(1,)] b
"""

from collections.abc import Sequence

from jaxplain.graph import layouts
from jaxplain.graph.ir import Node, Var
from jaxplain.graph.primitives import Kind, Role
from jaxplain.graph.recognizers import boundaries
from jaxplain.graph.recognizers.core import Core
from jaxplain.graph.recognizers.facts import Facts
from jaxplain.graph.recognizers.mixing import mixing_core, sums_copies
from jaxplain.graph.recognizers.moving_kernel import has_weights


def match(node: Node, end: Var, facts: Facts) -> Core | None:
    """The weighted sum that ends at a value."""
    if node.info.role is not Role.SUM_REDUCTION or not facts.is_linear(node):
        return None
    weights = _weights(node, facts)
    if not weights or sums_copies(weights, node, facts.flow):
        return None
    products = [n for n in weights if n.info.role is Role.PRODUCT]
    op = "dense" if any(has_weights(n, facts.flow) for n in products) else "filter"
    return mixing_core(op, (*weights, node), facts)


def _weights(total: Node, facts: Facts) -> tuple[Node, ...]:
    """The operations before a sum from the products with its weights on; none without weights.

    The last product may be taken from a kernel that it stands behind, earlier products may not. A
    broadcast right before the products makes the copies that the weights tell apart.
    """
    (value,) = facts.flow.inputs[total]
    if facts.flow.shared(value):
        return ()
    gap = boundaries.gap_before(value, facts)
    first = None
    for place in reversed(range(gap.unshared, len(gap.nodes))):
        node = gap.nodes[place]
        if not layouts.is_move(node) and node.info.kind is not Kind.DIAGONAL:
            break
        free = first is None or place >= gap.behind
        if node.info.role is Role.PRODUCT and free and _vary(gap.nodes[place:], total, facts):
            first = place
    if first is None:
        return ()
    copies = first > gap.unshared and gap.nodes[first - 1].info.role is Role.BROADCAST
    return gap.nodes[first - copies :]


def _vary(nodes: Sequence[Node], total: Node, facts: Facts) -> bool:
    """Whether the weights of a product, the first of some operations, vary along a sum behind."""
    product, *behind = nodes
    layout: layouts.Layout | None = (start := layouts.original(product.outputs[0].shape))
    for node in behind:
        layout = layout and layouts.after(node, layout)
    summed = layout.read(total.params["axes"]) if layout else start.parts(copies=False)
    weights = [v for v in product.inputs if v not in facts.flow.carries_relevance]
    copies = [layouts.after(product, layouts.of_copies(v)) for v in weights]
    return any(c is None or layouts.meet(c.parts(copies=False), summed) for c in copies)
