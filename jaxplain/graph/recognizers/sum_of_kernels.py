"""Sums of dense kernels, `x W + h U`: one layer with several inputs and one stabiliser.

Were they several layers, a recurrence would have other maps as a scan than unrolled.

Taken, each term ending in a dot product of its own, or in several whose outputs are concatenated:

    c = dot_general a w; d = dot_general b u; e = add c d

Refused, as one term has no kernel (a residual connection, which is a merge), and so is a sum of
convolutions, which the literature splits first:

    c = dot_general a w; d = add a c
"""

from jaxplain.graph.ir import Node, Var
from jaxplain.graph.primitives import Role
from jaxplain.graph.recognizers import boundaries
from jaxplain.graph.recognizers.core import Before, Behind, Core, linear_core
from jaxplain.graph.recognizers.facts import Facts, in_order


def match(node: Node, end: Var, facts: Facts) -> Core | None:
    """The sum of kernels that ends at a value."""
    terms = facts.flow.inputs[node]
    if node.info.role not in (Role.SUM, Role.DIFFERENCE) or len(terms) < 2:
        return None
    kernels: list[Core] = []
    nodes = [node]
    if not all(_ends_with_kernels(v, facts, kernels, nodes) for v in terms):
        return None
    inputs = tuple(dict.fromkeys(v for core in kernels for v in core.inputs))
    mixing = tuple(n for core in kernels for n in core.mixing)
    sides = {"before": Before.ALL, "behind": Behind.ALL}
    return linear_core("Affine", "dense", in_order(nodes), inputs, mixing=mixing, **sides)


def _ends_with_kernels(end: Var, facts: Facts, kernels: list[Core], nodes: list[Node]) -> bool:
    """Whether a value is that of kernels and their neighbours, read by one operation only.

    Args:
        end: the value.
        facts: the facts about the program.
        kernels: the kernels are added here.
        nodes: the operations are added here.
    """
    gap = boundaries.gap_before(end, facts)
    core = gap.core
    if core is None or not gap.alone or facts.flow.shared(end):
        return False
    nodes += (*core.nodes, *gap.nodes)
    if core.kind == "Structure" and core.nodes[-1].info.role is Role.CONCATENATION:
        return all(_ends_with_kernels(v, facts, kernels, nodes) for v in core.inputs)
    kernels.append(core)
    return core.kind == "Affine" and core.op == "dense"
