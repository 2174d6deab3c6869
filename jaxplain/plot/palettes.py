"""Colours for relevance: signed palettes with zero at the centre, unsigned ones from zero up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ._matplotlib import require

if TYPE_CHECKING:
    from matplotlib.colors import Colormap


@dataclass(frozen=True)
class Palette:
    """A piecewise linear map from normalised relevance to colour.

    Attributes:
        name: What the palette is called.
        stops: Position to ``"#rrggbb"``, in rising order. A signed palette runs from -1 to 1 and an
            unsigned one, which shows magnitudes, from 0 to 1.

    Raises:
        ValueError: If the stops do not rise from -1 or 0 to 1.

    >>> Palette("traffic", {-1: "#ff0000", 0: "#ffff00", 1: "#00ff00"})(0.5).tolist()
    [0.5, 1.0, 0.0]
    """

    name: str
    stops: Mapping[float, str]

    def __post_init__(self) -> None:
        positions = list(self.stops)
        if positions != sorted(positions) or positions[:1] not in ([-1], [0]) or positions[-1] != 1:
            raise ValueError(
                f"the stops of palette {self.name!r} must rise from -1 (signed) or 0 (unsigned) "
                f"to 1; got {positions}"
            )

    @property
    def signed(self) -> bool:
        """Whether negative values have colours of their own."""
        return min(self.stops) < 0

    def __call__(self, values: np.ndarray | float) -> np.ndarray:
        """Colours of ``values``.

        Args:
            values: Normalised relevance in [-1, 1], of any shape. An unsigned palette shows its
                magnitude.

        Returns:
            RGB in [0, 1], of shape ``values.shape + (3,)``.
        """
        values = np.asarray(values, float)
        if not self.signed:
            values = np.abs(values)
        positions = list(self.stops)
        channels = np.array([list(bytes.fromhex(colour[1:])) for colour in self.stops.values()]).T
        return np.stack([np.interp(values, positions, c / 255) for c in channels], axis=-1)

    def colormap(self) -> Colormap:
        """This palette as a matplotlib colormap; zero is its centre (or, if unsigned, its start).

        Raises:
            ImportError: If matplotlib is not installed.
        """
        # An odd table has an entry for zero of its own.
        table = self(np.linspace(-1 if self.signed else 0, 1, 257))
        return require("colors").ListedColormap(table, name=f"jaxplain.{self.name}")


PALETTES: Mapping[str, Palette] = {
    palette.name: palette
    for palette in (
        Palette(
            "seismic", {-1: "#0f2fb0", -0.5: "#4a7df0", 0: "#ffffff", 0.5: "#f5453b", 1: "#a80019"}
        ),
        Palette("bwr", {-1: "#0000ff", 0: "#ffffff", 1: "#ff0000"}),
        Palette(
            "coldnhot", {-1: "#9cfbff", -0.5: "#0a50ff", 0: "#000000", 0.5: "#ff2a0a", 1: "#fff79c"}
        ),
        Palette("hot", {0: "#000000", 0.4: "#d81e05", 0.75: "#ffc21a", 1: "#ffffff"}),
        Palette("gray", {0: "#000000", 1: "#ffffff"}),
    )
}


def resolve(palette: str | Palette) -> Palette:
    """The palette of that name; a `Palette` is returned as it is.

    Raises:
        ValueError: If no palette has that name.
    """
    if isinstance(palette, Palette):
        return palette
    try:
        return PALETTES[palette]
    except KeyError:
        raise ValueError(
            f"unknown palette {palette!r}; choose one of {', '.join(PALETTES)}, or pass a Palette"
        ) from None


def colormap(name: str | Palette) -> Colormap:
    """A palette as a matplotlib colormap, registered there as ``"jaxplain.<name>"``.

    Give it limits that are symmetric about zero, so that zero has the palette's centre colour.

    Args:
        name: ``"seismic"``, ``"bwr"`` or ``"coldnhot"`` (signed), ``"hot"`` or ``"gray"``
            (unsigned), or a palette of your own.

    Raises:
        ValueError: If no palette has that name.
        ImportError: If matplotlib is not installed.

    >>> colormap("bwr").name
    'jaxplain.bwr'
    """
    made, registry = resolve(name).colormap(), require("colormaps")
    registry.unregister(made.name)  # overwriting would warn
    registry.register(made)
    return made
