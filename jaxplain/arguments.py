"""Checks of the numbers and arrays that a user gives."""

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import _compat

_REAL = (jnp.bool_, jnp.integer, jnp.floating)


def fits(value: Any, shape: tuple[int, ...]) -> bool:
    """Whether a value is a real array that broadcasts to a shape."""
    aval = _compat.aval(value)
    if aval is None or not any(jnp.issubdtype(aval.dtype, kind) for kind in _REAL):
        return False
    try:
        return jnp.broadcast_shapes(aval.shape, shape) == shape
    except ValueError:
        return False


def check_number(value: Any, name: str, alternative: str = "") -> None:
    """Raises ValueError for anything but a finite number >= 0."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number >= 0{alternative}, got {value!r}")


def check_count(value: Any, name: str) -> None:
    """Raises ValueError for anything but an int >= 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be an int >= 1, got {value!r}")


def check_choice(value: Any, name: str, choices: Sequence[Any]) -> None:
    """Raises ValueError for what is none of the choices.

    Args:
        value: the value.
        name: of the argument, for the message.
        choices: what it can be.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {tuple(choices)}, got {value!r}")


def describe_value(value: Any) -> str:
    """A value's type, for messages: "float32[5, 4]", "str", "ndarray of dtype object"."""
    aval = _compat.aval(value)
    if aval is not None:
        return f"{aval.dtype}{list(aval.shape)}"
    dtype = f" of dtype {value.dtype}" if hasattr(value, "dtype") else ""
    return f"{type(value).__name__}{dtype}"


def function_name(f: Any) -> str:
    """A function's name, for messages; that of the class for a model, which prints at length."""
    return getattr(f, "__name__", type(f).__name__)


def with_paths(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[tuple[str, Any]]:
    """The leaves of a tree, each with its path: "params/Dense_0/kernel"."""
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), v) for path, v in leaves]


def by_path(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
    """The leaves of a tree by their paths, which are all different."""
    return dict(with_paths(tree, is_leaf))
