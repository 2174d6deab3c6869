"""Expected gradients: integrated gradients over a data set of baselines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxplain.arguments import check_count
from jaxplain.spelling import checked_options
from jaxplain.targets import Target
from jaxplain.transforms import trees
from jaxplain.transforms.wrapper import Base, Wrapper, as_explainer, call


@dataclass(frozen=True, eq=False)
class ExpectedGradients(Wrapper):
    """See `expected_gradients`."""

    references: Any
    samples: int = 64
    batch_size: int = 8
    random: ClassVar[bool] = True
    arrays: ClassVar[tuple[str, ...]] = ("references",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self.samples, "samples")
        check_count(self.batch_size, "batch_size")

    def check(self, args: Sequence[Any], target: Target) -> None:
        """References must be examples like those explained."""
        x = trees.explained(args, self.argnums)
        expected: Any = jax.tree.structure(x)
        given: Any = jax.tree.structure(self.references)
        if expected != given:
            raise ValueError(
                f"references must be a tree like the explained input, {expected}, got {given}"
            )
        counts = set()
        batched = self.traced(*args).batched
        for value, drawn in zip(jax.tree.leaves(x), jax.tree.leaves(self.references), strict=True):
            one = value.shape[1:] if batched else value.shape
            if jnp.shape(drawn)[1:] != one or not jnp.ndim(drawn) or not jnp.shape(drawn)[0]:
                raise ValueError(
                    f"references must be an array of examples of shape {one}, with a leading axis "
                    f"that counts them, got shape {jnp.shape(drawn)}"
                )
            counts.add(jnp.shape(drawn)[0])
        if len(counts) > 1:
            raise ValueError(f"references must be equally many for each input, got {counts}")

    def attribute(self, base: Base, args: Sequence[Any], target: Target, key: Any) -> Any:
        """See `expected_gradients`."""
        x = trees.explained(args, self.argnums)
        references = jax.tree.map(jnp.asarray, self.references)
        count = jax.tree.leaves(references)[0].shape[0]
        examples = jax.tree.leaves(x)[0].shape[:1] if base.traced(*args).batched else ()

        def sample(key: jax.Array) -> Any:
            which, where, inner = jax.random.split(key, 3)
            drawn = jax.random.randint(which, examples, 0, count)
            place = jax.random.uniform(where, examples)
            start = jax.tree.map(lambda v, r: r[drawn].astype(v.dtype), x, references)
            way = trees.widened(jax.tree.map(jnp.subtract, x, start))

            def between(s: jax.Array, w: jax.Array) -> jax.Array:
                t = place.reshape(place.shape + (1,) * (s.ndim - place.ndim))
                return s + t.astype(s.dtype) * w

            here = trees.narrowed(jax.tree.map(between, trees.widened(start), way), x)
            attribution = call(base, trees.replaced(args, self.argnums, here), target, inner)
            return trees.times_input(trees.widened(attribution), way)

        summed = trees.total(sample, jax.random.split(key, self.samples), self.batch_size)
        return trees.narrowed(jax.tree.map(lambda v: v / self.samples, summed), x)


@checked_options
def expected_gradients(
    base: Base | Callable[..., Any], references: Any, *, samples: int = 64, batch_size: int = 8
) -> ExpectedGradients:
    """Expected gradients (GradientSHAP): integrated gradients, averaged over random baselines.

    E[(x - b) * A(b + t (x - b))] over baselines b from a data set and t uniform in [0, 1], for A
    the gradient or any other attribution. For the gradient the attributions add up to
    f(x) - E[f(b)] on average.

    Args:
        base: the explainer A; for a function, its gradient.
        references: the data set of baselines: an array of examples (a tree of them like the
            explained arguments), (N, ...).
        samples: how many pairs (b, t) are drawn per example.
        batch_size: how many samples are explained at a time.

    Returns:
        An explainer, called with `key=jax.random.key(...)` besides.

    Raises:
        TypeError: a call got no key.
        ValueError: the references are no examples like the input.

    References:
        Erion et al., "Improving performance of deep learning models with axiomatic attribution
        priors and expected gradients", Nature Machine Intelligence 2021.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> explain = jxp.expected_gradients(lambda x: 2 * x, jnp.ones((1, 1)))
        >>> print(explain(jnp.array([[3.0], [1.0]]), key=jax.random.key(0)))
        [[4.]
         [0.]]
    """
    return ExpectedGradients(as_explainer(base), references, samples, batch_size)
