"""BiLRP: which pairs of features make two inputs similar."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain.composites import Composite
from jaxplain.rules import Epsilon, Rule
from jaxplain.spelling import checked_options
from jaxplain.transforms.lrp import lrp


@checked_options
def bilrp(
    f: Callable[..., Any],
    rule: Rule | Composite = Epsilon(1e-6),
    *,
    pool: Callable[[jax.Array], jax.Array] | None = None,
) -> Callable[..., jax.Array]:
    """BiLRP: the similarity <f(x), f(y)>, attributed to pairs of features of x and y.

    R_ij = sum_m R_i(x <- f_m(x)) R_j(y <- f_m(y)): the outer products of the LRP maps of every
    feature m, summed. The joint map adds up to the similarity where LRP conserves.

    Args:
        f: the embedding of one example: `f(x, *args)` of shape (M,).
        rule: as for `lrp`.
        pool: applied to each LRP map before the product, which has as many entries as both maps
            together: the sum over channels and patches of an image, say.

    Returns:
        A function of `(x, y, *args)` that returns the joint map, of shape
        `pool(x).shape + pool(y).shape`, in the square of f's units.

    Raises:
        ValueError: f returns something else than a vector.

    References:
        Eberle et al., "Building and Interpreting Deep Similarity Models", TPAMI 2022.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> w = jnp.array([[1.0, 0.0], [2.0, 1.0]])
        >>> print(jxp.bilrp(lambda x: x @ w, jxp.rules.Z())(jnp.array([1.0, 1.0]), jnp.ones(2)))
        [[1. 2.]
         [2. 5.]]
    """
    explain = lrp(f, rule)

    def maps(x: Any, args: Any) -> jax.Array:
        shape = explain.plan(x, *args).graph.explained_outputs[0].shape
        if len(shape) != 1:
            raise ValueError(
                f"f must return one vector, the embedding of one example, got shape {shape}: "
                "write lambda x: f(x[None])[0] for a function of batches"
            )
        every = explain(x, *args, target="all")
        return every if pool is None else jax.vmap(pool)(every)

    def joint(x: Any, y: Any, *args: Any) -> jax.Array:
        return jnp.tensordot(maps(x, args), maps(y, args), axes=(0, 0))

    return joint
