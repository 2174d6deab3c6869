"""What a model holds: its arrays, which are passed at run time, and the rest."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import _compat


def split(model: Any) -> tuple[list[Any], Callable[[list[Any]], Any], Any]:
    """The arrays of a model that is a pytree, how to put them back, and a key for the rest."""
    leaves, tree = jax.tree.flatten(model)
    held = [isinstance(v, jax.Array) or hasattr(v, "__array__") for v in leaves]
    arrays = [v for v, is_array in zip(leaves, held, strict=True) if is_array]
    others = [v for v, is_array in zip(leaves, held, strict=True) if not is_array]

    def rebuild(values: list[Any]) -> Any:
        of_array, of_other = iter(values), iter(others)
        return jax.tree.unflatten(tree, [next(of_array if a else of_other) for a in held])

    return arrays, rebuild, (tree, tuple(map(id, others)))


def key_of(arrays: Any, static: Any) -> Any:
    """What a compiled program depends on; None when that cannot be told."""
    leaves, tree = jax.tree.flatten(arrays)
    avals = tuple(
        (jnp.shape(v), jnp.result_type(v), getattr(v, "weak_type", False), _compat.varying(v))
        for v in leaves
    )
    key = (static, tree, avals, jax.config.read("jax_enable_x64"))
    return key if is_hashable(key) else None


def is_hashable(key: Any) -> bool:
    """Whether the static parts of a model can be told apart by a hash."""
    try:
        hash(key)
    except TypeError:
        return False
    return True
