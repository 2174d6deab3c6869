"""Adapters: a framework's model as a pure function of its input. Thin, and imported lazily."""

from jaxplain.frameworks.equinox import from_equinox
from jaxplain.frameworks.keras import from_keras
from jaxplain.frameworks.linen import from_linen
from jaxplain.frameworks.nnx import from_nnx

__all__ = [
    "from_equinox",
    "from_keras",
    "from_linen",
    "from_nnx",
]
