"""Integrated gradients: an attribution averaged along a path, times the way walked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import targets
from jaxplain.affine.dtypes import wide
from jaxplain.arguments import check_choice, check_count
from jaxplain.spelling import checked_options
from jaxplain.targets import Target
from jaxplain.transforms import baselines, trees
from jaxplain.transforms.wrapper import Base, Wrapper, as_explainer, call, innermost

Quadrature = Literal["midpoint", "left", "right", "trapezoid", "gauss_legendre"]


def nodes(steps: int, quadrature: Quadrature) -> tuple[np.ndarray, np.ndarray]:
    """Places in [0, 1] and weights that add up to 1."""
    match quadrature:
        case "gauss_legendre":
            places, weights = np.polynomial.legendre.leggauss(steps)
            return (places + 1) / 2, weights / 2
        case "trapezoid":
            weights = np.full(steps, 1 / (steps - 1))
            weights[[0, -1]] /= 2
            return np.linspace(0, 1, steps), weights
    start = {"left": 0, "midpoint": 0.5, "right": 1}[quadrature]
    return (np.arange(steps) + start) / steps, np.full(steps, 1 / steps)


@dataclass(frozen=True, eq=False)
class PathAverage(Wrapper):
    """The mean of the base attribution along the straight line from a baseline to the input.

    Attributes:
        baseline: where the line starts.
        steps: how many points.
        quadrature: which points, with which weights.
        batch_size: how many points are explained at a time.
        times_way: multiply by (x - baseline), as integrated gradients do.
        with_gap: return `(attribution, gap)`.
    """

    baseline: Any = 0.0
    steps: int = 64
    quadrature: Quadrature = "midpoint"
    batch_size: int = 8
    times_way: bool = True
    with_gap: bool = False
    arrays: ClassVar[tuple[str, ...]] = ("baseline",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self.steps, "steps")
        check_count(self.batch_size, "batch_size")
        check_choice(self.quadrature, "quadrature", get_args(Quadrature))
        if self.quadrature == "trapezoid" and self.steps < 2:
            raise ValueError("the trapezoid rule needs steps >= 2")
        stop = innermost(self.base).stop
        if self.times_way and stop is not None:
            raise ValueError(
                f"the base stops at {stop!r}, whose attribution cannot be multiplied by the "
                "way of the input: take path_average"
            )

    def check(self, args: Sequence[Any], target: Target) -> None:
        """The baseline must fit the input, and the gap be defined."""
        baselines.check(self.baseline, trees.explained(args, self.argnums))
        if self.with_gap and callable(target):
            raise TypeError(
                'with_gap compares outputs: target must be None, an int, an array or "all"'
            )

    def attribute(self, base: Base, args: Sequence[Any], target: Target, key: Any) -> Any:
        """See the class."""
        x = trees.explained(args, self.argnums)
        start = baselines.resolve(self.baseline, x)
        way = trees.widened(jax.tree.map(jnp.subtract, x, start))

        def at(place: tuple[Any, Any, Any]) -> Any:
            t, weight, key = place
            here = jax.tree.map(lambda s, w: s + t.astype(s.dtype) * w, trees.widened(start), way)
            moved = trees.replaced(args, self.argnums, trees.narrowed(here, x))
            attribution = call(base, moved, target, key)
            return jax.tree.map(lambda v: weight.astype(v.dtype) * v, trees.widened(attribution))

        places, weights = nodes(self.steps, self.quadrature)
        keys = None if key is None else jax.random.split(key, self.steps)
        along = trees.total(at, (jnp.asarray(places), jnp.asarray(weights), keys), self.batch_size)
        if self.times_way:
            along = trees.times_input(along, way)
        attribution = trees.narrowed(along, x)
        if not self.with_gap:
            return attribution
        return attribution, self._gap(base, args, start, along, target)

    def _gap(
        self, base: Base, args: Sequence[Any], start: Any, attribution: Any, target: Target
    ) -> jax.Array:
        """|sum of the attribution - (f(x) - f(baseline))|."""
        kept = base.traced(*args).batched + isinstance(target, str)

        def summed(value: jax.Array) -> jax.Array:
            return value.astype(wide(value.dtype)).sum(tuple(range(kept, value.ndim)))

        ends = (base.outputs(*args), base.outputs(*trees.replaced(args, self.argnums, start)))
        output, other = (summed(targets.select(end, target)) for end in ends)
        explained_ = sum(map(summed, jax.tree.leaves(attribution)), jnp.zeros((), output.dtype))
        return jnp.abs(explained_ - (output - other))


@checked_options
def integrated_gradients(
    base: Base | Callable[..., Any],
    baseline: Any = 0.0,
    *,
    steps: int = 64,
    quadrature: Quadrature = "midpoint",
    batch_size: int = 8,
    with_gap: bool = False,
) -> PathAverage:
    """Integrated gradients: (x - b) * mean of the gradient on the line from a baseline b to x.

    (x - b) * sum_k w_k A(b + t_k (x - b)), for A the gradient or any other attribution. For the
    gradient the attributions add up to f(x) - f(b), up to the error of the quadrature. The target
    is fixed on x.

    Args:
        base: the explainer A; for a function, its gradient.
        baseline: b: a number, an array that broadcasts to x (one for all examples or one for each),
            a tree of them like the explained arguments, or a function of them.
        steps: how many points on the line.
        quadrature: "midpoint" (error O(1/steps^2)), "left" and "right" (O(1/steps)), "trapezoid"
            (O(1/steps^2)) or "gauss_legendre" (exact for polynomials of degree 2 steps - 1).
        batch_size: how many points are explained at a time. Memory grows with it, not with steps.
        with_gap: return `(attribution, gap)` with the completeness gap
            |sum of the attribution - (f(x) - f(b))|: one number per example where the output's
            leading axis is also the input's, else one in all.

    Returns:
        An explainer: attributions as the base's, times the input's units.

    Raises:
        TypeError: `with_gap` and a callable target.
        ValueError: an option is out of range, or the baseline does not fit the input.

    References:
        Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> f = lambda x: (x**2).sum(-1, keepdims=True)
        >>> explain = jxp.integrated_gradients(f, steps=1, with_gap=True)
        >>> print(*explain(jnp.array([[1.0, 3.0]])))
        [[1. 9.]] [0.]
    """
    options = (baseline, steps, quadrature, batch_size)
    return PathAverage(as_explainer(base), *options, with_gap=with_gap)


@checked_options
def path_average(
    base: Base | Callable[..., Any],
    baseline: Any = 0.0,
    *,
    steps: int = 64,
    quadrature: Quadrature = "midpoint",
    batch_size: int = 8,
) -> PathAverage:
    """The mean of an attribution along the straight line from a baseline to the input.

    sum_k w_k A(b + t_k (x - b)): `integrated_gradients` without the factor (x - b), for
    attributions that are in units of the output already, such as LRP.

    Args:
        base: the explainer A; for a function, its gradient.
        baseline: as for `integrated_gradients`.
        steps: as for `integrated_gradients`.
        quadrature: as for `integrated_gradients`.
        batch_size: as for `integrated_gradients`.

    Returns:
        An explainer: attributions as the base's.

    Raises:
        ValueError: as `integrated_gradients`.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> print(jxp.path_average(lambda x: x**2, steps=1)(jnp.array([1.0, 3.0]), target=1))
        [0. 3.]
    """
    options = (baseline, steps, quadrature, batch_size)
    return PathAverage(as_explainer(base), *options, times_way=False)
