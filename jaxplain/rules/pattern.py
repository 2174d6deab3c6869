"""PatternNet and PatternAttribution: the signal behind a layer's output instead of its weights."""

from dataclasses import dataclass
from typing import ClassVar

import jax

from jaxplain.affine import kernels
from jaxplain.graph.layer import Layer
from jaxplain.rules.base import Arrays, LayerView, Rule


@dataclass(frozen=True)
class PatternNet(Rule):
    """R_i = sum_j a_ij R_j: the transposed layer with patterns in the place of its weights.

    The pattern a_j of a neuron y_j = w_j . x is the direction in which the input varies with y_j:
    a_j y_j estimates the signal in x, and w_j . a_j = 1. It is fitted to data
    (`jaxplain.pattern_statistics`) and reaches the rule through `jaxplain.pattern_net`. Scales in
    the layer (BatchNorm, input normalisation, a diagonal layer of its own) are neurons with one
    input: the pattern of a scale s is 1 / s, and 0 where s = 0.

    References:
        Kindermans et al., "Learning how to explain neural networks: PatternNet and
        PatternAttribution", ICLR 2018.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"Affine"})
    #: Whether a pattern is multiplied by the weights.
    weighted: ClassVar[bool] = False

    def objection(self, layer: Layer) -> str:
        """A layer needs one kernel, whose patterns can be told apart by output."""
        problem = super().objection(layer)
        if not problem and not layer.is_kernel and layer.op != "scale":
            problem = f"{self!r} is for kernel layers and scales, not {layer.op}"
        return problem or kernels.objection(layer)

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        if layer.state is None and layer.op != "scale":
            raise ValueError(
                f"{self!r} got no pattern for layer {layer.name!r}: use jaxplain.pattern_net or "
                "jaxplain.pattern_attribution, which give the layers their patterns"
            )
        return layer.pattern(self.weighted).transpose(r)


@dataclass(frozen=True)
class PatternAttribution(PatternNet):
    """R_i = sum_j w_ij a_ij R_j: `PatternNet` with the weights times the patterns.

    As w_j . a_j = 1, a layer without copies or padding hands on what it gets: how much of the
    output each part of the signal contributed. Scales pass relevance on.

    References:
        Kindermans et al., ICLR 2018.
    """

    weighted: ClassVar[bool] = True
