"""What the `reverse_*` options do to relevance on its way down."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain.graph import Graph
from jaxplain.interpreter import Reverse
from jaxplain.transforms.patterns import projections


def clip(low: float, high: float) -> Callable[[Graph], Reverse]:
    """Every value's relevance is cut to [low, high]."""

    def reverse(graph: Graph) -> Reverse:
        change = partial(jnp.clip, min=low, max=high)
        return dict.fromkeys((*graph.explained, *(v for s in graph.steps for v in s.exits)), change)

    return reverse


def project(low: float, high: float) -> Callable[[Graph], Reverse]:
    """At every bottleneck, relevance is divided by its largest magnitude and spread to a range."""

    def spread(change: Callable[[jax.Array], jax.Array], r: jax.Array) -> jax.Array:
        if r.ndim <= 2:
            return change(r)
        return low + (change(r) + 1) / 2 * (high - low)

    return lambda graph: {v: partial(spread, change) for v, change in projections(graph).items()}


def both(
    first: Callable[[Graph], Reverse] | None, then: Callable[[Graph], Reverse] | None
) -> Callable[[Graph], Reverse] | None:
    """One change after the other."""
    if first is None or then is None:
        return first or then

    def reverse(graph: Graph) -> Reverse:
        changes = dict(first(graph))
        for var, change in then(graph).items():
            before = changes.get(var)
            changes[var] = change if before is None else partial(_in_turn, before, change)
        return changes

    return reverse


def _in_turn(first: Any, then: Any, r: jax.Array) -> jax.Array:
    return then(first(r))
