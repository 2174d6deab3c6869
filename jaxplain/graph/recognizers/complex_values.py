"""Complex values: no rule crosses an operation on them.

Taken, the spectrum of a value:

    b:c64[3] = fft a

Refused, the magnitude of a spectrum as a real number behind it:

    c:f32[3] = abs b; d:f32[3] = mul c 2.0        `abs` is taken, `mul` is not
"""

from jaxplain.graph.ir import Node, Var
from jaxplain.graph.recognizers.core import Core
from jaxplain.graph.recognizers.facts import Facts
from jaxplain.graph.recognizers.operation import single


def match(node: Node, end: Var, facts: Facts) -> Core | None:
    """The operation that ends at a value, where a value of it is complex."""
    values = (end, *facts.flow.inputs[node])
    return single("Unknown", node, facts) if any(map(is_complex, values)) else None


def is_complex(var: Var) -> bool:
    """Whether a value is of a complex dtype."""
    return var.aval.dtype.kind == "c"
