"""Layers: the steps that a function consists of, with their names and other facts."""

from collections.abc import Iterator, Set
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeVar

from jaxplain._compat import Eqn
from jaxplain.graph.ir import Control, Node, Program, Var
from jaxplain.graph.primitives import Kind, Operand, Role
from jaxplain.graph.recognizers.complex_values import is_complex
from jaxplain.graph.recognizers.core import Core
from jaxplain.graph.recognizers.mixing import WITHOUT_WEIGHTS

#: The kinds of step without a rule: moves of values, and steps that hold layers of their own.
RULELESS = ("Structure", "Loop", "Branch", "Shards")


@dataclass(frozen=True, eq=False)
class Step(Core):
    """Operations that together are one pure function, from `inputs` to `outputs`.

    Steps may overlap: each that needs an operation has its own copy.

    Attributes:
        kind, op, nodes, inputs, outputs, affine_vars, mixing: as those of its core, with the
            neighbours that the core takes.
        moves: for an Activation, the moves between its input and its output.
        argument: for an Activation, the value that its nonlinear operations read: its input, or
            x + 3 in `relu6(x + 3)`.
        blocks: the blocks inside of a loop or branch.
    """

    moves: tuple[Node, ...] = ()
    argument: Var | None = None
    blocks: "tuple[Block, ...]" = ()

    @property
    def output(self) -> Var:
        """The value that the layer produces."""
        return self.outputs[0]

    @property
    def is_kernel(self) -> bool:
        """Whether the layer has a kernel (dense or convolution)."""
        return self.kind == "Affine" and self.op not in WITHOUT_WEIGHTS

    @property
    def is_complex(self) -> bool:
        """Whether its values are complex, and its operation would have a rule if they were not."""
        known = self.main.info.kind is not Kind.UNKNOWN or self.control is not None
        return known and any(map(is_complex, (*self.inputs, *self.outputs)))

    @property
    def main(self) -> Node:
        """The operation that stands for the layer: its kernel, else its last operation."""
        return self.mixing[0] if self.mixing else self.nodes[-1]

    @property
    def control(self) -> Control | None:
        """How values get into and out of a loop or branch."""
        return self.nodes[-1].control

    @property
    def remat(self) -> tuple[Eqn, ...]:
        """The calls of `jax.checkpoint` that the whole layer was written in."""
        scopes = [n.remat for n in self.nodes]
        return tuple(same[0] for same in zip(*scopes, strict=False) if len(set(map(id, same))) == 1)

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes that a maximum or minimum runs over."""
        reduction = self.main.info.role is Role.EXTREMUM_REDUCTION
        return tuple(self.main.params["axes"]) if reduction else ()

    @property
    def compares(self) -> bool:
        """Whether the layer is the elementwise maximum or minimum of its inputs."""
        return self.main.info.role is Role.EXTREMUM

    @property
    def running(self) -> tuple[int, int] | None:
        """The axis of a running maximum (-1) or minimum (+1); None for other layers."""
        if self.main.info.role is not Role.RUNNING_EXTREMUM:
            return None
        return self.main.params["axis"], -1 if self.main.info.largest else 1

    @property
    def location(self) -> str:
        """`file.py:line` of the user's code that wrote the layer."""
        return self.main.location

    @property
    def constants(self) -> tuple[Var, ...]:
        """The values that the layer reads as constants."""
        made = {v for n in self.nodes for v in n.outputs} | set(self.inputs)
        return tuple(dict.fromkeys(v for n in self.nodes for v in n.inputs if v not in made))


@dataclass(frozen=True, eq=False)
class Layer(Step):
    """A step with a name and a place.

    Attributes:
        name: the module path or parameter path.
        index: position among the layers of the graph, from the input on; -1 without a rule.
        first, last: a kernel layer with no kernel layer upstream, or downstream, on any path.
        nonnegative: for each input, whether it is provably not negative.
        gates: for each input, whether it provably lies between 0 and 1.
        examples: for each input and the output, the axis that counts examples (None: there is no
            such axis); empty where the explained input is one example.
        around: the loops and branches that hold the layer, the outermost first.
        active: all values of the program that depend on an explained input.
    """

    name: str = ""
    index: int = -1
    first: bool = False
    last: bool = False
    nonnegative: tuple[bool, ...] = ()
    gates: tuple[bool, ...] = ()
    examples: tuple[int | None, ...] = ()
    around: "tuple[Layer, ...]" = ()
    active: Set[Var] = frozenset()

    @property
    def frozen(self) -> tuple[Var, ...]:
        """The constants that depend on an explained input, as the result of a comparison does."""
        linear = self.kind in ("Affine", "Merge")  # all that is switched in it is a guard
        guards = {v for n in self.nodes * linear for k, v in n.operands if k is Operand.CONDITION}
        return tuple(v for v in self.constants if v in self.active and v not in guards)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the output, behind an axis for each loop or mesh of devices around it."""
        return self._shape_in(self.around)

    def shape_inside(self, step: "Layer") -> tuple[int, ...]:
        """As `shape`, as seen in one iteration of a loop or branch around the layer's own."""
        return self._shape_in(self.around[self.around.index(step) :])

    def _shape_in(self, around: "tuple[Layer, ...]") -> tuple[int, ...]:
        copies = (step.control.copies(self.output) for step in around if step.control)
        return (*chain(*copies), *self.output.shape)

    def __str__(self) -> str:
        return f"{self.index} {self.kind} {self.op} {self.name}".rstrip()


_Step = TypeVar("_Step", bound=Step)


@dataclass(frozen=True, eq=False)
class Block(Generic[_Step]):
    """The layers of a program: a function, or the body of a loop or branch.

    Attributes:
        program: the flat operations.
        explained_outputs: the values that relevance starts from.
        steps: every layer in execution order: structure, loops and branches too.
    """

    program: Program
    explained_outputs: tuple[Var, ...]
    steps: tuple[_Step, ...]

    def walk(self) -> Iterator[_Step]:
        """All steps; a loop or branch is followed by the steps inside of it."""
        for step in self.steps:
            yield step
            for block in step.blocks:
                yield from block.walk()
