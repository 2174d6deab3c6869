"""The public transforms, one method or family per file."""

from jaxplain.transforms.bilrp import bilrp as bilrp
from jaxplain.transforms.controls import input as input
from jaxplain.transforms.controls import random as random
from jaxplain.transforms.deep_lift import deep_lift as deep_lift
from jaxplain.transforms.deep_taylor import deep_taylor as deep_taylor
from jaxplain.transforms.expected_gradients import expected_gradients as expected_gradients
from jaxplain.transforms.explainer import Explainer as Explainer
from jaxplain.transforms.grad_cam import grad_cam as grad_cam
from jaxplain.transforms.grad_cam import guided_grad_cam as guided_grad_cam
from jaxplain.transforms.gradient import deconvnet as deconvnet
from jaxplain.transforms.gradient import gradient as gradient
from jaxplain.transforms.gradient import guided_backprop as guided_backprop
from jaxplain.transforms.gradient import input_times_gradient as input_times_gradient
from jaxplain.transforms.integrated_gradients import integrated_gradients as integrated_gradients
from jaxplain.transforms.integrated_gradients import path_average as path_average
from jaxplain.transforms.lrp import lrp as lrp
from jaxplain.transforms.occlusion import occlusion as occlusion
from jaxplain.transforms.parameters import parameter_relevance as parameter_relevance
from jaxplain.transforms.pattern_statistics import pattern_statistics as pattern_statistics
from jaxplain.transforms.patterns import pattern_attribution as pattern_attribution
from jaxplain.transforms.patterns import pattern_net as pattern_net
from jaxplain.transforms.smoothgrad import smoothgrad as smoothgrad
from jaxplain.transforms.smoothgrad import smoothgrad_squared as smoothgrad_squared
from jaxplain.transforms.smoothgrad import vargrad as vargrad
from jaxplain.transforms.wrapper import Wrapper as Wrapper
