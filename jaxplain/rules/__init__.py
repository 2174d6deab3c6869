"""Rules: how relevance crosses one layer. One family per file."""

from jaxplain.rules.alpha_beta import AlphaBeta as AlphaBeta
from jaxplain.rules.alpha_beta import ZPlus as ZPlus
from jaxplain.rules.base import TERMS as TERMS
from jaxplain.rules.base import Rule as Rule
from jaxplain.rules.base import View as View
from jaxplain.rules.base import divide as divide
from jaxplain.rules.base import minus as minus
from jaxplain.rules.base import plus as plus
from jaxplain.rules.base import stabilize as stabilize
from jaxplain.rules.base import times as times
from jaxplain.rules.bilinear import Uniform as Uniform
from jaxplain.rules.epsilon import Epsilon as Epsilon
from jaxplain.rules.epsilon import Norm as Norm
from jaxplain.rules.epsilon import Z as Z
from jaxplain.rules.gamma import Gamma as Gamma
from jaxplain.rules.gradient import Deconvnet as Deconvnet
from jaxplain.rules.gradient import Gradient as Gradient
from jaxplain.rules.gradient import GuidedBackprop as GuidedBackprop
from jaxplain.rules.identity import Move as Move
from jaxplain.rules.identity import Pass as Pass
from jaxplain.rules.input import Flat as Flat
from jaxplain.rules.input import WSquare as WSquare
from jaxplain.rules.input import ZBox as ZBox
from jaxplain.rules.selection import WinnerTakesAll as WinnerTakesAll
from jaxplain.rules.softmax import Taylor as Taylor
