"""Sums of dense kernels, `x W + h U`: one layer with several inputs and one stabiliser.

Were they several layers, a recurrence would have other maps as a scan than unrolled.

Taken, each term ending in a dot product of its own, or in several whose outputs are concatenated:

    c = dot_general a w; d = dot_general b u; e = add c d

Refused, as one term has no kernel (a residual connection, which is a merge), and so is a sum of
convolutions, which the literature splits first:

    c = dot_general a w; d = add a c
"""

from jaxplain.graph.ir import Node, Var
from jaxplain.graph.recognizers import boundaries, merge
from jaxplain.graph.recognizers.core import Core
from jaxplain.graph.recognizers.facts import Facts


def match(node: Node, end: Var, facts: Facts) -> Core | None:
    """The sum of kernels that ends at a value."""
    core = merge.match(node, end, facts)
    return None if core is None else boundaries.joint_kernel(core, facts)
