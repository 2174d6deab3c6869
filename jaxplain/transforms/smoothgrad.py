"""SmoothGrad and its relatives: statistics of an attribution over noisy copies of the input."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict, Unpack

import jax
import jax.numpy as jnp

from jaxplain.arguments import check_count, check_number
from jaxplain.spelling import checked_options
from jaxplain.targets import Target
from jaxplain.transforms import trees
from jaxplain.transforms.wrapper import Base, Wrapper, as_explainer, call


class Options(TypedDict, total=False):
    """The options of `smoothgrad`, with which the other statistics are made alike."""

    samples: int
    noise_scale: float
    absolute: bool
    batch_size: int


@dataclass(frozen=True, eq=False)
class Noisy(Wrapper):
    """A statistic of the base attribution over inputs with Gaussian noise.

    Attributes:
        samples: how many noisy copies.
        noise_scale: the standard deviation of the noise.
        absolute: whether it is in the input's units instead of relative to its range.
        batch_size: how many copies are explained at a time.
    """

    samples: int = 64
    noise_scale: float = 0.1
    absolute: bool = False
    batch_size: int = 8
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self.samples, "samples")
        check_count(self.batch_size, "batch_size")
        check_number(self.noise_scale, "noise_scale")

    def attribute(self, base: Base, args: Sequence[Any], target: Target, key: Any) -> Any:
        """See the class."""
        x = trees.explained(args, self.argnums)
        batched = base.traced(*args).batched
        scales = jax.tree.map(lambda v: self._scale(v, batched), x)

        def plus(v: jax.Array, scale: Any, noise: jax.Array) -> jax.Array:
            return v + jnp.asarray(scale, v.dtype) * noise

        def sample(key: jax.Array) -> Any:
            outer, inner = jax.random.split(key)
            noisy = jax.tree.map(plus, x, scales, trees.normal(outer, x))
            return call(base, trees.replaced(args, self.argnums, noisy), target, inner)

        return trees.narrowed(self.statistic(sample, jax.random.split(key, self.samples)), x)

    @abstractmethod
    def statistic(self, sample: Callable[[jax.Array], Any], keys: jax.Array) -> Any:
        """The statistic of `sample(key)` over the keys, in at least float32."""

    def _scale(self, x: jax.Array, batched: bool) -> Any:
        if self.absolute:
            return self.noise_scale
        axes = tuple(range(1, x.ndim)) if batched else None
        return self.noise_scale * (x.max(axes, keepdims=True) - x.min(axes, keepdims=True))


class SmoothGrad(Noisy):
    """The mean."""

    def statistic(self, sample: Callable[[jax.Array], Any], keys: jax.Array) -> Any:
        """See the class."""
        return _over(trees.total(sample, keys, self.batch_size), self.samples)


class SmoothGradSquared(Noisy):
    """The mean of the squares."""

    def statistic(self, sample: Callable[[jax.Array], Any], keys: jax.Array) -> Any:
        """See the class."""

        def squares(key: jax.Array) -> Any:
            return jax.tree.map(jnp.square, trees.widened(sample(key)))

        return _over(trees.total(squares, keys, self.batch_size), self.samples)


class VarGrad(Noisy):
    """The variance."""

    def statistic(self, sample: Callable[[jax.Array], Any], keys: jax.Array) -> Any:
        """See the class."""

        def update(state: Any, batch: Any, counts: jax.Array) -> Any:
            """Merges the mean and the summed squares around it: differences, never large sums."""
            before, moments = state
            size = counts.sum(dtype=before.dtype)

            def merged(v: jax.Array, moment: tuple[jax.Array, jax.Array]) -> Any:
                mean, spread = moment
                share = size.astype(v.dtype) / (before + size).astype(v.dtype)
                own = trees.counted(v, counts).sum(0) / size.astype(v.dtype)
                within = trees.counted(jnp.square(v - own[None]), counts).sum(0)
                between = before.astype(v.dtype) * share * jnp.square(own - mean)
                return mean + share * (own - mean), spread + within + between

            return before + size, jax.tree.map(merged, batch, moments)

        zeros = trees.zeros(sample, keys)
        state = (jnp.zeros((), jnp.int32), jax.tree.map(lambda v: (v, v), zeros))
        _, moments = trees.fold(sample, keys, self.batch_size, update, state)
        return jax.tree.map(lambda _, moment: moment[1] / self.samples, zeros, moments)


def _over(tree: Any, count: int) -> Any:
    return jax.tree.map(lambda v: v / count, tree)


@checked_options
def smoothgrad(
    base: Base | Callable[..., Any],
    *,
    samples: int = 64,
    noise_scale: float = 0.1,
    absolute: bool = False,
    batch_size: int = 8,
) -> SmoothGrad:
    """SmoothGrad: the mean of an attribution over inputs with Gaussian noise.

    1/n sum_k A(x + e_k), e_k ~ N(0, s^2), for any attribution A: the gradient, LRP, PatternNet. The
    largest output is chosen on the clean input; a target that is a function is asked for each copy.

    Args:
        base: the explainer A; for a function, its gradient.
        samples: n.
        noise_scale: s as a part of the input's range, max(x) - min(x), array by array. The range is
            per example where the output's leading axis is also the input's (an example that is one
            number, or constant, gets no noise: use `absolute`), else over the whole array.
        absolute: s is in the input's units instead.
        batch_size: how many noisy copies are explained at a time. Memory grows with it, not with
            the samples.

    Returns:
        An explainer, called with `key=jax.random.key(...)` besides: attributions as the base's.

    Raises:
        TypeError: a call got no key.
        ValueError: an option is out of range, or the base returns more than the attribution.

    References:
        Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> explain = jxp.smoothgrad(lambda x: x**2, samples=1000, batch_size=100)
        >>> x = jnp.array([1.0, 3.0])
        >>> print(explain(x, target=1, key=jax.random.key(0)).round(1))
        [0. 6.]
    """
    return SmoothGrad(as_explainer(base), samples, noise_scale, absolute, batch_size)


@checked_options
def smoothgrad_squared(
    base: Base | Callable[..., Any], **options: Unpack[Options]
) -> SmoothGradSquared:
    """SmoothGrad-squared: the mean of a squared attribution over inputs with Gaussian noise.

    1/n sum_k A(x + e_k)^2: magnitudes, in squared units of the attribution.

    Args:
        base: the explainer A; for a function, its gradient.
        **options: `samples` (n), `noise_scale`, `absolute`, `batch_size`: see `smoothgrad`.

    Returns:
        An explainer, as `smoothgrad`.

    References:
        Hooker et al., "A Benchmark for Interpretability Methods in Deep Neural Networks", NeurIPS
        2019.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> explain = jxp.smoothgrad_squared(lambda x: -3 * x)
        >>> print(explain(jnp.array([1.0, 2.0]), target=0, key=jax.random.key(0)))
        [9. 0.]
    """
    return SmoothGradSquared(as_explainer(base), **options)


@checked_options
def vargrad(base: Base | Callable[..., Any], **options: Unpack[Options]) -> VarGrad:
    """VarGrad: the variance of an attribution over inputs with Gaussian noise.

    1/n sum_k (A(x + e_k) - mean)^2, in squared units of the attribution.

    Args:
        base: the explainer A; for a function, its gradient.
        **options: `samples` (n), `noise_scale`, `absolute`, `batch_size`: see `smoothgrad`.

    Returns:
        An explainer, as `smoothgrad`.

    References:
        Adebayo et al., "Local Explanation Methods for Deep Neural Networks Lack Sensitivity to
        Parameter Values", ICLR workshop 2018.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> explain = jxp.vargrad(lambda x: -3 * x)
        >>> print(explain(jnp.array([1.0, 2.0]), target=0, key=jax.random.key(0)))
        [0. 0.]
    """
    return VarGrad(as_explainer(base), **options)
