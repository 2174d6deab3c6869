"""The traced function: values (`Var`) joined by operations (`Node`) to a `Program`.

They are facts of the function, fixed once it is flattened. The results of the analyses
(`analyses/`) are kept beside them, not in them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

from jaxplain import _compat, origins
from jaxplain.graph.primitives import Operand, PrimitiveInfo


class Var:
    """One value of the program.

    Attributes:
        aval: shape and dtype.
        producer: the node that computes it; None for inputs and literals.
        index: position in topological order.
        literal: the value of a literal (None otherwise).
        path: for inputs, where the value stands in the arguments ("params/conv/kernel").
        uniform: whether it is a constant, computed from literals alone, with one value in all
            entries: a literal 2.0, or its broadcast to (3, 4).
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
        names: every module path under which the operation was written: several where equal
            operations were merged.
        origins: the equation on the user's own line: `eqn`, or the call of the library function
            that contains it; then the loops and branches around it, the innermost first.
        control: the bodies of a loop, branch or shard_map; None for every other operation.
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
        kinds = self.info.operands or (None,)
        return list(zip(chain(kinds, repeat(kinds[-1])), self.inputs, strict=False))

    @property
    def bodies(self) -> "tuple[Program, ...]":
        """The programs of a loop or branch; none for everything else."""
        return self.control.bodies if self.control is not None else ()

    @property
    def location(self) -> str:
        """`file.py:line` of the user's code."""
        return origins.source_line(*self.origins)

    def evaluate(self, values: Sequence[Any], dtype: Any = None, linear: bool = False) -> list[Any]:
        """Applies the operation to concrete or traced values; see `_compat.bind`."""
        return _compat.bind(self.eqn, values, self.names[0], dtype, linear)

    def rebuilt(self, inputs: Sequence[Var]) -> "Node":
        """The same operation on other values."""
        return Node(self.eqn, self.info, inputs, self.names[0], self.origins, self.remat)

    def __repr__(self) -> str:
        return f"{self.primitive}{self.inputs}->{self.outputs}"


def read(env: Mapping[Var, Any], var: Var) -> Any:
    """The value of a variable: a literal's own, else the one in `env`."""
    return var.literal if var.literal is not None else env[var]


def compute(nodes: Iterable[Node], env: dict[Var, Any]) -> None:
    """Evaluates operations in order; their outputs are added to `env`."""
    for node in nodes:
        outputs = node.evaluate([read(env, v) for v in node.inputs])
        env.update(zip(node.outputs, outputs, strict=True))


@dataclass(frozen=True)
class CustomCall:
    """A call of a function with a custom derivative whose primal was inlined (`jax.custom_jvp`).

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
        constants: `(Var, value)` of the arrays that the function closed over; empty for the body of
            a loop or branch, whose constants are those of the whole function.
        outputs: one `Var` per flat output.
        nodes: the operations that the outputs need.
        custom_calls: the inlined calls of functions with a custom derivative.
        out_tree: the function's output as a tree of `jax.ShapeDtypeStruct`.
    """

    inputs: Sequence[Var]
    constants: Sequence[tuple[Var, Any]]
    outputs: Sequence[Var]
    nodes: Sequence[Node]
    custom_calls: Sequence[CustomCall]
    out_tree: Any = None

    def walk(self) -> Iterator[Node]:
        """All operations, also inside of loops and branches."""
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
    """A value inside a body, and the value outside that it equals.

    Where `sliced`, it equals one slice per iteration, as the `xs` and `ys` of `jax.lax.scan` do.
    """

    inner: Var
    outer: Var
    sliced: bool = False


class Control:
    """The bodies of a `scan`, `cond` or `shard_map`, and the values that enter and leave them.

    Attributes:
        kind: "Loop", "Branch" or "Shards".
        bodies: the programs inside: one for each case of a branch, else one.
        length: the number of iterations of a loop; None for a branch or shard_map.
        flow: how many operands are fixed, carried and scanned.
        eqn: the equation.
        selectors: the operands that only choose between bodies: a branch's index.
        enters: a link for each input of each body, to an operand.
        leaves: a link for each output of each body, to an output of the equation.
        repeats: the carry of a loop: each output of an iteration with the input of the next
            iteration that it becomes.
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
        """The leading axis that collects a body's value over iterations or devices, if any."""
        if self.length is not None:
            return (self.length,)
        if self.kind == "Shards" and _compat.shard_axes(self.eqn, local.aval):
            return (_compat.shard_count(self.eqn, local.aval),)
        return ()

    @property
    def operands(self) -> list[tuple[Link, ...]]:
        """For each operand that enters the bodies, its link into each of them."""
        return _by_body(self.enters, len(self.bodies))

    @property
    def outputs(self) -> list[tuple[Link, ...]]:
        """For each output of the equation, its link from each of the bodies."""
        return _by_body(self.leaves, len(self.bodies))

    def spread(
        self,
        marked: set[Var],
        through: Sequence[Callable[[], None]],
        can: Callable[[Var], bool] = lambda var: True,
        back: bool = False,
    ) -> None:
        """Spreads a property of values from the operands through the bodies to the outputs.

        "Depends on the explained input" is such a property.

        Args:
            marked: the values that have it; values of the bodies and outputs are added.
            through: for each body a function that spreads it from the body's inputs on. A loop's is
                called until the marks of its carry do not change any more.
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
