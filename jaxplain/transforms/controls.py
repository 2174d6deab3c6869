"""Attributions that know nothing of the model, to compare other ones with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from jaxplain.arguments import check_number
from jaxplain.spelling import checked_options
from jaxplain.targets import Target
from jaxplain.transforms import trees
from jaxplain.transforms.gradient import gradient
from jaxplain.transforms.wrapper import Base, Wrapper


@dataclass(frozen=True, eq=False)
class Input(Wrapper):
    """See `input`."""

    def attribute(self, base: Base, args: Sequence[Any], target: Target, key: Any) -> Any:
        """See `input`."""
        return trees.explained(args, self.argnums)


@dataclass(frozen=True, eq=False)
class Random(Wrapper):
    """See `random`."""

    stddev: float = 1.0
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.stddev, "stddev")

    def attribute(self, base: Base, args: Sequence[Any], target: Target, key: Any) -> Any:
        """See `random`."""
        noise = trees.normal(key, trees.explained(args, self.argnums))
        return jax.tree.map(lambda v: self.stddev * v, noise)


@checked_options
def input(f: Callable[..., Any], *, argnums: int | Sequence[int] = 0) -> Input:
    """The input itself, as an attribution.

    Args:
        f: the function.
        argnums: which arguments are explained.

    Returns:
        An explainer that returns the explained arguments.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> print(jxp.input(lambda x: x)(jnp.array([1.0, 2.0]), target=0))
        [1. 2.]
    """
    return Input(gradient(f, argnums=argnums))


@checked_options
def random(
    f: Callable[..., Any], *, stddev: float = 1.0, argnums: int | Sequence[int] = 0
) -> Random:
    """Gaussian noise in the shape of the input: a control, which says nothing of the model.

    Args:
        f: the function.
        stddev: the standard deviation.
        argnums: which arguments are explained.

    Returns:
        An explainer, called with `key=jax.random.key(...)` besides.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> explain = jxp.random(lambda x: x)
        >>> print(explain(jnp.zeros((2, 3)), key=jax.random.key(0)).shape)
        (2, 3)
    """
    return Random(gradient(f, argnums=argnums), stddev)
