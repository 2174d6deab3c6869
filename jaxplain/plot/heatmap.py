"""Relevance to pictures: normalise, colour, and lay over the image it explains."""

from typing import Literal, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike

from .palettes import Palette, resolve

Reduce = Literal["sum", "mean", "max_abs"] | None

_LUMA = np.array([0.2126, 0.7152, 0.0722])


class Options(TypedDict, total=False):
    """The keyword arguments of `normalize`, which every other function passes on to it."""

    reduce: Reduce
    channel_axis: int
    percentile: float | None
    symmetric: bool
    gamma: float


def normalize(
    relevance: ArrayLike,
    *,
    reduce: Reduce = "sum",
    channel_axis: int = -1,
    percentile: float | None = None,
    symmetric: bool = True,
    gamma: float = 1.0,
) -> np.ndarray:
    """Relevance per pixel, scaled to [-1, 1] for each image by itself; zero stays zero.

    Args:
        relevance: One map ``(H, W, C)`` or a batch ``(B, H, W, C)``; ``(H, W)`` has no channels to
            reduce, and ``(B, H, W)`` needs ``reduce=None``.
        reduce: How the channels become one number: ``"sum"``, ``"mean"``, ``"max_abs"`` (the
            channel of the largest magnitude, with its sign), or None where there are none.
        channel_axis: Where the channels are: -1, or 0 for one ``(C, H, W)`` map, 1 for a batch.
        percentile: The percentile of the magnitudes that becomes 1; what is larger is clipped.
            None is the maximum, as is a percentile at which the magnitude is zero.
        symmetric: Whether both signs share one scale. Otherwise each is scaled by its own extreme.
        gamma: Exponent on the scaled magnitudes; below 1 brings out faint relevance.

    Returns:
        An array ``(H, W)`` or ``(B, H, W)``. A map of zeros stays zero.

    Raises:
        ValueError: If the shape does not fit, an option is out of range, or the relevance is not
            finite.

    >>> normalize([[1.0, -2.0], [0.0, 4.0]]).tolist()
    [[0.25, -0.5], [0.0, 1.0]]
    """
    if percentile is not None and not 0 < percentile <= 100:
        raise ValueError(f"percentile must be in (0, 100]; got {percentile}")
    if not gamma > 0:
        raise ValueError(f"gamma must be positive; got {gamma}")
    values = _reduced(relevance, reduce, channel_axis)

    def extent(magnitude: np.ndarray) -> np.ndarray:
        largest = magnitude.max(axis=(-2, -1), keepdims=True)
        if percentile is None:
            return largest
        clip = np.percentile(magnitude, percentile, axis=(-2, -1), keepdims=True)
        return np.where(clip > 0, clip, largest)

    if symmetric:
        scale = extent(np.abs(values))
    else:
        positive, negative = extent(np.maximum(values, 0)), extent(np.maximum(-values, 0))
        scale = np.where(values > 0, positive, negative)
    scaled = np.clip(values / np.where(scale > 0, scale, 1), -1, 1)
    return np.sign(scaled) * np.abs(scaled) ** gamma


def heatmap(
    relevance: ArrayLike, *, palette: str | Palette = "seismic", **options: Unpack[Options]
) -> np.ndarray:
    """A picture of the relevance, each image scaled by itself.

    Zero has exactly the palette's centre colour; under an unsigned palette, which shows the
    magnitude, its first colour.

    Args:
        relevance: One map ``(H, W, C)`` or ``(H, W)``, or a batch ``(B, H, W, C)``.
        palette: ``"seismic"``, ``"bwr"``, ``"coldnhot"``, ``"hot"``, ``"gray"``, or your own
            `Palette`.
        **options: ``reduce``, ``channel_axis``, ``percentile``, ``symmetric`` and ``gamma``, as in
            `normalize`.

    Returns:
        RGB of dtype uint8 and shape ``(H, W, 3)`` or ``(B, H, W, 3)``.

    Raises:
        ValueError: As in `normalize`, or if the palette is unknown.

    >>> heatmap([[-2.0, 0.0, 2.0]], palette="bwr").tolist()
    [[[0, 0, 255], [255, 255, 255], [255, 0, 0]]]
    """
    colours = resolve(palette)
    return _to_bytes(colours(normalize(relevance, **options)))


def overlay(
    relevance: ArrayLike,
    image: ArrayLike,
    *,
    strength: float = 0.9,
    palette: str | Palette = "seismic",
    **options: Unpack[Options],
) -> np.ndarray:
    """The heat map laid over its picture, in gray: the stronger the relevance, the more colour.

    Args:
        relevance: One map ``(H, W, C)`` or ``(H, W)``, or a batch ``(B, H, W, C)``.
        image: The picture (one for each map of a batch), ``(H, W)``, ``(H, W, 1)`` or
            ``(H, W, 3)``, of dtype uint8 or float in [0, 1].
        strength: How opaque the colour of the largest relevance is, in [0, 1].
        palette: As in `heatmap`.
        **options: As in `normalize`.

    Returns:
        RGB of dtype uint8 and shape ``(H, W, 3)`` or ``(B, H, W, 3)``. Where the relevance is zero,
        it is the picture's gray.

    Raises:
        ValueError: As in `heatmap`, or if the picture does not fit the relevance.

    >>> overlay([[0.0, 1.0]], [[0.2, 0.2]], strength=1.0, palette="bwr").tolist()
    [[[51, 51, 51], [255, 0, 0]]]
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be in [0, 1]; got {strength}")
    colours, values = resolve(palette), normalize(relevance, **options)
    gray = (as_rgb(image, values.shape) @ _LUMA)[..., None]
    # Faint relevance takes a thin coat of a strong colour: a palette's centre is a white or a black
    # that would veil the picture.
    opacity = strength * np.abs(values)[..., None] ** 0.75
    strong = np.sign(values) * (1 + np.abs(values)) / 2
    return _to_bytes((1 - opacity) * gray + opacity * colours(strong))


def as_rgb(image: ArrayLike, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A picture as float RGB in [0, 1].

    Args:
        image: Gray or RGB, of dtype uint8 or float in [0, 1].
        shape: What its shape must be, channels left out; None takes any one picture.

    Raises:
        ValueError: If the shape, the dtype or the range is another.
    """
    pixels = np.asarray(image)
    if shape is None:
        shape, asked = pixels.shape[:2], "(H, W), (H, W, 1) or (H, W, 3)"
    else:
        asked = f"that of the relevance, {shape}, with one channel, three or none after it"
    if len(shape) < 2 or pixels.shape not in (shape, (*shape, 1), (*shape, 3)):
        raise ValueError(f"the shape of an image must be {asked}; got {pixels.shape}")
    if pixels.shape == shape:
        pixels = pixels[..., None]
    if pixels.dtype == np.uint8:
        pixels = pixels / 255
    elif not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"an image must be uint8 or float in [0, 1]; got dtype {pixels.dtype}")
    low, high = pixels.min(), pixels.max()
    if not (low >= -1e-6 and high <= 1 + 1e-6):
        raise ValueError(
            f"a float image must be in [0, 1], got values from {low:.4g} to {high:.4g}: pass the "
            "picture as it was before the network's own scaling"
        )
    return np.broadcast_to(np.clip(pixels, 0, 1), (*shape, 3))


def _reduced(relevance: ArrayLike, reduce: Reduce, channel_axis: int) -> np.ndarray:
    given = np.asarray(relevance)
    if np.iscomplexobj(given):
        raise ValueError("relevance must be real; explain a real function of the complex output")
    values = given.astype(float)
    if values.size == 0:
        raise ValueError(f"relevance is empty: its shape is {values.shape}")
    if bad := np.count_nonzero(~np.isfinite(values)):
        raise ValueError(f"relevance has {bad} values of {values.size} that are NaN or infinite")
    if reduce not in ("sum", "mean", "max_abs", None):
        raise ValueError(f"reduce must be 'sum', 'mean', 'max_abs' or None; got {reduce!r}")
    if values.ndim == 2 or (reduce is None and values.ndim == 3):
        return values
    if reduce is None or values.ndim not in (3, 4):
        raise ValueError(
            "relevance must be (H, W, C) or (B, H, W, C), or without channels (H, W) or, with "
            f"reduce=None, (B, H, W); got shape {values.shape} and reduce={reduce!r}"
        )
    if not -values.ndim <= channel_axis < values.ndim:
        raise ValueError(f"channel_axis {channel_axis} is no axis of shape {values.shape}")
    if reduce in ("sum", "mean"):
        return values.sum(channel_axis) if reduce == "sum" else values.mean(channel_axis)
    strongest = np.abs(values).argmax(channel_axis, keepdims=True)
    return np.take_along_axis(values, strongest, channel_axis).squeeze(channel_axis)


def _to_bytes(rgb: np.ndarray) -> np.ndarray:
    return np.rint(255 * rgb).astype(np.uint8)
