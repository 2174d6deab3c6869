"""Softmax inside a network."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxplain.rules.base import Arrays, LayerView, Rule


@dataclass(frozen=True)
class Taylor(Rule):
    """First-order Taylor expansion of a softmax at its input: R_i = x_i (J^T (R / z))_i.

    For z = softmax(x) this is x_i (R_i - z_i sum_j R_j). It does not conserve relevance: the
    expansion's constant term keeps the rest.

    References:
        Achtibat et al., "AttnLRP", ICML 2024, prop. 3.1.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"Softmax"})

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        epsilon = 0.0 if layer.op == "softmax" else 1e-6  # a log-probability may be nearly 0
        finite = jnp.where(jnp.isfinite(x[0]), x[0], 0)
        s = layer.divide(r, z, epsilon)
        layer.record("remainder", lambda: s * (z - layer.jvp((finite,))))
        (c,) = layer.vjp(s)
        return (finite * c,)
