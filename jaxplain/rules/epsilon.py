"""LRP-0 and LRP-epsilon: relevance in proportion to the contributions x_i A_ji."""

from dataclasses import dataclass
from typing import ClassVar

import jax

from jaxplain.rules.base import Arrays, LayerView, Rule, Stabilized, Stabilizer, times


@dataclass(frozen=True)
class Epsilon(Stabilized):
    """LRP-epsilon: R_i = sum_j x_i A_ji R_j / (z_j + epsilon sgn(z_j)), with z = A x + b.

    Attributes:
        epsilon: the stabiliser, in units of z: a number >= 0 or a function of z.
        bias: whether the bias counts in z (and absorbs its share of relevance).

    Raises:
        ValueError: `epsilon` is negative.

    References:
        Bach et al., "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise
        Relevance Propagation", PLOS ONE 2015, eq. 58.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> w = jnp.array([[1.0], [3.0]])
        >>> print(jxp.lrp(lambda x: x @ w, jxp.rules.Epsilon(0.0))(jnp.array([[1.0, 1.0]])))
        [[1. 3.]]
    """

    epsilon: Stabilizer = 1e-6
    bias: bool = True
    weights_like_inputs: ClassVar[bool] = True

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        if not self.bias:
            z = z - layer.bias
        s = layer.divide(r, z, self.epsilon, flow=lambda: layer.edges(x))
        if self.bias:
            layer.record("bias", lambda: s * layer.bias)
        return times(x, layer.transpose(s))


@dataclass(frozen=True)
class Z(Rule):
    """LRP-0: R_i = sum_j x_i A_ji R_j / z_j; outputs with z_j = 0 send nothing.

    Attributes:
        bias: whether the bias counts in z.

    References:
        Bach et al., PLOS ONE 2015, eq. 56.
    """

    bias: bool = True
    weights_like_inputs: ClassVar[bool] = True

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        return Epsilon(0.0, self.bias).relevance(layer, x, z, r)


@dataclass(frozen=True)
class Norm(Stabilized):
    """Proportional redistribution for layers without weights of their own.

    The formula of `Epsilon`. It is the default of pooling, means, sums and residual additions
    (each term gets its share of the sum), and of normalisations, whose statistic is held constant.

    Attributes:
        epsilon: the stabiliser, in units of z.
    """

    epsilon: Stabilizer = 1e-6
    weights_like_inputs: ClassVar[bool] = True

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        return Epsilon(self.epsilon).relevance(layer, x, z, r)
