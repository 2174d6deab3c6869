"""LRP-gamma: contributions of the output's own sign are favoured."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxplain.rules.base import Arrays, Rule, Stabilizer, View, check_epsilon, check_number


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
    exchangeable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        check_number(self.gamma, "gamma")

    def relevance(self, layer: View, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        half = self.gamma / 2  # c+ and c- are (c + |c|) / 2 and (c - |c|) / 2
        rises, size = z > 0, layer.abs()
        sizes = tuple(v if up else jnp.abs(v) for v, up in zip(x, layer.nonnegative, strict=True))
        flow = size(sizes)
        bias = layer.bias if layer.biased else None
        linear = z if bias is None else z - bias
        total = (z if self.bias else linear) + half * (linear + jnp.where(rises, flow, -flow))
        if self.bias and bias is not None:
            favoured = jnp.where(rises == (bias > 0), self.gamma * bias, 0)
            total = total + favoured
        alive = jnp.where(z == 0, 0, r)
        s = layer.divide(alive, total, self.epsilon, flow=lambda: (1 + self.gamma) * flow)
        layer.book("dead", lambda: r - alive)
        if self.bias and bias is not None:
            layer.book("bias", lambda: s * (bias + favoured))
        plain, favour = layer.transpose(s), size.transpose(jnp.where(rises, s, -s))
        return tuple(
            (1 + half) * v * p + half * n * q
            for v, p, n, q in zip(x, plain, sizes, favour, strict=True)
        )
