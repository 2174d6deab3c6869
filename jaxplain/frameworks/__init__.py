"""Adapters: a framework's model as a pure function of its input. Thin, and imported lazily."""

from jaxplain.frameworks.equinox import from_equinox as from_equinox
from jaxplain.frameworks.keras import from_keras as from_keras
from jaxplain.frameworks.linen import from_linen as from_linen
from jaxplain.frameworks.nnx import from_nnx as from_nnx
