"""The traced function: values (`Var`) joined by operations (`Node`) to a `Program`.

These are facts of the function, fixed once it is flattened. What an analysis finds out about them
(`analyses/`) is kept beside them, not in them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxplain import _compat
from jaxplain.graph.primitives import Operand, PrimitiveInfo


class Var:
    """One value of the program.

    Attributes:
        aval: shape and dtype.
        producer: the node that computes it; None for inputs and literals.
        index: position in topological order.
        literal: the value of a literal (None otherwise).
        path: for inputs, where the value stands in the arguments ("params/conv/kernel").
        uniform: a constant known to have the same value everywhere, from literals only.
    """

    __slots__ = ("aval", "index", "literal", "path", "producer", "uniform")

    def __init__(
        self, aval: Any, producer: "Node | None" = None, literal: Any = None, path: str = ""
    ):
        self.aval = aval
        self.producer = producer
        self.literal = literal
        self.index = -1
        self.path = path
        self.uniform = literal is not None and not getattr(literal, "shape", ())

    @property
    def shape(self) -> tuple[int, ...]:
        """The value's shape."""
        return tuple(getattr(self.aval, "shape", ()))

    @property
    def floating(self) -> bool:
        """Whether the value is of a real or complex floating dtype."""
        return _compat.floating(self)

    def __repr__(self) -> str:
        return f"v{self.index}:{self.aval}"


class Node:
    """One operation: a primitive applied to values.

    Attributes:
        eqn: the jaxpr equation, evaluated as it stands.
        info: the row of the table of primitives.
        inputs, outputs: its values.
        names: every module path under which the operation was written.
        origins: the equation that stands in the user's code: `eqn`, or the call of the library
            function that holds it; behind it the loops and branches around, the innermost first.
        control: the programs of a loop or branch; None for everything else.
        remat: the calls of `jax.checkpoint` that it was written in, the outermost first.
    """

    __slots__ = ("control", "eqn", "info", "inputs", "names", "origins", "outputs", "remat")

    def __init__(
        self,
        eqn: _compat.Eqn,
        info: PrimitiveInfo,
        inputs: Sequence[Var],
        name: str,
        origins: tuple[_compat.Eqn, ...],
        remat: tuple[_compat.Eqn, ...] = (),
    ):
        self.eqn = eqn
        self.info = info
        self.inputs = tuple(inputs)
        self.outputs = tuple(Var(v.aval, self) for v in eqn.outvars)
        self.names = [name]
        self.origins = origins
        self.remat = remat
        self.control: Control | None = None

    @property
    def primitive(self) -> str:
        """The primitive's name."""
        return _compat.primitive_name(self.eqn)

    @property
    def params(self) -> dict[str, Any]:
        """The equation's parameters."""
        return self.eqn.params

    @property
    def operands(self) -> list[tuple[Operand | None, Var]]:
        """What the operation does with each of its inputs, and the input."""
        return [(self.info.operand(place), v) for place, v in enumerate(self.inputs)]

    @property
    def bodies(self) -> "tuple[Program, ...]":
        """The programs of a loop or branch; none for everything else."""
        return self.control.bodies if self.control is not None else ()

    @property
    def location(self) -> str:
        """`file.py:line` of the user's code."""
        return _compat.source_line(*self.origins)

    def evaluate(self, values: Sequence[Any], dtype: Any = None, linear: bool = False) -> list[Any]:
        """Applies the operation to concrete or traced values; see `_compat.bind`."""
        return _compat.bind(self.eqn, values, self.names[0], dtype, linear)

    def rebuilt(self, inputs: Sequence[Var]) -> "Node":
        """The same operation on other values."""
        return Node(self.eqn, self.info, inputs, self.names[0], self.origins, self.remat)

    def __repr__(self) -> str:
        return f"{self.primitive}{self.inputs}->{self.outputs}"


def read(env: Mapping[Var, Any], var: Var) -> Any:
    """The value of `var`, where `env` holds those of all but literals."""
    return var.literal if var.literal is not None else env[var]


def compute(nodes: Iterable[Node], env: dict[Var, Any]) -> None:
    """Evaluates operations in order; their outputs are added to `env`."""
    for node in nodes:
        outputs = node.evaluate([read(env, v) for v in node.inputs])
        env.update(zip(node.outputs, outputs, strict=True))


@dataclass(frozen=True)
class CustomCall:
    """A call of a function with a derivative of its own, which was looked through.

    Attributes:
        inputs, outputs: its values.
        location: `file.py:line` of the user's code.
    """

    inputs: Sequence[Var]
    outputs: Sequence[Var]
    location: str


@dataclass(frozen=True, eq=False)
class Program:
    """A function as a flat list of nodes, in topological order.

    Attributes:
        inputs: one `Var` per flat argument.
        constants: `(Var, value)` of the arrays that the function closed over; none of a body.
        outputs: one `Var` per flat output.
        nodes: the live operations.
        custom_calls: the functions with a derivative of their own that were looked through.
        out_tree: the function's output as a tree of `jax.ShapeDtypeStruct`.
    """

    inputs: Sequence[Var]
    constants: Sequence[tuple[Var, Any]]
    outputs: Sequence[Var]
    nodes: Sequence[Node]
    custom_calls: Sequence[CustomCall]
    out_tree: Any = None

    def walk(self) -> Iterator[Node]:
        """All operations, those inside of loops and branches included."""
        for node in self.nodes:
            yield node
            for body in node.bodies:
                yield from body.walk()

    def bodies(self) -> Iterator["Program"]:
        """The program itself and all programs inside of it."""
        yield self
        for node in self.nodes:
            for body in node.bodies:
                yield from body.bodies()


@dataclass(frozen=True, eq=False)
class Link:
    """A value inside of a body and the one outside that it is, or one slice of it."""

    inner: Var
    outer: Var
    sliced: bool = False


class Control:
    """The bodies of a loop, of a branch, or of what runs on many devices.

    Attributes:
        kind: "Loop", "Branch" or "Shards".
        bodies: the programs inside: one for each case of a branch, else one.
        length: how often a loop runs; None for others.
        flow: how many operands are fixed, carried and scanned.
        eqn: the equation.
        selectors: the operands that only choose between bodies.
        enters: for the inputs of bodies, the operands that they are.
        leaves: for the outputs of bodies, the values that they become.
        repeats: the outputs of an iteration, each with the input of the next one that it becomes.
    """

    def __init__(self, node: Node, flow: _compat.ControlFlow, bodies: Iterable[Program]):
        self.flow, self.eqn, self.kind, self.length = flow, node.eqn, flow.kind, flow.length
        self.bodies = tuple(bodies)
        self.selectors = node.inputs[: flow.selectors]
        operands = node.inputs[flow.selectors :]
        kept = flow.fixed + flow.carried
        self.enters = tuple(
            Link(inner, outer, sliced=i >= kept)
            for body in self.bodies
            for i, (inner, outer) in enumerate(zip(body.inputs, operands, strict=True))
        )
        self.leaves = tuple(
            Link(inner, outer, sliced=self.kind == "Loop" and i >= flow.carried)
            for body in self.bodies
            for i, (inner, outer) in enumerate(zip(body.outputs, node.outputs, strict=True))
        )
        self.repeats = tuple(
            (out, body.inputs[flow.fixed + i])
            for body in self.bodies
            for i, out in enumerate(body.outputs[: flow.carried])
        )

    def __str__(self) -> str:
        if self.length is not None:
            return f"{self.kind} ({self.length} times)"
        of = _compat.mesh(self.eqn) if self.kind == "Shards" else f"{len(self.bodies)} cases"
        return f"{self.kind} ({of})"

    def copies(self, local: Var) -> tuple[int, ...]:
        """The axes in front of a value from inside, one entry per iteration or device."""
        if self.length is not None:
            return (self.length,)
        if self.kind == "Shards" and _compat.shard_axes(self.eqn, local.aval):
            return (_compat.shard_count(self.eqn, local.aval),)
        return ()

    @property
    def operands(self) -> list[tuple[Link, ...]]:
        """For each operand that goes into bodies, its value in each of them."""
        return _by_body(self.enters, len(self.bodies))

    @property
    def outputs(self) -> list[tuple[Link, ...]]:
        """For each output, its value in each of the bodies."""
        return _by_body(self.leaves, len(self.bodies))

    def spread(
        self,
        marked: set[Var],
        through: Sequence[Callable[[], None]],
        can: Callable[[Var], bool] = lambda var: True,
        back: bool = False,
    ) -> None:
        """Takes a property of values from the operands to the outputs.

        Args:
            marked: the values that have it; those of the bodies and the outputs are added.
            through: for each body, spreads it through the body, from its inputs on. A loop's is
                called until what is carried does not change any more.
            can: which values can have it.
            back: from the outputs to the operands instead.
        """
        entering, repeats, leaving = self.enters, self.repeats, self.leaves
        if back:
            entering, leaving = leaving, entering
            repeats = tuple((to, out) for out, to in repeats)
        marked.update(v.inner for v in entering if v.outer in marked and can(v.inner))
        while True:
            for call in through:
                call()
            new = {to for source, to in repeats if source in marked and can(to)} - marked
            if not new:
                break
            marked |= new
        marked.update(v.outer for v in leaving if v.inner in marked and can(v.outer))


def _by_body(links: Sequence[Link], bodies: int) -> list[tuple[Link, ...]]:
    count = len(links) // bodies
    return [tuple(links[i::count]) for i in range(count)]
