"""Relevance that crosses a layer unchanged."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxplain.graph.layer import Layer
from jaxplain.rules.base import Arrays, LayerView, Rule


@dataclass(frozen=True)
class Pass(Rule):
    """R_i = R_j for the output j that belongs to input i.

    The default of activations, and of scales and offsets that stand alone.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"Affine", "Activation", "Normalization"})

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        if layer.kind != "Affine":
            return (r,)
        flat = layer.flat()
        layer.record("constants", lambda: jnp.where(flat(tuple(map(jnp.ones_like, x))) == 0, r, 0))
        return flat.transpose(r)

    def objection(self, layer: Layer) -> str:
        """The layer must have one output per input."""
        problem = super().objection(layer)
        if not problem and (layer.kind == "Affine") != (layer.op == "scale"):
            problem = f"{self!r} needs one output per input, which a {layer.op} layer has not"
        moved = layer.kind == "Normalization" and layer.output.shape != layer.inputs[0].shape
        if not problem and moved:
            problem = f"{self!r} needs an output in the shape of the input"
        return problem


@dataclass(frozen=True)
class Move(Rule):
    """Relevance goes with the values that a layer moves: reshapes, slices, concatenations.

    It is what differentiation does; what arrives at padding and other constants goes nowhere.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"Structure"})
    multi_output: ClassVar[bool] = True

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        layer.record("constants", lambda: r * (1 - layer.indicator().astype(r.dtype)))
        return layer.vjp(r)
