"""Activations: nonlinear functions of one value, entry by entry.

Taken, silu:

    b = logistic a; c = mul a b

Taken, as each entry comes back to its place before it is multiplied:

    b = transpose a; c = logistic b; d = transpose c; e = mul a d

Refused, as entries are multiplied by other entries (a Product takes the `mul`):

    b = transpose a; c = mul a b
"""

from collections.abc import Sequence

from jaxplain.graph import layouts
from jaxplain.graph.analyses.flow import Flow
from jaxplain.graph.ir import Node, Var
from jaxplain.graph.layouts import Layout
from jaxplain.graph.primitives import Kind, Role
from jaxplain.graph.recognizers.core import Before, Behind, Core
from jaxplain.graph.recognizers.facts import Facts

_REDUCES = (Kind.MIXING, Kind.SELECTION, Kind.UNKNOWN)
_BENDS = (Kind.ELEMENTWISE, Kind.DISCRETE)
_PRODUCTS = (Role.PRODUCT, Role.QUOTIENT)


def match(end: Var, facts: Facts) -> Core | None:
    """The activation that ends at a value."""
    assert end.producer is not None
    active = facts.flow.active_inputs[end.producer]
    if len(active) == 1:
        return _single(end.producer, active[0], facts)
    subgraph = facts.local_subgraph(end)
    if subgraph is None or not _is_elementwise(*subgraph, facts.flow):
        return None
    return _core(subgraph.nodes, subgraph.input, facts.flow)


def joined(first: Core, between: Sequence[Node], second: Core) -> Core:
    """Two activations in a line, with numbers and moves between them, as one."""
    op = "rectifier" if first.op == second.op == "rectifier" else "elementwise"
    nodes = (*first.nodes, *between, *second.nodes)
    return _activation(op, nodes, first.inputs[0])


def _single(node: Node, source: Var, facts: Facts) -> Core | None:
    """A nonlinear operation of one value."""
    (end, *others) = node.outputs
    if source not in facts.flow.carries_relevance or others or end.shape != source.shape:
        return None
    squares = node.info.role is Role.PRODUCT and all(v is source for v in node.inputs)
    divides = node.info.role is Role.QUOTIENT and node.inputs[1] is source
    if squares or divides or node.info.kind is Kind.ELEMENTWISE:
        return _core((node,), source, facts.flow)
    return None


def _core(nodes: tuple[Node, ...], source: Var, flow: Flow) -> Core:
    squares = len(nodes) == 1 and nodes[0].info.role in _PRODUCTS
    if not squares and all(_is_straight(node, flow) for node in nodes):
        op = "rectifier"
    else:
        op = nodes[0].primitive if len(nodes) == 1 else "elementwise"
    return _activation(op, nodes, source)


def _activation(op: str, nodes: tuple[Node, ...], source: Var) -> Core:
    behind = Behind.NOTHING if op == "rectifier" else Behind.NUMBERS
    return Core(
        "Activation",
        op,
        nodes,
        (source,),
        nodes[-1].outputs,
        frozenset(),
        before=Before.NUMBERS_ADDED,
        behind=behind,
    )


def _is_straight(node: Node, flow: Flow) -> bool:
    """Whether an operation is piecewise linear."""
    bends = node.info.kind is Kind.ELEMENTWISE
    bends |= node.info.role in _PRODUCTS and len(flow.inputs[node]) != 1
    return node.info.piecewise or not bends


def _is_elementwise(nodes: Sequence[Node], source: Var, flow: Flow) -> bool:
    """Whether each entry of the last value is made of the same entry of the source alone."""
    layout_of: dict[Var, Layout] = {source: layouts.original(source.shape)}
    bends = False
    for node in nodes:
        info = node.info
        operands = {layout_of[v] for v in flow.active_inputs[node]}
        if len(operands) != 1 or info.kind in _REDUCES:
            return False
        (layout,) = operands
        moved: Layout | None = layout
        if layouts.is_move(node):
            moved = layouts.after(node, layout)
        elif (info.kind is Kind.STRUCTURAL and info.role is not Role.SELECT) or any(
            v.shape != layouts.shape(layout) for v in node.outputs
        ):
            return False
        if moved is None:
            return False
        layout_of |= dict.fromkeys(node.outputs, moved)
        bends |= info.kind in _BENDS
        bends |= info.role is Role.PRODUCT and all(v in flow.active for v in node.inputs)
        bends |= info.role is Role.QUOTIENT and node.inputs[1] in flow.active
    return bends
