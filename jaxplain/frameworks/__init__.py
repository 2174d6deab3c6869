"""Adapters: a framework's model as a pure function of its input. Thin, and imported lazily."""

from jaxplain.frameworks.linen import from_linen as from_linen
