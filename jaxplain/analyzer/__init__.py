"""The door for users of iNNvestigate and SIGN-XAI: methods by name."""

from jaxplain.analyzer.analyzer import Analyzer as Analyzer
from jaxplain.analyzer.analyzer import create_analyzer as create_analyzer
from jaxplain.analyzer.names import methods as methods
