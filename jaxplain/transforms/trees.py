"""Arithmetic of attributions and explained arguments, which are trees of arrays."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _compat
from jaxplain.affine.dtypes import wide


def explained(args: Sequence[Any], argnums: int | Sequence[int]) -> Any:
    """The explained arguments, a tree like their attribution; numbers become arrays."""
    picked = args[argnums] if isinstance(argnums, int) else tuple(args[n] for n in argnums)
    return jax.tree.map(jnp.asarray, picked)


def replaced(args: Sequence[Any], argnums: int | Sequence[int], values: Any) -> list[Any]:
    """The arguments, or arrays, with those at some places exchanged."""
    if isinstance(argnums, int):
        argnums, values = [argnums], [values]
    changed = list(args)
    for number, value in zip(argnums, values, strict=True):
        changed[number] = value
    return changed


def scaled(attribution: Any, factors: Any) -> Any:
    """The attribution times factors in the explained shapes; for "all", times them for each class.

    Args:
        attribution: a tree of arrays.
        factors: a tree like it, whose arrays may lack a leading axis.
    """

    def times(a: jax.Array, factor: jax.Array) -> jax.Array:
        return a * factor.reshape((1,) * (a.ndim - factor.ndim) + factor.shape)

    return jax.tree.map(times, attribution, factors)


def times_input(attribution: Any, values: Any) -> Any:
    """The attribution, which must have the explained shapes, times values in them, as `scaled`.

    Raises:
        ValueError: it has others.
    """
    given, expected = (jax.tree.leaves(tree) for tree in (attribution, values))
    shapes = [a.shape[max(a.ndim - v.ndim, 0) :] for a, v in zip(given, expected, strict=False)]
    if len(given) != len(expected) or shapes != [v.shape for v in expected]:
        raise ValueError(
            f"attributions of shapes {[a.shape for a in given]} cannot be multiplied by what is in "
            f"the input's shapes, {[v.shape for v in expected]}: take a base whose attribution is "
            "shaped as the input, or a method that only averages (path_average)"
        )
    return scaled(attribution, values)


def widened(tree: Any) -> Any:
    """In at least float32, as sums are."""
    return jax.tree.map(lambda v: v.astype(wide(v.dtype)), tree)


def narrowed(attribution: Any, x: Any) -> Any:
    """An attribution in the dtypes of the explained arrays."""
    leaves, tree = jax.tree.flatten(attribution)
    dtypes = [v.dtype for v in jax.tree.leaves(x)]
    if len(dtypes) != len(leaves):  # Grad-CAM has one map for all
        dtypes = [jnp.result_type(*dtypes)] * len(leaves)
    return jax.tree.unflatten(tree, [v.astype(d) for v, d in zip(leaves, dtypes, strict=True)])


def fold(
    term: Callable[[Any], Any],
    xs: Any,
    batch_size: int,
    update: Callable[[Any, Any, jax.Array], Any],
    state: Any,
) -> Any:
    """Folds `term(x)`, in at least float32, over the leading axis of `xs`, a batch at a time.

    Memory holds one batch of terms, however many there are.

    Args:
        term: maps one entry of `xs` to a tree of arrays.
        xs: a tree of arrays with a common leading axis.
        batch_size: how many entries are mapped at a time, at most.
        update: maps the state, a batch of terms and which of them count to the next state.
        state: the first state.
    """
    count = jax.tree.leaves(xs)[0].shape[0]
    batches = -(-count // batch_size)
    size = -(-count // batches)
    index = np.arange(batches * size).reshape(batches, size)

    def step(state: Any, batch: Any) -> tuple[Any, None]:
        which, counts = batch
        terms = widened(_compat.mapped(term, jax.tree.map(lambda v: v[which], xs)))
        return update(state, terms, counts), None

    # the last batch is filled up with the last entry, which does not count again
    return jax.lax.scan(step, state, (np.minimum(index, count - 1), index < count))[0]


def counted(values: jax.Array, counts: jax.Array) -> jax.Array:
    """The values of a batch that count, zeros in the place of the others."""
    return jnp.where(counts.reshape(-1, *(1,) * (values.ndim - 1)), values, 0)


def zeros(term: Callable[[Any], Any], xs: Any) -> Any:
    """A first state for `fold`: zeros in the place of `term(x)`."""
    terms = jax.eval_shape(lambda xs: widened(term(jax.tree.map(lambda v: v[0], xs))), xs)
    return jax.tree.map(lambda v: _compat.zeros(v, v.dtype), terms)


def total(term: Callable[[Any], Any], xs: Any, batch_size: int) -> Any:
    """The sum of `term(x)` over the leading axis of `xs`, as `fold`."""

    def update(sums: Any, batch: Any, counts: jax.Array) -> Any:
        return jax.tree.map(lambda s, v: s + counted(v, counts).sum(0), sums, batch)

    return fold(term, xs, batch_size, update, zeros(term, xs))


def normal(key: jax.Array, like: Any) -> Any:
    """Gaussian noise in the shapes and dtypes of a tree of arrays."""
    leaves, tree = jax.tree.flatten(like)
    keys = jax.tree.unflatten(tree, list(jax.random.split(key, len(leaves))))
    return jax.tree.map(lambda k, v: jax.random.normal(k, v.shape, v.dtype), keys, like)
