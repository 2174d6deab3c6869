"""Rules: how relevance crosses one layer. One family per file."""

from jaxplain.rules.alpha_beta import AlphaBeta, ZPlus
from jaxplain.rules.base import TERMS, LayerView, Rule, divide, minus, plus, stabilize, times
from jaxplain.rules.bilinear import SignalTake, Uniform
from jaxplain.rules.epsilon import Epsilon, Norm, Z
from jaxplain.rules.gamma import Gamma
from jaxplain.rules.gradient import Deconvnet, Gradient, GuidedBackprop
from jaxplain.rules.identity import Move, Pass
from jaxplain.rules.innvestigate import AlphaBetaWholeBias, ZPlusFast
from jaxplain.rules.input import Flat, WSquare, ZBox
from jaxplain.rules.pattern import PatternAttribution, PatternNet
from jaxplain.rules.selection import WinnerTakesAll
from jaxplain.rules.sign import Sign, StdEpsilon
from jaxplain.rules.softmax import Taylor

__all__ = [
    "TERMS",
    "AlphaBeta",
    "AlphaBetaWholeBias",
    "Deconvnet",
    "Epsilon",
    "Flat",
    "Gamma",
    "Gradient",
    "GuidedBackprop",
    "LayerView",
    "Move",
    "Norm",
    "Pass",
    "PatternAttribution",
    "PatternNet",
    "Rule",
    "Sign",
    "SignalTake",
    "StdEpsilon",
    "Taylor",
    "Uniform",
    "WSquare",
    "WinnerTakesAll",
    "Z",
    "ZBox",
    "ZPlus",
    "ZPlusFast",
    "divide",
    "minus",
    "plus",
    "stabilize",
    "times",
]
