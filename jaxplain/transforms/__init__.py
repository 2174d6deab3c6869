"""The public transforms, one method or family per file."""

from jaxplain.transforms.bilrp import bilrp
from jaxplain.transforms.controls import input as input
from jaxplain.transforms.controls import random as random
from jaxplain.transforms.deep_lift import deep_lift
from jaxplain.transforms.deep_taylor import deep_taylor
from jaxplain.transforms.expected_gradients import expected_gradients
from jaxplain.transforms.explainer import Explainer
from jaxplain.transforms.grad_cam import grad_cam, guided_grad_cam
from jaxplain.transforms.gradient import deconvnet, gradient, guided_backprop, input_times_gradient
from jaxplain.transforms.integrated_gradients import integrated_gradients, path_average
from jaxplain.transforms.lrp import lrp
from jaxplain.transforms.occlusion import occlusion
from jaxplain.transforms.parameters import parameter_relevance
from jaxplain.transforms.pattern_statistics import pattern_statistics
from jaxplain.transforms.patterns import pattern_attribution, pattern_net
from jaxplain.transforms.smoothgrad import smoothgrad, smoothgrad_squared, vargrad
from jaxplain.transforms.wrapper import Wrapper

# `input` and `random` are left out: a star would hide the builtin and the module
__all__ = [
    "Explainer",
    "Wrapper",
    "bilrp",
    "deconvnet",
    "deep_lift",
    "deep_taylor",
    "expected_gradients",
    "grad_cam",
    "gradient",
    "guided_backprop",
    "guided_grad_cam",
    "input_times_gradient",
    "integrated_gradients",
    "lrp",
    "occlusion",
    "parameter_relevance",
    "path_average",
    "pattern_attribution",
    "pattern_net",
    "pattern_statistics",
    "smoothgrad",
    "smoothgrad_squared",
    "vargrad",
]
