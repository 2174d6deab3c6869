"""Products of two values that both carry relevance."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxplain.rules.base import (
    Arrays,
    Rule,
    Stabilizer,
    View,
    check_epsilon,
    reduced,
    times,
)


@dataclass(frozen=True)
class Uniform(Rule):
    """Even split between the factors of a product.

    For z = a * b each factor receives R / 2; for a matrix product z_ij = sum_k a_ik b_kj each term
    of the sum sends half of its share a_ik b_kj R_ij / (z_ij + epsilon sgn(z_ij)) to each factor.
    A quotient sends everything to its numerator: the denominator counts as a constant.

    Attributes:
        epsilon: the stabiliser of matrix products.

    References:
        Achtibat et al., "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for
        Transformers", ICML 2024, prop. 3.3.
    """

    epsilon: Stabilizer = 1e-6
    kinds: ClassVar[frozenset[str]] = frozenset({"Product", "Matmul"})

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)

    def relevance(self, layer: View, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        if layer.kind == "Matmul":
            s = layer.divide(r, z, self.epsilon, flow=lambda: layer.function(*map(jnp.abs, x)))
            shares = times(x, layer.vjp(s))
            return tuple(share / 2 for share in shares)  # both factors may be one value
        if layer.op == "quotient":
            return (reduced(r, x[0]), *(jnp.zeros_like(v) for v in x[1:]))
        return tuple(reduced(r / len(x), v) for v in x)
