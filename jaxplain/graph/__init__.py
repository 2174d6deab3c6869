"""The graph of a function: its layers, read off its jaxpr.

flatten -> analyses -> rewrites -> recognizers and boundaries -> assemble -> describe
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain.graph.analyses.axes import Axes
from jaxplain.graph.analyses.flow import Flow, flow_of
from jaxplain.graph.analyses.integer_inputs import Lookup, lookups_of
from jaxplain.graph.assemble import assemble
from jaxplain.graph.describe import describe, ends_in_probabilities
from jaxplain.graph.examples import counts_examples
from jaxplain.graph.flatten import flatten
from jaxplain.graph.ir import Program, Var
from jaxplain.graph.layer import RULELESS, Block, Layer
from jaxplain.graph.recognizers import RECOGNIZERS
from jaxplain.graph.recognizers.facts import Facts
from jaxplain.graph.rewrites.output_activation import without_output_activation

__all__ = ["Graph", "Layer", "trace"]


class Graph:
    """The layers of a traced function.

    Attributes:
        program: the flat operations.
        flow: where relevance flows in them.
        explained: the values that are explained: floating inputs, and the floats that integer
            inputs become, such as rows of an embedding.
        inputs: the function's inputs that are explained.
        lookups: the floats that integer inputs become.
        explained_outputs: the values that relevance starts from: the function's outputs, with a
            trailing softmax left out when `trace` was asked to.
        steps: every layer of the function itself in execution order: structure, loops and branches
            too.
        all_steps: `steps`, each loop or branch followed by the steps inside of it.
        layers: the steps of `all_steps` that take a rule.
        left_out: what was left out at the outputs: "softmax", "log_softmax" or "sigmoid"; "" for
            nothing.
        axes: for the axes of every value, the axis of the explained input that they run along.
        batched: whether the leading axis of the explained inputs counts examples.
    """

    def __init__(
        self,
        program: Program,
        inputs: tuple[Var, ...],
        logits: bool | str,
        normalizations: bool = True,
    ):
        self.inputs = inputs
        self.lookups: tuple[Lookup, ...] = lookups_of(program, inputs)
        floating = (v for v in inputs if v.floating)
        self.explained = (*floating, *(lookup.value for lookup in self.lookups))
        self.left_out, outputs = "", tuple(program.outputs)
        facts = self._facts(program, outputs, normalizations)
        if logits:
            sigmoids = logits != "softmax"
            rewritten = without_output_activation(program, facts, sigmoids)
            program, outputs, self.left_out = rewritten
        if self.left_out:
            facts = self._facts(program, outputs, normalizations)
        self.program: Program = program
        self.flow: Flow = facts.flow
        self.axes = Axes(program, self.explained)
        self.batched = counts_examples([v.aval for v in outputs], [v.aval for v in inputs])
        steps = assemble(program, outputs, facts)
        self.block: Block[Layer] = describe(steps, facts.flow, self.axes, self.batched)
        self.steps, self.explained_outputs = self.block.steps, outputs
        self.all_steps = tuple(self.block.walk())
        self.layers = tuple(step for step in self.all_steps if step.kind not in RULELESS)

    @cached_property
    def probabilities(self) -> str:
        """The softmax or sigmoid in the graph whose value an output is; empty for none."""
        return ends_in_probabilities(self.block, self.flow)

    def _facts(self, program: Program, outputs: Sequence[Var], normalizations: bool) -> Facts:
        flow = flow_of(program, self.explained, outputs)
        return Facts(program, self.explained, flow, RECOGNIZERS, normalizations)

    def __str__(self) -> str:
        return "\n".join(map(str, self.layers))


def trace(
    f: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] = 0,
    keep_derivatives: bool = False,
    logits: bool | str = False,
) -> Graph:
    """Reads the layers of `f(*args)` off its jaxpr, without running it.

    Args:
        f: a pure function of arrays (any pytrees of them).
        *args: example arguments, or `jax.ShapeDtypeStruct`s in their place.
        argnums: which arguments are explained, as in `jax.grad`.
        keep_derivatives: keep functions with a custom derivative as they are, as gradient methods
            need; relevance methods look through them.
        logits: leave a trailing softmax, log-softmax or sigmoid out of the layers; "softmax": but
            no sigmoid.

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
