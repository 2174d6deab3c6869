"""What a reader of a plan should know beside its table."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from jaxplain.graph import Graph
from jaxplain.graph.primitives import ROUNDING

if TYPE_CHECKING:
    from jaxplain.plan import Plan

_UNROLL = "(jaxplain.unroll writes loops out)"


def of(plan: "Plan") -> Iterator[str]:
    """A plan's notes."""
    graph = plan.graph
    if graph.softmax:
        yield f"the trailing {graph.softmax} is left out: targets are logits"
    elif graph.probabilities:
        yield "the output is that of a softmax: targets are probabilities"
    if plan.unknown:
        yield f"{len(plan.unknown)} layers without a rule are differentiated as written"
    if loops := _loops_without_first(plan):
        yield f"no kernel is first: those in {loops} also come behind themselves {_UNROLL}"
    if scales := _scales_at_edges(graph):
        yield f"{scales}: at the edge of a loop, branch or mesh, which no layer crosses {_UNROLL}"
    if cuts := _rounding(graph):
        yield f"nothing flows through {cuts}: what is rounded is a constant"


def _loops_without_first(plan: "Plan") -> str:
    """The loops that hold the kernels, where the composite has a rule for the first in vain."""
    asked = any("first" in str(match) for match, _ in plan.composite.entries)
    if not asked or any(layer.first for layer in plan.graph.layers):
        return ""
    loops = (k.around[0].name for k in plan.graph.layers if k.is_kernel and k.around)
    return ", ".join(dict.fromkeys(loops))


def _scales_at_edges(graph: Graph) -> str:
    """The layers that would perhaps be part of a kernel without a loop, branch or mesh."""
    controls = [node.control for node in graph.program.walk() if node.control is not None]
    links = [link for control in controls for link in (*control.enters, *control.leaves)]
    edges = {v for link in links for v in (link.inner, link.outer)}
    scales = (layer for layer in graph.layers if layer.op == "scale")
    return ", ".join(k.name for k in scales if not edges.isdisjoint((*k.sources, *k.exits)))


def _rounding(graph: Graph) -> str:
    """The operations that cut the explained input's values off by rounding them."""
    cuts = (
        f"{node.primitive} at {node.source or 'unknown place'}"
        for node in graph.program.walk()
        if node.primitive in ROUNDING and any(v.active and v.floating for v in node.inputs)
    )
    return ", ".join(dict.fromkeys(cuts))
