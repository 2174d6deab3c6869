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

Change = Callable[[Graph], RelevanceTransforms]


def then_clip(before: Change | None, option: Any) -> Change:
    """Every value's relevance is changed as before, if at all, and cut to a range (low, high)."""
    low, high = bounds(option, "clip_values")
    clip = partial(jnp.clip, min=low, max=high)

    def transforms(graph: Graph) -> RelevanceTransforms:
        first = {} if before is None else before(graph)
        outputs = (v for step in graph.all_steps if not step.blocks for v in step.outputs)
        values = (*graph.explained, *outputs)
        clipped = {v: partial(_in_turn, first[v], clip) if v in first else clip for v in values}
        return {**first, **clipped}

    return transforms


def project(option: Any) -> Change:
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


def _in_turn(first: Any, then: Any, r: jax.Array) -> jax.Array:
    return then(first(r))
