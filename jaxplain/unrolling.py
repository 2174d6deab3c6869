"""Loops written out for the explanation."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax

from jaxplain import _compat


def unroll(f: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, its loops written out wherever it is explained.

    Layers end at the edges of a loop: a bias or BatchNorm that stands on the other side of the edge
    than its kernel is a layer of its own; no kernel of a loop is the first one, as it also comes
    behind itself; and what a loop starts from is no constant where a later iteration's is not. In
    `unroll(f)` every `scan`, `fori_loop` and `map` is its iterations, one after the other, so that
    all this is as if they had been written so, and methods that do not go into loops (DeepLIFT,
    patterns) do. Tracing and compiling take as many times longer. The function itself computes as
    before.

    Args:
        f: a function, or a model that is a pytree (then so is what is returned).

    Returns:
        What a method takes in the place of `f`.

    Raises:
        TypeError: `f` cannot be called.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> w = jnp.ones((2, 3, 3))
        >>> f = lambda x: jax.lax.scan(lambda h, w: (jax.nn.relu(h @ w), None), x, w)[0]
        >>> x = jnp.ones((1, 3))
        >>> print([layer.name for layer in jxp.lrp(f).plan(x).layers])
        ['dense', 'rectifier']
        >>> print([layer.name for layer in jxp.lrp(jxp.unroll(f)).plan(x).layers])
        ['dense', 'rectifier', 'dense@2', 'rectifier@2']
    """
    if not callable(f):
        raise TypeError(f"unroll takes a function of arrays, got {f!r}")
    if jax.tree_util.treedef_is_leaf(jax.tree.structure(f)):
        return wraps(f)(lambda *args, **keywords: _unrolled(f, *args, **keywords))
    return jax.tree_util.Partial(_unrolled, f)


def _unrolled(f: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    with jax.named_scope(_compat.UNROLLED):
        return f(*args, **keywords)
