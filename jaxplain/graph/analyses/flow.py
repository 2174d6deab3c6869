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

#: From which operands to which outputs of an operation something flows.
_Ways = Sequence[tuple[tuple[Var, ...], tuple[Var, ...]]]


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
    active, reachable = _dependent(program, explained), reached(program, explained)
    carries = {v for v in outputs if v in reachable}
    _spread(program, carries, _ways, reachable.__contains__, back=True)

    must_end = set(outputs)
    inputs: dict[Node, tuple[Var, ...]] = {}
    active_inputs: dict[Node, tuple[Var, ...]] = {}
    readers: dict[Var, list[Node]] = {}
    for node in program.walk():
        depends = not active.isdisjoint(node.inputs)
        reads = dict.fromkeys(v for v in node.inputs if v in active) if depends else ()
        active_inputs[node] = tuple(reads)
        inputs[node] = operands = tuple(v for v in reads if v in carries)
        if operands and not carries.isdisjoint(node.outputs):
            for var in operands:
                readers.setdefault(var, []).append(node)
        if node.control is not None:
            for body in node.bodies:
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
    _spread(program, marked, _ways, lambda var: var.floating and can(var))
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
    varying = _dependent(body, body.inputs[fixed:])
    pending = [body]
    while pending:
        for node in pending.pop().nodes:
            if not varying.isdisjoint(node.outputs):
                yield from (v for v in node.inputs if v not in varying)
            if node.control is not None and node.control.kind == "Loop":
                pending += node.control.bodies


def _dependent(program: Program, starts: Iterable[Var]) -> set[Var]:
    """The values that depend on `starts`, in any way."""
    marked = set(starts)
    _spread(program, marked, _decided, lambda var: True)
    return marked


def _spread(
    program: Program,
    marked: set[Var],
    ways: Callable[[Node], _Ways],
    can: Callable[[Var], bool],
    back: bool = False,
) -> None:
    """Adds to `marked` the values that it reaches through operations; `back`: that reach it."""
    for node in reversed(program.nodes) if back else program.nodes:
        if node.control is not None:
            through = [partial(_spread, b, marked, ways, can, back) for b in node.bodies]
            node.control.spread(marked, through, can, back)
        for inputs, outputs in ways(node):
            starts, ends = (outputs, inputs) if back else (inputs, outputs)
            if not marked.isdisjoint(starts):
                marked.update(v for v in ends if can(v))


def _decided(node: Node) -> _Ways:
    """Operands and the outputs that they decide; of a loop or branch only the index or condition.

    The bodies are walked apart.
    """
    return [(node.inputs if node.control is None else node.control.selectors, node.outputs)]


_PARALLEL = (Kind.STRUCTURAL, Kind.SELECTION, Kind.MIXING)


def _ways(node: Node) -> _Ways:
    """Pairs of operands and the outputs that they flow to; none for a discrete operation.

    An operation that moves or sorts several arrays at once sends each to its own output: of
    `sort(keys, values)`, the sorted values depend on the keys but get no share of them.
    """
    if node.info.kind is Kind.DISCRETE or node.control is not None:
        return []
    if node.info.kind in _PARALLEL and len(node.inputs) == len(node.outputs):
        return [((x,), (y,)) for x, y in zip(node.inputs, node.outputs, strict=True)]
    return [(node.inputs[_compat.deciding(node.eqn) :], node.outputs)]
