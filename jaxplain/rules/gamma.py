"""LRP-gamma: contributions of the output's own sign are favoured."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxplain.arguments import check_number
from jaxplain.rules.base import Arrays, LayerView, Stabilized, Stabilizer


@dataclass(frozen=True)
class Gamma(Stabilized):
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
    needs_matrix_entries: ClassVar[bool] = True
    weights_like_inputs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.gamma, "gamma")

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class; c+ and c- are (c + |c|) / 2 and (c - |c|) / 2."""
        half, size = self.gamma / 2, layer.abs()
        sizes = tuple(v if up else jnp.abs(v) for v, up in zip(x, layer.nonnegative, strict=True))
        flow = size(sizes)
        own = lambda v: jnp.where(z > 0, v, -v)  # noqa: E731  # positive where it has z's sign
        total = linear = jnp.abs(z)
        counts = self.bias and layer.biased
        if layer.biased:
            bias = own(layer.bias)
            linear = total - bias
            favoured = self.gamma * jnp.maximum(bias, 0)
            total = total + favoured if counts else linear
        alive = jnp.where(z == 0, 0, r)
        sign = 0 if layer.biased and not counts else +1
        denominator = total + half * (linear + flow)
        s = layer.divide(alive, denominator, self.epsilon, lambda: (1 + self.gamma) * flow, sign)
        layer.record("dead", lambda: r - alive)
        if counts:
            layer.record("bias", lambda: s * (bias + favoured))
        plain, favour = layer.transpose(own(s)), size.transpose(s)
        parts = zip(x, plain, sizes, favour, strict=True)
        return tuple((1 + half) * v * p + half * n * q for v, p, n, q in parts)
