"""The `reverse_*` options: changes of relevance on its way down."""

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain.graph import Graph
from jaxplain.probes import RelevanceTransforms
from jaxplain.transforms.patterns import projections


def clip(option: Any) -> Callable[[Graph], RelevanceTransforms]:
    """Every value's relevance is cut to a range (low, high)."""
    low, high = bounds(option, "clip_values")

    def transforms(graph: Graph) -> RelevanceTransforms:
        change = partial(jnp.clip, min=low, max=high)
        outputs = (v for step in graph.all_steps if not step.blocks for v in step.outputs)
        return dict.fromkeys((*graph.explained, *outputs), change)

    return transforms


def project(option: Any) -> Callable[[Graph], RelevanceTransforms]:
    """At every bottleneck, relevance is divided by its largest magnitude and spread to a range.

    Args:
        option: True for (-1, 1), or a pair (low, high).
    """
    low, high = (-1.0, 1.0) if option is True else bounds(option, "project_bottleneck_layers")
    return partial(projections, low=low, high=high)


def bounds(value: Any, option: str) -> tuple[float, float]:
    """A pair of numbers low < high.

    Raises:
        ValueError: it is none.
    """
    pair = tuple(value) if isinstance(value, list | tuple) else ()
    if len(pair) != 2 or not all(isinstance(v, Real) for v in pair) or not pair[0] < pair[1]:
        raise ValueError(f"reverse_{option} must be a pair (low, high), got {value!r}")
    return pair


def both(
    first: Callable[[Graph], RelevanceTransforms] | None,
    then: Callable[[Graph], RelevanceTransforms] | None,
) -> Callable[[Graph], RelevanceTransforms] | None:
    """One change after the other."""
    if first is None or then is None:
        return first or then

    def transforms(graph: Graph) -> RelevanceTransforms:
        changes = dict(first(graph))
        for var, change in then(graph).items():
            before = changes.get(var)
            changes[var] = change if before is None else partial(_in_turn, before, change)
        return changes

    return transforms


def _in_turn(first: Any, then: Any, r: jax.Array) -> jax.Array:
    return then(first(r))
