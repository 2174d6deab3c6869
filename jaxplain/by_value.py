"""Keys of values: two values that are equal have the same key, whatever objects they are.

Options of a method, rules and the static leaves of a model are compared by their keys, so that
equal ones share what was compiled.
"""

from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def key(value: Any) -> Hashable:
    """A key of a value: of dataclasses, containers and arrays by content, else by `==` and `hash`.

    An object without a hash, and an array whose numbers are not known while JAX traces, is equal to
    itself alone. 1 is not 1.0, and 0.0 not -0.0.

    Example:
        >>> import numpy as np
        >>> key((1.0, np.ones(2))) == key((1.0, np.ones(2))), key(1) == key(1.0)
        (True, False)
    """
    kind = type(value)
    if isinstance(value, float | complex):
        return kind, repr(value)
    if isinstance(value, jax.core.Tracer):
        return _Same(value)
    if isinstance(value, np.ndarray | jax.Array) and not jnp.issubdtype(
        value.dtype, jax.dtypes.extended
    ):
        array = np.asarray(value)
        return kind, array.shape, str(array.dtype), array.tobytes()
    if isinstance(value, tuple | list):
        return kind, tuple(map(key, value))
    if isinstance(value, Mapping):
        return kind, frozenset((key(k), key(v)) for k, v in value.items())
    if isinstance(value, partial):
        return kind, key((value.func, value.args, value.keywords))
    if is_dataclass(value) and not isinstance(value, type):
        return kind, tuple(key(getattr(value, f.name)) for f in fields(value) if f.compare)
    if isinstance(value, ByValue):
        return kind, key(vars(value))
    try:
        hash(value)
    except TypeError:
        return _Same(value)
    return kind, value


class ByValue:
    """Equality and hash by type and content, also of subclasses that `dataclass` decorates."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__eq__ = ByValue.__eq__  # type: ignore[method-assign]
        cls.__hash__ = ByValue.__hash__  # type: ignore[method-assign]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and key(other) == key(self)

    def __hash__(self) -> int:
        return hash(key(self))


class _Same:
    """The key of an object that is equal to itself alone, and that it keeps alive.

    Python gives the `id` of an object that is gone to another one.
    """

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)
