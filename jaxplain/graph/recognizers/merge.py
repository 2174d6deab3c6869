"""Merges: sums of several values that carry relevance, such as a residual connection.

Taken:

    c = add a b

Refused, as it is an offset, which stands between two cores (see `boundaries`):

    b = add a 1.0
"""

from jaxplain.graph.ir import Node, Var
from jaxplain.graph.primitives import Role
from jaxplain.graph.recognizers.core import Before, Behind, Core, linear_core
from jaxplain.graph.recognizers.facts import Facts

_SUMS = (Role.SUM, Role.DIFFERENCE, Role.SCATTER_SUM)


def match(node: Node, end: Var, facts: Facts) -> Core | None:
    """The sum that ends at a value."""
    inputs = facts.flow.inputs[node]
    if node.info.role not in _SUMS or len(inputs) < 2:
        return None
    before, behind = Before.CONSTANTS_ADDED, Behind.CONSTANTS_ADDED
    return linear_core("Merge", "sum", (node,), inputs, before=before, behind=behind)
