"""Turns any JAX function into its explanation, as `jax.grad` turns it into its gradient."""

from jaxplain import composites as composites
from jaxplain import rules as rules
from jaxplain.analyzer import Analyzer as Analyzer
from jaxplain.analyzer import create_analyzer as create_analyzer
from jaxplain.analyzer import methods as methods
from jaxplain.composites import Composite as Composite
from jaxplain.concepts import ReferenceSamples as ReferenceSamples
from jaxplain.concepts import concept_relevance as concept_relevance
from jaxplain.concepts import reference_samples as reference_samples
from jaxplain.errors import NotAnalyzableError as NotAnalyzableError
from jaxplain.frameworks import from_equinox as from_equinox
from jaxplain.frameworks import from_keras as from_keras
from jaxplain.frameworks import from_linen as from_linen
from jaxplain.frameworks import from_nnx as from_nnx
from jaxplain.ledger import Ledger as Ledger
from jaxplain.patterns import PatternStatistics as PatternStatistics
from jaxplain.patterns import load_patterns as load_patterns
from jaxplain.patterns import pattern_statistics as pattern_statistics
from jaxplain.patterns import save_patterns as save_patterns
from jaxplain.plan import Plan as Plan
from jaxplain.transforms import Explainer as Explainer
from jaxplain.transforms import Wrapper as Wrapper
from jaxplain.transforms import bilrp as bilrp
from jaxplain.transforms import deconvnet as deconvnet
from jaxplain.transforms import deep_lift as deep_lift
from jaxplain.transforms import deep_taylor as deep_taylor
from jaxplain.transforms import expected_gradients as expected_gradients
from jaxplain.transforms import grad_cam as grad_cam
from jaxplain.transforms import gradient as gradient
from jaxplain.transforms import guided_backprop as guided_backprop
from jaxplain.transforms import guided_grad_cam as guided_grad_cam
from jaxplain.transforms import input as input
from jaxplain.transforms import input_times_gradient as input_times_gradient
from jaxplain.transforms import integrated_gradients as integrated_gradients
from jaxplain.transforms import lrp as lrp
from jaxplain.transforms import occlusion as occlusion
from jaxplain.transforms import parameter_relevance as parameter_relevance
from jaxplain.transforms import path_average as path_average
from jaxplain.transforms import pattern_attribution as pattern_attribution
from jaxplain.transforms import pattern_net as pattern_net
from jaxplain.transforms import random as random
from jaxplain.transforms import smoothgrad as smoothgrad
from jaxplain.transforms import smoothgrad_squared as smoothgrad_squared
from jaxplain.transforms import vargrad as vargrad

__version__ = "0.1.0.dev0"
