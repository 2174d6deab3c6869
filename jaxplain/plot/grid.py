"""Many explanations side by side: one row per picture, one column per method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Unpack

import numpy as np
from numpy.typing import ArrayLike

from ._matplotlib import require
from .heatmap import Options, as_rgb, heatmap
from .heatmap import overlay as laid_over
from .palettes import Palette, resolve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# All lengths are in inches, so that a grid of any size looks the same.
_CELL = 1.5
_GAP = 0.06
_LABEL = 0.26
_CAPTION = 0.16
_BAR_WIDTH, _BAR_HEIGHT = 2.2, 0.07
_FOOT = 0.42
_INK = "#333333"
_FRAME = "#dddddd"


def grid(
    images: Sequence[ArrayLike] | np.ndarray,
    maps: Mapping[str, Sequence[ArrayLike]] | Sequence[Sequence[ArrayLike]],
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    titles: Sequence[Sequence[str]] | None = None,
    overlay: bool = False,
    palette: str | Palette = "seismic",
    **options: Unpack[Options],
) -> Figure:
    """A figure of every picture with its maps: rows are pictures, columns are methods.

    The figure belongs to no window and no pyplot state: write it with `save`, or let a notebook
    show it as the last value of a cell (after ``%matplotlib inline``).

    Args:
        images: ``B`` pictures, gray or RGB, uint8 or float in [0, 1]; sizes may differ.
        maps: One entry per method, each with one map per picture, such as the batch an explainer
            returns. The keys of a dictionary label the columns.
        row_labels: One per picture.
        column_labels: One per method, where ``maps`` is not a dictionary.
        titles: A caption above each map, nested as ``maps`` is: one list per method.
        overlay: Whether the maps are laid over their pictures.
        palette: As in `heatmap`.
        **options: As in `normalize`.

    Raises:
        ValueError: If the numbers of pictures, maps and labels differ, or as in `heatmap`.
        ImportError: If matplotlib is not installed.

    >>> picture, relevance = np.zeros((1, 4, 4, 3)), np.ones((1, 4, 4, 3))
    >>> figure = grid(picture, {"gradient": relevance, "lrp": -relevance}, row_labels=["cat"])
    """
    if isinstance(maps, Mapping):
        column_labels = list(maps) if column_labels is None else column_labels
        maps = list(maps.values())
    row_count, column_count = len(images), len(maps)
    if not row_count or not column_count:
        raise ValueError(f"nothing to show: {row_count} images, {column_count} methods")
    _check_count("row_labels", row_labels, row_count, "images")
    _check_count("column_labels", column_labels, column_count, "methods")
    _check_count("titles", titles, column_count, "methods")
    for column in range(column_count):
        _check_count(f"maps of method {column}", maps[column], row_count, "images")
        if titles is not None:
            _check_count(f"titles of method {column}", titles[column], row_count, "images")

    colours = resolve(palette)
    pictures = [as_rgb(image) for image in images]
    heights = [_CELL * picture.shape[0] / picture.shape[1] for picture in pictures]
    left = _GAP if row_labels is None else _LABEL
    top = _GAP if column_labels is None else _LABEL
    caption = 0 if titles is None else _CAPTION
    width = left + (column_count + 1) * (_CELL + _GAP)
    height = top + sum(heights) + row_count * (caption + _GAP) + _FOOT
    figure = require("figure").Figure(figsize=(width, height), facecolor="white")

    def place(x: float, y: float, w: float, h: float) -> Axes:
        """New axes, measured from the upper left corner."""
        axes: Axes = figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height))
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=_FRAME, linewidth=0.6)
        return axes

    def coloured(relevance: ArrayLike, picture: ArrayLike, **how: Unpack[Options]) -> np.ndarray:
        if overlay:
            return laid_over(relevance, picture, palette=colours, **how)
        return heatmap(relevance, palette=colours, **how)

    y = top
    for row, (picture, cell) in enumerate(zip(pictures, heights, strict=True)):
        y += caption
        for column in range(column_count + 1):
            axes = place(left + column * (_CELL + _GAP), y, _CELL, cell)
            if column == 0:
                axes.imshow(picture, aspect="auto")
                if row_labels is not None:
                    size = _fit(row_labels, min(heights))
                    axes.set_ylabel(row_labels[row], fontsize=size, color=_INK)
                continue
            axes.imshow(coloured(maps[column - 1][row], picture, **options), aspect="auto")
            if titles is not None:
                title = titles[column - 1][row]
                size = min(6.5, _fit([title], _CELL))
                axes.set_title(title, fontsize=size, pad=2, color=_INK)
            if row == 0 and column_labels is not None:
                axes.annotate(
                    column_labels[column - 1],
                    (0.5, 1),
                    (0, 4 + 72 * caption),
                    xycoords="axes fraction",
                    textcoords="offset points",
                    ha="center",
                    fontsize=_fit(column_labels, _CELL),
                    color=_INK,
                )
        y += cell + _GAP

    bar_width = min(_BAR_WIDTH, column_count * _CELL)
    bar_left = (left + _CELL + width - bar_width) / 2  # centred under the maps
    bar = place(bar_left, y + 0.1, bar_width, _BAR_HEIGHT)
    low = -1 if colours.signed else 0
    ramp = np.linspace(low, 1, 512)[None]
    bar.imshow(coloured(ramp, np.full(ramp.shape, 0.5)), aspect="auto", extent=(low, 1, 0, 1))
    ticks = {-1: "negative", 0: "0", 1: "positive"} if colours.signed else {0: "0", 1: "large"}
    bar.set_xticks(list(ticks), list(ticks.values()), fontsize=7, color=_INK)
    bar.tick_params(length=0, pad=3)
    return figure


def save(figure: Figure, path: str | PathLike[str], *, dpi: float = 200) -> None:
    """Write a figure to a file, cut to its content; the suffix says the format.

    Args:
        figure: What `grid` returned.
        path: Such as ``"maps.png"``, ``"maps.pdf"`` or ``"maps.svg"``.
        dpi: Pixels per inch of a bitmap.
    """
    figure.savefig(path, dpi=dpi, bbox_inches="tight", pad_inches=0.08)


def _check_count(name: str, given: Sequence[object] | None, wanted: int, what: str) -> None:
    if given is not None and len(given) != wanted:
        raise ValueError(f"{name}: expected one for each of the {wanted} {what}; got {len(given)}")


def _fit(labels: Sequence[str], length: float) -> float:
    """The font size at which the longest label fits into ``length`` inches."""
    longest = max(len(line) for label in labels for line in label.split("\n"))
    return min(9.0, length * 72 / (0.56 * max(longest, 1)))
