"""Baselines: the input that stands for "nothing"."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import _compat
from jaxplain.rules.base import fits


def resolve(baseline: Any, x: Any) -> Any:
    """The baseline of an input, in its shapes and dtypes.

    Args:
        baseline: a number or an array for every array of the input, a tree of them like the input,
            or a function of the input that returns either. Arrays broadcast to the input.
        x: the explained input, a tree of arrays.

    Raises:
        ValueError: the baseline does not fit.
    """
    found = baseline(x) if callable(baseline) else baseline
    leaves, values = jax.tree.leaves(x), jax.tree.leaves(found)
    tree: Any = jax.tree.structure(x)
    shape: Any = jax.tree.structure(found)
    if shape != tree:
        if len(values) != 1 or values[0] is not found:
            raise ValueError(
                f"the baseline must be a number, an array or a tree like the explained input, "
                f"{tree}, got {shape}"
            )
        values = values * len(leaves)
    for value, leaf in zip(values, leaves, strict=True):
        if not fits(value, leaf.shape):
            raise ValueError(
                "the baseline must hold real numbers that broadcast to the explained input of "
                f"shape {leaf.shape}, got {_compat.spelled(value)}"
            )
    full = [
        jnp.broadcast_to(jnp.asarray(v, leaf.dtype), leaf.shape)
        for v, leaf in zip(values, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, full)
