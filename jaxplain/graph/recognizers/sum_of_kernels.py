"""Sums of dense kernels, `x W + h U`: one layer with several inputs and one stabiliser.

Were they several layers, a recurrence would have other maps as a scan than unrolled.

Taken, each term ending in a dot product of its own:

    c = dot_general a w; d = dot_general b u; e = add c d

Refused, as one term has no kernel (a residual connection, which is a merge), and so is a sum of
convolutions, which the literature splits first:

    c = dot_general a w; d = add a c
"""

from itertools import chain

from jaxplain.graph import boundaries
from jaxplain.graph.ir import Node, Var
from jaxplain.graph.primitives import Role
from jaxplain.graph.recognizers.core import Before, Behind, Core, linear_core
from jaxplain.graph.recognizers.facts import Facts, in_order


def match(node: Node, end: Var, facts: Facts) -> Core | None:
    """The sum of kernels that ends at a value."""
    terms = facts.flow.inputs[node]
    if node.info.role not in (Role.SUM, Role.DIFFERENCE) or len(terms) < 2:
        return None
    if not all(boundaries.ends_with(v, _is_dense, facts) for v in terms):
        return None
    gaps = [boundaries.gap_before(v, facts) for v in terms]
    cores = [gap.core for gap in gaps if gap.core is not None]
    parts = (*(core.nodes for core in cores), *(gap.nodes for gap in gaps), (node,))
    nodes = in_order(chain(*parts))
    inputs = tuple(dict.fromkeys(v for core in cores for v in core.inputs))
    mixing = tuple(n for core in cores for n in core.mixing)
    return linear_core(
        "Affine", "dense", nodes, inputs, mixing=mixing, before=Before.ALL, behind=Behind.ALL
    )


def _is_dense(core: Core) -> bool:
    return core.kind == "Affine" and core.op == "dense"
