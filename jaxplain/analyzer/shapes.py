"""Additions of some names to a transform: sums and products with the input."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain.transforms import trees
from jaxplain.transforms.wrapper import Base, Wrapper, call


@dataclass(frozen=True, eq=False)
class Changed(Wrapper):
    """The base attribution, changed by a function of it and of the input."""

    change: Callable[[Any, Any], Any]

    def attribute(self, base: Base, args: Sequence[Any], target: Any, key: Any) -> Any:
        """See the class."""
        return self.change(call(base, args, target, key), trees.explained(args, self.argnums))


def plus_input(attribution: Any, x: Any) -> Any:
    """The input plus the attribution: iNNvestigate's "random"."""
    return jax.tree.map(jnp.add, x, attribution)


def shaped_as_input(attribution: jax.Array, x: jax.Array) -> jax.Array:
    """A map of one channel, repeated to the input's shape."""
    front = attribution.shape[: attribution.ndim - x.ndim]
    return jnp.broadcast_to(attribution, (*front, *x.shape))
