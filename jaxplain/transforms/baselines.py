"""Baselines: the inputs that stand for the absence of what is explained."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import _compat
from jaxplain.arguments import describe_value, fits


def resolve(baseline: Any, explained: Any) -> Any:
    """The baseline in full: a tree of arrays like the explained ones, in their shapes and dtypes.

    Args:
        baseline: a number or an array, for every explained array that it broadcasts to; a tree of
            them, like `explained`; or a function from `explained` to any of these.
        explained: the explained argument, or the tuple of them, as a tree of arrays.

    Raises:
        ValueError: the baseline is no tree like `explained`, or does not broadcast to it.
    """
    if callable(baseline):
        baseline = baseline(explained)
    places = jax.tree_util.tree_flatten_with_path(explained)[0]
    tree: Any = jax.tree.structure(explained)
    own: Any = jax.tree.structure(baseline)
    values = jax.tree.leaves(baseline)
    if own == jax.tree.structure(0):
        values = values * len(places)
    elif own != tree:
        raise ValueError(
            "a baseline is a number, an array, a tree like the explained argument "
            f"({_describe_tree(tree)}), or a function of it that returns one of these; got "
            f"{_describe_tree(own)}"
        )
    filled = []
    for (path, x), value in zip(places, values, strict=True):
        if not fits(value, x.shape):
            raise ValueError(
                f"the baseline{jax.tree_util.keystr(path)} must be a real array that broadcasts to "
                f"the explained input of shape {x.shape}, got {describe_value(value)}"
            )
        whole = jnp.broadcast_to(jnp.asarray(value, x.dtype), x.shape)
        filled.append(_compat.placed(whole, x))
    return jax.tree.unflatten(tree, filled)


def check(baseline: Any, explained: Any) -> None:
    """Raises what `resolve` would raise; computes nothing."""
    jax.eval_shape(lambda values: resolve(baseline, values), explained)


def _describe_tree(tree: Any) -> str:
    return str(tree).removeprefix("PyTreeDef(").removesuffix(")")
