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
from jaxplain.graph.recognizers.facts import Facts, Subgraph

_REDUCES = (Kind.MIXING, Kind.SELECTION, Kind.UNKNOWN)
_PRODUCTS = (Role.PRODUCT, Role.QUOTIENT)


def match(node: Node, end: Var, facts: Facts) -> Core | None:
    """The activation that ends at a value."""
    flow = facts.flow
    (source, *others) = flow.active_inputs[node]
    if facts.guards_nothing(node):
        return None
    if others:
        subgraph = facts.local_subgraph(end)
        if subgraph is None or not _is_elementwise(*subgraph, flow):
            return None
    else:
        keeps = len(node.outputs) == 1 and end.shape == source.shape
        if not keeps or source not in flow.carries_relevance or not _bends(node, flow):
            return None
        subgraph = Subgraph((node,), source)
    nodes = subgraph.nodes
    squares = len(nodes) == 1 and node.info.role in _PRODUCTS
    if not (squares or facts.is_guard(node)) and all(_is_straight(n, flow) for n in nodes):
        return _core("rectifier", *subgraph)
    return _core(node.primitive if len(nodes) == 1 else "elementwise", *subgraph)


def joined(first: Core, between: Sequence[Node], second: Core) -> Core:
    """Two activations in a line, with numbers and moves between them, as one."""
    op = "rectifier" if first.op == second.op == "rectifier" else "elementwise"
    return _core(op, (*first.nodes, *between, *second.nodes), first.inputs[0])


def _core(op: str, nodes: tuple[Node, ...], source: Var) -> Core:
    sides = (Before.NUMBERS_ADDED, Behind.NOTHING if op == "rectifier" else Behind.NUMBERS)
    return Core("Activation", op, nodes, (source,), nodes[-1].outputs, frozenset(), (), *sides)


def _is_straight(node: Node, flow: Flow) -> bool:
    """Whether an operation is piecewise linear."""
    carries = [v in flow.carries_relevance for v in node.inputs]
    if node.info.role in _PRODUCTS:
        return sum(carries) < 2 and not (node.info.role is Role.QUOTIENT and carries[1])
    return node.info.piecewise or node.info.kind is not Kind.ELEMENTWISE


def _is_elementwise(nodes: Sequence[Node], source: Var, flow: Flow) -> bool:
    """Whether each entry of the last value is made of the same entry of the source alone."""
    layout_of: dict[Var, Layout] = {source: layouts.original(source.shape)}
    for node in nodes:
        (layout, *others) = {layout_of[v] for v in flow.active_inputs[node]}
        if others or node.info.kind in _REDUCES:
            return False
        moved: Layout | None = layout
        stays = node.info.kind is not Kind.STRUCTURAL or node.info.role is Role.SELECT
        if layouts.is_move(node):
            moved = layouts.after(node, layout)
        elif not stays or any(v.shape != layout.shape for v in node.outputs):
            moved = None
        if moved is None:
            return False
        layout_of |= dict.fromkeys(node.outputs, moved)
    return any(_bends(node, flow) for node in nodes)


def _bends(node: Node, flow: Flow) -> bool:
    """Whether an operation is nonlinear in the values that it is given."""
    if node.info.role is Role.PRODUCT:
        return all(v in flow.active for v in node.inputs)
    if node.info.role is Role.QUOTIENT:
        return node.inputs[1] in flow.active
    return node.info.kind in (Kind.ELEMENTWISE, Kind.DISCRETE)
