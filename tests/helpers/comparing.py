"""Arrays that must be the same, and many maps from one compilation."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from numpy.testing import assert_allclose


def assert_same(found: Any, expected: Any, tolerance: float = 1e-10) -> None:
    """Equal relative to the largest entry of each expected array, none of which is all zeros."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.abs(b).max() > 0
        assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


def together(functions: Mapping[Any, Callable[..., Any]], *args: Any) -> "Together":
    """What each function makes of the arguments, all in one compiled program.

    Compiling costs far more than the numbers do, and what functions share (the forward pass, the
    transposed kernels) is then compiled once. What one raises is raised where its result is read:
    the others are not touched by it.

    >>> found = together({"twice": lambda x: 2 * x, "wrong": lambda x: 1 // 0}, 3.0)
    >>> float(found["twice"])
    6.0
    >>> found["wrong"]
    Traceback (most recent call last):
        ...
    ZeroDivisionError: integer division or modulo by zero
    """
    errors: dict[Any, Exception] = {}

    def run(args: Any) -> dict[int, Any]:
        found = {}
        for number, (key, f) in enumerate(functions.items()):
            try:
                found[number] = f(*args)
            except Exception as error:
                errors[key] = error
        return found

    values = jax.jit(run)(args)
    keys = list(functions)
    return Together({keys[number]: value for number, value in values.items()}, errors)


class Together:
    """Results by key; the key of a function that failed raises its error."""

    def __init__(self, values: dict[Any, Any], errors: dict[Any, Exception]):
        self.values, self.errors = values, errors

    def __getitem__(self, key: Any) -> Any:
        if key in self.errors:
            raise self.errors[key]
        return self.values[key]
