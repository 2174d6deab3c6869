"""Pictures of explanations, from arrays alone.

Colouring needs NumPy only; colormaps and figures need matplotlib, which comes with
``pip install "jaxplain[plot]"``.
"""

from .grid import grid as grid
from .grid import save as save
from .heatmap import heatmap as heatmap
from .heatmap import normalize as normalize
from .heatmap import overlay as overlay
from .ledger import ledger as ledger
from .palettes import PALETTES as PALETTES
from .palettes import Palette as Palette
from .palettes import colormap as colormap
