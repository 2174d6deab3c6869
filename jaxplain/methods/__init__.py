"""The public transforms, one method or family per file."""

from jaxplain.methods.bilrp import bilrp as bilrp
from jaxplain.methods.controls import input as input
from jaxplain.methods.controls import random as random
from jaxplain.methods.deep_taylor import deep_taylor as deep_taylor
from jaxplain.methods.expected_gradients import expected_gradients as expected_gradients
from jaxplain.methods.explainer import Explainer as Explainer
from jaxplain.methods.grad_cam import grad_cam as grad_cam
from jaxplain.methods.grad_cam import guided_grad_cam as guided_grad_cam
from jaxplain.methods.gradient import deconvnet as deconvnet
from jaxplain.methods.gradient import gradient as gradient
from jaxplain.methods.gradient import guided_backprop as guided_backprop
from jaxplain.methods.gradient import input_times_gradient as input_times_gradient
from jaxplain.methods.integrated_gradients import integrated_gradients as integrated_gradients
from jaxplain.methods.integrated_gradients import path_average as path_average
from jaxplain.methods.lrp import lrp as lrp
from jaxplain.methods.occlusion import occlusion as occlusion
from jaxplain.methods.parameters import parameter_relevance as parameter_relevance
from jaxplain.methods.smoothgrad import smoothgrad as smoothgrad
from jaxplain.methods.smoothgrad import smoothgrad_squared as smoothgrad_squared
from jaxplain.methods.smoothgrad import vargrad as vargrad
from jaxplain.methods.wrapper import Wrapper as Wrapper
