"""Patterns: the directions in which the input of each neuron varies with its output.

For a neuron y = w . x (without its bias) and a set of samples S, its pattern is

    a = c / (w . c),    c = E_S[x y] - E_S[x] E[y]

where S are all samples ("linear"), those with a positive output, bias included ("relu.positive":
where the neuron's rectifier lets the signal through), or the others ("relu.negative"); E[y] is over
all of them. The positions of a convolution are samples, its padding counts as zeros. x and y are
those of the kernel itself, between the scales and offsets (a BatchNorm) of its layer.

References:
    Kindermans et al., "Learning how to explain neural networks: PatternNet and PatternAttribution",
    ICLR 2018.
    Haufe et al., "On the interpretation of weight vectors of linear models in multivariate
    neuroimaging", NeuroImage 2014.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _compat, npz
from jaxplain.affine import kernels
from jaxplain.affine.dtypes import wide
from jaxplain.affine.matrix import Affine
from jaxplain.affine.moves import undone
from jaxplain.arguments import describe_value
from jaxplain.graph.ir import Var, read
from jaxplain.graph.layer import Layer
from jaxplain.plan import Plan
from jaxplain.rules import PatternNet

#: The kinds of patterns, by each of their names.
KINDS = {
    "linear": "linear",
    "relu.positive": "relu.positive",
    "relu": "relu.positive",
    "relu.negative": "relu.negative",
}

#: Arrays by the name of their layer.
Patterns = Mapping[str, Any]

_FORMAT, _VERSION = "jaxplain patterns", 1


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Moments:
    """Means over some samples of the inputs x and outputs y of a layer's neurons.

    Attributes:
        count: the number of samples of each neuron. As all but `x` and `xy`, it broadcasts against
            the layer's weights.
        x: the mean of x, in the shape of the weights.
        y: the mean of y.
        xy: the mean of (x - E[x]) (y - E[y]), in the shape of the weights.
    """

    count: jax.Array
    x: jax.Array
    y: jax.Array
    xy: jax.Array

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of both sets of samples together."""
        count = self.count + other.count
        share = other.count / jnp.where(count == 0, 1, count)
        x, y = other.x - self.x, other.y - self.y
        xy = self.xy + share * (other.xy - self.xy) + share * (1 - share) * x * y
        return Moments(count, self.x + share * x, self.y + share * y, xy)

    def psum(self, axis_name: str | Sequence[str]) -> "Moments":
        """The moments of the samples of all devices together."""
        count = jax.lax.psum(self.count, axis_name)
        share = self.count / jnp.where(count == 0, 1, count)
        x, y = (jax.lax.psum(share * mean, axis_name) for mean in (self.x, self.y))
        around = self.xy + (self.x - x) * (self.y - y)
        return Moments(count, x, y, jax.lax.psum(share * around, axis_name))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PatternStatistics:
    """The data of patterns: the moments of every kernel layer's inputs and outputs.

    A pytree of arrays. Statistics of different data add up, in any order and partition: to go on
    later, or to share the data out between processes, add them; over devices, `psum` them. Moments
    are kept as means and *centred* products, merged by the formulas of Chan, Golub and LeVeque:
    sums of x y, from which E[x] E[y] is subtracted at the end, would cancel in float32 wherever a
    mean is larger than what varies around it, and grow without bound.

    Attributes:
        weights: by layer, its weights.
        positive: by layer, the moments over samples with a positive output.
        negative: by layer, those over the other samples.
        whole: 1; arrays that were added up one by one, instead of as statistics, betray themselves.
    """

    weights: dict[str, jax.Array]
    positive: dict[str, Moments]
    negative: dict[str, Moments]
    whole: Any = field(default_factory=lambda: np.ones((), np.float32))

    def __add__(self, other: "PatternStatistics") -> "PatternStatistics":
        """The statistics of both sets of data together.

        Raises:
            ValueError: they are of different models.
        """
        if not isinstance(other, PatternStatistics):
            return NotImplemented
        self._check_whole()
        other._check_whole()
        if not self.fit_weights(other.weights):
            raise ValueError("these statistics are of other layers or other weights: fit them anew")
        return merge(self, other)

    def fit_weights(self, weights: Mapping[str, jax.Array]) -> bool:
        """Whether the statistics are of a model with these weights, by layer, as far as known."""
        own, other = ({k: v.shape for k, v in w.items()} for w in (self.weights, weights))
        return own == other and all(_alike(w, weights[k]) for k, w in self.weights.items())

    def __radd__(self, other: Any) -> "PatternStatistics":
        """For `sum`, which starts at 0."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def psum(self, axis_name: str | Sequence[str]) -> "PatternStatistics":
        """The statistics of all devices or processes together, as `jax.lax.psum` for numbers.

        Args:
            axis_name: the axis of a `jax.vmap` or the mesh axes of a `jax.shard_map`.
        """
        self._check_whole()

        def merged(moments: dict[str, Moments]) -> dict[str, Moments]:
            return {name: m.psum(axis_name) for name, m in moments.items()}

        return replace(self, positive=merged(self.positive), negative=merged(self.negative))

    def _check_whole(self) -> None:
        if not isinstance(self.whole, jax.core.Tracer) and np.any(self.whole != 1):
            raise ValueError(
                "these statistics were added up array by array, which is not how means merge: add "
                "the statistics themselves (a + b), or use their psum"
            )

    def patterns(self, kind: str = "relu.positive") -> dict[str, jax.Array]:
        """The patterns: by layer, an array in the shape of its weights.

        Args:
            kind: "linear", "relu.positive" (or "relu") or "relu.negative": which samples count.

        Raises:
            ValueError: there is no such kind.
        """
        self._check_whole()
        if kind not in KINDS:
            known = ", ".join(KINDS)
            raise ValueError(f"no kind of pattern is called {kind!r}; there are: {known}")
        return _patterns(self, KINDS[kind])


def check_patterns(patterns: Patterns) -> None:
    """Raises TypeError for anything but a dictionary from name to real floating array."""
    if not isinstance(patterns, Mapping):
        raise TypeError(
            "patterns are a dictionary from layer to array, as "
            f"pattern_statistics(f, data).patterns() returns them, got {type(patterns).__name__}"
        )
    for name, pattern in patterns.items():
        aval = _compat.aval(pattern)
        floating = aval is not None and jnp.issubdtype(aval.dtype, jnp.floating)
        if not (isinstance(name, str) and floating):
            raise TypeError(
                f"the pattern of layer {name!r} must be an array of real floating numbers, got "
                f"{describe_value(pattern)}"
            )


def kernel_layers(plan: Plan) -> list[Layer]:
    """The layers of a plan that have patterns."""
    return [r.layer for r in plan if isinstance(r.rule, PatternNet) and r.layer.is_kernel]


def save_patterns(path: str | PathLike[str], patterns: Mapping[str, Any]) -> None:
    """Writes patterns to a file that `load_patterns` and `numpy.load` read.

    Args:
        path: the file, usually `.npz`.
        patterns: by layer, an array. Half precision is written as float32.

    Raises:
        TypeError: `patterns` is no dictionary from name to array of real floating numbers.
    """
    check_patterns(patterns)
    arrays: dict[str, Any] = {"format": np.asarray(f"{_FORMAT} {_VERSION}")}
    for name, pattern in patterns.items():
        array = np.asarray(pattern)
        # npz knows no bfloat16
        arrays[f"pattern/{name}"] = array.astype(wide(array.dtype))
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)


def load_patterns(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """Reads what `save_patterns` wrote.

    Args:
        path: the file.

    Raises:
        ValueError: the file is incomplete, or holds something else.
        FileNotFoundError: there is no such file.
    """
    arrays = npz.read(path, "save_patterns")
    written = str(arrays.pop("format", ""))
    if not written.startswith(_FORMAT):
        raise ValueError(f"{path} was not written by save_patterns: it holds {sorted(arrays)[:4]}")
    version = written.removeprefix(_FORMAT).strip()
    if not version.isdigit() or int(version) > _VERSION:
        raise ValueError(
            f"{path} was written in format {version}; this jaxplain reads up to {_VERSION}: update "
            "jaxplain"
        )
    return {name.removeprefix("pattern/"): array for name, array in arrays.items()}


def statistics_of_batch(plan: Plan, env: Mapping[Var, Any]) -> PatternStatistics:
    """The statistics of one batch, from the values inside the program."""
    weights, positive, negative = {}, {}, {}
    for layer in kernel_layers(plan):
        kernel = kernels.of(layer)
        weights[layer.name], y, products = kernel.run(env)
        above, below = _masks(layer, kernel, plan, env, y.dtype)
        positive[layer.name] = _moments(kernel, y, products, above)
        negative[layer.name] = _moments(kernel, y, products, below)
    return PatternStatistics(weights, positive, negative)


def kernel_weights(plan: Plan, env: Mapping[Var, Any]) -> dict[str, jax.Array]:
    """The weights of the kernel layers, from the values inside the program."""
    return {v.name: read(env, kernels.of(v).weights) for v in kernel_layers(plan)}


def _masks(
    layer: Layer, kernel: kernels.Kernel, plan: Plan, env: Mapping[Var, Any], dtype: Any
) -> tuple[jax.Array, jax.Array]:
    """Masks of the kernel's outputs: where the layer makes them positive, and where it does not.

    An output that the layer cuts off is neither; one that it copies counts for each copy.
    """
    constants = {v: env[v] for v in layer.constants if v.literal is None}
    behind = Affine(layer, constants, tuple(env[v] for v in layer.inputs)).behind(kernel.node)
    z = _seen_by_activation(layer, plan, env)
    (above,), (below,) = (behind.transpose(m.astype(dtype)) for m in (z > 0, z <= 0))
    return above.astype(dtype), below.astype(dtype)


def _seen_by_activation(layer: Layer, plan: Plan, env: Mapping[Var, Any]) -> jax.Array:
    """A layer's output, with the numbers added that belong to the activation behind it."""
    readers = [step for step in plan.graph.all_steps if layer.output in step.inputs]
    argument = readers[0].argument if len(readers) == 1 else None
    if argument is None:
        return env[layer.output]
    moves = [n for n in readers[0].moves if n.outputs[0].index <= argument.index]
    return undone(moves, env[argument])


def _moments(kernel: kernels.Kernel, y: jax.Array, products: Any, mask: jax.Array) -> Moments:
    along = kernel.along_weights
    count = kernel.sums(mask)
    safe = jnp.where(count == 0, 1, count)
    y_mean = kernel.sums(mask * y) / safe
    x_mean = products(mask) / along(safe)
    centred = mask * (y - y_mean)
    # the second term is what rounding left of a sum that is zero
    xy = products(centred) - x_mean * along(kernel.sums(centred))
    return Moments(along(count), x_mean, along(y_mean), xy / along(safe))


@jax.jit
def merge(a: PatternStatistics, b: PatternStatistics) -> PatternStatistics:
    """The statistics of both sets of data together, of one model and unchecked."""
    positive = {name: m + b.positive[name] for name, m in a.positive.items()}
    negative = {name: m + b.negative[name] for name, m in a.negative.items()}
    return PatternStatistics(a.weights, positive, negative, a.whole)


@partial(jax.jit, static_argnames=("kind",))
def _patterns(statistics: PatternStatistics, kind: str) -> dict[str, jax.Array]:
    patterns = {}
    for name, w in statistics.weights.items():
        positive, negative = statistics.positive[name], statistics.negative[name]
        every = positive + negative
        part = {"linear": every, "relu.positive": positive, "relu.negative": negative}[kind]
        covariance = part.xy + part.x * (part.y - every.y)
        noise = 64 * jnp.finfo(w.dtype).eps ** 2 * jnp.abs(part.x * every.y)  # of constants
        covariance = jnp.where(jnp.abs(covariance) <= noise, 0, covariance)
        inputs = tuple(i for i, n in enumerate(every.count.shape) if n == 1)
        length = jnp.sum(w * covariance, inputs, keepdims=True)
        patterns[name] = covariance / jnp.where(length == 0, 1, length)
    return patterns


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer):
        return True
    return bool(np.allclose(a, b, rtol=1e-4, atol=1e-6 * np.abs(a).max(initial=0)))
