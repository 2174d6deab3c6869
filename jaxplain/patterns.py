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

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import npz
from jaxplain.affine import kernels
from jaxplain.affine.dtypes import wide
from jaxplain.affine.kernels import Kernel
from jaxplain.affine.matrix import Affine
from jaxplain.affine.moves import undone
from jaxplain.errors import readable
from jaxplain.graph.ir import Var, read
from jaxplain.graph.layer import Layer
from jaxplain.plan import Plan
from jaxplain.transforms.patterns import check_patterns, kernel_layers, pattern_net

#: The kinds of patterns, and what they are also called.
KINDS = {
    "linear": "linear",
    "relu.positive": "relu.positive",
    "relu": "relu.positive",
    "relu.negative": "relu.negative",
}

_BATCH = 32
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
        return Moments(
            count,
            self.x + share * x,
            self.y + share * y,
            self.xy + share * (other.xy - self.xy) + share * (1 - share) * x * y,
        )

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
    """What patterns are computed from: the moments of every kernel layer's inputs and outputs.

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
        return _merged(self, other)

    def fit_weights(self, weights: Mapping[str, jax.Array]) -> bool:
        """Whether the statistics are of a model with these weights, by layer, as far as known."""
        shapes = [{k: v.shape for k, v in w.items()} for w in (self.weights, weights)]
        return shapes[0] == shapes[1] and all(
            _alike(w, weights[name]) for name, w in self.weights.items()
        )

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
            raise ValueError(
                f"no kind of pattern is called {kind!r}; there are: {', '.join(KINDS)}"
            )
        return _patterns(self, KINDS[kind])


@readable
def pattern_statistics(
    f: Callable[..., Any],
    data: Any,
    *args: Any,
    argnums: int | Sequence[int] = 0,
    batch_size: int | None = None,
    progress: bool = False,
) -> PatternStatistics:
    """Fits the statistics of patterns to data, in one pass.

    Memory holds one batch and, twice over, four arrays in the shape of each layer's weights. Sums
    are in float32 or wider, but products as precise as the model's own: for convolutions that a GPU
    computes in TF32, call this under `jax.default_matmul_precision("highest")`.

    Args:
        f: the function that will be explained: `f(x, *args) -> logits`.
        data: batches of its explained argument (of tuples of them for a sequence of argnums), or
            one array whose leading axis counts examples.
        *args: the other arguments of `f`.
        argnums: which arguments are explained, as for `pattern_net`.
        batch_size: how many examples of one array are taken at a time; 32 by default.
        progress: show a progress bar (needs tqdm).

    Returns:
        The statistics; `.patterns(kind)` gives the patterns, and statistics add up.

    Raises:
        TypeError: the data are neither an array nor batches of floating arrays.
        ValueError: there are no data, `f` has no kernel layer, or a layer has no patterns: see
            `pattern_net`.
        FloatingPointError: a kernel layer has inputs or outputs that are NaN or infinite.
        ImportError: a progress bar was asked for and tqdm is not installed.

    References:
        Kindermans et al., "Learning how to explain neural networks: PatternNet and
        PatternAttribution", ICLR 2018.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> f = lambda x: x @ jnp.array([[1.0], [-1.0]])
        >>> signal, distractor = jnp.array([[-1.0, -1, 1, 1], [-1, 1, -1, 1]])
        >>> data = jnp.stack([signal + distractor, distractor], axis=1)
        >>> print(jxp.pattern_statistics(f, data).patterns("linear")["dense"].ravel())
        [1. 0.]
    """
    explain = pattern_net(f, {}, argnums=argnums, unknown="gradient")
    total = None
    for number, batch in enumerate(_progress(*_batches(data, batch_size), progress)):
        if not all(map(np.size, jax.tree.leaves(batch))):
            raise ValueError(f"batch {number} of the data holds no examples")
        part = explain.read(_of_batch, *_arguments(batch, args, argnums))
        total = part if total is None else _merged(total, part)
    if total is None:
        raise ValueError("there are no data to fit patterns to: data hold no batches")
    if not total.weights:
        raise ValueError("the function has no kernel layer (dense or convolution) to fit")
    if endless := [name for name in total.weights if _is_endless(total, name)]:
        raise FloatingPointError(
            f"the inputs or outputs of layers {', '.join(endless)} are not finite for these data"
        )
    return total


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


def _batches(data: Any, batch_size: int | None) -> tuple[Iterable[Any], int | None]:
    """The batches of the data, and how many there are where that is known."""
    if not hasattr(data, "shape"):
        if isinstance(data, str | Mapping) or not isinstance(data, Iterable):
            raise TypeError(
                "data are an array whose leading axis counts examples, or an iterable of batches, "
                f"got a {type(data).__name__}"
            )
        if batch_size is not None:
            raise TypeError("data come in batches already: batch_size is for one array")
        return data, len(data) if isinstance(data, Sized) else None
    size = _BATCH if batch_size is None else batch_size
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"batch_size must be an int >= 1, got {batch_size!r}")
    if not data.shape:
        raise ValueError("data have no leading axis that counts examples")
    starts = range(0, len(data), size)
    return (data[i : i + size] for i in starts), len(starts)


def _progress(batches: Iterable[Any], count: int | None, wanted: bool) -> Iterable[Any]:
    if not wanted:
        return batches
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ImportError(
            "progress=True needs tqdm: pip install tqdm, or leave progress out"
        ) from None
    return tqdm(batches, total=count, desc="patterns", unit="batch")


def _arguments(batch: Any, args: Sequence[Any], argnums: int | Sequence[int]) -> list[Any]:
    """The arguments of the function: the batch at the places of `argnums`."""
    numbers = [argnums] if isinstance(argnums, int) else list(argnums)
    values = [batch] if isinstance(argnums, int) else batch
    if not isinstance(values, list | tuple) or len(values) != len(numbers):
        found = f"{len(values)}" if isinstance(values, list | tuple) else type(batch).__name__
        raise TypeError(
            f"argnums={argnums} needs batches that are tuples of {len(numbers)} arrays, got {found}"
        )
    count = len(args) + len(numbers)
    placed = {number % count: value for number, value in zip(numbers, values, strict=True)}
    others: Iterator[Any] = iter(args)
    return [placed[i] if i in placed else next(others) for i in range(count)]


def _of_batch(plan: Plan, env: Mapping[Var, Any]) -> PatternStatistics:
    """The statistics of one batch, from the values inside the program."""
    weights, positive, negative = {}, {}, {}
    for layer in kernel_layers(plan):
        kernel = kernels.of(layer)
        weights[layer.name], y, products = kernel.run(env)
        above, below = _masks(layer, kernel, plan, env, y.dtype)
        positive[layer.name] = _moments(kernel, y, products, above)
        negative[layer.name] = _moments(kernel, y, products, below)
    return PatternStatistics(weights, positive, negative)


def weights_of(plan: Plan, env: Mapping[Var, Any]) -> dict[str, jax.Array]:
    """The weights of the kernel layers, from the values inside the program."""
    return {v.name: read(env, kernels.of(v).weights) for v in kernel_layers(plan)}


def _masks(
    layer: Layer, kernel: Kernel, plan: Plan, env: Mapping[Var, Any], dtype: Any
) -> tuple[jax.Array, jax.Array]:
    """Where the kernel's outputs end up positive, and where they do not.

    An output that the layer cuts off is neither; one that it copies counts for each copy.
    """
    constants = {v: env[v] for v in layer.constants if v.literal is None}
    behind = Affine(layer, constants, tuple(env[v] for v in layer.inputs)).behind(kernel.node)
    z = _bent(layer, plan, env)
    (above,), (below,) = (behind.transpose(m.astype(dtype)) for m in (z > 0, z <= 0))
    return above.astype(dtype), below.astype(dtype)


def _bent(layer: Layer, plan: Plan, env: Mapping[Var, Any]) -> jax.Array:
    """The output of a layer, with the numbers that an activation behind it adds first."""
    readers = [step for step in plan.graph.all_steps if layer.output in step.inputs]
    argument = readers[0].argument if len(readers) == 1 else None
    if argument is None:
        return env[layer.output]
    moves = [n for n in readers[0].moves if n.outputs[0].index <= argument.index]
    return undone(moves, env[argument])


def _moments(kernel: Kernel, y: jax.Array, products: Any, mask: jax.Array) -> Moments:
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
def _merged(a: PatternStatistics, b: PatternStatistics) -> PatternStatistics:
    positive = {name: m + b.positive[name] for name, m in a.positive.items()}
    negative = {name: m + b.negative[name] for name, m in a.negative.items()}
    return PatternStatistics(a.weights, positive, negative, a.whole)


@partial(jax.jit, static_argnames=("kind",))
def _patterns(statistics: PatternStatistics, kind: str) -> dict[str, jax.Array]:
    found = {}
    for name, w in statistics.weights.items():
        positive, negative = statistics.positive[name], statistics.negative[name]
        every = positive + negative
        part = {"linear": every, "relu.positive": positive, "relu.negative": negative}[kind]
        covariance = part.xy + part.x * (part.y - every.y)
        noise = 64 * jnp.finfo(w.dtype).eps ** 2 * jnp.abs(part.x * every.y)  # of constants
        covariance = jnp.where(jnp.abs(covariance) <= noise, 0, covariance)
        inputs = tuple(i for i, n in enumerate(every.count.shape) if n == 1)
        length = jnp.sum(w * covariance, inputs, keepdims=True)
        found[name] = covariance / jnp.where(length == 0, 1, length)
    return found


def _is_endless(statistics: PatternStatistics, name: str) -> bool:
    """Whether values are known that are not finite."""
    moments = jax.tree.leaves((statistics.positive[name], statistics.negative[name]))
    known = [v for v in moments if not isinstance(v, jax.core.Tracer)]
    return not all(bool(jnp.isfinite(v).all()) for v in known)


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer):
        return True
    return bool(np.allclose(a, b, rtol=1e-4, atol=1e-6 * np.abs(a).max(initial=0)))
