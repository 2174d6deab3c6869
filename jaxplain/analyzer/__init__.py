"""The door for users of iNNvestigate and SIGN-XAI: methods by name."""

from jaxplain.analyzer.analyzer import Analyzer, create_analyzer
from jaxplain.analyzer.names import methods

__all__ = [
    "Analyzer",
    "create_analyzer",
    "methods",
]
