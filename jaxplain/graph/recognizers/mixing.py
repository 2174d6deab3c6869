"""Cores whose outputs are weighted sums of many inputs: kernels, pooling, means."""

from collections.abc import Sequence

from jaxplain.graph import layouts
from jaxplain.graph.analyses.flow import Flow
from jaxplain.graph.contractions import contraction
from jaxplain.graph.ir import Node
from jaxplain.graph.primitives import Kind, Role
from jaxplain.graph.recognizers.core import Before, Behind, Core, linear_core
from jaxplain.graph.recognizers.facts import Facts

#: The `op` of affine layers without weights of their own.
WITHOUT_WEIGHTS = ("filter", "pooling", "sum", "cumulative", "linear", "scale")


def mixing_core(op: str, nodes: tuple[Node, ...], facts: Facts) -> Core:
    """A core of operations in a row, the last of which mixes."""
    inputs = facts.flow.inputs[nodes[0]]
    before = Before.ALL if op not in WITHOUT_WEIGHTS else Before.UNSHARED
    return linear_core(
        "Affine", op, nodes, inputs, mixing=nodes[-1:], before=before, behind=Behind.ALL
    )


def mixes(node: Node, flow: Flow) -> bool:
    """Whether outputs are sums over inputs; an einsum without a sum, `i,i->i`, is a scale."""
    if node.info.role is Role.SCATTER_SUM and node.inputs[0] in flow.carries_relevance:
        return False  # constants are added
    axes = contraction(node)
    if axes is not None and not axes.slides:
        return bool(axes.contracted[0])
    return node.info.kind is Kind.MIXING


def sums_copies(nodes: Sequence[Node], mixing: Node, flow: Flow) -> bool:
    """Whether `mixing` would add up copies that a broadcast before it made.

    An entry of the joint matrix would then be a sum of weights, whose sign is no product of signs:
    `broadcast_to(x, (3, 4)) * W` summed over axis 0. Copies that stay apart
    (`(x[:, :, None] * W).sum(1)`) are fine.
    """
    layout = layouts.original(flow.inputs[nodes[0]][0].shape)
    for node in nodes:
        follows = flow.inputs[node][0].shape == layout.shape  # else it is of another branch
        keeps = follows and (layouts.copies(node) or node.info.kind is Kind.DIAGONAL)
        behind = layouts.after(node, layout) if keeps else None
        if behind is None and layout.parts(copies=True):
            return True
        layout = behind or layouts.original(node.outputs[0].shape)
    parts, sums = layouts.spans(layout.shape), mixing.info.role is Role.SUM_REDUCTION
    summed = [parts[axis] for axis in mixing.params["axes"]] if sums else parts
    return layouts.meet(layout.parts(copies=True), summed)
