"""The fit of patterns to data."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain.arguments import check_count
from jaxplain.errors import readable
from jaxplain.extras import package
from jaxplain.patterns import PatternStatistics, merge, statistics_of_batch
from jaxplain.spelling import checked_options
from jaxplain.transforms.patterns import pattern_net

_BATCH = 32


@readable
@checked_options
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
        part = explain.read(statistics_of_batch, *_arguments(batch, args, argnums))
        total = part if total is None else merge(total, part)
    if total is None:
        raise ValueError("there are no data to fit patterns to: data hold no batches")
    if not total.weights:
        raise ValueError("the function has no kernel layer (dense or convolution) to fit")
    if endless := [name for name in total.weights if _is_endless(total, name)]:
        raise FloatingPointError(
            f"the inputs or outputs of layers {', '.join(endless)} are not finite for these data"
        )
    return total


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
    check_count(size, "batch_size")
    if not data.shape:
        raise ValueError("data have no leading axis that counts examples")
    starts = range(0, len(data), size)
    return (data[i : i + size] for i in starts), len(starts)


def _progress(batches: Iterable[Any], count: int | None, shown: bool) -> Iterable[Any]:
    if not shown:
        return batches
    missing = "progress=True needs tqdm: pip install tqdm, or leave progress out"
    return package("tqdm.auto", missing).tqdm(batches, total=count, desc="patterns", unit="batch")


def _arguments(batch: Any, args: Sequence[Any], argnums: int | Sequence[int]) -> list[Any]:
    """The arguments of the function: the batch at the places of `argnums`."""
    numbers = [argnums] if isinstance(argnums, int) else list(argnums)
    values = [batch] if isinstance(argnums, int) else batch
    if not isinstance(values, list | tuple) or len(values) != len(numbers):
        got = f"{len(values)}" if isinstance(values, list | tuple) else type(batch).__name__
        raise TypeError(
            f"argnums={argnums} needs batches that are tuples of {len(numbers)} arrays, got {got}"
        )
    count = len(args) + len(numbers)
    placed = {number % count: value for number, value in zip(numbers, values, strict=True)}
    others: Iterator[Any] = iter(args)
    return [placed[i] if i in placed else next(others) for i in range(count)]


def _is_endless(statistics: PatternStatistics, name: str) -> bool:
    """Whether values are known that are not finite."""
    moments = jax.tree.leaves((statistics.positive[name], statistics.negative[name]))
    known = [v for v in moments if not isinstance(v, jax.core.Tracer)]
    return not all(bool(jnp.isfinite(v).all()) for v in known)
