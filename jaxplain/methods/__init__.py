"""The public transforms, one method or family per file."""

from jaxplain.methods.bilrp import bilrp as bilrp
from jaxplain.methods.explainer import Explainer as Explainer
from jaxplain.methods.gradient import deconvnet as deconvnet
from jaxplain.methods.gradient import gradient as gradient
from jaxplain.methods.gradient import guided_backprop as guided_backprop
from jaxplain.methods.gradient import input_times_gradient as input_times_gradient
from jaxplain.methods.lrp import lrp as lrp
from jaxplain.methods.parameters import parameter_relevance as parameter_relevance
from jaxplain.methods.patterns import pattern_attribution as pattern_attribution
from jaxplain.methods.patterns import pattern_net as pattern_net
