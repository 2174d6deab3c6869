"""Deep Taylor decomposition."""

from collections.abc import Callable
from typing import Any, Unpack

import jax

from jaxplain.composites import DeepTaylor
from jaxplain.rules.base import Stabilizer
from jaxplain.spelling import checked_options
from jaxplain.transforms.explainer import Explainer, Options
from jaxplain.transforms.method import Method


@checked_options
def deep_taylor(
    f: Callable[..., Any],
    *,
    low: Any = None,
    high: Any = None,
    epsilon: Stabilizer = 1e-6,
    unknown: str = "error",
    **options: Unpack[Options],
) -> Explainer:
    """Deep Taylor decomposition: z+ in every kernel layer, starting from max(f_k, 0).

    An output that is not positive has nothing to explain: its map is zero. Biases take no
    relevance, so in a network of kernels and rectifiers it is conserved.

    Args:
        f: the function to explain: `f(x, *args) -> logits`.
        low: the smallest values of the input, in its units: a number or an array that broadcasts to
            the input. With bounds the first kernel layers follow zB; without, z+ as all others,
            which treats inputs of both signs.
        high: the largest ones.
        epsilon: the stabiliser.
        unknown: as for `lrp`.
        **options: `argnums`, `with_output`, `capture`, `start`, `stop`, `check_finite`: see
            `Explainer`.

    Returns:
        An explainer, as `lrp`.

    Raises:
        ValueError: one of `low` and `high` is missing, or they are out of order.

    References:
        Montavon et al., "Explaining NonLinear Classification Decisions with Deep Taylor
        Decomposition", Pattern Recognition 2017.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> f = lambda x: x @ jnp.array([[1.0, 0.0], [3.0, -1.0]])
        >>> explain = jxp.deep_taylor(f)
        >>> print(explain(jnp.array([[1.0, 1.0]]), target=0).astype(jnp.float16))
        [[1. 3.]]
        >>> print(explain(jnp.array([[1.0, 1.0]]), target=1))
        [[0. 0.]]
    """
    method = Method(DeepTaylor(low, high, epsilon), seed=_positive_part)
    return Explainer(f, method=method, unknown=unknown, **options)


def _positive_part(output: jax.Array) -> jax.Array:
    return jax.nn.relu(output)
