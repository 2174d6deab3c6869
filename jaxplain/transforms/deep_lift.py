"""DeepLIFT: the difference from a baseline, carried through differences instead of derivatives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxplain.affine import log_space
from jaxplain.affine.moves import undone
from jaxplain.arguments import check_choice
from jaxplain.composites import Composite, kind, op
from jaxplain.errors import NotAnalyzableError
from jaxplain.graph import Graph, Layer, explained_leaves
from jaxplain.graph.ir import Var
from jaxplain.graph.primitives import MAXIMA, MINIMA
from jaxplain.interpreter import apply
from jaxplain.plan import Plan
from jaxplain.rules import Gradient, Pass, Rule
from jaxplain.rules.deep_lift import LogMeans, Rescale, RevealCancel, Switching, Winners
from jaxplain.spelling import checked_options
from jaxplain.targets import Target
from jaxplain.transforms import baselines, trees
from jaxplain.transforms.explainer import Explainer
from jaxplain.transforms.method import Method, Run, one
from jaxplain.transforms.wrapper import Base, Wrapper

_MAXIMA: dict[str, Rule] = {"winners": Winners(), "gradient": Gradient()}


@checked_options
def deep_lift(
    f: Callable[..., Any],
    baseline: Any = 0.0,
    *,
    rule: Literal["rescale", "reveal_cancel"] = "rescale",
    maxima: Literal["winners", "gradient"] = "winners",
    argnums: int | Sequence[int] = 0,
    logits: bool = True,
) -> "DeepLift":
    """DeepLIFT: f(x)_k - f(x0)_k, shared among the differences of the inputs from a baseline.

    The attribution is m (x - x0), where the multiplier m goes backward through the network as a
    gradient does, but with differences in the place of derivatives: dz / dx at an activation. Its
    sum over an example is f(x)_k - f(x0)_k, to rounding.

    What else than activations is not affine: products, quotients and matrix products of two values
    that depend on x share the difference by what each factor makes of it, averaged over the two
    orders of changing them; maxima and minima by the winners in x and in the baseline; softmax by
    logarithmic means of the exponentials and of their sums. Normalisations (LayerNorm, RMSNorm) are
    the squares, sums, roots and quotients that they are made of.

    Args:
        f: the function to explain: `f(x, *args) -> scores`.
        baseline: x0, the input that stands for absence: a number or an array that broadcasts to
            the explained input (one baseline for all examples, or one each); a tree of them like
            the explained argument (a tuple for a sequence of argnums); or a function from the
            explained argument to any of these.
        rule: for activations. "rescale": what a linear layer adds up is one difference.
            "reveal_cancel": its positive and its negative contributions have multipliers of their
            own, so that what they do shows even where they cancel. This is for activations that
            alone read a dense layer, a convolution or a sum (the authors keep convolutions on
            "rescale"); others are rescaled.
        maxima: "gradient" differentiates maxima and minima as they are written, as captum and the
            authors' library do with max-pooling; the sum then misses f(x)_k - f(x0)_k.
        argnums: which arguments are explained, as in `jax.grad`.
        logits: explain what a trailing softmax reads, as the authors advise.

    Returns:
        An explainer: called with the arguments of `f` (and `target=`), it returns the attribution
        in the shape of the explained argument, in units of the output.

    Raises:
        ValueError: there is no such rule or treatment of maxima; in a call, the baseline does not
            fit the input.
        NotAnalyzableError: in a call, the difference would have to cross an operation that DeepLIFT
            cannot share it in: control flow (`jaxplain.unroll` writes loops out), sorting, or one
            that is switched by a value that depends on x but has no derivative (an index, a
            comparison, a stop_gradient). A comparison of what it switches, as in a rectifier, is
            fine.

    References:
        Shrikumar et al., "Learning Important Features Through Propagating Activation Differences",
        ICML 2017.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> f = lambda x: jax.nn.relu(x @ jnp.array([[1.0], [2.0]]) - 2)  # its gradient is 0
        >>> x, x0 = jnp.array([[1.0, 0.0]]), jnp.array([[2.0, 2.0]])
        >>> print(f(x) - f(x0), jxp.deep_lift(f, x0)(x))
        [[-4.]] [[-0.8 -3.2]]
    """
    check_choice(rule, "rule", ("rescale", "reveal_cancel"))
    check_choice(maxima, "maxima", list(_MAXIMA))
    method = Method(
        _DeepLift(_MAXIMA[maxima], reveal_cancel=rule == "reveal_cancel"),
        seed=one,
        ledger=False,
        normalizations=False,
        layer_states=_inputs_at_baseline,
    )
    return DeepLift(Explainer(f, method=method, argnums=argnums, logits=logits), baseline)


@dataclass(frozen=True, eq=False)
class DeepLift(Wrapper):
    """See `deep_lift`.

    Attributes:
        baseline: the input to compare with.
    """

    baseline: Any = 0.0
    arrays = ("baseline",)

    def attribute(self, base: Base, args: Sequence[Any], target: Target, key: Any) -> Any:
        """See `Wrapper`."""
        x = trees.explained(args, self.argnums)
        x0 = baselines.resolve(self.baseline, x)
        there = jax.tree.leaves(tuple(trees.replaced(args, self.argnums, x0)))
        # kept from XLA, which would fold the pass at a constant baseline while it compiles
        places = explained_leaves(args, self.argnums)
        state = jax.lax.optimization_barrier([there[i] for i in places])
        assert isinstance(base, Explainer)
        multiplier = replace(base, state=state)(*args, target=target)
        return trees.scaled(multiplier, jax.tree.map(jnp.subtract, x, x0))

    def check(self, args: Sequence[Any], target: Target) -> None:
        """See `Wrapper`."""
        baselines.check(self.baseline, trees.explained(args, self.argnums))


def _inputs_at_baseline(plan: Plan, baseline: Sequence[Any], run: Run) -> dict[Layer, Any]:
    """The inputs of every layer at the baseline, and its activation for `RevealCancel`."""
    values = run(baseline)
    states: dict[Layer, Any] = {}
    for row in plan:
        sources = tuple(values[v] for v in row.layer.inputs)
        if isinstance(row.rule, RevealCancel):
            states[row.layer] = sources, _function(_activation(plan.graph, row.layer), values)
        elif isinstance(row.rule, LogMeans):
            states[row.layer] = sources, _in_exponents(row.layer, values)
        elif not isinstance(row.rule, Gradient | Pass):
            states[row.layer] = (sources,)
    return states


def _function(layer: Layer | None, values: Mapping[Var, Any]) -> jax.tree_util.Partial:
    """An activation as a function of its input, which holds its constants as leaves."""
    assert layer is not None

    def function(constants: Mapping[Var, Any], x: jax.Array) -> jax.Array:
        narrow = x.astype(layer.inputs[0].aval.dtype)
        (z,) = apply(layer, constants, [narrow])
        return undone(layer.moves, z).astype(x.dtype)

    return _holding_constants(layer, values, function)


def _in_exponents(layer: Layer, values: Mapping[Var, Any]) -> jax.tree_util.Partial:
    """A softmax in exponents, as a function of its input and of how they are summed."""
    return _holding_constants(layer, values, partial(log_space.run, layer))


def _holding_constants(
    layer: Layer, values: Mapping[Var, Any], function: Callable[..., Any]
) -> jax.tree_util.Partial:
    """A function of a layer's constants and more, which holds the constants as leaves."""
    names = [v for v in layer.constants if v.literal is None]

    def holding(constants: list[Any], *args: Any) -> Any:
        return function(dict(zip(names, constants, strict=True)), *args)

    return jax.tree_util.Partial(holding, [values[v] for v in names])


_EXTREMUM = op(*MAXIMA, *MINIMA)
_BASE = (
    (kind("Activation"), Rescale()),
    (kind("Product", "Matmul"), Switching()),
    (kind("Softmax"), LogMeans()),
    (kind("Affine", "Merge"), Gradient()),
)


class _DeepLift(Composite):
    """A rule for every layer that DeepLIFT can cross, and an error for the others."""

    def __init__(self, maxima: Rule, *, reveal_cancel: bool):
        name = "DeepLift (reveal-cancel)" if reveal_cancel else "DeepLift (rescale)"
        extrema = (kind("Selection") & _EXTREMUM, maxima)
        super().__init__([], name=name, base=[*_BASE, extrema])
        self.reveal_cancel = reveal_cancel

    def assign(self, graph: Graph) -> list[tuple[Layer, Rule | None, str]]:
        """See `Composite`.

        Raises:
            NotAnalyzableError: there are layers that DeepLIFT cannot cross.
        """
        assigned = super().assign(graph)
        ruleless = {layer for layer, rule, _ in assigned if rule is None}
        checked = [(step, _obstacle(step, step in ruleless)) for step in graph.all_steps]
        if obstacles := [(layer, why) for layer, why in checked if why]:
            raise _not_analyzable(obstacles)
        if not self.reveal_cancel:
            return assigned
        together: dict[Layer, tuple[Rule, str]] = {}
        for layer in graph.layers:
            if (activation := _activation(graph, layer)) is not None:
                together[layer] = RevealCancel(), f"with {activation.name}"
                together[activation] = Pass(), "done by the layer before"
        return [(layer, *together.get(layer, (rule, why))) for layer, rule, why in assigned]


def _activation(graph: Graph, layer: Layer) -> Layer | None:
    """The activation that alone reads a linear layer whose entries have signs."""
    if layer.output in graph.explained_outputs or RevealCancel().objection(layer):
        return None
    if not (layer.is_kernel or layer.kind == "Merge"):
        return None
    readers = [step for step in graph.steps if layer.output in step.inputs]
    return readers[0] if len(readers) == 1 and readers[0].kind == "Activation" else None


def _obstacle(layer: Layer, ruleless: bool) -> str:
    """Why DeepLIFT cannot cross a layer; "" when it can."""
    if layer.blocks:
        way_out = "explain jaxplain.unroll(f)" if layer.kind == "Loop" else "write out its case"
        return f"is a {layer.kind.lower()}, which DeepLIFT does not go into: {way_out}"
    if layer.frozen:
        return "is switched by a value that depends on the input but has no derivative"
    if layer.kind == "Softmax":
        return log_space.objection(layer)
    return "has no DeepLIFT rule" if ruleless else ""


def _not_analyzable(obstacles: Sequence[tuple[Layer, str]]) -> NotAnalyzableError:
    lines = [
        f"  `{layer.main.primitive}` at {layer.location or 'unknown place'}: {why}"
        for layer, why in obstacles[:5]
    ]
    if len(obstacles) > 5:
        lines.append(f"  and {len(obstacles) - 5} more")
    return NotAnalyzableError(
        "DeepLIFT cannot share a difference in these operations:\n"
        + "\n".join(lines)
        + "\nWays out: rewrite them with known operations; pass what is not to be explained as an "
        "argument of its own; or take a method that needs the gradient only."
    )
