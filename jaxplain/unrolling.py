"""Loops written out for the explanation."""

from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import DictKey

from jaxplain import _compat
from jaxplain.arguments import with_paths


def unroll(f: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, its loops written out wherever it is explained.

    Layers end at the edges of a loop: a bias or BatchNorm that stands on the other side of the edge
    than its kernel is a layer of its own; no kernel of a loop is the first one, as it also comes
    behind itself; and the initial carry is no constant where a later carry is not. In
    `unroll(f)` every `scan`, `fori_loop` and `map` is its iterations, one after the other, so that
    all this is as if they had been written so, and methods that do not go into loops (DeepLIFT,
    patterns) do. Tracing and compiling take as many times longer. The function itself computes as
    before.

    Args:
        f: a function, or a model that is a pytree (then so is what is returned).

    Returns:
        A function for a method to explain in the place of `f`.

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
    return _Unrolled(f)


@jax.tree_util.register_pytree_with_keys_class
class _Unrolled:
    """A function in a scope that says to write its loops out; a pytree, as the function is."""

    def __init__(self, f: Callable[..., Any]):
        self._f = f
        self.__name__ = getattr(f, "__name__", type(f).__name__)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        with jax.named_scope(_compat.UNROLLED):
            return self._f(*args, **keywords)

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], Any]:
        """Its leaves by their paths in `f`, which name the layers."""
        keyed = [(DictKey(path), leaf) for path, leaf in with_paths(self._f)]
        return keyed, jax.tree.structure(self._f)

    @classmethod
    def tree_unflatten(cls, tree: Any, leaves: Any) -> "_Unrolled":
        """`unroll` of another `f`."""
        return cls(jax.tree.unflatten(tree, leaves))

    def __repr__(self) -> str:
        return f"unroll({self._f!r})"
