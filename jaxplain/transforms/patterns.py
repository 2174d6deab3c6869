"""PatternNet and PatternAttribution."""

from collections.abc import Callable
from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp

from jaxplain.affine import kernels
from jaxplain.composites import DIFFERENTIATED, Composite, kernel, kind, op
from jaxplain.graph import Graph, Layer
from jaxplain.graph.bottlenecks import bottlenecks
from jaxplain.matches import Where
from jaxplain.patterns import Patterns, check_patterns, kernel_layers
from jaxplain.plan import Plan
from jaxplain.probes import RelevanceTransforms
from jaxplain.rules import PatternAttribution, PatternNet
from jaxplain.spelling import checked_options
from jaxplain.transforms.explainer import Explainer, Options
from jaxplain.transforms.method import Run, gradient_method, selected_value


@checked_options
def pattern_net(
    f: Callable[..., Any],
    patterns: Patterns,
    *,
    project: bool = False,
    unknown: str = "error",
    **options: Unpack[Options],
) -> Explainer:
    """PatternNet: the signal in the input that the selected output responds to.

    The backward pass starts from the value of the selected output and is the gradient's, but every
    kernel layer sends back R_i = sum_j a_ij R_j with its patterns a in the place of its weights w
    (w_j . a_j = 1), and every scale s the signal R / s. A trailing softmax is left out.

    Args:
        f: the function to explain: `f(x, *args) -> logits`.
        patterns: for every kernel layer, by its name in the plan, an array in the shape of its
            weights, as `pattern_statistics(f, data).patterns()` returns them. Passed at run time.
        project: divide the signal by its largest magnitude, example by example, at every value that
            all information passes through: the selected output, the input, and what no connection
            goes around, except where it is a vector per example. A signal that fades or grows over
            many layers stays in range, and maps of images are then in [-1, 1]. This is what
            iNNvestigate 1 does to the largest output. The leading axis counts examples where the
            explained arguments and the output share it; else all is one example.
        unknown: "error": refuse operations that have no rule, control flow among them. "gradient":
            differentiate them as written, kernels inside included.
        **options: `argnums`, `with_output`, `capture`, `start`, `stop`, `check_finite`: see
            `Explainer`.

    Returns:
        An explainer: called with the arguments of `f` (and `target=`), it returns the signal in the
        shape and, without `project`, in the units of the explained argument.

    Raises:
        TypeError: `patterns` is no dictionary from name to array of real floating numbers.
        ValueError: when it is called, and before any compute: a kernel layer has no pattern, or one
            in the wrong shape; there are patterns for layers that the function has not; or a layer
            has no patterns (a sum of several kernels in one layer, weights that depend on the
            input).

    References:
        Kindermans et al., "Learning how to explain neural networks: PatternNet and
        PatternAttribution", ICLR 2018.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> f = lambda x: x @ jnp.array([[1.0], [-1.0]])  # the difference cancels a distractor
        >>> patterns = {"dense": jnp.array([[1.0], [0.0]])}
        >>> print(jxp.pattern_net(f, patterns)(jnp.array([[5.0, 3.0]])))
        [[2. 0.]]
    """
    return _explainer(f, _PATTERN_NET, patterns, project, unknown, options)


@checked_options
def pattern_attribution(
    f: Callable[..., Any],
    patterns: Patterns,
    *,
    project: bool = False,
    unknown: str = "error",
    **options: Unpack[Options],
) -> Explainer:
    """PatternAttribution: what each part of the signal in the input contributes to the output.

    As `pattern_net`, but kernel layers send back R_i = sum_j w_ij a_ij R_j, and scales R.

    Args:
        f: the function to explain: `f(x, *args) -> logits`.
        patterns: as for `pattern_net`.
        project: as for `pattern_net`.
        unknown: as for `pattern_net`.
        **options: `argnums`, `with_output`, `capture`, `start`, `stop`, `check_finite`: see
            `Explainer`.

    Returns:
        An explainer: called with the arguments of `f` (and `target=`), it returns an attribution in
        the shape of the explained argument, without `project` in units of the output.

    Raises:
        TypeError, ValueError: as `pattern_net`.

    References:
        Kindermans et al., "Learning how to explain neural networks: PatternNet and
        PatternAttribution", ICLR 2018.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> f = lambda x: x @ jnp.array([[1.0], [-1.0]])
        >>> patterns = {"dense": jnp.array([[0.5], [-0.5]])}
        >>> print(jxp.pattern_attribution(f, patterns)(jnp.array([[5.0, 3.0]])))
        [[1. 1.]]
    """
    return _explainer(f, _PATTERN_ATTRIBUTION, patterns, project, unknown, options)


def _composite(rule: PatternNet) -> Composite:
    weights = Where(kernel | kind("Affine") & op("scale"), "kernel | scale")
    return Composite([(weights, rule)], name=type(rule).__name__, base=DIFFERENTIATED, strict=False)


_PATTERN_NET, _PATTERN_ATTRIBUTION = _composite(PatternNet()), _composite(PatternAttribution())


def _explainer(
    f: Callable[..., Any],
    composite: Composite,
    patterns: Patterns,
    project: bool,
    unknown: str,
    options: Options,
) -> Explainer:
    check_patterns(patterns)
    method = gradient_method(
        composite,
        seed=selected_sign if project else selected_value,
        layer_states=_by_layer,
        transform_relevance=projections if project else None,
    )
    return Explainer(f, method=method, unknown=unknown, state=dict(patterns), **options)


def _by_layer(plan: Plan, patterns: Patterns, run: Run) -> dict[Layer, Any]:
    """Each layer's pattern, checked."""
    layers = kernel_layers(plan)
    names = [layer.name for layer in layers]
    if missing := [name for name in names if name not in patterns]:
        raise ValueError(
            f"there is no pattern for the kernel layers {', '.join(missing)}; there are patterns "
            f"for: {', '.join(patterns) or 'none'}. Fit them with pattern_statistics on this "
            "function"
        )
    if foreign := [name for name in patterns if name not in names]:
        raise ValueError(
            f"there are patterns for {', '.join(foreign)}, but the function's kernel layers are: "
            f"{', '.join(names) or 'none'}"
        )
    for layer in layers:
        shape, wanted = jnp.shape(patterns[layer.name]), kernels.of(layer).weights.shape
        if shape != wanted:
            raise ValueError(
                f"the pattern of layer {layer.name!r} must have the shape of its weights, "
                f"{wanted}, got {shape}"
            )
    return {layer: patterns[layer.name] for layer in layers}


def selected_sign(output: jax.Array) -> jax.Array:
    """The selected output, projected: of one number per example the sign is left."""
    return jnp.sign(output) if output.ndim <= 2 else output


def projections(graph: Graph, low: float = -1.0, high: float = 1.0) -> RelevanceTransforms:
    """At every bottleneck, each example's signal divided by its largest magnitude.

    Args:
        graph: the graph.
        low: the value that -1 becomes.
        high: the value that 1 becomes.
    """
    size = graph.explained_outputs[0].shape[:1] if graph.batched else ()
    project = partial(_project, batched=graph.batched, low=low, high=high)
    return {v: project for v in bottlenecks(graph) if v.shape[:1] == size or not graph.batched}


def _project(signal: jax.Array, *, batched: bool, low: float, high: float) -> jax.Array:
    """Spreads each example's signal to a range; vectors stay as they are."""
    axes = tuple(range(int(batched), signal.ndim))
    if len(axes) == 1:
        return signal
    largest = jnp.max(jnp.abs(signal), axes, keepdims=True, initial=0)
    unit = signal / jnp.where(largest == 0, 1, largest)
    return unit if (low, high) == (-1, 1) else low + (unit + 1) / 2 * (high - low)
