"""The models that adapters return: functions of their inputs, and pytrees of their arrays."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from jaxplain import by_value

Arrays = dict[str, Any]


@jax.tree_util.register_pytree_with_keys_class
class Model:
    """A framework's model: callable on its inputs, a pytree of its arrays by their path in it.

    Being a pytree, its arrays are run-time arguments of every explainer. They are read off the
    user's object each time: a model that was trained in place is never explained with its old
    weights.
    """

    def __init__(
        self,
        name: str,
        call: "Call",
        read: Callable[[], tuple[Any, Arrays]],
        owner: Any = None,
    ):
        """Made by an adapter.

        Args:
            name: the model's name in messages.
            call: from structure, arrays and inputs to outputs; in evaluation mode.
            read: gives the user's model as its structure, which is hashable, and its arrays.
            owner: the user's object; explanations of it are compiled once while it lives.
        """
        self.__name__ = name
        self._call, self._read, self._jaxplain_owner = call, read, owner

    def __call__(self, *inputs: Any) -> Any:
        """The model's output in evaluation mode."""
        return self._call(*self._read(), *inputs)

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], Any]:
        """The arrays that the model holds now."""
        structure, arrays = self._read()
        leaves = [(jax.tree_util.DictKey(path), array) for path, array in arrays.items()]
        return leaves, (self.__name__, self._call, structure, tuple(arrays))

    @classmethod
    def tree_unflatten(cls, static: Any, leaves: Any) -> "Model":
        """The model with these arrays, whatever becomes of the user's object."""
        name, call, structure, paths = static
        arrays = dict(zip(paths, leaves, strict=True))
        return cls(name, call, lambda: (structure, arrays))

    def __repr__(self) -> str:
        return self.__name__


class Call:
    """A function of structure, arrays and inputs; equal to another one where its options are.

    Args:
        function: the function.
        *options: all that it depends on, besides its arguments.
    """

    def __init__(self, function: Callable[..., Any], *options: Any):
        self._function, self._options = function, by_value.key(options)

    def __call__(self, *args: Any) -> Any:
        """The function's value."""
        return self._function(*args)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and other._options == self._options

    def __hash__(self) -> int:
        return hash(self._options)


_ADAPTERS = {
    "flax.linen": "from_linen(module, variables)",
    "flax.nnx": "from_nnx(module)",
    "equinox": "from_equinox(module)",
    "keras": "from_keras(model)",
}


def named(value: Any) -> str:
    """The name of a class or function, or the type of another value, for messages: "a int".

    With the adapter for it, where it is a model of a framework.
    """
    kind = value if isinstance(value, type) else type(value)
    modules = [f"{base.__module__}." for base in kind.__mro__]
    fits = [
        adapter for k, adapter in _ADAPTERS.items() if any(m.startswith(f"{k}.") for m in modules)
    ]
    name: str = getattr(value, "__qualname__", f"a {type(value).__name__}")
    return f"{name}, which is for {fits[0]}" if fits and not isinstance(value, type) else name


def bound(module: Any, method: str | Callable[..., Any] | None) -> Callable[..., Any]:
    """The function to call: the module, or its method, by name or as a function of the module."""
    if isinstance(method, str):
        return getattr(module, method)
    return module if method is None else partial(method, module)
