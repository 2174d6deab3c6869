"""Kernels and other weighted sums of one value: dot products, convolutions, pooling, means.

Taken, a dense layer's product (its bias is a neighbour, see `boundaries`):

    b = dot_general[contracting=([1], [0])] a w

Refused, as nothing is summed and the operation scales, entry by entry:

    b = dot_general[batch=([0], [0])] a w
"""

from jaxplain.graph.ir import Node, Var
from jaxplain.graph.recognizers import boundaries
from jaxplain.graph.recognizers.core import Core
from jaxplain.graph.recognizers.facts import Facts
from jaxplain.graph.recognizers.mixing import mixes, mixing_core
from jaxplain.graph.recognizers.moving_kernel import has_weights


def match(node: Node, end: Var, facts: Facts) -> Core | None:
    """The kernel that ends at a value."""
    if not facts.is_linear(node) or not mixes(node, facts.flow):
        return None
    if boundaries.continues_kernel(node, facts):
        return None
    fixed = node.info.multiplies and not has_weights(node, facts.flow)
    return mixing_core("filter" if fixed else node.info.op, (node,), facts)
