"""The models that adapters return: functions of their inputs, and pytrees of their arrays."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from jaxplain.graph.flatten import flatten

Arrays = dict[str, Any]


@jax.tree_util.register_pytree_with_keys_class
class Model:
    """A framework's model: callable on its inputs, a pytree of its arrays by their path in it.

    Being a pytree, its arrays are run-time arguments of every explainer. They are read off the
    user's object each time: a model that was trained in place is never explained with its old
    weights.
    """

    def __init__(self, name: str, call: Callable[..., Any], read: Callable[[], tuple[Any, Arrays]]):
        """Made by an adapter.

        Args:
            name: the model's name in messages.
            call: from structure, arrays and inputs to outputs; in evaluation mode.
            read: gives the user's model as its structure, which is hashable, and its arrays.
        """
        self.__name__ = name
        self._call, self._read = call, read

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


def by_path(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> Arrays:
    """The leaves of a tree by their path in it."""
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def named(value: Any) -> str:
    """The name of a class or function, or the type of another value, for messages: "a int"."""
    return getattr(value, "__qualname__", f"a {type(value).__name__}")


def bound(module: Any, method: str | Callable[..., Any] | None) -> Callable[..., Any]:
    """The function to call: the module, or its method, by name or as a function of the module."""
    if isinstance(method, str):
        return getattr(module, method)
    return module if method is None else partial(method, module)


def check_initialised(name: str, arrays: Arrays) -> None:
    """Raises TypeError for a model of shapes without values."""
    for path, array in arrays.items():
        if isinstance(array, jax.ShapeDtypeStruct):
            raise TypeError(
                f"{name} holds no values, only shapes (of {path}): give it its weights first"
            )


def check_unchanged(
    name: str, before: Arrays, after: Arrays, again: Callable[[Arrays], Arrays] | None = None
) -> None:
    """Raises TypeError for a model whose call changed its arrays; new ones do no harm.

    Args:
        name: of the model.
        before: its arrays.
        after: those that its call left.
        again: makes the ones of the others, where the framework may hand out copies.
    """
    changed = [path for path, array in before.items() if after.get(path, array) is not array]
    if changed and again is not None:
        program = flatten(again, (before,), keep_derivatives=True)
        inputs = dict(zip(sorted(before), program.inputs, strict=True))
        outputs = dict(zip(sorted(after), program.outputs, strict=True))
        changed = [path for path in changed if outputs[path] is not inputs[path]]
    if changed:
        raise TypeError(
            f"{name} changes its own arrays when it is called ({', '.join(changed[:4])}), as "
            f"dropout and BatchNorm do in training mode: {_EVALUATE}"
        )


def check_not_random(name: str, streams: Arrays, output: Callable[[Arrays], Any]) -> None:
    """Raises TypeError for a model whose output depends on the states of random streams.

    A number that is drawn and not used, as for a recurrent layer without dropout, does no harm.

    Args:
        name: of the model.
        streams: the states that its call changed.
        output: makes the model's output of others.
    """
    if not streams:
        return
    program = flatten(output, (streams,), keep_derivatives=True)
    read = {v for node in program.nodes for v in node.inputs} | set(program.outputs)
    used = [p for p, v in zip(sorted(streams), program.inputs, strict=True) if v in read]
    if used:
        raise TypeError(
            f"{name} draws random numbers that its output depends on ({', '.join(used[:4])}), as "
            f"dropout and noise do in training mode: {_EVALUATE}"
        )


_EVALUATE = (
    "switch it to evaluation mode by the options that the adapter passes on, such as train=False, "
    "or in the model itself where it insists on training"
)
