"""LRP-gamma: contributions of the output's own sign are favoured."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxplain.rules.base import Arrays, Rule, Stabilizer, View, check_epsilon, check_number
from jaxplain.rules.split import Contributions


@dataclass(frozen=True)
class Gamma(Rule):
    """Generalised LRP-gamma, for inputs and outputs of any sign.

    Where z_j > 0:  R_i += (c_ji + gamma c+_ji) / (z_j + gamma z+_j) R_j
    Where z_j < 0:  R_i += (c_ji + gamma c-_ji) / (z_j + gamma z-_j) R_j

    c = x_i A_ji are the contributions, c+ and c- their positive and negative parts; z+ and z- sum
    them with the positive and negative part of the bias. Outputs that are exactly 0 send nothing.
    gamma = 0 is LRP-epsilon, gamma -> infinity is z+ for positive outputs.

    Attributes:
        gamma: how much the favoured sign counts, >= 0.
        epsilon: the stabiliser.
        bias: whether the bias counts in the denominators (the sign of z always includes it).

    Raises:
        ValueError: gamma is negative.

    References:
        Montavon et al., "Layer-Wise Relevance Propagation: An Overview", 2019;
        Andeol et al., "Learning Domain Invariant Representations by Joint Wasserstein Distance
        Minimization", 2021 (the generalised form).
    """

    gamma: float = 0.25
    epsilon: Stabilizer = 1e-6
    bias: bool = True
    splits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        check_number(self.gamma, "gamma")

    def relevance(self, layer: View, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        contributions = Contributions(layer, x)
        above, below = contributions.totals()
        bias, gamma = layer.bias, self.gamma
        total = z if self.bias else z - bias
        if self.bias:
            above = above + jnp.maximum(bias, 0)
            below = below + jnp.minimum(bias, 0)

        def divided(r: jax.Array, favoured: jax.Array) -> jax.Array:
            flow = lambda: layer.edges(x) + gamma * jnp.abs(favoured)  # noqa: E731
            return layer.divide(r, total + gamma * favoured, self.epsilon, flow)

        up, down = divided(jnp.where(z > 0, r, 0), above), divided(jnp.where(z < 0, r, 0), below)
        layer.book("dead", lambda: jnp.where(z == 0, r, 0))
        if self.bias:
            layer.book("bias", lambda: (up + down) * bias)
            layer.book("bias", lambda: gamma * up * jnp.maximum(bias, 0))
            layer.book("bias", lambda: gamma * down * jnp.minimum(bias, 0))
        both = up + down  # c = c+ + c-
        return contributions.share(both + gamma * up, both + gamma * down)
