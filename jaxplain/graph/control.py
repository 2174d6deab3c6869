"""Control flow: an operation that owns programs, and how values get into and out of them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxplain import _compat

if TYPE_CHECKING:
    from jaxplain.graph.program import Program, Var


@dataclass(frozen=True, eq=False)
class Link:
    """A value inside of a body and the one outside that it is, or one slice of it."""

    inner: "Var"
    outer: "Var"
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

    def __init__(
        self,
        flow: _compat.ControlFlow,
        eqn: _compat.Eqn,
        bodies: "Iterable[Program]",
        operands: "tuple[Var, ...]",
        outputs: "tuple[Var, ...]",
    ):
        self.flow, self.eqn, self.kind, self.length = flow, eqn, flow.kind, flow.length
        self.bodies = tuple(bodies)
        self.selectors = operands[: flow.selectors]
        kept = flow.fixed + flow.carried
        self.enters = tuple(
            Link(inner, outer, sliced=i >= kept)
            for body in self.bodies
            for i, (inner, outer) in enumerate(
                zip(body.inputs, operands[flow.selectors :], strict=True)
            )
        )
        self.leaves = tuple(
            Link(inner, outer, sliced=self.kind == "Loop" and i >= flow.carried)
            for body in self.bodies
            for i, (inner, outer) in enumerate(zip(body.outputs, outputs, strict=True))
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

    def copies(self, local: "Var") -> tuple[int, ...]:
        """The axes in front of a value from inside, with what each iteration or device has."""
        if self.length is not None:
            return (self.length,)
        if self.kind == "Shards" and _compat.shard_axes(self.eqn, local.aval):
            return (_compat.shard_count(self.eqn, local.aval),)
        return ()

    @property
    def operands(self) -> "list[tuple[Link, ...]]":
        """For each operand that goes into bodies, what it is in each of them."""
        return _by_body(self.enters, len(self.bodies))

    @property
    def outputs(self) -> "list[tuple[Link, ...]]":
        """For each output, what it is in each of the bodies."""
        return _by_body(self.leaves, len(self.bodies))

    def spread(
        self,
        found: "set[Var]",
        through: "Sequence[Callable[[], None]]",
        can: "Callable[[Var], bool]" = lambda var: True,
    ) -> None:
        """Takes a property of values from the operands to the outputs.

        Args:
            found: the values that have it; those of the bodies and the outputs are added.
            through: for each body, spreads it through the body, from its inputs on. That of a loop
                is called until what is carried does not change any more.
            can: which values can have it.
        """
        found.update(v.inner for v in self.enters if v.outer in found and can(v.inner))
        _settle(found, through, [(out, to) for out, to in self.repeats if can(to)])
        found.update(v.outer for v in self.leaves if v.inner in found and can(v.outer))

    def spread_back(
        self,
        found: "set[Var]",
        through: "Sequence[Callable[[], None]]",
        can: "Callable[[Var], bool]",
    ) -> None:
        """As `spread`, from the outputs to the operands, for the values that can have it."""
        found.update(v.inner for v in self.leaves if v.outer in found and can(v.inner))
        _settle(found, through, [(to, out) for out, to in self.repeats if can(out)])
        found.update(v.outer for v in self.enters if v.inner in found and can(v.outer))


def _by_body(links: Sequence[Link], bodies: int) -> list[tuple[Link, ...]]:
    count = len(links) // bodies
    return [tuple(links[i::count]) for i in range(count)]


def _settle(
    found: "set[Var]",
    through: "Sequence[Callable[[], None]]",
    repeats: "Iterable[tuple[Var, Var]]",
) -> None:
    while True:
        for call in through:
            call()
        new = {to for source, to in repeats if source in found} - found
        if not new:
            return
        found |= new
