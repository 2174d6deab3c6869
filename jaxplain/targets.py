"""Targets: the selection of outputs to explain, and the seed of the backward pass.

The class axis is the last one and no batch axis is inferred: an int selects `output[..., k]` at
every leading position. A function that returns one number per example, of shape (B,), is therefore
one position with B classes: return (B, 1).
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _compat

Target = None | int | Any | Literal["all"] | Callable[[Any], Any]


def check(target: Target, outputs: Any, inputs: Sequence[Any]) -> None:
    """Checks a target before any compute.

    Args:
        target: as given by the user.
        outputs: the explained output, a tree of arrays or `jax.ShapeDtypeStruct`.
        inputs: the explained inputs, likewise.

    Raises:
        TypeError: the target is of no known type, or the output is no single array.
        ValueError: the target's shape does not fit the output, or a name is unknown.
        IndexError: the target is out of range.
    """
    if callable(target):
        return
    leaves = jax.tree.leaves(outputs)
    if len(leaves) != 1:
        raise TypeError(
            f"the function returns {len(leaves)} arrays: give target=callable(output) -> a tree "
            "like the output that says how much of each is explained"
        )
    (output,) = leaves
    if isinstance(target, str):
        if target != "all":
            raise ValueError(
                f'target must be None, an int, an array, "all" or a callable, got {target!r}'
            )
        if output.ndim == 0:
            raise ValueError('target="all" needs an output with a class axis, got a scalar')
    if output.shape[-1:] == (0,):
        raise ValueError(f"the output of shape {output.shape} has no classes to explain")
    batched = any(v.ndim > 1 and v.shape[:1] == output.shape for v in inputs)
    if target is None and batched and output.shape != (1,):
        raise ValueError(
            f"the output of shape {output.shape} is one number per example, or one example with "
            f"{output.shape[0]} classes: return shape {(*output.shape, 1)} for the former, give "
            "target=jnp.argmax(output) for the latter"
        )
    if target is None or isinstance(target, str):
        return
    if isinstance(target, list | tuple):
        raise TypeError(f"target is a {type(target).__name__}: give an array of ints instead")
    countable = isinstance(target, int) or _compat.aval(target) is not None
    if isinstance(target, bool | float | complex) or not countable:
        raise TypeError(
            f'target must be None, an int, an array, "all" or a callable, got {target!r}'
        )
    if not jnp.issubdtype(jnp.result_type(target), jnp.integer):
        raise TypeError(f"target must hold integers, got dtype {jnp.result_type(target)}")
    shape = jnp.shape(target)
    if output.ndim == 0:
        raise ValueError("the output is a scalar: leave target out")
    if shape not in ((), output.shape[:-1], output.shape[:1]) or (output.ndim == 1 and shape):
        raise ValueError(
            f"target of shape {shape} does not fit the output of shape {output.shape}: give an "
            f"int, or an array of shape {output.shape[:-1]}"
        )
    if not isinstance(target, jax.core.Tracer):
        values, classes = np.asarray(target), output.shape[-1]
        if values.size and (values.min() < -classes or values.max() >= classes):
            bad = values[(values < -classes) | (values >= classes)].flat[0]
            raise IndexError(f"target {bad} is out of range for {classes} classes")


def static(target: Target) -> tuple[Any, Any]:
    """A target's static part and its arrays: "index" for an array, the tree of a `Partial`."""
    if callable(target):
        leaves, tree = jax.tree.flatten(target)
        return (target, None) if jax.tree_util.treedef_is_leaf(tree) else (tree, leaves)
    if target is None or isinstance(target, str):
        return target, None
    return "index", jnp.asarray(target)


def dynamic(kind: Any, arrays: Any) -> Target:
    """The target of a static part and arrays."""
    if isinstance(kind, jax.tree_util.PyTreeDef):
        return kind.unflatten(arrays)
    return arrays if isinstance(kind, str) and kind == "index" else kind


def one_hot(output: jax.Array, target: Any) -> jax.Array:
    """1 at the selected class of every leading position; NaN where a traced target is out of range.

    Args:
        output: the explained output, (..., C).
        target: None (argmax), an int, or an int array of shape `output.shape[:-1]` or (B,).
    """
    if output.ndim == 0:
        return jnp.ones_like(output)
    classes = output.shape[-1]
    if target is None:
        target = jnp.argmax(output, axis=-1)
    target = jnp.asarray(target).astype(int)  # `%` must not overflow a uint8
    target = target.reshape(target.shape + (1,) * (output.ndim - 1 - target.ndim))
    target = jnp.broadcast_to(target, output.shape[:-1]) if target.size == 1 else target
    inside = (target >= -classes) & (target < classes)
    hot = jax.nn.one_hot(target % classes, classes, dtype=output.dtype)
    return jnp.broadcast_to(jnp.where(inside[..., None], hot, jnp.nan), output.shape)


def every_class(output: jax.Array) -> jax.Array:
    """The C one-hot seeds, (C, ..., C)."""
    eye = jnp.eye(output.shape[-1], dtype=output.dtype)
    eye = eye.reshape(eye.shape[0], *(1,) * (output.ndim - 1), eye.shape[1])
    return jnp.broadcast_to(eye, (eye.shape[0], *output.shape))


def select(output: jax.Array, target: Any) -> jax.Array:
    """The selected outputs, `output.shape[:-1]`; for "all" with the classes as a leading axis.

    Args:
        output: the explained output, (..., C).
        target: None, an int, an int array, or "all".
    """
    if output.ndim == 0:
        return output
    if isinstance(target, str):
        return jnp.moveaxis(output, -1, 0)
    hot = one_hot(output, target)
    return jnp.sum(jnp.where(hot == 0, 0, hot * output), -1)
