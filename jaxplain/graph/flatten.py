"""From a function to a flat list of operations: a `Program`.

`flatten` inlines jit and remat, merges common subexpressions, drops dead code and moves that undo
each other, and hoists every array the function closed over into an input, so that weights are never
compile-time constants. Loops and branches are operations that own a program for each body.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxplain import _compat, origins
from jaxplain.errors import NotAnalyzableError
from jaxplain.graph import custom, primitives
from jaxplain.graph.analyses.constants import Known, run
from jaxplain.graph.identities import Identities
from jaxplain.graph.ir import Control, CustomCall, Node, Program, Var
from jaxplain.graph.primitives import Kind, PrimitiveInfo, Role


def flatten(f: Callable[..., Any], args: Sequence[Any], *, keep_derivatives: bool) -> Program:
    """Traces `f(*args)` and flattens it.

    Args:
        f: a pure function of arrays.
        args: example arguments; anything with shape and dtype will do.
        keep_derivatives: keep functions with a custom derivative as they are (gradient methods),
            instead of looking through them at their primal (relevance methods).

    Returns:
        The program, dead code dropped.

    Raises:
        NotAnalyzableError: the function writes to a mutable array.
    """
    closed, out_tree = _compat.trace(f, *args)
    jaxpr, consts = _compat.open_jaxpr(closed)
    jaxpr = _compat.pruned(jaxpr)
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_flatten_with_path(tuple(args))[0]
    ]
    inputs = [Var(v.aval, path=path) for v, path in zip(jaxpr.invars, paths, strict=True)]
    flattener = _Flattener(keep_derivatives)
    outputs = flattener.inline(flattener.hoisted((jaxpr, consts)), inputs)
    nodes = _live(flattener.nodes, outputs)
    return Program(inputs, flattener.constants, outputs, nodes, flattener.custom_calls, out_tree)


_Body = tuple[_compat.Jaxpr, Sequence[Any]]  # a jaxpr and the values of its constants


class _Flattener:
    def __init__(self, keep_derivatives: bool, whole: bool = False):
        self.keep_derivatives = keep_derivatives
        self.whole = whole  # inlines every function with a custom derivative
        self.nodes: list[Node] = []
        self.constants: list[tuple[Var, Any]] = []
        self.literals: dict[Any, Var] = {}
        self.seen: dict[Any, Node] = {}
        self.custom_calls: list[CustomCall] = []
        self.activations: dict[_compat.Jaxpr, tuple[PrimitiveInfo | None, Hashable]] = {}
        self.known = Known(_is_arithmetic, {})
        self.identities = Identities()
        self.remat: tuple[_compat.Eqn, ...] = ()
        self.around: tuple[_compat.Eqn, ...] = ()

    def inline(
        self,
        body: tuple[_compat.Jaxpr, list[Var]],
        args: list[Var],
        prefix: tuple[str, ...] = (),
        caller: _compat.Eqn | None = None,
    ) -> list[Var]:
        jaxpr, consts = body
        env: dict[Any, Var] = dict(zip(jaxpr.constvars, consts, strict=True))
        env |= dict(zip(jaxpr.invars, args, strict=True))

        def read(atom: Any) -> Var:
            literal = isinstance(atom, _compat.Literal)
            return self.literal(atom.aval, atom.val) if literal else env[atom]

        for eqn in jaxpr.eqns:
            operands = [read(v) for v in eqn.invars]
            path = prefix + origins.scopes(eqn)
            outputs = self.equation(eqn, operands, path, caller or eqn)
            env |= dict(zip(eqn.outvars, outputs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def equation(
        self, eqn: _compat.Eqn, operands: list[Var], path: tuple[str, ...], origin: _compat.Eqn
    ) -> Sequence[Var]:
        name = eqn.primitive.name
        info = primitives.lookup(_compat.primitive_name(eqn))
        container = _compat.TRANSPARENT.get(name)
        if name in _compat.CUSTOM_DERIVATIVE:
            container = _compat.CUSTOM_DERIVATIVE[name]
            single = sum(not v.uniform for v in operands) == 1 and not self.whole
            if single and (node := self.activation(eqn, operands, _joined(path), origin)):
                return node.outputs
            if self.keep_derivatives or _loops_endlessly(_compat.body(eqn, container)[0]):
                info, container = primitives.UNKNOWN, None
        if container is not None:
            inner = _compat.body(eqn, container)
            caller = origin if origins.is_library(inner[0]) or origin is not eqn else None
            around = self.remat
            if name == _compat.REMAT:
                self.remat += (eqn.replace(),)  # a copy for each call: calls of one jit share it
            outputs = self.inline(self.hoisted(inner), operands, path, caller)
            self.remat = around
            if name in _compat.CUSTOM_DERIVATIVE:
                self.custom_calls.append(CustomCall(operands, outputs, origins.source_line(origin)))
            return outputs
        if _compat.writes(eqn):
            raise NotAnalyzableError(
                f"`{name}` at {origins.source_line(origin) or 'unknown place'} writes to a mutable "
                "array (jax.Ref), and what is read from it afterwards would not be seen: give a "
                "pure function, that returns new arrays instead"
            )
        flow = _compat.control_flow(eqn)
        if flow is not None:
            case = self.case(flow, operands)
            if case is not None:
                return self.inline(self.hoisted(case), operands[1:], path)
            unrolled = _compat.UNROLLED in path
            if flow.length is not None and (flow.length <= 1 or unrolled):
                return self.iterations(eqn, flow, operands, path)
        if info.separable and len(operands) > 1:
            return self.each(eqn, operands, path, origin)
        if info.role is Role.SPLIT:
            return [self.traced(origin, path, piece, *operands) for piece in _pieces(eqn)]
        node = self.node(eqn, info, operands, _joined(path), origin)
        if flow is not None and node.control is None:
            bodies = [self.body(flow, body, path, node) for body in flow.bodies]
            node.control = Control(node, flow, bodies)
        computes = info.kind in _COMPUTES or "new_dtype" in node.params  # no pvary
        if computes and all(v.literal is not None for v in operands) and _is_arithmetic(node):
            numbers = run(node, [v.literal for v in operands])
            made = zip(node.outputs, numbers, strict=True)
            return [self.literal(v.aval, np.asarray(number)) for v, number in made]
        if info.kind is not Kind.STRUCTURAL:
            return node.outputs
        return self.identities.outputs(node, partial(self.traced, origin, path))

    def each(
        self, eqn: _compat.Eqn, operands: list[Var], path: tuple[str, ...], origin: _compat.Eqn
    ) -> list[Var]:
        """The outputs of a separable equation, flattened as one equation per operand."""
        outputs: list[Var] = []
        for atom, out, operand in zip(eqn.invars, eqn.outvars, operands, strict=True):
            part = eqn.replace(invars=[atom], outvars=[out])
            outputs += self.equation(part, [operand], path, origin)
        return outputs

    def case(self, flow: _compat.ControlFlow, operands: list[Var]) -> Any:
        """The only case of a branch that can run; None where several can."""
        index = self.known.of(operands[0]) if flow.kind == "Branch" else None
        return None if index is None else flow.bodies[max(0, min(int(index), len(flow.bodies) - 1))]

    def iterations(
        self,
        eqn: _compat.Eqn,
        flow: _compat.ControlFlow,
        operands: list[Var],
        path: tuple[str, ...],
    ) -> list[Var]:
        """The outputs of an unrolled loop."""
        assert flow.length is not None
        body, around = self.hoisted(*flow.bodies), self.around
        kept = flow.fixed + flow.carried
        fixed, carry, scanned = operands[: flow.fixed], operands[flow.fixed : kept], operands[kept:]
        order = range(flow.length)
        collected: dict[int, list[Var]] = {}
        for i in reversed(order) if flow.reverse else order:
            slices = [
                self.traced(eqn, path, partial(lax.index_in_dim, index=i, keepdims=False), v)
                for v in scanned
            ]
            self.around = (eqn, *around)
            outputs = self.inline(body, [*fixed, *carry, *slices], path)
            self.around = around
            carry, collected[i] = outputs[: flow.carried], outputs[flow.carried :]
        if not collected:
            made: list[Any] = eqn.outvars[flow.carried :]
            empty = [partial(jnp.zeros, v.aval.shape, v.aval.dtype) for v in made]
            return [*carry, *(self.traced(eqn, path, zeros) for zeros in empty)]
        stacked = zip(*(collected[i] for i in order), strict=True)
        return [*carry, *(self.traced(eqn, path, _stack, *values) for values in stacked)]

    def traced(
        self, eqn: _compat.Eqn, path: tuple[str, ...], function: Callable[..., Any], *values: Var
    ) -> Var:
        """The output of a function of values, inlined in the place of an equation.

        Unrolling a loop slices its scanned operands so.
        """
        closed = jax.make_jaxpr(function)(*(v.aval for v in values))
        body = self.hoisted(_compat.open_jaxpr(closed))
        (result,) = self.inline(body, list(values), path, eqn)
        return result

    def body(
        self, flow: _compat.ControlFlow, body: _Body, path: tuple[str, ...], owner: Node
    ) -> Program:
        """The program of a loop's or branch's body; its constants become those of the function.

        A number that a loop carries, such as its counter, is uniform if every iteration leaves it
        so.
        """
        carried = slice(flow.fixed, flow.fixed + flow.carried)
        uniform = [v.uniform for v in owner.inputs[flow.selectors :]]
        uniform[carried] = [
            known and not v.shape
            for known, v in zip(uniform[carried], owner.inputs[carried], strict=True)
        ]
        while True:
            inner = _Flattener(self.keep_derivatives)
            inner.constants, inner.around = list(self.constants), owner.origins
            program = inner.program(body, path, uniform)
            after = [v.uniform for v in program.outputs[: flow.carried]]
            if all(after[i] >= known for i, known in enumerate(uniform[carried])):
                self.constants[:] = inner.constants
                return program
            uniform[carried] = [a and b for a, b in zip(after, uniform[carried], strict=True)]

    def program(
        self, body: _Body, path: tuple[str, ...] = (), uniform: Sequence[bool] = ()
    ) -> Program:
        """A jaxpr as a program of its own; its constants are added to `self.constants`."""
        inputs = [Var(v.aval) for v in body[0].invars]
        for var, same in zip(inputs, uniform, strict=False):
            var.uniform = same
        outputs = self.inline(self.hoisted(body), inputs, path)
        return Program(inputs, [], outputs, _live(self.nodes, outputs), self.custom_calls, None)

    def activation(
        self, eqn: _compat.Eqn, operands: list[Var], name: str, origin: _compat.Eqn
    ) -> Node | None:
        """The node of an activation with a custom derivative (`jax.nn.relu`); None for others."""
        primal = _compat.body(eqn, _compat.CUSTOM_DERIVATIVE[eqn.primitive.name])
        jaxpr, consts = primal = _compat.without_jit(primal)
        if jaxpr not in self.activations or consts:  # all calls of `jax.nn.relu` have one jaxpr
            body = _Flattener(keep_derivatives=False, whole=True).program(primal)
            same = None if self.keep_derivatives else custom.signature(body)  # derivatives differ
            self.activations[jaxpr] = custom.info(body), same
        info, same = self.activations[jaxpr]
        return None if info is None else self.node(eqn, info, operands, name, origin, same)

    def hoisted(self, body: _Body) -> tuple[_compat.Jaxpr, list[Var]]:
        """A jaxpr, with its constants as constants of the whole function.

        A single number is a literal, in whatever way the function holds it: `jnp.asarray(1e-6)`.
        """
        jaxpr, consts = body
        new = []
        for atom, value in zip(jaxpr.constvars, consts, strict=True):
            if _is_number(value):
                new.append(self.literal(atom.aval, np.asarray(value)))
            else:
                new.append(Var(atom.aval))
                self.constants.append((new[-1], value))
        return jaxpr, new

    def node(
        self,
        eqn: _compat.Eqn,
        info: PrimitiveInfo,
        operands: list[Var],
        name: str,
        origin: _compat.Eqn,
        same: Hashable = None,
    ) -> Node:
        written = self.keep_derivatives and info.piecewise  # guided backprop acts on each rectifier
        key = None if eqn.effects or written else _key(eqn, operands, same)
        if key in self.seen:
            node = self.seen[key]
            if name not in node.names:
                node.names.append(name)
            return node
        node = Node(eqn, info, operands, name, (origin, *self.around), self.remat)
        for var in node.outputs:
            var.uniform = all(v.uniform for v in operands) and info.kind in _UNIFORM
        self.nodes.append(node)
        if key is not None:
            self.seen[key] = node
        return node

    def literal(self, aval: Any, value: Any) -> Var:
        """A number, one value wherever it is written."""
        key = (str(aval), np.asarray(value).tobytes())
        return self.literals.setdefault(key, Var(aval, literal=value))


_COMPUTES = (Kind.DIAGONAL, Kind.ELEMENTWISE, Kind.DISCRETE)
_UNIFORM = (Kind.DIAGONAL, Kind.STRUCTURAL, Kind.ELEMENTWISE)


def _is_number(value: Any) -> bool:
    """Whether a value is an array of no axes, known while the function is traced."""
    known = isinstance(value, jax.Array | np.ndarray) and not isinstance(value, jax.core.Tracer)
    return known and value.shape == () and jnp.issubdtype(value.dtype, jnp.number)


def _loops_endlessly(jaxpr: _compat.Jaxpr) -> bool:
    """Whether a while loop is inside, which only its own custom derivative can go back through."""
    return any(
        primitives.lookup(_compat.primitive_name(eqn)).irreversible
        or any(map(_loops_endlessly, _compat.inside(eqn)))
        for eqn in jaxpr.eqns
    )


def _pieces(eqn: _compat.Eqn) -> list[Callable[..., Any]]:
    """What a split or unstack makes of its operand, a slice each: pieces are then read alike."""
    axis, sizes = eqn.params["axis"], eqn.params.get("sizes")
    if sizes is None:
        places = range(len(eqn.outvars))
        return [partial(lax.index_in_dim, index=i, axis=axis, keepdims=False) for i in places]
    ends = zip(accumulate(sizes), sizes, strict=True)
    return [
        partial(lax.slice_in_dim, start_index=end - size, limit_index=end, axis=axis)
        for end, size in ends
    ]


def _stack(*values: Any) -> Any:
    return jnp.stack(values) if len(values) > 1 else jnp.reshape(values[0], (1, *values[0].shape))


def _joined(path: tuple[str, ...]) -> str:
    return "/".join(part for part in path if part != _compat.UNROLLED)


def _is_arithmetic(node: Node) -> bool:
    """Whether an operation computes a scalar by arithmetic or a cast, as a loop's counter is."""
    computes = node.info.kind in _COMPUTES
    number = bool(node.inputs) and not any(v.shape for v in node.outputs)
    return number and (computes or node.info.role is Role.CAST)


def _key(eqn: _compat.Eqn, operands: list[Var], same: Hashable) -> Any:
    """A key that equations of the same computation share; None where parameters have no hash.

    Args:
        eqn: the equation.
        operands: its operands.
        same: a key in the place of its parameters; None: the parameters.
    """
    params = same or tuple(sorted(eqn.params.items()))
    key = (eqn.primitive.name, params, tuple(id(v) for v in operands))
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _live(nodes: list[Node], outputs: list[Var]) -> list[Node]:
    """The nodes that the outputs need; their values get their topological index."""
    needed = set(outputs)
    live = []
    for node in reversed(nodes):
        if any(v in needed for v in node.outputs):
            live.append(node)
            needed.update(node.inputs)
    live.reverse()
    values = (v for node in live for v in (*node.inputs, *node.outputs))
    new = dict.fromkeys(v for v in (*values, *outputs) if v.index < 0)
    for index, var in enumerate(new):
        var.index = index
    return live
