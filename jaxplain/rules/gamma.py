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
        rises = z > 0
        total, favoured = z, jnp.where(rises, above, below)
        if self.bias:
            bias = jnp.where(rises == (layer.bias > 0), layer.bias, 0)  # of the output's sign
            favoured = favoured + bias
        else:
            total = z - layer.bias
        flow = lambda: layer.edges(x) + self.gamma * jnp.abs(favoured)  # noqa: E731
        alive = jnp.where(z == 0, 0, r)
        s = layer.divide(alive, total + self.gamma * favoured, self.epsilon, flow)
        layer.book("dead", lambda: r - alive)
        if self.bias:
            layer.book("bias", lambda: s * (layer.bias + self.gamma * bias))
        extra = self.gamma * s  # c = c+ + c-
        return contributions.share(s + jnp.where(rises, extra, 0), s + jnp.where(rises, 0, extra))
