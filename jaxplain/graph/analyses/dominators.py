"""Immediate dominators on the active part of the program.

Values and operations are both vertices: with operations alone, a `sort` of two arrays would
dominate everything computed from either. `Dominators.of(node)` is the last value that every active
path to the node goes through: `a` for the `mul` of `a * logistic(a)`. It is the only candidate for
the input of a single-input subgraph that ends at the node.
"""

from collections.abc import Iterable

from jaxplain.graph.analyses.flow import Flow
from jaxplain.graph.ir import Node, Program, Var

_Vertex = Var | Node | None  # None is the virtual root over all explained inputs


class Dominators:
    """The dominator tree of the active values and operations of a program.

    Args:
        program: the program.
        flow: which values are active.
        sources: the values that it is a function of.
    """

    def __init__(self, program: Program, flow: Flow, sources: Iterable[Var]):
        self._active_inputs = flow.active_inputs
        self._idom: dict[_Vertex, _Vertex] = {}
        self._depth: dict[_Vertex, int] = {None: 0}
        for var in sources:
            self._add(var, None)
        for node in program.nodes:
            active = flow.active_inputs[node]
            if not active:
                continue
            common: _Vertex = active[0]
            for var in active[1:]:
                common = self._meet(common, var)
            self._add(node, common)
            for var in node.outputs:
                self._add(var, node)

    def of(self, node: Node) -> Var | None:
        """The value that dominates all active operands of `node`; None when there is none.

        An operation with several outputs (a sort of two arrays) may dominate instead of a value:
        then no single value does.
        """
        vertex = self._idom.get(node)
        return vertex if isinstance(vertex, Var) else None

    def before(self, node: Node) -> Var | None:
        """As `of`, or the value that an operation with several outputs takes apart."""
        vertex = self._idom.get(node)
        if isinstance(vertex, Node):
            active = self._active_inputs[vertex]
            return active[0] if len(active) == 1 else None
        return vertex

    def _add(self, vertex: _Vertex, dominator: _Vertex) -> None:
        self._idom[vertex] = dominator
        self._depth[vertex] = self._depth[dominator] + 1

    def _meet(self, a: _Vertex, b: _Vertex) -> _Vertex:
        while a is not b:
            if self._depth[a] >= self._depth[b]:
                a = self._idom[a]
            else:
                b = self._idom[b]
        return a
