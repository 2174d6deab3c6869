"""Additions of some names to a transform: sums and products with the input."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain.transforms import trees
from jaxplain.transforms.wrapper import Base, Wrapper, call


@dataclass(frozen=True, eq=False)
class PlusInput(Wrapper):
    """The input plus the base attribution: iNNvestigate's "random"."""

    def attribute(self, base: Base, args: Sequence[Any], target: Any, key: Any) -> Any:
        """See the class."""
        attribution = call(base, args, target, key)
        return jax.tree.map(jnp.add, trees.explained(args, self.argnums), attribution)


@dataclass(frozen=True, eq=False)
class InputShaped(Wrapper):
    """A map of one channel, repeated to the input's shape."""

    def attribute(self, base: Base, args: Sequence[Any], target: Any, key: Any) -> Any:
        """See the class."""
        x = trees.explained(args, self.argnums)
        attribution = call(base, args, target, key)
        return jnp.broadcast_to(
            attribution, (*attribution.shape[: attribution.ndim - x.ndim], *x.shape)
        )


@dataclass(frozen=True, eq=False)
class TimesInput(Wrapper):
    """The base attribution times a function of the input."""

    factor: Callable[[jax.Array], jax.Array]

    def attribute(self, base: Base, args: Sequence[Any], target: Any, key: Any) -> Any:
        """See the class."""
        attribution = call(base, args, target, key)
        factors = jax.tree.map(self.factor, trees.explained(args, self.argnums))
        return trees.times_input(attribution, factors)
