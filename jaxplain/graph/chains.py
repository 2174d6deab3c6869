"""Chains: maximal runs of linear operations around at most one mixing operation.

Bias, BatchNorm on either side of a kernel, input normalisation, padding and casts are thus in the
kernel's own layer, however they are spelled; canonisation is a consequence, not a feature.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxplain.graph.filters import has_weights, picks
from jaxplain.graph.primitives import Class, Role
from jaxplain.graph.program import Node, Var
from jaxplain.graph.regions import Regions


@dataclass(frozen=True)
class Chain:
    """Linear operations that end at one value.

    Attributes:
        nodes: in topological order; empty when the value's producer is not linear.
        inputs: the values that the chain is a function of.
        mixing: its mixing operations: one, or the kernels of a sum `x W + h U`, or none.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[Var, ...]
    mixing: tuple[Node, ...] = ()

    @property
    def structural(self) -> bool:
        """Whether the chain only moves values."""
        return not self.mixing and all(n.row.cls is Class.STRUCTURAL for n in self.nodes)

    @property
    def offsets(self) -> bool:
        """Whether the chain only adds constants."""
        return bool(self.nodes) and not self.mixing and all(map(_is_offset, self.nodes))

    @property
    def kernel(self) -> bool:
        """Whether the mixing operation has weights."""
        return any(map(has_weights, (*filter(is_kernel, self.mixing), *_spelled_out(self))))


def is_diagonal(node: Node) -> bool:
    """A scale or offset of one value by constants."""
    if node.row.cls is not Class.DIAGONAL or len(node.carrying) != 1 or len(node.active) != 1:
        return False
    operand = node.carrying[0]
    if node.outputs[0].shape != operand.shape or sum(v is operand for v in node.inputs) > 1:
        return False
    return node.row.role is not Role.QUOTIENT or node.inputs[0] is operand


def _is_offset(node: Node) -> bool:
    """Whether the operation only adds constants."""
    turned = node.row.role is Role.DIFFERENCE and not node.inputs[0].carries
    return is_diagonal(node) and node.row.role in (Role.SUM, Role.DIFFERENCE) and not turned


def is_kernel(node: Node) -> bool:
    """A dot product or a convolution with constants."""
    return node.row.role in (Role.DOT, Role.CONVOLUTION)


def is_weighted_sum(chain: Chain) -> bool:
    """`(x * w).sum(axis)` with a `w` that varies along the axis: a dot product spelled out."""
    return bool(_spelled_out(chain))


def _spelled_out(chain: Chain) -> list[Node]:
    """The products of a weighted sum."""
    if len(chain.mixing) != 1 or chain.mixing[0].row.role is not Role.SUM_REDUCTION:
        return []
    before = chain.nodes[: chain.nodes.index(chain.mixing[0])]
    axes = chain.mixing[0].params["axes"]
    found = []
    for node in reversed(before):
        if node.row.cls is not Class.DIAGONAL:
            break
        weights = [v for v in node.inputs if not v.carries]
        if node.row.role is Role.PRODUCT and any(
            len(w.shape) > axis and w.shape[axis] > 1 for w in weights for axis in axes
        ):
            found.append(node)
    return found


class Chains:
    """Finds the chain that ends at a value."""

    def __init__(self, regions: Regions):
        self._regions = regions
        self._found: dict[Var, Chain] = {}
        self._picking: dict[Node, bool] = {}

    def picks(self, node: Node) -> bool:
        """Whether a kernel only moves values, as one that cuts patches out does."""
        if node not in self._picking:
            self._picking[node] = is_kernel(node) and picks(node)
        return self._picking[node]

    def ending_at(self, exit_: Var) -> Chain:
        """The chain whose last value is `exit_`: as long as its values have one consumer each."""
        if exit_ not in self._found:
            self._found[exit_] = self._find(exit_)
        return self._found[exit_]

    def prefixed(self, chain: Chain) -> Chain:
        """A kernel's chain with a copy of the kernel-free chains that feed it, even shared ones.

        LayerNorm's scale before q, k and v belongs to each of the three kernels. What only moves
        pieces of a value about, as reflecting padding does, belongs to it with a scale before it.
        """
        nodes, sources = chain.nodes, []
        for source in chain.inputs:
            moved: tuple[Node, ...] = ()
            end = source
            while (before := self._feeding(end, chain)) is not None:
                end, joins = before.inputs[0], len(before.nodes[-1].carrying) > 1
                if (moved or joins) and before.structural:
                    moved = (*before.nodes, *moved)
                    continue
                nodes, moved = tuple(dict.fromkeys((*before.nodes, *moved, *nodes))), ()
                source = end
            sources.append(source)
        return Chain(nodes, tuple(dict.fromkeys(sources)), chain.mixing)

    def _feeding(self, var: Var, kernel: Chain) -> Chain | None:
        """What stands before a kernel and may belong to it: scales, offsets, moves."""
        chain = self.ending_at(var)
        nodes, source = self._behind_sum(chain.nodes, chain.inputs[0])
        if not chain.nodes:
            region = self._regions.moving(var)
            nodes, source = (region.nodes, region.source) if region is not None else ((), var)
        before = Chain(tuple(nodes), (source,))
        copies = any(_sums_copies(before, node) for node in kernel.mixing)
        return None if not nodes or chain.mixing or copies else before

    def _find(self, exit_: Var) -> Chain:
        run: list[Node] = []
        start = exit_
        while self._is_linear(start):
            assert start.producer is not None
            run.append(start.producer)
            start = start.producer.carrying[0]
            if start.shared:
                break
        if any(map(_mixes, run)):
            taken, start = self._behind_sum(run[::-1], start)
            run = list(taken[::-1])
        chain = Chain((), (start,))
        if start is exit_ or not start.shared:
            chain = self._sum_of_kernels(start) or chain
        for node in reversed(run):
            # kernels that are split over devices end in a sum over them
            mixes = _mixes(node) and not (chain.mixing and node.row.role is Role.DEVICE_SUM)
            if mixes and (chain.mixing or _sums_copies(chain, node)):
                chain = _weights(chain, node)
            chain = Chain((*chain.nodes, node), chain.inputs, chain.mixing + (node,) * mixes)
        return chain

    def _is_linear(self, var: Var) -> bool:
        """Whether the producer is linear in exactly one carrying operand."""
        node = var.producer
        if node is None or len(node.carrying) != 1 or len(node.outputs) != 1:
            return False
        if node.row.cls not in (Class.DIAGONAL, Class.STRUCTURAL, Class.MIXING) or self.picks(node):
            return False
        operand = node.carrying[0]
        if node.row.role is Role.QUOTIENT and node.inputs[1] is operand:
            return False
        if node.row.role is Role.SELECT and node.inputs[0].active:
            return False
        twice = sum(v is operand for v in node.inputs) > 1
        if twice and node.row.role not in (Role.SUM, Role.DIFFERENCE):
            return False
        return self._regions.ending_at(var) is None

    def _behind_sum(self, nodes: Sequence[Node], source: Var) -> tuple[Sequence[Node], Var]:
        """What comes behind the offsets of a sum, which are its own; all where there is none."""
        if self._is_sum(source):
            while nodes and _is_offset(nodes[0]):
                source, nodes = nodes[0].outputs[0], nodes[1:]
        return nodes, source

    def _is_sum(self, var: Var) -> bool:
        """Whether the value is a sum of several, and read by the offset behind it alone."""
        node = var.producer
        if node is None or node.row.role not in (Role.SUM, Role.DIFFERENCE) or var.shared:
            return False
        joins = len(node.carrying) > 1 and self._regions.ending_at(var) is None
        return joins and not self.ending_at(var).nodes

    def _sum_of_kernels(self, var: Var) -> Chain | None:
        """`x W + h U`: a sum whose every term ends in a dot product of its own is one layer.

        As separate layers, a recurrence would differ between its scanned and unrolled spellings.
        """
        node = var.producer
        if node is None or node.row.role not in (Role.SUM, Role.DIFFERENCE):
            return None
        terms = node.carrying
        if len(terms) < 2 or any(v.shared for v in terms) or self._regions.ending_at(var):
            return None
        chains = [self.ending_at(v) for v in terms]
        if not all(map(_is_dense, chains)):
            return None
        nodes = dict.fromkeys(n for c in chains for n in c.nodes)
        sources = dict.fromkeys(s for c in chains for s in c.inputs)
        mixing = tuple(m for c in chains for m in c.mixing)
        return Chain((*nodes, node), tuple(sources), mixing)


def _is_dense(chain: Chain) -> bool:
    """Dot products, written as such or spelled out."""
    return chain.kernel and not any(m.row.role is Role.CONVOLUTION for m in chain.mixing)


def _weights(chain: Chain, mixing: Node) -> Chain:
    """What a new chain takes over from the one before: the weights of a sum spelled out."""
    for count, first in enumerate(reversed(chain.nodes), start=1):
        if first.row.cls is not Class.DIAGONAL or len(first.carrying) != 1:
            break
        taken = chain.nodes[-count:]
        if is_weighted_sum(Chain((*taken, mixing), first.carrying, (mixing,))):
            before = chain.nodes[-count - 1 :][:1]
            if before != taken[:1] and before[0].row.role is Role.BROADCAST:
                taken = (*before, *taken)
            weights = Chain(taken, taken[0].carrying)
            if not _sums_copies(weights, mixing):
                return weights
            break
    return Chain((), mixing.carrying)


def _mixes(node: Node) -> bool:
    """Whether outputs are sums over inputs; an einsum without a sum is a scale."""
    if node.row.role is Role.DOT:
        (contracted, _), _ = node.params["dimension_numbers"]
        return bool(contracted)
    if node.row.role is Role.SCATTER_SUM and node.inputs[0].carries:  # of constants: an offset
        return False
    return node.row.cls is Class.MIXING


def _sums_copies(chain: Chain, mixing: Node) -> bool:
    """Whether `mixing` would add up copies that a broadcast in the chain made.

    Then an entry of the joint matrix would be a sum of weights, and its sign no product of signs.
    Copies that stay apart (`(x[:, :, None] * W).sum(1)`) are fine.
    """
    expanded: set[int] = set()
    for node in chain.nodes:
        if node.row.role is Role.BROADCAST:
            mapped = node.params["broadcast_dimensions"]
            operand = node.carrying[0].shape
            kept = {d for i, d in enumerate(mapped) if operand[i] > 1}
            expanded = {d for d, n in enumerate(node.params["shape"]) if n > 1 and d not in kept}
        elif node.row.cls is Class.DIAGONAL:
            before, after = node.carrying[0].shape, node.outputs[0].shape
            before = before or (1,) * len(after)  # a scalar goes with any shape
            expanded |= {d for d, (a, b) in enumerate(zip(before, after, strict=True)) if a < b}
        elif expanded:
            return True
    if not expanded:
        return False
    if mixing.row.role is not Role.SUM_REDUCTION:
        return True
    return bool(expanded & set(mixing.params["axes"]))
