"""Layers: what the program is made of, found on demand from its outputs backward.

A layer is a pure function: operations, the values it reads, the value it produces. Layers may
overlap; a value inside one layer that somebody else also wants is asked for in its own right, so
that nothing is lost.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

import jax.numpy as jnp

from jaxplain._compat import Eqn
from jaxplain.graph.chains import Chain, Chains, is_diagonal, is_kernel, is_weighted_sum
from jaxplain.graph.control import Control
from jaxplain.graph.primitives import MAXIMA, Class, Role
from jaxplain.graph.program import Node, Program, Var
from jaxplain.graph.regions import Regions

if TYPE_CHECKING:
    from jaxplain.graph.blocks import Block

#: Steps that no rule is asked for: what only moves values, and what holds layers of its own.
RULELESS = ("Structure", "Loop", "Branch", "Shards")


@dataclass(eq=False)
class Layer:
    """One layer.

    Attributes:
        kind: Affine, Merge, Activation, Softmax, Normalization, Product, Matmul, Selection,
            Unknown; or, without a rule, Structure, which only moves values, and Loop, Branch and
            Shards (of a shard_map), which hold layers.
        op: which of its kind: for Affine "dense", "convolution", "filter" (a kernel whose numbers
            the function spells out, as resizing does), "pooling", "sum", "cumulative", "linear" or
            "scale"; for Activation "rectifier" or the function; for Softmax "softmax",
            "log_softmax" or "logsumexp"; for Product "product" or "quotient"; for the others the
            primitive.
        nodes: its operations in topological order.
        inputs: the values it reads and sends relevance to.
        outputs: the values it produces (one, but for operations with several outputs).
        live: the values on its affine path; the others are constants to it.
        mixing: the operations that mix inputs: its kernel, if it has one.
        name: the module path or parameter path.
        index: position among the layers of the graph, from the input on.
        first, last: a kernel layer with no kernel layer upstream, or downstream, on any path.
        nonnegative: for each input, whether it is provably not negative.
        gates: for each input, whether it provably lies between 0 and 1.
        examples: for each input and the output, the axis that counts examples (None: there is no
            such axis); empty where the explained input is one example.
        blocks: what a loop or branch holds.
        around: the loops and branches that hold the layer, the outermost first.
    """

    kind: str
    op: str
    nodes: tuple[Node, ...]
    inputs: tuple[Var, ...]
    outputs: tuple[Var, ...]
    live: frozenset[Var] = frozenset()
    mixing: tuple[Node, ...] = ()
    name: str = ""
    index: int = -1
    first: bool = False
    last: bool = False
    nonnegative: tuple[bool, ...] = ()
    gates: tuple[bool, ...] = ()
    examples: tuple[int | None, ...] = ()
    blocks: "tuple[Block, ...]" = ()
    around: "tuple[Layer, ...]" = ()

    @property
    def output(self) -> Var:
        """The value that the layer produces."""
        return self.outputs[0]

    @property
    def is_kernel(self) -> bool:
        """Whether the layer has a kernel (dense or convolution)."""
        return self.kind == "Affine" and self.op in ("dense", "convolution")

    @property
    def is_complex(self) -> bool:
        """Whether its values are complex, and its operation would have a rule if they were not."""
        known = self.main.row.cls is not Class.UNKNOWN or self.control is not None
        return known and any(map(_is_complex, (*self.inputs, *self.outputs)))

    @property
    def main(self) -> Node:
        """The operation that stands for the layer: its kernel, else its last operation."""
        return self.mixing[0] if self.mixing else self.nodes[-1]

    @property
    def control(self) -> Control | None:
        """How values get into and out of a loop or branch."""
        return self.nodes[-1].control

    @property
    def bodies(self) -> tuple[Program, ...]:
        """The programs that a loop or branch holds."""
        return self.control.bodies if self.control else ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the output, behind an axis for each loop or mesh of devices around it."""
        copies = (step.control.copies(self.output) for step in self.around if step.control)
        return (*chain(*copies), *self.output.shape)

    def shape_inside(self, step: "Layer") -> tuple[int, ...]:
        """As `shape`, as seen in one iteration of what holds that loop or branch."""
        inner = self.around[self.around.index(step) :]
        return replace(self, around=inner).shape

    @property
    def remat(self) -> tuple[Eqn, ...]:
        """The calls of `jax.checkpoint` that the whole layer was written in."""
        scopes = [n.remat for n in self.nodes]
        return tuple(same[0] for same in zip(*scopes, strict=False) if len(set(map(id, same))) == 1)

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes that a maximum or minimum runs over."""
        reduction = self.main.row.role is Role.EXTREMUM_REDUCTION
        return tuple(self.main.params["axes"]) if reduction else ()

    @property
    def compares(self) -> bool:
        """Whether the layer is the elementwise maximum or minimum of its inputs."""
        return self.main.row.role is Role.EXTREMUM

    @property
    def running(self) -> tuple[int, int] | None:
        """The axis of a running maximum (-1) or minimum (+1); None for other layers."""
        if self.main.row.role is not Role.RUNNING_EXTREMUM:
            return None
        return self.main.params["axis"], -1 if self.main.primitive in MAXIMA else 1

    @property
    def location(self) -> str:
        """`file.py:line` of the user's code that wrote the layer."""
        return self.main.location

    @property
    def constants(self) -> tuple[Var, ...]:
        """The values that the layer reads as constants."""
        made = {v for n in self.nodes for v in n.outputs} | set(self.inputs)
        return tuple(dict.fromkeys(v for n in self.nodes for v in n.inputs if v not in made))

    def __str__(self) -> str:
        return f"{self.index} {self.kind} {self.op} {self.name}".rstrip()


class Grouper:
    """Finds the layer that produces a value."""

    def __init__(self, regions: Regions):
        self._regions = regions
        self._chains = Chains(regions)

    def producing(self, var: Var) -> Layer:
        """The layer whose output is `var`."""
        node = var.producer
        assert node is not None
        if any(_is_complex(v) for v in (var, *node.carrying)):
            return _single("Unknown", node)
        if self._chains.picks(node):
            return _single("Structure", node)
        activation = self._activation(var)
        if activation is not None:
            return activation
        normalization = self._normalization(var)
        if normalization is not None:
            return normalization
        region = self._regions.ending_at(var)
        if region is not None:
            live = frozenset((region.source, *(v for n in region.nodes for v in n.outputs)))
            return Layer(region.kind, region.op, region.nodes, (region.source,), (var,), live)
        chain = self._chains.ending_at(var)
        if chain.nodes:
            return self._affine(chain, var)
        return self._with_offsets(_operation(node))

    def _affine(self, chain: Chain, var: Var) -> Layer:
        if chain.kernel:
            chain = self._chains.prefixed(chain)
        chain = self._leave_to_regions(chain)
        if chain.structural:
            assert var.producer is not None
            return _single("Structure", var.producer)
        if chain.mixing:
            return _layer("Affine", _op(chain), chain, var)
        source = chain.inputs[0]
        if not source.shared and source.producer is not None:
            merge = self._merge(source)
            if merge is not None:
                joined = Chain((*merge.nodes, *chain.nodes), merge.inputs)
                return _layer("Merge", "sum", joined, var)
        return _layer("Affine", "scale", chain, var)

    def _merge(self, var: Var) -> Layer | None:
        if self._regions.ending_at(var) or self._chains.ending_at(var).nodes:
            return None
        assert var.producer is not None
        layer = self._with_offsets(_operation(var.producer))
        return layer if layer.kind == "Merge" else None

    def _with_offsets(self, layer: Layer) -> Layer:
        """A sum with the constants that are added to its terms: `(a + p) + b` is `(a + b) + p`."""
        if layer.kind != "Merge":
            return layer
        nodes, sources = list(layer.nodes), []
        for source in layer.inputs:
            chain = self._chains.ending_at(source)
            free = chain.offsets and not source.shared and chain.inputs[0] not in layer.inputs
            if free and not (self._activation(source) or self._normalization(source)):
                nodes, source = [*chain.nodes, *nodes], chain.inputs[0]
            sources.append(source)
        if len(nodes) == 1:
            return layer
        return _layer("Merge", layer.op, Chain(tuple(nodes), tuple(sources)), layer.output)

    def _leave_to_regions(self, chain: Chain) -> Chain:
        """Leaves what comes right behind an activation or a normalisation to it."""
        nodes, sources = list(chain.nodes), []
        for source in chain.inputs:
            core, region = self._core(source), self._regions.ending_at(source)
            normalized = region is not None and region.kind == "Normalization"
            if normalized or (core is not None and _takes_scales(core)):
                belongs = _is_gain if normalized else _is_uniform
                taken: list[Node] = []
                end = source
                while (node := _reader(nodes, end)) and belongs(node):
                    taken.append(node)
                    end = node.outputs[0]
                    if not _moves(node):
                        nodes = [n for n in nodes if n not in taken]
                        source = end
            sources.append(source)
        return Chain(tuple(nodes), tuple(sources), chain.mixing)

    def _normalization(self, var: Var) -> Layer | None:
        """A normalisation with the scales and offsets behind it.

        Frameworks write its gain and offset inside, behind or between, in half precision behind a
        cast and for groups behind a reshape: all are one layer.
        """
        after: list[Node] = []
        end = var
        while end.producer is not None and _is_gain(end.producer):
            after.insert(0, end.producer)
            end = end.producer.carrying[0]
        region = self._regions.ending_at(end)
        if region is None or region.kind != "Normalization" or (after and _moves(after[-1])):
            return None
        live = region.live | {v for n in after for v in n.outputs}
        nodes = (*region.nodes, *after)
        return Layer("Normalization", region.op, nodes, (region.source,), (var,), live)

    def _core(self, var: Var) -> tuple[list[Node], Var, str] | None:
        """The activation that ends exactly at `var`."""
        region = self._regions.ending_at(var)
        if region is not None and region.kind == "Activation":
            return list(region.nodes), region.source, region.op
        return None

    def _activation(self, var: Var) -> Layer | None:
        """An activation with the uniform operations around it and its neighbours in a line.

        It takes the uniform scales and offsets behind it and the uniform offsets before it. A
        scale *before* an activation stays with the kernel: z+ must see its sign.
        """
        after: list[Node] = []
        end = var
        while end.producer is not None and _is_uniform(end.producer):
            after.insert(0, end.producer)
            end = end.producer.carrying[0]
        core = self._core(end)
        if core is None or (after and not _takes_scales(core)):
            return None
        nodes, source, op = core
        while True:
            before: list[Node] = []
            start = source
            while (
                start.producer is not None
                and _is_uniform(start.producer)
                and _is_read_by([*before, *nodes], start)
            ):
                before.insert(0, start.producer)
                start = start.producer.carrying[0]
            inner = self._core(start)
            if inner is None or not _is_read_by([*before, *nodes], start):
                break
            nodes = [*inner[0], *before, *nodes]
            source = inner[1]
            op = op if op == inner[2] == "rectifier" else "elementwise"
        if after and op == "rectifier":
            op = "elementwise"
        while source.producer is not None and _is_uniform(source.producer, offset=True):
            nodes.insert(0, source.producer)
            source = source.producer.carrying[0]
        return Layer("Activation", op, (*nodes, *after), (source,), (var,))


def offset_exit(layer: Layer) -> Var:
    """The layer's output with the uniform offsets behind it, which an activation takes."""
    var = layer.output
    while not var.shared and _is_uniform(var.consumers[0], offset=True):
        var = var.consumers[0].outputs[0]
    return var


def _takes_scales(core: tuple[list[Node], Var, str]) -> bool:
    """Whether uniform scales and offsets behind an activation belong to it.

    A rectifier's do not: the modified gradients act on the rectifier alone. Behind an offset it is
    a gate such as hard_sigmoid, and takes them.
    """
    _, source, op = core
    before = source.producer
    return op != "rectifier" or (before is not None and _is_uniform(before, offset=True))


def _is_gain(node: Node) -> bool:
    """What may stand between a normalisation and its last scale or offset."""
    cast = node.row.role is Role.CAST and len(node.carrying) == 1
    return is_diagonal(node) or cast or _moves(node)


def _moves(node: Node) -> bool:
    """As between the groups of a normalisation and the channels that have its gain."""
    return node.row.role in (Role.RESHAPE, Role.TRANSPOSE)


def _is_uniform(node: Node, offset: bool = False) -> bool:
    """A scale or offset (or, on request, only an offset) that is the same everywhere."""
    if not is_diagonal(node) or (offset and node.row.role not in (Role.SUM, Role.DIFFERENCE)):
        return False
    return all(v.uniform for v in node.inputs if not v.carries)


def _is_read_by(nodes: Iterable[Node], var: Var) -> bool:
    """Whether nobody but the given operations wants the value's relevance."""
    return not var.wanted and set(var.consumers) <= set(nodes)


def _reader(nodes: Iterable[Node], var: Var) -> Node | None:
    readers = [n for n in nodes if var in n.inputs]
    return readers[0] if len(readers) == 1 else None


def _is_complex(var: Var) -> bool:
    return jnp.issubdtype(var.aval.dtype, jnp.complexfloating)


def _op(chain: Chain) -> str:
    node = chain.mixing[0]
    if is_kernel(node):
        kernel = "dense" if node.row.role is Role.DOT else "convolution"
        return kernel if chain.kernel else "filter"
    if is_weighted_sum(chain):
        return "dense" if chain.kernel else "filter"
    names = {Role.POOLING: "pooling", Role.CUMULATIVE: "cumulative"}
    return names.get(node.row.role, "sum")


def _layer(kind: str, op: str, chain: Chain, var: Var) -> Layer:
    live = frozenset((*chain.inputs, *(v for n in chain.nodes for v in n.outputs)))
    return Layer(kind, op, chain.nodes, chain.inputs, (var,), live, chain.mixing)


def _single(kind: str, node: Node, op: str = "") -> Layer:
    live = frozenset((*node.carrying, *node.outputs))
    exits = tuple(v for v in node.outputs if v.carries)
    return Layer(kind, op or node.primitive, (node,), node.carrying, exits, live)


def _control(node: Node, control: Control) -> Layer:
    """A loop or branch, which sends relevance where its bodies do."""
    inside = [link.outer for link in control.enters if link.inner.carries and link.outer.carries]
    sources = tuple(dict.fromkeys(inside))
    live = frozenset((*sources, *node.outputs))
    return Layer(control.kind, node.primitive, (node,), sources, node.outputs, live)


def _operation(node: Node) -> Layer:
    """The layer of an operation that is neither in a region nor in a chain."""
    cls, role, carrying = node.row.cls, node.row.role, len(node.carrying)
    if node.control is not None:
        return _control(node, node.control)
    if cls is Class.UNKNOWN:
        return _single("Unknown", node)
    if role in (Role.SUM, Role.DIFFERENCE) or (role is Role.SCATTER_SUM and carrying > 1):
        return _single("Merge", node, "sum")
    if role is Role.PRODUCT:
        return _single("Product", node, "product")
    if role is Role.QUOTIENT:
        return _single("Product", node, "quotient")
    if role in (Role.DOT, Role.CONVOLUTION):
        return _single("Matmul", node)
    if cls is Class.SELECTION or (role is Role.EXTREMUM):
        return _single("Selection", node)
    if role is Role.SELECT and node.inputs[0].active:
        return _single("Selection", node, "select")
    if cls is Class.STRUCTURAL:
        return _single("Structure", node)
    fits = [v.shape for v in node.carrying] == [node.outputs[0].shape]
    if cls is Class.ELEMENTWISE and fits:
        return _single("Activation", node)
    return _single("Unknown", node)
