"""The values that relevance flows through: every value is constant, frozen or carries relevance.

*Active* values depend on an explained input. Of these, values that *carry relevance* are floating,
are reached from an explained input without crossing a discrete operation, and reach an output
likewise. Active values that do not (comparisons, argmax, stop_gradient) are *frozen*: evaluated,
then treated as constants. In a loop this holds of a value when it holds in any iteration.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial

from jaxplain import _compat
from jaxplain.graph.ir import Node, Program, Var
from jaxplain.graph.primitives import Kind


@dataclass(frozen=True, eq=False)
class Flow:
    """Where relevance flows in a program and in all programs inside of it.

    Attributes:
        explained: the values that are explained.
        active: the values that depend on them.
        carries_relevance: the values that relevance flows through.
        must_end: the values at which a layer must end: outputs, and values that all iterations of a
            loop share.
        inputs: for each operation, the distinct operands that carry relevance.
        active_inputs: for each operation, the distinct operands that are active.
        readers: for each value that carries relevance, the operations that pass some to it.
    """

    explained: Set[Var]
    active: Set[Var]
    carries_relevance: Set[Var]
    must_end: Set[Var]
    inputs: Mapping[Node, tuple[Var, ...]]
    active_inputs: Mapping[Node, tuple[Var, ...]]
    readers: Mapping[Var, Sequence[Node]]

    def shared(self, var: Var) -> bool:
        """Whether the value has several readers, or a layer must end there for another reason."""
        return var in self.must_end or len(self.readers.get(var, ())) != 1


def flow_of(program: Program, explained: Iterable[Var], outputs: Collection[Var]) -> Flow:
    """The flow of relevance from `outputs` to the explained values."""
    explained = frozenset(explained)
    active, reachable = set(explained), reached(program, explained)
    _depend(program, active)
    carries = {v for v in outputs if v in reachable}
    _need(program, reachable, carries)

    must_end = set(outputs)
    inputs: dict[Node, tuple[Var, ...]] = {}
    active_inputs: dict[Node, tuple[Var, ...]] = {}
    readers: dict[Var, list[Node]] = {}
    for node in program.walk():
        active_inputs[node] = tuple(dict.fromkeys(v for v in node.inputs if v in active))
        inputs[node] = operands = tuple(v for v in active_inputs[node] if v in carries)
        if operands and not carries.isdisjoint(node.outputs):
            for var in operands:
                readers.setdefault(var, []).append(node)
        if node.control is not None:
            for body in node.control.bodies:
                must_end.update(v for v in body.outputs if v in carries)
            if node.control.kind == "Loop":
                shared = _repeated(node.control.bodies[0], node.control.flow.fixed)
                must_end.update(v for v in shared if v in carries)
    return Flow(explained, active, carries, must_end, inputs, active_inputs, readers)


def reached(
    program: Program, starts: Iterable[Var], can: Callable[[Var], bool] = lambda var: True
) -> set[Var]:
    """The values that depend on `starts` through floating values for which `can` holds.

    A discrete operation, such as a comparison, ends the way.
    """
    marked = set(starts)
    _reach(program, marked, can)
    return marked


def cuts(program: Program, explained: Iterable[Var]) -> Iterator[Node]:
    """The operations at which the flow from the explained values ends."""
    marked = reached(program, explained)
    for node in program.walk():
        reads = node.control is None and not marked.isdisjoint(node.inputs)
        if reads and marked.isdisjoint(node.outputs):
            yield node


def _repeated(body: Program, fixed: int) -> Iterator[Var]:
    """The values that are the same in all iterations and read by operations that are not.

    `w * g` is one where a scan computes `(w * g) @ x` for a carry x. It has its relevance from all
    iterations together, as if it were computed before the loop: a layer must end there.
    """
    varying = set(body.inputs[fixed:])
    _depend(body, varying)
    pending = [body]
    while pending:
        for node in pending.pop().nodes:
            if not varying.isdisjoint(node.outputs):
                yield from (v for v in node.inputs if v not in varying)
            if node.control is not None and node.control.kind == "Loop":
                pending += node.control.bodies


def _depend(program: Program, marked: set[Var]) -> None:
    """Marks all values that depend on the marked ones."""
    for node in program.nodes:
        decides = node.inputs
        if node.control is not None:
            decides = node.control.selectors
            node.control.spread(marked, [partial(_depend, b, marked) for b in node.control.bodies])
        if not marked.isdisjoint(decides):
            marked.update(node.outputs)


def _reach(
    program: Program, marked: set[Var], can: Callable[[Var], bool] = lambda var: True
) -> None:
    """Marks all values that the marked ones reach without crossing a discrete operation."""
    for node in program.nodes:
        if node.control is not None:
            through = [partial(_reach, b, marked, can) for b in node.control.bodies]
            node.control.spread(marked, through, can)
        for inputs, outputs in _ways(node):
            if not marked.isdisjoint(inputs):
                marked.update(v for v in outputs if v.floating and can(v))


def _need(program: Program, reachable: set[Var], marked: set[Var]) -> None:
    """Marks all reachable values from which the marked ones are reached, as in `_reach`."""
    for node in reversed(program.nodes):
        if node.control is not None:
            through = [partial(_need, b, reachable, marked) for b in node.control.bodies]
            node.control.spread_back(marked, through, reachable.__contains__)
        for inputs, outputs in _ways(node):
            if not marked.isdisjoint(outputs):
                marked.update(v for v in inputs if v in reachable)


_PARALLEL = (Kind.STRUCTURAL, Kind.SELECTION, Kind.MIXING)


def _ways(node: Node) -> list[tuple[tuple[Var, ...], tuple[Var, ...]]]:
    """Pairs of operands and the outputs that they flow to; none for a discrete operation.

    An operation that moves or sorts several arrays at once sends each to its own output: of
    `sort(keys, values)`, the sorted values depend on the keys but get no share of them.
    """
    if node.info.kind is Kind.DISCRETE or node.control is not None:
        return []
    if node.info.kind in _PARALLEL and len(node.inputs) == len(node.outputs):
        return [((x,), (y,)) for x, y in zip(node.inputs, node.outputs, strict=True)]
    return [(node.inputs[_compat.deciding(node.eqn) :], node.outputs)]
