"""Pictures of explanations, from arrays alone.

Colouring needs NumPy only; colormaps and figures need matplotlib, which comes with
``pip install "jaxplain[plot]"``.
"""

from .grid import grid, save
from .heatmap import heatmap, normalize, overlay
from .ledger import ledger
from .palettes import PALETTES, Palette, colormap

__all__ = [
    "PALETTES",
    "Palette",
    "colormap",
    "grid",
    "heatmap",
    "ledger",
    "normalize",
    "overlay",
    "save",
]
