"""Turns any JAX function into its explanation, as `jax.grad` turns it into its gradient."""

from jaxplain import composites, plot, rules
from jaxplain.analyzer import Analyzer, create_analyzer, methods
from jaxplain.composites import Composite
from jaxplain.concepts import ReferenceSamples, concept_relevance, reference_samples
from jaxplain.errors import NotAnalyzableError
from jaxplain.frameworks import from_equinox, from_keras, from_linen, from_nnx
from jaxplain.graph.registration import register_primitive
from jaxplain.ledger import Ledger
from jaxplain.patterns import PatternStatistics, load_patterns, save_patterns
from jaxplain.plan import Plan
from jaxplain.transforms import (
    Explainer,
    Wrapper,
    bilrp,
    deconvnet,
    deep_lift,
    deep_taylor,
    expected_gradients,
    grad_cam,
    gradient,
    guided_backprop,
    guided_grad_cam,
    input_times_gradient,
    integrated_gradients,
    lrp,
    occlusion,
    parameter_relevance,
    path_average,
    pattern_attribution,
    pattern_net,
    pattern_statistics,
    smoothgrad,
    smoothgrad_squared,
    vargrad,
)
from jaxplain.transforms import input as input
from jaxplain.transforms import random as random
from jaxplain.unrolling import unroll

# `input` and `random` are left out: a star would hide the builtin and the module
__all__ = [
    "Analyzer",
    "Composite",
    "Explainer",
    "Ledger",
    "NotAnalyzableError",
    "PatternStatistics",
    "Plan",
    "ReferenceSamples",
    "Wrapper",
    "bilrp",
    "composites",
    "concept_relevance",
    "create_analyzer",
    "deconvnet",
    "deep_lift",
    "deep_taylor",
    "expected_gradients",
    "from_equinox",
    "from_keras",
    "from_linen",
    "from_nnx",
    "grad_cam",
    "gradient",
    "guided_backprop",
    "guided_grad_cam",
    "input_times_gradient",
    "integrated_gradients",
    "load_patterns",
    "lrp",
    "methods",
    "occlusion",
    "parameter_relevance",
    "path_average",
    "pattern_attribution",
    "pattern_net",
    "pattern_statistics",
    "plot",
    "reference_samples",
    "register_primitive",
    "rules",
    "save_patterns",
    "smoothgrad",
    "smoothgrad_squared",
    "unroll",
    "vargrad",
]

__version__ = "0.1.0.dev0"


def __dir__() -> list[str]:
    return sorted([*__all__, "__doc__", "__version__", "input", "random"])
