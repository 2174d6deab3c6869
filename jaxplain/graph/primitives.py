"""The table of primitives, the only place that knows them by name.

A primitive that JAX or another library adds is one more row (`register_primitive`). All other code
speaks of `PrimitiveKind` (how relevance may cross the operation), `PrimitiveRole` (its meaning to
the analyses) and `Operand` (its treatment of an operand).
"""

import enum
from dataclasses import dataclass
from functools import partial
from typing import Any

from jaxplain.graph import intervals
from jaxplain.graph.intervals import POSITIVE, SIGNED_UNIT, UNIT, Bounds, within


class PrimitiveKind(enum.Enum):
    """How an operation treats the values that carry relevance."""

    DIAGONAL = "one output per input, scaled or shifted by constants"
    STRUCTURAL = "moves, repeats or drops values, changes none"
    MIXING = "a weighted sum of many inputs"
    ELEMENTWISE = "nonlinear, one output per input"
    SELECTION = "each output is one of the inputs"
    DISCRETE = "no relevance flows: its derivative is zero or undefined"
    UNKNOWN = "anything else"


class PrimitiveRole(enum.Enum):
    """The meaning of an operation to analyses that read more than its kind, as EXP to a softmax."""

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
    EQUALITY = enum.auto()
    FINITE = enum.auto()
    STOP = enum.auto()
    CONTRACTION = enum.auto()
    DEVICE_SUM = enum.auto()
    SCATTER_SUM = enum.auto()
    RESHAPE = enum.auto()
    TRANSPOSE = enum.auto()
    BROADCAST = enum.auto()
    CAST = enum.auto()
    CONCATENATION = enum.auto()
    SPLIT = enum.auto()
    SLICE = enum.auto()
    REVERSAL = enum.auto()
    LOOKUP = enum.auto()


class Operand(enum.Enum):
    """The treatment of one operand by a linear operation.

    A linear operation is linear in its operands that carry relevance. The kind of an operand that
    is a constant decides its place in the layer's affine map A x + b (`affine.matrix`): of
    `mul x c`, c is a FACTOR and part of A; of `add x c`, a TERM and part of b.
    """

    FACTOR = "multiplied: each output is a sum of products with one entry of each factor"
    DIVISOR = "divided by, entry by entry"
    TERM = "added: a constant one is part of the bias"
    SUBTRAHEND = "subtracted: a constant one, negated, is part of the bias"
    MOVED = "moved to the outputs: a constant one is part of the bias"
    INDEX = "says where values go or come from"
    CONDITION = "says which of the others is taken"
    SETTING = "shapes the linear map in a way of its own, so that its entries are not known"


Kind, Role = PrimitiveKind, PrimitiveRole
_FACTOR, _DIVISOR, _TERM, _SUBTRAHEND, _MOVED, _INDEX, _CONDITION, _SETTING = Operand
_LINEAR = (Kind.DIAGONAL, Kind.STRUCTURAL, Kind.MIXING)


@dataclass(frozen=True)
class PrimitiveInfo:
    """One row of the table.

    Attributes:
        kind: how relevance may cross the operation.
        role: its meaning to the analyses.
        operands: for a linear operation, the treatment of each operand; the last entry stands for
            all operands that follow: `(CONDITION, MOVED)` for `select_n(which, *cases)`.
        op: for a mixing operation, the `op` of its layers ("dense", "pooling").
        degree: of a power, d in f(c x) = c^d f(x) for c > 0 (`PrimitiveRole.POWER`).
        piecewise: whether a nonlinearity is piecewise linear, as rectifiers are.
        local: whether it may stand inside an activation, normalisation or softmax, as it drops no
            entry; a dot product only where both operands depend on the input (`Facts.is_local`).
        largest: whether an extremum is a maximum; None for operations that are no extremum.
        keeps_places: whether entries keep their position along the axes (no lookup, no sort).
        separable: whether an equation with several operands is one equation for each of them, as
            `optimization_barrier` is.
        bounds: the interval of the outputs as a function of those of the operands.
        rounds: whether it is a step function, as `floor`: its derivative is zero.
        irreversible: whether it has no reverse-mode derivative, as `while`, and so no explanation.
    """

    kind: PrimitiveKind
    role: PrimitiveRole = PrimitiveRole.NONE
    operands: tuple[Operand, ...] = ()
    op: str = ""
    degree: float | None = None
    piecewise: bool = False
    local: bool = True
    largest: bool | None = None
    keeps_places: bool = True
    separable: bool = False
    bounds: intervals.Rule | None = None
    rounds: bool = False
    irreversible: bool = False

    def __post_init__(self) -> None:
        if self.kind in _LINEAR and not self.operands:
            raise ValueError(
                f"a primitive that is linear ({self.kind.name}) needs operands=: for each operand "
                f"one of {', '.join(kind.name for kind in Operand)}; the last stands for all that "
                "follow. Without them a constant operand would be left out of the map"
            )

    def operand(self, place: int) -> Operand | None:
        """The operation's treatment of an operand; None for an operation that is not linear."""
        return self.operands[min(place, len(self.operands) - 1)] if self.operands else None

    @property
    def multiplies(self) -> bool:
        """Whether the operation sums products of its operands, as dot products do."""
        return self.kind is Kind.MIXING and _FACTOR in self.operands

    @property
    def adds(self) -> bool:
        """Whether the operation adds, subtracts or negates, entry by entry."""
        return self.kind is Kind.DIAGONAL and not {_FACTOR, _DIVISOR}.intersection(self.operands)

    @property
    def scales(self) -> bool:
        """Whether the operation multiplies or divides, entry by entry."""
        return self.kind is Kind.DIAGONAL and not self.adds


def _rows(names: str, info: PrimitiveInfo) -> dict[str, PrimitiveInfo]:
    """Rows of primitives that are alike."""
    return dict.fromkeys(names.split(), info)


_diagonal = partial(PrimitiveInfo, Kind.DIAGONAL)
#: Moves the first operand; `local` only where no entry is dropped.
_moves = partial(
    PrimitiveInfo, Kind.STRUCTURAL, operands=(_MOVED,), local=False, bounds=intervals.joined
)
_keeps = partial(_moves, local=True)
_sums = partial(PrimitiveInfo, Kind.MIXING, operands=(_TERM,), local=False, bounds=intervals.summed)
_multiplies = partial(_sums, operands=(_FACTOR,), bounds=intervals.contracted)
_bends = partial(PrimitiveInfo, Kind.ELEMENTWISE)
_selects = partial(PrimitiveInfo, Kind.SELECTION, local=False, bounds=intervals.joined)
_discrete = partial(PrimitiveInfo, Kind.DISCRETE)


def _power(degree: float, bounds: intervals.Rule | None = None, **more: Any) -> PrimitiveInfo:
    bounds = bounds or intervals.power(degree)
    return _bends(Role.POWER, degree=degree, bounds=bounds, **more)


TABLE: dict[str, PrimitiveInfo] = {
    # diagonal
    **_rows("add add_any", _diagonal(Role.SUM, (_TERM,), bounds=intervals.add)),
    "sub": _diagonal(Role.DIFFERENCE, (_TERM, _SUBTRAHEND), bounds=intervals.subtract),
    "mul": _diagonal(Role.PRODUCT, (_FACTOR,), bounds=intervals.multiply),
    "div": _diagonal(Role.QUOTIENT, (_FACTOR, _DIVISOR), bounds=intervals.divide),
    "neg": _diagonal(Role.NEGATION, (_SUBTRAHEND,), bounds=intervals.negate),
    # structural
    **_rows("reshape squeeze", _keeps(Role.RESHAPE)),
    "transpose": _keeps(Role.TRANSPOSE),
    "broadcast_in_dim": _keeps(Role.BROADCAST),
    **_rows("convert_element_type reduce_precision copy sharding_constraint", _keeps(Role.CAST)),
    **_rows("device_put name pvary reshard layout_constraint", _keeps(Role.CAST)),
    "optimization_barrier": _keeps(Role.CAST, separable=True),
    "select_n": _keeps(Role.SELECT, operands=(_CONDITION, _MOVED)),
    "pad": _moves(),
    "slice": _moves(Role.SLICE),
    "dynamic_slice": _moves(Role.LOOKUP, operands=(_MOVED, _INDEX)),
    "dynamic_update_slice": _moves(operands=(_MOVED, _MOVED, _INDEX)),
    "gather": _moves(Role.LOOKUP, operands=(_MOVED, _INDEX), keeps_places=False),
    "scatter": _moves(operands=(_MOVED, _INDEX, _MOVED), keeps_places=False),
    "rev": _keeps(Role.REVERSAL),
    **_rows("split unstack", _moves(Role.SPLIT)),
    **_rows("concatenate stack", _moves(Role.CONCATENATION)),
    **_rows("tile all_gather all_gather_invariant all_to_all ppermute", _moves()),
    # mixing
    "dot_general": _multiplies(Role.CONTRACTION, op="dense", local=True),
    "ragged_dot_general": _multiplies(operands=(_FACTOR, _FACTOR, _INDEX), op="dense"),
    "conv_general_dilated": _multiplies(Role.CONTRACTION, op="convolution"),
    "reduce_sum": _sums(Role.SUM_REDUCTION, op="sum", local=True),
    "reduce_window_sum": _sums(op="pooling"),
    "cumsum": _sums(op="cumulative"),
    "scatter-add": _sums(
        Role.SCATTER_SUM, operands=(_TERM, _INDEX, _TERM), op="sum", keeps_places=False
    ),
    **_rows("psum psum_invariant", _sums(Role.DEVICE_SUM, op="sum", separable=True)),
    "reduce_scatter": _sums(Role.DEVICE_SUM, op="sum"),
    "triangular_solve": _sums(operands=(_SETTING, _TERM), op="linear"),
    "tridiagonal_solve": _sums(operands=(_SETTING, _SETTING, _SETTING, _TERM), op="linear"),
    "scatter-sub": _sums(operands=(_TERM, _INDEX, _SUBTRAHEND), op="linear", keeps_places=False),
    "scatter-mul": _sums(operands=(_TERM, _INDEX, _SETTING), op="linear", keeps_places=False),
    **_rows(
        "select_and_gather_add select_and_scatter_add",
        _sums(operands=(_TERM, _SETTING), op="linear"),
    ),
    # nonlinear, one output per input
    "abs": _power(1, intervals.magnitude, piecewise=True),
    "square": _power(2),
    "sqrt": _power(0.5),
    "rsqrt": _power(-0.5, within(POSITIVE)),
    "cbrt": _power(1 / 3),
    "integer_pow": _bends(Role.POWER, bounds=intervals.power_of_parameter),
    "pow": _bends(Role.POWER, bounds=intervals.power_of_operand),
    "exp": _bends(Role.EXP, bounds=intervals.increasing(intervals.exp)),
    "exp2": _bends(bounds=within(POSITIVE)),
    "expm1": _bends(bounds=intervals.increasing(lambda v: intervals.exp(v) - 1)),
    "log": _bends(Role.LOG, bounds=intervals.increasing(intervals.log)),
    "log1p": _bends(bounds=intervals.increasing(lambda v: intervals.log(1 + v))),
    "logistic": _bends(bounds=within(UNIT)),
    **_rows("tanh sin cos erf", _bends(bounds=within(SIGNED_UNIT))),
    "erfc": _bends(bounds=within(Bounds(0.0, 2.0))),
    "max": _bends(Role.EXTREMUM, piecewise=True, largest=True, bounds=intervals.largest),
    "min": _bends(Role.EXTREMUM, piecewise=True, largest=False, bounds=intervals.smallest),
    "clamp": _bends(piecewise=True, bounds=intervals.clamp),
    **_rows("log2 tan sinh cosh asin acos atan asinh acosh atanh erf_inv lgamma digamma", _bends()),
    **_rows("bessel_i0e bessel_i1e polynomial one_minus_square rem atan2 igamma", _bends()),
    **_rows("igammac igamma_grad_a regularized_incomplete_beta polygamma zeta", _bends()),
    # selections
    "reduce_max": _selects(Role.EXTREMUM_REDUCTION, largest=True, local=True),
    "reduce_min": _selects(Role.EXTREMUM_REDUCTION, largest=False, local=True),
    "reduce_window_max": _selects(largest=True),
    "reduce_window_min": _selects(largest=False),
    "cummax": _selects(Role.RUNNING_EXTREMUM, largest=True),
    "cummin": _selects(Role.RUNNING_EXTREMUM, largest=False),
    **_rows("sort top_k approx_top_k", _selects(keeps_places=False)),
    # no relevance flows
    "stop_gradient": _discrete(Role.STOP),
    "is_finite": _discrete(Role.FINITE),
    "eq": _discrete(Role.EQUALITY),
    **_rows("ne ge gt le lt eq_to le_to lt_to", _discrete(Role.COMPARISON)),
    **_rows("sign round floor ceil", _discrete(rounds=True)),
    **_rows("and or not xor nextafter population_count clz iota", _discrete()),
    **_rows("shift_left shift_right_arithmetic shift_right_logical", _discrete()),
    **_rows("argmax argmin", _discrete(local=False, keeps_places=False)),
    **_rows("reduce_and reduce_or reduce_xor", _discrete(local=False)),
    # no reverse-mode derivative
    "while": PrimitiveInfo(Kind.UNKNOWN, local=False, irreversible=True),
}

UNKNOWN = PrimitiveInfo(PrimitiveKind.UNKNOWN, local=False)

#: Functions with a custom derivative and an elementwise body: executed as written.
CUSTOM_ELEMENTWISE = PrimitiveInfo(PrimitiveKind.ELEMENTWISE)
CUSTOM_RECTIFIER = PrimitiveInfo(PrimitiveKind.ELEMENTWISE, piecewise=True)

#: The names of the maxima and of the minima.
MAXIMA = frozenset(name for name, info in TABLE.items() if info.largest is True)
MINIMA = frozenset(name for name, info in TABLE.items() if info.largest is False)


def lookup(name: str) -> PrimitiveInfo:
    """The table's row for a primitive; `UNKNOWN` when there is none."""
    return TABLE.get(name, UNKNOWN)
