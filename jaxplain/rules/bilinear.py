"""Products of two values that both carry relevance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxplain.rules.base import Arrays, LayerView, Rule, Stabilized, Stabilizer, reduced, times


@dataclass(frozen=True)
class Uniform(Stabilized):
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

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        if layer.kind == "Matmul":
            s = layer.divide(r, z, self.epsilon, flow=lambda: layer.function(*map(jnp.abs, x)))
            shares = times(x, layer.vjp(s))
            return tuple(share / 2 for share in shares)  # both factors may be one value
        return _split(layer, r, x, [True for _ in x])


@dataclass(frozen=True)
class SignalTake(Rule):
    """A product's relevance goes to its signal, and none to the gate.

    A gate provably lies between 0 and 1 (a sigmoid, what is left to 1, a softmax, a clipped line),
    a signal does not: what a gate lets through is not its own. Where both factors are gates, or
    neither is, they share evenly. A quotient sends everything to its numerator.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> from jaxplain.composites import Composite, kind
        >>> f = lambda x: jax.nn.sigmoid(x[..., :1]) * x[..., 1:]
        >>> gated = Composite([(kind("Product"), jxp.rules.SignalTake())])
        >>> print(jxp.lrp(f, gated)(jnp.array([[0.0, 3.0]])))
        [[0.  1.5]]

    References:
        Arras et al., "Explaining Recurrent Neural Network Predictions in Sentiment Analysis",
        WASSA 2017; "Explaining and Interpreting LSTMs", in "Explainable AI", Springer 2019.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"Product"})

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        signals = [not gate for gate in layer.gates]
        return _split(layer, r, x, signals if any(signals) else [True for _ in x])


def _split(layer: LayerView, r: jax.Array, x: Arrays, takes: Sequence[bool]) -> Arrays:
    """Evenly among the factors that take some; of a quotient, the numerator takes all."""
    if layer.op == "quotient":
        takes = [True, *(False for _ in x[1:])]
    share = r / sum(takes)
    pairs = zip(x, takes, strict=True)
    return tuple(reduced(share, v) if taken else jnp.zeros_like(v) for v, taken in pairs)
