"""LRP-alpha-beta and z+: positive and negative contributions are redistributed apart."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxplain.arguments import check_number
from jaxplain.rules.base import Arrays, LayerView, Stabilized, Stabilizer
from jaxplain.rules.split import Contributions, Excitation


@dataclass(frozen=True)
class AlphaBeta(Stabilized):
    """LRP-alpha-beta: R_i = sum_j (alpha c+_ji / z+_j - beta c-_ji / z-_j) R_j.

    c+ and c- are the positive and negative parts of the contributions x_i A_ji (inputs of both
    signs are treated), z+ and z- their sums plus the positive and negative part of the bias.

    Attributes:
        alpha, beta: both >= 0, with alpha - beta = 1.
        epsilon: the stabiliser of z+ and z-.
        bias: whether the bias counts.

    Raises:
        ValueError: alpha or beta is negative, or alpha - beta is not 1.

    References:
        Bach et al., PLOS ONE 2015, eq. 60.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> f = lambda x: x @ jnp.array([[1.0], [-1.0]]) - 1.0
        >>> print(jxp.lrp(f, jxp.rules.AlphaBeta(2, 1, epsilon=0.0))(jnp.array([[1.0, 1.0]])))
        [[-2.   0.5]]
    """

    alpha: float = 2.0
    beta: float = 1.0
    epsilon: Stabilizer = 1e-6
    bias: bool = True
    needs_matrix_entries: ClassVar[bool] = True
    weights_like_inputs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.alpha, "alpha")
        check_number(self.beta, "beta")
        if not math.isclose(self.alpha - self.beta, 1, abs_tol=1e-6):
            raise ValueError(f"alpha - beta must be 1, got {self.alpha} - {self.beta}")

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        if self.beta == 0:
            excited = Excitation(layer, x)
            return excited.share(self._quotient(layer, r, excited.total(), +1))
        contributions = Contributions(layer, x)
        above, below = contributions.totals()
        up = self._quotient(layer, self.alpha * r, above, +1)
        down = self._quotient(layer, -self.beta * r, below, -1)
        return contributions.share(up, down)

    def _quotient(self, layer: LayerView, r: jax.Array, total: jax.Array, sign: int) -> jax.Array:
        """r over the contributions of one sign, and that sign's part of the bias."""
        if not (self.bias and layer.biased):
            return layer.divide(r, total, self.epsilon, sign=sign)
        bias = jnp.maximum(layer.bias, 0) if sign > 0 else jnp.minimum(layer.bias, 0)
        s = layer.divide(r, total + bias, self.epsilon, sign=sign)
        layer.record("bias", lambda: s * bias)
        return s


@dataclass(frozen=True)
class ZPlus(Stabilized):
    """z+: only positive contributions count. `AlphaBeta(1, 0)`.

    Attributes:
        epsilon: the stabiliser of z+.
        bias: whether the positive part of the bias counts.

    References:
        Montavon et al., "Explaining NonLinear Classification Decisions with Deep Taylor
        Decomposition", Pattern Recognition 2017.
    """

    epsilon: Stabilizer = 1e-6
    bias: bool = True
    needs_matrix_entries: ClassVar[bool] = True
    weights_like_inputs: ClassVar[bool] = True

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        return AlphaBeta(1.0, 0.0, self.epsilon, self.bias).relevance(layer, x, z, r)
