"""What each primitive is: the one table that knows primitives by name.

A primitive that JAX adds is one more row. Everything else in the library speaks of `Class` (how
relevance may cross the operation) and `Role` (what the operation means to the analyses).
"""

import enum
from dataclasses import dataclass


class Class(enum.Enum):
    """How an operation treats the values that carry relevance."""

    DIAGONAL = "one output per input, scaled or shifted by constants"
    STRUCTURAL = "moves, repeats or drops values, changes none"
    MIXING = "a weighted sum of many inputs"
    ELEMENTWISE = "nonlinear, one output per input"
    SELECTION = "each output is one of the inputs"
    DISCRETE = "no relevance flows: its derivative is zero or undefined"
    UNKNOWN = "anything else"


class Role(enum.Enum):
    """What an operation means to the analyses that read more than its class."""

    NONE = enum.auto()
    SUM = enum.auto()
    DIFFERENCE = enum.auto()
    PRODUCT = enum.auto()
    QUOTIENT = enum.auto()
    NEGATION = enum.auto()
    POWER = enum.auto()
    EXP = enum.auto()
    LOG = enum.auto()
    EXTREMUM = enum.auto()
    EXTREMUM_REDUCTION = enum.auto()
    RUNNING_EXTREMUM = enum.auto()
    SUM_REDUCTION = enum.auto()
    SELECT = enum.auto()
    COMPARISON = enum.auto()
    FINITE = enum.auto()
    STOP = enum.auto()
    DOT = enum.auto()
    CONVOLUTION = enum.auto()
    POOLING = enum.auto()
    CUMULATIVE = enum.auto()
    DEVICE_SUM = enum.auto()
    SCATTER_SUM = enum.auto()
    RESHAPE = enum.auto()
    TRANSPOSE = enum.auto()
    BROADCAST = enum.auto()
    CAST = enum.auto()
    CONCATENATION = enum.auto()
    POSITIVE = enum.auto()


@dataclass(frozen=True)
class Row:
    """One primitive.

    Attributes:
        cls: how relevance may cross it.
        role: what it means to the analyses.
        degree: f(c x) = c^degree f(x) for c > 0, where that holds (Role.POWER).
        piecewise: a nonlinearity made of straight lines, as rectifiers are.
        local: may stand inside an activation, normalisation or softmax (has no kernel, keeps every
            value it is given).
    """

    cls: Class
    role: Role = Role.NONE
    degree: float | None = None
    piecewise: bool = False
    local: bool = True


_D, _S, _M, _E = Class.DIAGONAL, Class.STRUCTURAL, Class.MIXING, Class.ELEMENTWISE

TABLE: dict[str, Row] = {
    # diagonal
    "add": Row(_D, Role.SUM),
    "add_any": Row(_D, Role.SUM),
    "sub": Row(_D, Role.DIFFERENCE),
    "mul": Row(_D, Role.PRODUCT),
    "div": Row(_D, Role.QUOTIENT),
    "neg": Row(_D, Role.NEGATION),
    # structural
    "reshape": Row(_S, Role.RESHAPE),
    "squeeze": Row(_S, Role.RESHAPE),
    "transpose": Row(_S, Role.TRANSPOSE),
    "broadcast_in_dim": Row(_S, Role.BROADCAST),
    "convert_element_type": Row(_S, Role.CAST),
    "reduce_precision": Row(_S, Role.CAST),
    "copy": Row(_S, Role.CAST),
    "optimization_barrier": Row(_S, Role.CAST),
    "sharding_constraint": Row(_S, Role.CAST),
    "device_put": Row(_S, Role.CAST),
    "name": Row(_S, Role.CAST),
    "pvary": Row(_S, Role.CAST),
    "reshard": Row(_S, Role.CAST),
    "select_n": Row(_S, Role.SELECT),
    "pad": Row(_S, local=False),
    "slice": Row(_S, local=False),
    "dynamic_slice": Row(_S, local=False),
    "dynamic_update_slice": Row(_S, local=False),
    "gather": Row(_S, local=False),
    "scatter": Row(_S, local=False),
    "rev": Row(_S, local=False),
    "split": Row(_S, local=False),
    "unstack": Row(_S, local=False),
    "concatenate": Row(_S, Role.CONCATENATION, local=False),
    "stack": Row(_S, Role.CONCATENATION, local=False),
    "tile": Row(_S, local=False),
    "all_gather": Row(_S, local=False),
    "all_gather_invariant": Row(_S, local=False),
    "all_to_all": Row(_S, local=False),
    "ppermute": Row(_S, local=False),
    # mixing
    "dot_general": Row(_M, Role.DOT),
    "conv_general_dilated": Row(_M, Role.CONVOLUTION, local=False),
    "reduce_sum": Row(_M, Role.SUM_REDUCTION),
    "reduce_window_sum": Row(_M, Role.POOLING, local=False),
    "cumsum": Row(_M, Role.CUMULATIVE, local=False),
    "scatter-add": Row(_M, Role.SCATTER_SUM, local=False),
    "psum": Row(_M, Role.DEVICE_SUM, local=False),
    "psum_invariant": Row(_M, Role.DEVICE_SUM, local=False),
    "reduce_scatter": Row(_M, Role.DEVICE_SUM, local=False),
    # nonlinear, one output per input
    "abs": Row(_E, Role.POWER, degree=1, piecewise=True),
    "square": Row(_E, Role.POWER, degree=2),
    "sqrt": Row(_E, Role.POWER, degree=0.5),
    "rsqrt": Row(_E, Role.POWER, degree=-0.5),
    "cbrt": Row(_E, Role.POWER, degree=1 / 3),
    "integer_pow": Row(_E, Role.POWER),
    "pow": Row(_E, Role.POWER),
    "exp": Row(_E, Role.EXP),
    "exp2": Row(_E, Role.POSITIVE),
    "log": Row(_E, Role.LOG),
    "logistic": Row(_E, Role.POSITIVE),
    "erfc": Row(_E, Role.POSITIVE),
    "max": Row(_E, Role.EXTREMUM, piecewise=True),
    "min": Row(_E, Role.EXTREMUM, piecewise=True),
    "clamp": Row(_E, piecewise=True),
    **{
        name: Row(_E)
        for name in (
            "expm1 log1p log2 tanh tan sin cos sinh cosh asin acos atan asinh acosh atanh erf "
            "erf_inv lgamma digamma bessel_i0e bessel_i1e polynomial one_minus_square rem atan2 "
            "igamma igammac igamma_grad_a regularized_incomplete_beta polygamma zeta"
        ).split()
    },
    # selections
    "reduce_max": Row(Class.SELECTION, Role.EXTREMUM_REDUCTION),
    "reduce_min": Row(Class.SELECTION, Role.EXTREMUM_REDUCTION),
    "reduce_window_max": Row(Class.SELECTION, Role.POOLING, local=False),
    "reduce_window_min": Row(Class.SELECTION, Role.POOLING, local=False),
    "sort": Row(Class.SELECTION, local=False),
    "top_k": Row(Class.SELECTION, local=False),
    "approx_top_k": Row(Class.SELECTION, local=False),
    "cummax": Row(Class.SELECTION, Role.RUNNING_EXTREMUM, local=False),
    "cummin": Row(Class.SELECTION, Role.RUNNING_EXTREMUM, local=False),
    # no relevance flows
    "stop_gradient": Row(Class.DISCRETE, Role.STOP),
    "is_finite": Row(Class.DISCRETE, Role.FINITE),
    **{
        name: Row(Class.DISCRETE, Role.COMPARISON)
        for name in "eq ne ge gt le lt eq_to le_to lt_to".split()
    },
    **{
        name: Row(Class.DISCRETE)
        for name in (
            "sign round floor ceil and or not xor nextafter shift_left shift_right_arithmetic "
            "shift_right_logical population_count clz iota"
        ).split()
    },
    **{
        name: Row(Class.DISCRETE, local=False)
        for name in "argmax argmin reduce_and reduce_or reduce_xor".split()
    },
}

UNKNOWN = Row(Class.UNKNOWN, local=False)

#: Functions with a derivative of their own whose body is elementwise: executed as written.
CUSTOM_ELEMENTWISE = Row(_E)
CUSTOM_RECTIFIER = Row(_E, piecewise=True)

#: What cannot be differentiated in reverse, and so not explained.
IRREVERSIBLE = frozenset({"while"})

#: What makes steps of a value, through which nothing flows.
ROUNDING = frozenset({"round", "floor", "ceil", "sign"})

#: The largest of their operands, where the others of their role are the smallest.
MAXIMA = frozenset({"max", "reduce_max", "reduce_window_max", "cummax"})


def row(name: str) -> Row:
    """The table's row for a primitive; `UNKNOWN` when there is none."""
    return TABLE.get(name, UNKNOWN)
