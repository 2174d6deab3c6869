"""Concepts: the channels of a layer, what each contributes, and the samples that show its meaning.

References:
    Achtibat et al., "From attribution maps to human-understandable explanations through Concept
    Relevance Propagation", Nature Machine Intelligence 2023.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import finite
from jaxplain.plan import LayerSpec
from jaxplain.targets import Target
from jaxplain.transforms import Explainer


def concept_relevance(
    explain: Explainer,
    *args: Any,
    layer: LayerSpec,
    channels: Sequence[int] | None = None,
    axis: int = -1,
    target: Target = None,
    batch_size: int | None = None,
) -> Any:
    """The attribution conditional on each channel of a layer.

    For channel c, relevance passes the layer's output only through c: R(x | c). Where all relevance
    flows through the layer, the maps of all channels add up to the attribution; a layer inside of a
    loop is met at every iteration, each time through c only (`jaxplain.unroll` tells them apart).
    The forward pass and the backward pass above the layer are computed once for all channels.

    Args:
        explain: the explainer.
        *args: as for a call of `explain`.
        layer: the layer, as `Explainer.start` names one.
        channels: which channels; all of them by default.
        axis: the axis of the layer's output that counts channels.
        target: as for a call, but for "all".
        batch_size: how many channels are computed at a time; all by default.

    Returns:
        The attribution with a leading axis, one entry per channel.

    Raises:
        ValueError: no layer or several match, or an axis or channel does not exist.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> w, v = jnp.array([[1.0, 0.0], [1.0, 2.0]]), jnp.ones((2, 1))
        >>> f = lambda x: jax.nn.relu(x @ w) @ v
        >>> explain = jxp.lrp(f, jxp.rules.Z())
        >>> print(jxp.concept_relevance(explain, jnp.ones((1, 2)), layer="dense"))
        [[[1. 1.]]
        <BLANKLINE>
         [[0. 2.]]]
    """
    chosen = explain.plan(*args).find_one(layer)
    shape = chosen.output.shape
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"the output of layer {chosen.name!r} has shape {shape}, got axis={axis}")
    count = shape[axis]
    wanted = np.arange(count) if channels is None else np.asarray(channels)
    numbers = wanted.ndim == 1 and wanted.size and wanted.dtype.kind in "iu"
    if not numbers or not ((-count <= wanted) & (wanted < count)).all():
        raise ValueError(f"layer {chosen.name!r} has {count} channels, got channels={channels}")
    spread = [count if i == axis % len(shape) else 1 for i in range(len(shape))]
    masks = jnp.asarray(np.eye(count)[wanted].reshape(-1, *spread))

    unchecked = replace(explain, check_finite=False) if explain.check_finite else explain

    def conditional(mask: jax.Array) -> Any:
        return unchecked(*args, target=target, masks={chosen.name: mask})

    if batch_size is None:
        attributions = jax.vmap(conditional)(masks)
    else:
        attributions = jax.lax.map(conditional, masks, batch_size=batch_size)
    if explain.check_finite:  # once, not for every channel
        explain(*args, target=target)
        finite.check_attribution(attributions)
    return attributions


@dataclass(frozen=True)
class ReferenceSamples:
    """For every channel of a layer, the samples with the highest scores, the best first.

    Attributes:
        indices: positions in the data set, (channels, top).
        scores: the numbers that the samples are ranked by, (channels, top).
    """

    indices: np.ndarray
    scores: np.ndarray


def reference_samples(
    explain: Explainer,
    data: Iterable[Any],
    *args: Any,
    layer: LayerSpec,
    by: Literal["relevance", "activation"] = "relevance",
    top: int = 8,
    axis: int = -1,
    reduce: Literal["sum", "max"] = "sum",
    target: Target = None,
) -> ReferenceSamples:
    """The samples of a data set that a layer's channels respond to, or matter for, most.

    Args:
        explain: the explainer.
        data: batches, each an array whose leading axis counts examples; it is passed over once.
        *args: the other arguments of the explained function.
        layer: the layer, as `Explainer.start` names one.
        by: "relevance" (relevance maximisation: samples in whose explanation the channel matters
            most) or "activation" (activation maximisation).
        top: how many samples per channel are kept.
        axis: the axis of the layer's output that counts channels; the first counts examples.
        reduce: how the other axes (positions) are taken together.
        target: as for a call of `explain`, but for "all" and one array for all batches.

    Returns:
        Indices and scores, (channels, top); fewer columns when there are fewer samples.

    Raises:
        TypeError: `data` is one array.
        ValueError: an option is unknown, `data` is empty, a score is not finite, or no layer or
            several match.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> w, v = jnp.eye(2), jnp.ones((2, 1))
        >>> explain = jxp.lrp(lambda x: jax.nn.relu(x @ w) @ v)
        >>> batches = [jnp.array([[1.0, 0.0], [3.0, 1.0]]), jnp.array([[2.0, 5.0]])]
        >>> print(jxp.reference_samples(explain, batches, layer="dense", top=2).indices)
        [[1 2]
         [2 1]]
    """
    if by not in ("relevance", "activation") or reduce not in ("sum", "max"):
        raise ValueError(
            'by is "relevance" or "activation" and reduce is "sum" or "max", '
            f"got by={by!r}, reduce={reduce!r}"
        )
    if hasattr(data, "shape"):
        raise TypeError("data is an iterable of batches: give [data] for a single one")
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    stopped = replace(explain, stop=layer, capture=None, with_output=False)
    indices, scores, seen = None, None, 0
    for batch in data:
        if by == "relevance":
            values = stopped(batch, *args, target=target)
        else:
            explain.plan(batch, *args).find_one(layer)
            (values,) = explain.activations(batch, *args, layers=layer).values()
        ranked = _per_channel(values, axis, reduce)
        if not np.isfinite(ranked).all():
            raise ValueError(f"the {by} of the batch from sample {seen} on is not finite")
        here = np.broadcast_to(seen + np.arange(ranked.shape[1]), ranked.shape)
        scores = ranked if scores is None else np.concatenate([scores, ranked], 1)
        indices = here if indices is None else np.concatenate([indices, here], 1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        scores, indices = (np.take_along_axis(v, order, 1) for v in (scores, indices))
        seen += ranked.shape[1]
    if indices is None or scores is None:
        raise ValueError("data holds no batches")
    return ReferenceSamples(indices, scores)


def _per_channel(values: jax.Array, axis: int, reduce: str) -> np.ndarray:
    """(channels, examples)."""
    channels_first = np.moveaxis(np.asarray(values, np.float64), axis, 0)
    flat = channels_first.reshape(*channels_first.shape[:2], -1)
    return flat.sum(-1) if reduce == "sum" else flat.max(-1)
