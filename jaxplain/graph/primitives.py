"""The table of primitives, the only place that knows them by name.

A primitive that JAX or another library adds is one more row (`register_primitive`). All other code
speaks of `PrimitiveKind` (how relevance may cross the operation), `PrimitiveRole` (its meaning to
the analyses) and `Operand` (its treatment of an operand).
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

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
        local: whether it may stand inside an activation, normalisation or softmax: it is no kernel
            and drops no entry.
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


def _scales(role: PrimitiveRole, *operands: Operand, bounds: intervals.Rule) -> PrimitiveInfo:
    return PrimitiveInfo(Kind.DIAGONAL, role, operands, bounds=bounds)


def _moves(role: PrimitiveRole = Role.NONE, *operands: Operand, **more: Any) -> PrimitiveInfo:
    """The row of an operation that moves values; `local` only where it drops no entry."""
    options: dict[str, Any] = {"local": False} | more
    return PrimitiveInfo(
        Kind.STRUCTURAL, role, operands or (_MOVED,), bounds=intervals.joined, **options
    )


def _mixes(
    op: str, role: PrimitiveRole = Role.NONE, *operands: Operand, **more: bool
) -> PrimitiveInfo:
    """The row of a weighted sum; a sum of products where an operand is a factor."""
    operands = operands or (_TERM,)
    bounds = intervals.contracted if _FACTOR in operands else intervals.summed
    options: dict[str, Any] = {"local": False} | more
    return PrimitiveInfo(Kind.MIXING, role, operands, op, bounds=bounds, **options)


def _power(degree: float, bounds: intervals.Rule | None = None, **more: Any) -> PrimitiveInfo:
    return PrimitiveInfo(
        Kind.ELEMENTWISE,
        Role.POWER,
        degree=degree,
        bounds=bounds or intervals.power(degree),
        **more,
    )


def _bends(role: PrimitiveRole = Role.NONE, bounds: intervals.Rule | None = None) -> PrimitiveInfo:
    return PrimitiveInfo(Kind.ELEMENTWISE, role, bounds=bounds)


def _extremum(
    largest: bool,
    role: PrimitiveRole,
    kind: PrimitiveKind = Kind.SELECTION,
    *,
    local: bool = False,
) -> PrimitiveInfo:
    elementwise = kind is Kind.ELEMENTWISE
    ends = intervals.largest if largest else intervals.smallest
    bounds = ends if elementwise else intervals.joined
    return PrimitiveInfo(
        kind, role, piecewise=elementwise, local=local, largest=largest, bounds=bounds
    )


def _discrete(role: PrimitiveRole = Role.NONE, **more: Any) -> PrimitiveInfo:
    return PrimitiveInfo(Kind.DISCRETE, role, **more)


_CAST = _moves(Role.CAST, local=True)
_SELECTS = PrimitiveInfo(Kind.SELECTION, local=False, keeps_places=False, bounds=intervals.joined)

TABLE: dict[str, PrimitiveInfo] = {
    # diagonal
    "add": _scales(Role.SUM, _TERM, bounds=intervals.add),
    "add_any": _scales(Role.SUM, _TERM, bounds=intervals.add),
    "sub": _scales(Role.DIFFERENCE, _TERM, _SUBTRAHEND, bounds=intervals.subtract),
    "mul": _scales(Role.PRODUCT, _FACTOR, bounds=intervals.multiply),
    "div": _scales(Role.QUOTIENT, _FACTOR, _DIVISOR, bounds=intervals.divide),
    "neg": _scales(Role.NEGATION, _SUBTRAHEND, bounds=intervals.negate),
    # structural
    "reshape": _moves(Role.RESHAPE, local=True),
    "squeeze": _moves(Role.RESHAPE, local=True),
    "transpose": _moves(Role.TRANSPOSE, local=True),
    "broadcast_in_dim": _moves(Role.BROADCAST, local=True),
    "convert_element_type": _CAST,
    "reduce_precision": _CAST,
    "copy": _CAST,
    "optimization_barrier": _moves(Role.CAST, local=True, separable=True),
    "sharding_constraint": _CAST,
    "device_put": _CAST,
    "name": _CAST,
    "pvary": _CAST,
    "reshard": _CAST,
    "layout_constraint": _CAST,
    "select_n": _moves(Role.SELECT, _CONDITION, _MOVED, local=True),
    "pad": _moves(Role.NONE, _MOVED),
    "slice": _moves(Role.SLICE),
    "dynamic_slice": _moves(Role.LOOKUP, _MOVED, _INDEX),
    "dynamic_update_slice": _moves(Role.NONE, _MOVED, _MOVED, _INDEX),
    "gather": _moves(Role.LOOKUP, _MOVED, _INDEX, keeps_places=False),
    "scatter": _moves(Role.NONE, _MOVED, _INDEX, _MOVED, keeps_places=False),
    "rev": _moves(Role.REVERSAL, local=True),
    "split": _moves(Role.SPLIT),
    "unstack": _moves(),
    "concatenate": _moves(Role.CONCATENATION),
    "stack": _moves(Role.CONCATENATION),
    "tile": _moves(),
    "all_gather": _moves(),
    "all_gather_invariant": _moves(),
    "all_to_all": _moves(),
    "ppermute": _moves(),
    # mixing
    "dot_general": _mixes("dense", Role.CONTRACTION, _FACTOR, local=True),
    "ragged_dot_general": _mixes("dense", Role.NONE, _FACTOR, _FACTOR, _INDEX),
    "conv_general_dilated": _mixes("convolution", Role.CONTRACTION, _FACTOR),
    "reduce_sum": _mixes("sum", Role.SUM_REDUCTION, local=True),
    "reduce_window_sum": _mixes("pooling"),
    "cumsum": _mixes("cumulative"),
    "scatter-add": _mixes("sum", Role.SCATTER_SUM, _TERM, _INDEX, _TERM, keeps_places=False),
    "psum": _mixes("sum", Role.DEVICE_SUM, separable=True),
    "psum_invariant": _mixes("sum", Role.DEVICE_SUM, separable=True),
    "reduce_scatter": _mixes("sum", Role.DEVICE_SUM),
    "triangular_solve": _mixes("linear", Role.NONE, _SETTING, _TERM),
    "tridiagonal_solve": _mixes("linear", Role.NONE, _SETTING, _SETTING, _SETTING, _TERM),
    "scatter-sub": _mixes("linear", Role.NONE, _TERM, _INDEX, _SUBTRAHEND, keeps_places=False),
    "scatter-mul": _mixes("linear", Role.NONE, _TERM, _INDEX, _SETTING, keeps_places=False),
    "select_and_gather_add": _mixes("linear", Role.NONE, _TERM, _SETTING),
    "select_and_scatter_add": _mixes("linear", Role.NONE, _TERM, _SETTING),
    # nonlinear, one output per input
    "abs": _power(1, intervals.magnitude, piecewise=True),
    "square": _power(2),
    "sqrt": _power(0.5),
    "rsqrt": _power(-0.5, within(POSITIVE)),
    "cbrt": _power(1 / 3),
    "integer_pow": _bends(Role.POWER, intervals.power_of_parameter),
    "pow": _bends(Role.POWER, intervals.power_of_operand),
    "exp": _bends(Role.EXP, intervals.increasing(intervals.exp)),
    "exp2": _bends(bounds=within(POSITIVE)),
    "expm1": _bends(bounds=intervals.increasing(lambda v: intervals.exp(v) - 1)),
    "log": _bends(Role.LOG, intervals.increasing(intervals.log)),
    "log1p": _bends(bounds=intervals.increasing(lambda v: intervals.log(1 + v))),
    "logistic": _bends(bounds=within(UNIT)),
    "tanh": _bends(bounds=within(SIGNED_UNIT)),
    "sin": _bends(bounds=within(SIGNED_UNIT)),
    "cos": _bends(bounds=within(SIGNED_UNIT)),
    "erf": _bends(bounds=within(SIGNED_UNIT)),
    "erfc": _bends(bounds=within(Bounds(0.0, 2.0))),
    "max": _extremum(True, Role.EXTREMUM, Kind.ELEMENTWISE, local=True),
    "min": _extremum(False, Role.EXTREMUM, Kind.ELEMENTWISE, local=True),
    "clamp": PrimitiveInfo(Kind.ELEMENTWISE, piecewise=True, bounds=intervals.clamp),
    **{
        name: _bends()
        for name in (
            "log2 tan sinh cosh asin acos atan asinh acosh atanh erf_inv lgamma digamma bessel_i0e "
            "bessel_i1e polynomial one_minus_square rem atan2 igamma igammac igamma_grad_a "
            "regularized_incomplete_beta polygamma zeta"
        ).split()
    },
    # selections
    "reduce_max": _extremum(True, Role.EXTREMUM_REDUCTION, local=True),
    "reduce_min": _extremum(False, Role.EXTREMUM_REDUCTION, local=True),
    "reduce_window_max": _extremum(True, Role.NONE),
    "reduce_window_min": _extremum(False, Role.NONE),
    "cummax": _extremum(True, Role.RUNNING_EXTREMUM),
    "cummin": _extremum(False, Role.RUNNING_EXTREMUM),
    "sort": _SELECTS,
    "top_k": _SELECTS,
    "approx_top_k": _SELECTS,
    # no relevance flows
    "stop_gradient": _discrete(Role.STOP),
    "is_finite": _discrete(Role.FINITE),
    "eq": _discrete(Role.EQUALITY),
    **{name: _discrete(Role.COMPARISON) for name in "ne ge gt le lt eq_to le_to lt_to".split()},
    **{name: _discrete(rounds=True) for name in "sign round floor ceil".split()},
    **{
        name: _discrete()
        for name in (
            "and or not xor nextafter shift_left shift_right_arithmetic shift_right_logical "
            "population_count clz iota"
        ).split()
    },
    **{name: _discrete(local=False, keeps_places=False) for name in "argmax argmin".split()},
    **{name: _discrete(local=False) for name in "reduce_and reduce_or reduce_xor".split()},
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


def register_primitive(
    name: str, kind: str, operands: Sequence[str] = (), *, op: str = "", **facts: Any
) -> None:
    """Adds a row to the table of primitives, for a primitive of your own or of another library.

    Layers of this primitive then get their rules like any other. Register before the first
    explanation: plans that were made before do not change.

    Args:
        name: the primitive's name, as a jaxpr shows it.
        kind: how relevance may cross it. Linear primitives are "diagonal" (one output per input,
            scaled or shifted), "structural" (moves values) or "mixing" (weighted sums of many
            inputs); the rest is "elementwise" (nonlinear, one output per input), "selection" (each
            output is one of the inputs) or "discrete" (a derivative of zero, so that no relevance
            flows).
        operands: for a linear primitive, its treatment of each operand; the last entry stands for
            all operands that follow:

            - "factor": multiplied; "divisor": divided by, entry by entry;
            - "term": added; "subtrahend": subtracted; a constant one is part of the bias;
            - "moved": moved to the outputs; a constant one is part of the bias;
            - "index": says where values go or come from; "condition": which value is taken;
            - "setting": shapes the map in another way, so that rules that need the entries of the
              layer's matrix are refused.
        op: `layer.op` of a mixing primitive's layers (by default "dense" for products of factors,
            "sum" for terms, "linear" with a setting).
        **facts: other attributes of `PrimitiveInfo`, such as `piecewise=True` for a rectifier.

    Raises:
        TypeError: a fact is no attribute of `PrimitiveInfo`.
        ValueError: the kind or an operand has no known name, a linear primitive has no operands, or
            the primitive has another row already.

    Example:
        Equinox writes into the buffers of its loops with a primitive of its own,
        `maybe_set(condition, buffer, value, *index)`:

        >>> import jaxplain as jxp
        >>> jxp.register_primitive(
        ...     "maybe_set", "structural", ("condition", "moved", "moved", "index")
        ... )
    """
    kinds = _named(PrimitiveKind, [kind], "kind")
    treated = _named(Operand, operands, "operand")
    if kinds[0] is PrimitiveKind.MIXING and not op:
        op = "linear" if _SETTING in treated else "dense" if _FACTOR in treated else "sum"
    given = {"local": kinds[0] is not PrimitiveKind.MIXING} | facts
    info = PrimitiveInfo(kinds[0], operands=treated, op=op, **given)
    if TABLE.setdefault(name, info) != info:
        raise ValueError(f"the primitive {name!r} is known already: {TABLE[name]}")


_Enum = TypeVar("_Enum", bound=enum.Enum)


def _named(members: type[_Enum], names: Sequence[str], what: str) -> tuple[_Enum, ...]:
    known = {member.name.lower(): member for member in members}
    if isinstance(names, str):
        names = [names]
    for name in names:
        if name not in known:
            raise ValueError(f"no {what} is called {name!r}; there are: {', '.join(known)}")
    return tuple(known[name] for name in names)
