"""Single operations that no other recognizer takes: products, selections, concatenations, loops.

Taken, a product of two values that both carry relevance:

    c = mul a b

Refused, as it is a scale, which stands between two cores (see `boundaries`):

    b = mul a 2.0
"""

from dataclasses import replace

from jaxplain.graph.ir import Control, Node, Var
from jaxplain.graph.primitives import Kind, Operand, Role
from jaxplain.graph.recognizers.core import Core, linear_core
from jaxplain.graph.recognizers.facts import Facts


def match(node: Node, end: Var, facts: Facts) -> Core | None:
    """The operation that ends at a value; None for scales, offsets and moves."""
    if node.control is not None:
        return _control(node, node.control, facts)
    if facts.is_linear(node):
        return None
    kind, op = _kind(node, facts)
    return single(kind, node, facts, op)


def single(kind: str, node: Node, facts: Facts, op: str = "") -> Core:
    """A core of one operation."""
    core = linear_core(kind, op or node.primitive, (node,), facts.flow.inputs[node])
    outputs = tuple(v for v in node.outputs if v in facts.flow.carries_relevance)
    return replace(core, outputs=outputs)


def _kind(node: Node, facts: Facts) -> tuple[str, str]:
    """The kind and operation of a layer of one operation; "" for the name of the primitive."""
    kind, role = node.info.kind, node.info.role
    if kind is Kind.UNKNOWN:
        return "Unknown", ""
    if role in _PRODUCTS:
        return "Product", _PRODUCTS[role]
    if node.info.multiplies:
        carrying = [v for v in node.inputs if v in facts.flow.carries_relevance]
        return "Matmul" if len(carrying) > 1 else "Unknown", ""
    if kind is Kind.SELECTION or role is Role.EXTREMUM:
        return "Selection", ""
    if any(k is Operand.CONDITION and v in facts.flow.active for k, v in node.operands):
        return "Selection", "select"
    if kind is Kind.STRUCTURAL:
        return "Structure", ""
    inputs = facts.flow.inputs[node]
    fits = [v.shape for v in inputs] == [node.outputs[0].shape]
    return ("Activation" if kind is Kind.ELEMENTWISE and fits else "Unknown"), ""


_PRODUCTS = {Role.PRODUCT: "product", Role.QUOTIENT: "quotient"}


def _control(node: Node, control: Control, facts: Facts) -> Core:
    """A loop, branch or shard_map; its inputs are the operands that its bodies pass relevance."""
    carries = facts.flow.carries_relevance
    inside = [v.outer for v in control.enters if v.inner in carries and v.outer in carries]
    inputs = tuple(dict.fromkeys(inside))
    return linear_core(control.kind, node.primitive, (node,), inputs)
