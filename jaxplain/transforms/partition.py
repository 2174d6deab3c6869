"""The two parts of a model: its arrays, which are passed at run time, and the rest."""

from collections.abc import Callable
from typing import Any

import jax

from jaxplain import _compat, by_value


def partition(model: Any) -> tuple[list[Any], Callable[[list[Any]], Any], Any]:
    """Splits a model that is a pytree, as Equinox's `partition` does.

    Returns:
        Its arrays; `combine`, a function from such arrays to the model; and a key for the rest.
    """
    leaves, tree = jax.tree.flatten(model)
    is_array = [isinstance(v, jax.Array) or hasattr(v, "__array__") for v in leaves]
    arrays = [v for v, dynamic in zip(leaves, is_array, strict=True) if dynamic]
    static = [v for v, dynamic in zip(leaves, is_array, strict=True) if not dynamic]

    def combine(values: list[Any]) -> Any:
        of_array, of_static = iter(values), iter(static)
        return jax.tree.unflatten(tree, [next(of_array if a else of_static) for a in is_array])

    return arrays, combine, (tree, by_value.key(static))


def cache_key(arrays: Any, static: Any) -> Any:
    """The key of a compiled program in a cache; None where the static part has no hash."""
    leaves, tree = jax.tree.flatten(arrays)
    key = (static, tree, tuple(map(_compat.aval, leaves)), _compat.context())
    return key if is_hashable(key) else None


def is_hashable(key: Any) -> bool:
    """Whether a key has a hash."""
    try:
        hash(key)
    except TypeError:
        return False
    return True
