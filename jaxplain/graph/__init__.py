"""The graph of a function: its layers, read off its jaxpr.

program (flatten) -> activity -> dominators -> regions, chains -> layers -> blocks
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain.graph import activity, bounds, ends, lookups, naming
from jaxplain.graph.axes import Axes
from jaxplain.graph.blocks import Block
from jaxplain.graph.examples import counts_examples
from jaxplain.graph.layers import RULELESS, Layer
from jaxplain.graph.lookups import Lookup
from jaxplain.graph.program import Program, Var, flatten
from jaxplain.graph.regions import Regions

__all__ = ["Graph", "Layer", "trace"]

_ROUNDING = 1e-6  # of a factor such as 1 / 6, which makes of 6 a little more than 1


class Graph(Block):
    """The layers of a traced function.

    Attributes:
        program: the flat operations.
        explained: the values that are explained: floating inputs, and the numbers that are made of
            integers.
        inputs: the function's inputs that are explained.
        lookups: the numbers that are made of those which hold integers.
        explained_outputs: the values that relevance starts from: the function's outputs, with a
            trailing softmax left out when `trace` was asked to.
        steps: every layer of the function itself in execution order: structure, loops and branches
            too.
        all_steps: with those inside of loops and branches, which follow them.
        layers: of all steps, those that a rule can be given to.
        softmax: what was left out at the outputs ("softmax", "log_softmax" or "").
        axes: along which axis of the explained input the axes of every value run.
        batched: whether the leading axis of the explained inputs counts examples.
    """

    def __init__(
        self,
        program: Program,
        inputs: tuple[Var, ...],
        logits: bool,
        normalizations: bool = True,
    ):
        self.inputs = inputs
        self.lookups = _looked_up(program, inputs)
        floating = (v for v in inputs if v.floating)
        self.explained = explained = (*floating, *(found.value for found in self.lookups))
        activity.mark(program, explained, program.outputs)
        regions = Regions(program, explained, normalizations)
        found = [ends.of(v, program, regions) for v in program.outputs] if logits else []
        self.softmax = next((end.softmax for end in found if end.softmax), "")
        heads = program.outputs
        if self.softmax:
            heads = [end.logits() for end in found]
            activity.mark(program, explained, heads)
            regions = Regions(program, explained, normalizations)
        super().__init__(program, heads, regions)
        self.all_steps = tuple(self.walk())
        self.layers = tuple(step for step in self.all_steps if step.kind not in RULELESS)
        self.axes = Axes(program, explained)
        self.batched = counts_examples(
            [v.aval for v in self.explained_outputs], [v.aval for v in inputs]
        )
        _describe(self)

    @property
    def probabilities(self) -> bool:
        """Whether some outputs are those of a softmax."""
        return ends.are_probabilities(self.steps, self.explained_outputs)

    def __str__(self) -> str:
        return "\n".join(map(str, self.layers))


def trace(
    f: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] = 0,
    keep_derivatives: bool = False,
    logits: bool = False,
) -> Graph:
    """Reads the layers of `f(*args)` off its jaxpr, without running it.

    Args:
        f: a pure function of arrays (any pytrees of them).
        *args: example arguments, or `jax.ShapeDtypeStruct`s in their place.
        argnums: which arguments are explained, as in `jax.grad`.
        keep_derivatives: keep functions with a custom derivative as they are, as gradient methods
            need; relevance methods look through them.
        logits: leave a trailing softmax or log-softmax out of the layers.

    Returns:
        The graph; `graph.layers` from the input to the output.

    Raises:
        TypeError: an explained argument holds something else than floating arrays and integers
            that look something up.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxplain.graph
        >>> def f(x, w):
        ...     return jax.nn.softmax(jax.nn.gelu(x @ w) @ w.T)
        >>> x, w = jnp.ones((1, 3)), jnp.ones((3, 4))
        >>> print([layer.kind for layer in jaxplain.graph.trace(f, x, w).layers])
        ['Affine', 'Activation', 'Affine', 'Softmax']
    """
    program = flatten(f, args, keep_derivatives=keep_derivatives)
    positions = explained_leaves(args, argnums)
    return Graph(program, tuple(program.inputs[i] for i in positions), logits)


def _looked_up(program: Program, inputs: Sequence[Var]) -> tuple[Lookup, ...]:
    """The numbers that integer inputs become.

    Raises:
        TypeError: no output depends on those of an input, they belong to several integers at once,
            or come from a table that is explained too.
    """
    integers = [v for v in inputs if not v.floating]
    if not integers:
        return ()
    found = lookups.of(program, integers)
    floating = [v for v in inputs if v.floating]
    activity.mark(program, [*floating, *(lookup.value for lookup in found)], program.outputs)
    found = tuple(lookup for lookup in found if lookup.value.carries)
    for lookup in found:
        if lookup.ambiguous and lookup.value.producer is not None:
            raise TypeError(
                f"{lookup.value.producer.primitive} at "
                f"{lookup.value.producer.location or 'unknown place'} makes numbers of several "
                "explained integers at once, and their relevance would be that of all of them: "
                "explain the numbers (split the model behind them) or one of the inputs, or cast "
                "integers to floats before (images)"
            )
    for var, start in zip(integers, lookups.starts(integers), strict=True):
        if not any(lookup.has(start, var) for lookup in found):
            raise TypeError(
                f"{var.path or 'an input'} is explained, and its integers become no numbers that "
                "reach the output: integers are explained where they pick rows of a table, "
                "choose a class or are cast to floats; masks and places are constants"
            )
    _check_tables(found, floating)
    return found


def _check_tables(lookups: Sequence[Lookup], floating: Sequence[Var]) -> None:
    """Raises TypeError for a table that is explained, as the integers that pick its rows are."""
    pending = [v for lookup in lookups for v in lookup.tables]
    while pending:
        var = pending.pop()
        if var in floating:
            raise TypeError(
                f"{var.path} is explained, and so are the integers that pick its rows: their "
                "relevance is that of the rows. Explain one of them"
            )
        pending += var.producer.inputs if var.producer is not None else ()


def explained_leaves(args: Sequence[Any], argnums: int | Sequence[int]) -> tuple[int, ...]:
    """The positions of the explained arrays among all flat arguments.

    Raises:
        TypeError: there is nothing to explain, or it is neither floating nor integer.
        ValueError: `argnums` is out of range.
    """
    wanted = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for number in wanted:
        if not -len(args) <= number < len(args):
            raise ValueError(
                f"argnums={number} is out of range: the function got {len(args)} arguments"
            )
    numbers = {number % len(args) for number in wanted}
    if len(numbers) < len(wanted):
        raise ValueError(f"argnums={wanted} names an argument twice")
    positions: list[int] = []
    offset = 0
    for number, arg in enumerate(args):
        leaves = jax.tree_util.tree_flatten_with_path(arg)[0]
        if number in numbers:
            if not leaves:
                raise TypeError(f"argument {number} is explained (argnums) but holds no arrays")
            for path, leaf in leaves:
                dtype = jnp.result_type(leaf)
                if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer)):
                    raise TypeError(
                        f"argument {number}{jax.tree_util.keystr(path)} is explained (argnums) but "
                        f"has dtype {dtype}: only floating inputs, and integers that pick rows of "
                        "a table, have an attribution"
                    )
            positions += range(offset, offset + len(leaves))
        offset += len(leaves)
    return tuple(positions)


def _describe(graph: Graph) -> None:
    """Gives every layer its index, name, place and what is known of its inputs."""
    softmax = (s for s in graph.all_steps if s.kind == "Softmax" and s.op == "softmax")
    known = bounds.of(graph.program, {s.output: bounds.UNIT for s in softmax})
    for layer in graph.all_steps:
        within = [known.get(v, bounds.ANYTHING) for v in layer.inputs]
        layer.nonnegative = tuple(b.low >= 0 for b in within)
        layer.gates = tuple(b.low >= 0 and b.high <= 1 + _ROUNDING for b in within)
        if graph.batched:
            layer.examples = tuple(graph.axes.examples_of(v) for v in (*layer.inputs, layer.output))
    _mark_first(graph.steps, set())
    _mark_last(graph.steps, set())
    naming.name(graph.steps)
    for index, layer in enumerate(graph.layers):
        layer.index = index


def _mark_first(steps: Iterable[Layer], below: set[Var]) -> None:
    """Marks the kernel layers that are below none; `below` are the values that are."""
    for layer in steps:
        if layer.control is not None:
            through = [partial(_mark_first, block.steps, below) for block in layer.blocks]
            layer.control.spread(below, through)
            continue
        reached = any(v in below for v in layer.inputs)
        layer.first = layer.is_kernel and not reached
        if reached or layer.is_kernel:
            below.update(layer.outputs)


def _mark_last(steps: Sequence[Layer], above: set[Var]) -> None:
    """Marks the kernel layers that are above none; `above` are the values that are."""
    for layer in reversed(steps):
        if layer.control is not None:
            through = [partial(_mark_last, block.steps, above) for block in layer.blocks]
            layer.control.spread_back(above, through, lambda var: var.carries)
            continue
        reached = any(v in above for v in layer.outputs)
        layer.last = layer.is_kernel and not reached
        if reached or layer.is_kernel:
            above.update(layer.inputs)
