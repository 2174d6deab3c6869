"""The gradient and its modifications at rectifiers."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxplain.rules.base import Arrays, LayerView, Rule

_ANY = frozenset(
    "Affine Merge Activation Softmax Normalization Product Matmul Selection Unknown".split()
)


@dataclass(frozen=True)
class Gradient(Rule):
    """R = J^T R: the layer is differentiated as it is written."""

    kinds: ClassVar[frozenset[str]] = _ANY
    multi_output: ClassVar[bool] = True

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        return layer.vjp(r)


@dataclass(frozen=True)
class Deconvnet(Rule):
    """R = max(R, 0): the rectifier is applied to the backward signal instead of its mask.

    References:
        Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"Activation"})

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        return (jnp.maximum(r, 0),)


@dataclass(frozen=True)
class GuidedBackprop(Rule):
    """R = f'(x) max(R, 0): gradient and deconvnet at once.

    References:
        Springenberg et al., "Striving for Simplicity: The All Convolutional Net", ICLR 2015.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"Activation"})

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        return layer.vjp(jnp.maximum(r, 0))
