"""Turns any JAX function into its explanation, as `jax.grad` turns it into its gradient."""

from jaxplain import composites as composites
from jaxplain import rules as rules
from jaxplain.composites import Composite as Composite
from jaxplain.concepts import ReferenceSamples as ReferenceSamples
from jaxplain.concepts import concept_relevance as concept_relevance
from jaxplain.concepts import reference_samples as reference_samples
from jaxplain.errors import NotAnalyzableError as NotAnalyzableError
from jaxplain.frameworks import from_linen as from_linen
from jaxplain.ledger import Ledger as Ledger
from jaxplain.methods import Explainer as Explainer
from jaxplain.methods import bilrp as bilrp
from jaxplain.methods import deconvnet as deconvnet
from jaxplain.methods import gradient as gradient
from jaxplain.methods import guided_backprop as guided_backprop
from jaxplain.methods import input_times_gradient as input_times_gradient
from jaxplain.methods import lrp as lrp
from jaxplain.methods import parameter_relevance as parameter_relevance
from jaxplain.methods import pattern_attribution as pattern_attribution
from jaxplain.methods import pattern_net as pattern_net
from jaxplain.patterns import PatternStatistics as PatternStatistics
from jaxplain.patterns import load_patterns as load_patterns
from jaxplain.patterns import pattern_statistics as pattern_statistics
from jaxplain.patterns import save_patterns as save_patterns
from jaxplain.plan import Plan as Plan

__version__ = "0.1.0.dev0"
