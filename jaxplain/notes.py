"""Notes to read beside the table of a plan."""

from collections.abc import Callable, Iterator, Sequence

from jaxplain.composites import Composite
from jaxplain.errors import join_some
from jaxplain.graph import Graph, Layer
from jaxplain.graph.analyses import flow
from jaxplain.graph.ir import Node, Var

_UNROLL = "(jaxplain.unroll writes loops out)"


def describe(graph: Graph, composite: Composite, unknown: Sequence[Layer]) -> Iterator[str]:
    """The notes of a plan.

    Args:
        graph: the traced function.
        composite: the rules that were asked for.
        unknown: the layers that have none, and are differentiated.
    """
    if graph.left_out:
        yield f"the trailing {graph.left_out} is left out: targets are logits"
    elif graph.probabilities:
        yield f"the output is that of a {graph.probabilities}: targets are probabilities"
    if unknown:
        yield f"{len(unknown)} layers without a rule are differentiated as written"
    if loops := _loops_without_first(graph, composite):
        yield f"no kernel is first: those in {loops} also come behind themselves {_UNROLL}"
    for cut, advice in zip(_cut_at_edges(graph), ("", f" {_UNROLL}"), strict=True):
        if cut:
            yield f"{cut} may belong to a layer beyond the edge of a loop, branch or mesh{advice}"
    if factors := _nested_products(graph):
        yield (
            f"{factors}: a product of several factors, which share by halves: how it is bracketed "
            "decides (to choose: a rule of your own for kind('Product', 'Matmul'), or "
            "jax.lax.stop_gradient around a factor)"
        )
    if rounding := cuts(graph, lambda node: node.info.rounds):
        yield f"nothing flows through {rounding}: what is rounded is a constant"
    if chosen := _chosen(graph):
        yield (
            f"nothing flows through the custom derivative at {chosen}: what it returns is chosen "
            "by its input, not made of it"
        )


def cuts(graph: Graph, among: Callable[[Node], bool] = lambda node: True) -> str:
    """The operations through which nothing flows from the explained inputs, and where they stand.

    Args:
        graph: the traced function.
        among: the operations that are asked about.
    """
    nodes = filter(among, flow.cuts(graph.program, graph.explained))
    return join_some(f"{node.primitive} at {node.location or 'unknown place'}" for node in nodes)


def _chosen(graph: Graph) -> str:
    """The custom derivatives, by location, through which no relevance flows."""
    reached = flow.reached(graph.program, graph.explained)
    return join_some(
        call.location or "unknown place"
        for program in graph.program.bodies()
        for call in program.custom_calls
        if not reached.isdisjoint(call.inputs)
        and reached.isdisjoint(call.outputs)
        and any(v in graph.flow.active and v.floating for v in call.outputs)
    )


def _nested_products(graph: Graph) -> str:
    """The products, by name, one operand of which is a product itself."""
    products = [layer for layer in graph.layers if layer.kind in ("Product", "Matmul")]
    made = {layer.output for layer in products if layer.op != "quotient"}
    return join_some(
        layer.name
        for layer in products
        if not made.isdisjoint(layer.inputs) and len(layer.inputs) > 1
    )


def _loops_without_first(graph: Graph, composite: Composite) -> str:
    """The loops that hold the kernels, where the composite has a rule for the first in vain."""
    asked = any("first" in str(match) for match, _ in composite.entries)
    if not asked or any(layer.first for layer in graph.layers):
        return ""
    loops = (k.around[0].name for k in graph.layers if k.is_kernel and k.around)
    return ", ".join(dict.fromkeys(loops))


def _cut_at_edges(graph: Graph) -> tuple[str, str]:
    """The layers that would perhaps be larger without a loop, branch or mesh.

    Scales beside a kernel, and sums with one. A sum with a scanned input or output of a loop would
    be cut in the unrolled loop too.

    Returns:
        The layers that end at others than loops, or at slices; those that end at loops alone.
    """
    kernels = {layer.output for layer in graph.layers if layer.is_kernel}
    whole: set[Var] = set()
    looped: set[Var] = set()
    edges: set[Var] = set()
    for control in (node.control for node in graph.program.walk() if node.control):
        for link in (*control.enters, *control.leaves):
            ends = {link.inner, link.outer}
            edges |= ends
            if not link.sliced:
                whole |= ends
                looped |= ends if control.kind == "Loop" else set()
                kernels |= ends if not kernels.isdisjoint(ends) else set()
    cut: tuple[list[str], list[str]] = ([], [])
    for layer in graph.layers:
        if layer.op == "scale":
            at = edges.intersection((*layer.inputs, *layer.outputs))
        elif layer.kind == "Merge" and not kernels.isdisjoint(layer.inputs):
            at = whole.intersection(v for v in layer.inputs if not graph.flow.shared(v))
        else:
            continue
        if at:
            cut[at <= looped].append(layer.name)
    return ", ".join(cut[False]), ", ".join(cut[True])
