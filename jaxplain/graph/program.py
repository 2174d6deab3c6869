"""From a function to a flat list of operations: `Var`s joined by `Node`s.

`flatten` inlines jit and remat, merges common subexpressions, drops dead code and hoists every
array the function closed over into an input, so that weights are never compile-time constants.
Loops and branches are operations that own a program for each of their bodies.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxplain import _compat
from jaxplain.errors import NotAnalyzableError
from jaxplain.graph import custom, primitives
from jaxplain.graph.control import Control
from jaxplain.graph.known import Known
from jaxplain.graph.primitives import Class, Row


class Var:
    """One value of the program.

    Attributes:
        aval: shape and dtype.
        producer: the node that computes it; None for inputs and literals.
        index: position in topological order.
        literal: the value of a literal (None otherwise).
        path: for inputs, where the value stands in the arguments ("params/conv/kernel").
        uniform: a constant known to have the same value everywhere, from literals only.
        active: the value depends on an explained input.
        carries: relevance flows through it (active, floating, and on a path to an output).
        consumers: the carrying nodes that read it as a carrying operand.
        wanted: its relevance comes from others than its consumers too: it is an output, or the same
            in every iteration of a loop.
    """

    __slots__ = (
        "active",
        "aval",
        "carries",
        "consumers",
        "index",
        "literal",
        "path",
        "producer",
        "uniform",
        "wanted",
    )

    def __init__(self, aval: Any, producer: "Node | None" = None, literal: Any = None):
        self.aval = aval
        self.producer = producer
        self.literal = literal
        self.index = -1
        self.path = ""
        self.uniform = literal is not None and np.ndim(literal) == 0
        self.active = False
        self.carries = False
        self.wanted = False
        self.consumers: list[Node] = []

    @property
    def shape(self) -> tuple[int, ...]:
        """The value's shape."""
        return tuple(getattr(self.aval, "shape", ()))

    @property
    def floating(self) -> bool:
        """Whether the value is of a real or complex floating dtype."""
        return _compat.floating(self)

    @property
    def shared(self) -> bool:
        """Whether someone else than one carrying consumer also wants this value's relevance."""
        return self.wanted or len(self.consumers) != 1

    def __repr__(self) -> str:
        return f"v{self.index}:{self.aval}"


def read(env: Mapping[Var, Any], var: Var) -> Any:
    """The value of `var`, where `env` holds those of all but literals."""
    return var.literal if var.literal is not None else env[var]


def compute(nodes: "Iterable[Node]", env: dict[Var, Any]) -> None:
    """Evaluates operations in order; what they make is added to `env`."""
    for node in nodes:
        outputs = node.evaluate([read(env, v) for v in node.inputs])
        env.update(zip(node.outputs, outputs, strict=True))


class Node:
    """One operation: a primitive applied to values.

    Attributes:
        eqn: the jaxpr equation, evaluated as it stands.
        row: what the table of primitives says of it.
        inputs, outputs: its values.
        names: every module path under which the operation was written.
        origins: the equation that stands in the user's code: `eqn`, or the call of the library
            function that holds it; behind it the loops and branches around, the innermost first.
        control: the programs of a loop or branch; None for everything else.
        remat: the calls of `jax.checkpoint` that it was written in, the outermost first.
    """

    __slots__ = ("control", "eqn", "inputs", "names", "origins", "outputs", "remat", "row")

    def __init__(
        self,
        eqn: _compat.Eqn,
        row: Row,
        inputs: Sequence[Var],
        name: str,
        origins: tuple[_compat.Eqn, ...],
    ):
        self.eqn = eqn
        self.origins = origins
        self.row = row
        self.inputs = tuple(inputs)
        self.outputs = tuple(Var(v.aval, self) for v in eqn.outvars)
        self.names = [name]
        self.control: Control | None = None
        self.remat: tuple[_compat.Eqn, ...] = ()

    @property
    def primitive(self) -> str:
        """The primitive's name."""
        return self.eqn.primitive.name

    @property
    def params(self) -> dict[str, Any]:
        """The equation's parameters."""
        return self.eqn.params

    @property
    def location(self) -> str:
        """`file.py:line` of the user's code."""
        return _compat.source_line(*self.origins)

    @property
    def carrying(self) -> tuple[Var, ...]:
        """The distinct operands through which relevance flows."""
        return tuple(dict.fromkeys(v for v in self.inputs if v.carries))

    @property
    def active(self) -> tuple[Var, ...]:
        """The distinct operands that depend on an explained input."""
        return tuple(dict.fromkeys(v for v in self.inputs if v.active))

    def evaluate(self, values: Sequence[Any], dtype: Any = None, linear: bool = False) -> list[Any]:
        """Applies the operation to concrete or traced values; see `_compat.bind`."""
        return _compat.bind(self.eqn, values, self.names[0], dtype, linear)

    def __repr__(self) -> str:
        return f"{self.primitive}{self.inputs}->{self.outputs}"


@dataclass(frozen=True)
class Custom:
    """A call of a function with a derivative of its own.

    Attributes:
        inputs, outputs: its values.
        location: `file.py:line` of the user's code.
    """

    inputs: Sequence[Var]
    outputs: Sequence[Var]
    location: str


class Program:
    """A function as a flat list of nodes, in topological order.

    Attributes:
        inputs: one `Var` per flat argument.
        constants: `(Var, value)` of the arrays that the function closed over; none of a body.
        outputs: one `Var` per flat output.
        nodes: the live operations.
        customs: the functions with a derivative of their own that were looked through.
        out_tree: the function's output as a tree of `jax.ShapeDtypeStruct`.
    """

    def __init__(
        self,
        inputs: list[Var],
        constants: list[tuple[Var, Any]],
        outputs: list[Var],
        nodes: list[Node],
        customs: "Sequence[Custom]",
        out_tree: Any,
    ):
        self.inputs = inputs
        self.constants = constants
        self.outputs = outputs
        self.nodes = nodes
        self.customs = customs
        self.out_tree = out_tree

    def walk(self) -> Iterator[Node]:
        """All operations, those inside of loops and branches included."""
        for node in self.nodes:
            yield node
            for body in node.control.bodies if node.control else ():
                yield from body.walk()


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
    inputs = [Var(v.aval) for v in jaxpr.invars]
    for var, path in zip(inputs, paths, strict=True):
        var.path = path
    flattener = _Flattener(keep_derivatives)
    outputs = flattener.inline(jaxpr, flattener.hoisted(jaxpr, consts), inputs)
    nodes = _live(flattener.nodes, outputs)
    return Program(inputs, flattener.constants, outputs, nodes, flattener.customs, out_tree)


class _Flattener:
    def __init__(self, keep_derivatives: bool, whole: bool = False):
        self.keep_derivatives = keep_derivatives
        self.whole = whole  # looks through every function with a derivative of its own
        self.nodes: list[Node] = []
        self.constants: list[tuple[Var, Any]] = []
        self.literals: dict[Any, Var] = {}
        self.seen: dict[Any, Node] = {}
        self.customs: list[Custom] = []
        self.known = Known(_is_arithmetic, {})
        self.remat: tuple[_compat.Eqn, ...] = ()
        self.around: tuple[_compat.Eqn, ...] = ()

    def inline(
        self,
        jaxpr: _compat.Jaxpr,
        consts: list[Var],
        args: list[Var],
        prefix: tuple[str, ...] = (),
        caller: _compat.Eqn | None = None,
    ) -> list[Var]:
        env: dict[Any, Var] = dict(zip(jaxpr.constvars, consts, strict=True))
        env |= dict(zip(jaxpr.invars, args, strict=True))

        def read(atom: Any) -> Var:
            return self.literal(atom) if isinstance(atom, _compat.Literal) else env[atom]

        for eqn in jaxpr.eqns:
            operands = [read(v) for v in eqn.invars]
            path = prefix + _compat.scopes(eqn)
            outputs = self.equation(eqn, operands, path, caller or eqn)
            env |= dict(zip(eqn.outvars, outputs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def equation(
        self, eqn: _compat.Eqn, operands: list[Var], path: tuple[str, ...], origin: _compat.Eqn
    ) -> Sequence[Var]:
        name = eqn.primitive.name
        row = primitives.row(name)
        container = _compat.TRANSPARENT.get(name)
        if name in _compat.CUSTOM_DERIVATIVE:
            container = _compat.CUSTOM_DERIVATIVE[name]
            if sum(not v.uniform for v in operands) == 1 and not self.whole:
                activation = self.activation(eqn, operands, _joined(path), origin)
                if activation is not None:
                    return activation.outputs
            if self.keep_derivatives:
                row, container = primitives.UNKNOWN, None
        if container is not None:
            inner, consts = _compat.body(eqn, container)
            caller = origin if _compat.is_library(inner) or origin is not eqn else None
            around = self.remat
            if name == _compat.REMAT:
                self.remat += (eqn.replace(),)  # jit hands out the same one for every call
            outputs = self.inline(inner, self.hoisted(inner, consts), operands, path, caller)
            self.remat = around
            if name in _compat.CUSTOM_DERIVATIVE:
                self.customs.append(Custom(operands, outputs, _compat.source_line(origin)))
            return outputs
        if _compat.writes(eqn):
            raise NotAnalyzableError(
                f"`{name}` at {_compat.source_line(origin) or 'unknown place'} writes to a mutable "
                "array (jax.Ref), and what is read from it afterwards would not be seen: give a "
                "pure function, that returns new arrays instead"
            )
        flow = _compat.control_flow(eqn)
        if flow is not None:
            case = self.case(flow, operands)
            if case is not None:
                jaxpr, consts = case
                return self.inline(jaxpr, self.hoisted(jaxpr, consts), operands[1:], path)
            unrolled = _compat.UNROLLED in path
            if flow.length is not None and (flow.length <= 1 or unrolled):
                return self.iterations(eqn, flow, operands, path)
        node = self.node(eqn, row, operands, _joined(path), origin)
        if flow is not None and node.control is None:
            bodies = [self.body(flow, body, path, node) for body in flow.bodies]
            node.control = Control(flow, eqn, bodies, node.inputs, node.outputs)
        return node.outputs

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
        """A loop written out; its outputs."""
        assert flow.length is not None
        ((jaxpr, consts),) = flow.bodies
        hoisted, around = self.hoisted(jaxpr, consts), self.around
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
            outputs = self.inline(jaxpr, hoisted, [*fixed, *carry, *slices], path)
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
        """A function of values, in the place of an equation."""
        closed = jax.make_jaxpr(function)(*(v.aval for v in values))
        jaxpr, consts = _compat.open_jaxpr(closed)
        (result,) = self.inline(jaxpr, self.hoisted(jaxpr, consts), list(values), path, eqn)
        return result

    def body(
        self,
        flow: _compat.ControlFlow,
        body: tuple[_compat.Jaxpr, Sequence[Any]],
        path: tuple[str, ...],
        owner: Node,
    ) -> "Program":
        """The program of a loop's or branch's body; its constants are those of the whole.

        A number that a loop carries, such as its counter, is uniform when it is so throughout.
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
            program = inner.program(*body, path, uniform)
            after = [v.uniform for v in program.outputs[: flow.carried]]
            if all(after[i] >= known for i, known in enumerate(uniform[carried])):
                self.constants[:] = inner.constants
                return program
            uniform[carried] = [a and b for a, b in zip(after, uniform[carried], strict=True)]

    def program(
        self,
        jaxpr: _compat.Jaxpr,
        consts: Sequence[Any],
        path: tuple[str, ...] = (),
        uniform: Sequence[bool] = (),
    ) -> "Program":
        """A jaxpr as a program of its own, whose constants are kept here."""
        inputs = [Var(v.aval) for v in jaxpr.invars]
        for var, same in zip(inputs, uniform, strict=False):
            var.uniform = same
        outputs = self.inline(jaxpr, self.hoisted(jaxpr, consts), inputs, path)
        return Program(inputs, [], outputs, _live(self.nodes, outputs), self.customs, None)

    def activation(
        self, eqn: _compat.Eqn, operands: list[Var], name: str, origin: _compat.Eqn
    ) -> Node | None:
        """A function with a derivative of its own, where it is an activation."""
        jaxpr, consts = _compat.body(eqn, _compat.CUSTOM_DERIVATIVE[eqn.primitive.name])
        body = _Flattener(keep_derivatives=False, whole=True).program(jaxpr, consts)
        row = custom.row(body)
        if row is None:
            return None
        same = None if self.keep_derivatives else custom.signature(body)  # derivatives may differ
        return self.node(eqn, row, operands, name, origin, same)

    def hoisted(self, jaxpr: _compat.Jaxpr, consts: Sequence[Any]) -> list[Var]:
        """The constants of an inner jaxpr, as constants of the whole."""
        new = [(Var(v.aval), c) for v, c in zip(jaxpr.constvars, consts, strict=True)]
        self.constants += new
        return [v for v, _ in new]

    def node(
        self,
        eqn: _compat.Eqn,
        row: Row,
        operands: list[Var],
        name: str,
        origin: _compat.Eqn,
        same: Hashable = None,
    ) -> Node:
        key = None
        written = self.keep_derivatives and row.piecewise  # modified gradients act on each of them
        if not eqn.effects and not written:
            key = _key(eqn, operands, same)
        if key is not None and key in self.seen:
            node = self.seen[key]
            if name not in node.names:
                node.names.append(name)
            return node
        node = Node(eqn, row, operands, name, (origin, *self.around))
        node.remat = self.remat
        for var in node.outputs:
            var.uniform = all(v.uniform for v in operands) and row.cls in _UNIFORM
        self.nodes.append(node)
        if key is not None:
            self.seen[key] = node
        return node

    def literal(self, atom: Any) -> Var:
        value = np.asarray(atom.val)
        key = (str(atom.aval), value.tobytes())
        if key not in self.literals:
            self.literals[key] = Var(atom.aval, literal=atom.val)
        return self.literals[key]


_UNIFORM = (Class.DIAGONAL, Class.STRUCTURAL, Class.ELEMENTWISE)


def _stack(*values: Any) -> Any:
    return jnp.stack(values) if len(values) > 1 else jnp.reshape(values[0], (1, *values[0].shape))


def _joined(path: tuple[str, ...]) -> str:
    return "/".join(part for part in path if part != _compat.UNROLLED)


def _is_arithmetic(node: Node) -> bool:
    """Whether an operation makes a number of numbers, the same everywhere."""
    computes = node.row.cls in (Class.DIAGONAL, Class.ELEMENTWISE, Class.DISCRETE)
    number = bool(node.inputs) and not any(v.shape for v in node.outputs)
    return number and (computes or node.primitive == "convert_element_type")


def _key(eqn: _compat.Eqn, operands: list[Var], same: Hashable) -> Any:
    """What makes two equations the same computation; None when their parameters cannot say.

    Args:
        eqn: the equation.
        operands: its operands.
        same: what stands for its parameters; None for themselves.
    """
    params = same or tuple(sorted(eqn.params.items()))
    key = (eqn.primitive.name, params, tuple(id(v) for v in operands))
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _live(nodes: list[Node], outputs: list[Var]) -> list[Node]:
    """The nodes that the outputs need, and the topological index of every value."""
    needed = set(outputs)
    live = []
    for node in reversed(nodes):
        if any(v in needed for v in node.outputs):
            live.append(node)
            needed.update(node.inputs)
    live.reverse()
    index = 0
    for node in live:
        for var in (*node.inputs, *node.outputs):
            if var.index < 0:
                var.index, index = index, index + 1
    for var in outputs:
        if var.index < 0:
            var.index, index = index, index + 1
    return live
