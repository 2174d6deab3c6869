"""Complex values: no rule crosses an operation on them.

Taken, the spectrum of a real value, and its magnitude:

    b:c64[3] = fft[fft_type=RFFT] a; c:f32[3] = abs b

Refused, as both its operand and its output are real:

    d:f32[3] = mul c 2.0
"""

from jaxplain.graph.ir import Node, Var
from jaxplain.graph.recognizers.core import Core
from jaxplain.graph.recognizers.facts import Facts
from jaxplain.graph.recognizers.operation import single


def match(node: Node, end: Var, facts: Facts) -> Core | None:
    """The operation that ends at a value, where its output or an operand is complex."""
    values = (end, *facts.flow.inputs[node])
    return single("Unknown", node, facts) if any(map(is_complex, values)) else None


def is_complex(var: Var) -> bool:
    """Whether a value is of a complex dtype."""
    return var.aval.dtype.kind == "c"
