"""Between which numbers each value provably lies, whatever the inputs.

Rules skip the halves of a sign split that are zero, and tell the gate of a product, which lies
between 0 and 1, from its signal.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxplain import _compat
from jaxplain.graph import primitives
from jaxplain.graph.control import Control
from jaxplain.graph.primitives import Class, Role
from jaxplain.graph.program import Program, Var


class Bounds(NamedTuple):
    """An interval, ends included."""

    low: float
    high: float

    def join(self, other: "Bounds") -> "Bounds":
        """The smallest interval that holds both."""
        return Bounds(min(self.low, other.low), max(self.high, other.high))

    def beyond(self, other: "Bounds") -> "Bounds":
        """Without an end where the other interval ends earlier."""
        low = self.low if self.low >= other.low else -math.inf
        return Bounds(low, self.high if self.high <= other.high else math.inf)

    def under(self, function: Callable[[float], float]) -> "Bounds":
        """What an increasing function makes of it."""
        return Bounds(function(self.low), function(self.high))


ANYTHING = Bounds(-math.inf, math.inf)
UNIT = Bounds(0.0, 1.0)
_PATIENCE = 2  # how often what a loop carries is joined before its bounds are given up
_POSITIVE = Bounds(0.0, math.inf)


def of(program: Program, known: Mapping[Var, Bounds]) -> dict[Var, Bounds]:
    """The bounds of the values that have some.

    Args:
        program: the program.
        known: bounds that are known beforehand.
    """
    found = dict(known)
    _program(program, found, known)
    return found


def _program(program: Program, found: dict[Var, Bounds], known: Mapping[Var, Bounds]) -> None:
    for node in program.nodes:
        operands = [_read(found, v) for v in node.inputs]
        if node.control is not None:
            _control(node.control, found, known)
            continue
        bounds = _equation(node.eqn, operands, [id(v) for v in node.inputs])
        for var in node.outputs:
            if var not in known and (len(node.outputs) == 1 or var.floating):
                found[var] = bounds  # but none of the indices that come with values


def _control(control: Control, found: dict[Var, Bounds], known: Mapping[Var, Bounds]) -> None:
    """What is carried has bounds that it starts with, and keeps."""
    for link in control.enters:
        found[link.inner] = _read(found, link.outer)
    for attempt in count():
        for body in control.bodies:
            _program(body, found, known)
        carried = {to: found[to].join(_read(found, out)) for out, to in control.repeats}
        wider = {to: bounds for to, bounds in carried.items() if bounds != found[to]}
        if not wider:
            break
        for to, bounds in wider.items():
            found[to] = bounds if attempt < _PATIENCE else bounds.beyond(found[to])
    for links in control.outputs:
        inside = [ANYTHING] if control.length == 0 else [_read(found, v.inner) for v in links]
        found[links[0].outer] = _joined(inside)


def _read(found: Mapping[Var, Bounds], var: Var) -> Bounds:
    return _literal(var.literal) if var.literal is not None else found.get(var, ANYTHING)


def _literal(value: Any) -> Bounds:
    array = np.asarray(value)
    real = array.dtype.kind in "iu" or jnp.issubdtype(array.dtype, jnp.floating)  # bfloat16 too
    if array.dtype == bool:
        return UNIT
    if not real or not array.size or np.isnan(array.astype(float)).any():
        return ANYTHING
    return Bounds(float(array.min()), float(array.max()))


def _joined(bounds: Iterable[Bounds]) -> Bounds:
    first, *others = bounds
    for other in others:
        first = first.join(other)
    return first


def _equation(eqn: _compat.Eqn, operands: Sequence[Bounds], identity: Sequence[int]) -> Bounds:
    name = eqn.primitive.name
    inner = _compat.TRANSPARENT.get(name) or _compat.CUSTOM_DERIVATIVE.get(name)
    if inner is not None:
        jaxpr, _ = _compat.body(eqn, inner)
        # softplus: what its body makes of an infinity less itself has no bounds
        if _compat.is_library(jaxpr) and jaxpr.debug_info.func_name == "logaddexp":
            low, high = map(max, *operands)
            return Bounds(low, high + math.log(2))
        return _body(jaxpr, operands) if len(jaxpr.outvars) == 1 else ANYTHING
    row = primitives.row(name)
    role = row.role
    if name in _RANGES:
        return _RANGES[name]
    if role is Role.SUM:
        return Bounds(_add(*(b.low for b in operands)), _add(*(b.high for b in operands)))
    if role is Role.DIFFERENCE:
        a, b = operands
        return Bounds(_add(a.low, -b.high), _add(a.high, -b.low))
    if role is Role.NEGATION:
        return Bounds(-operands[0].high, -operands[0].low)
    if role is Role.PRODUCT:
        return _power(operands[0], 2) if identity[0] == identity[1] else _product(*operands)
    if role is Role.QUOTIENT:
        return _product(operands[0], _inverse(operands[1]))
    if role is Role.POWER:
        power = row.degree if row.degree is not None else eqn.params.get("y")
        if name == "abs":
            return _power(operands[0], 2).under(math.sqrt)
        return _power(operands[0], power) if power is not None else _exponentiated(operands[0])
    if name in _INCREASING:
        return operands[0].under(_INCREASING[name])
    if role is Role.EXTREMUM:
        ends = max if name in primitives.MAXIMA else min
        return Bounds(ends(b.low for b in operands), ends(b.high for b in operands))
    if name == "clamp":
        low, x, high = operands
        return Bounds(min(max(low.low, x.low), high.low), min(max(low.high, x.high), high.high))
    if role is Role.SELECT:
        return _joined(operands[1:])
    if role is Role.CAST:
        known = zip(eqn.invars, operands, strict=True)
        return _joined(UNIT if _compat.boolean(v) else b for v, b in known)
    if role in (Role.SUM_REDUCTION, Role.CUMULATIVE, Role.SCATTER_SUM, Role.DEVICE_SUM):
        return _summed(eqn, operands)
    if role is Role.POOLING and row.cls is Class.MIXING:
        return _summed(eqn, operands)
    if role in (Role.DOT, Role.CONVOLUTION):
        return _POSITIVE if all(b.low >= 0 for b in operands) else ANYTHING
    if row.cls in (Class.STRUCTURAL, Class.SELECTION):
        fill = eqn.params.get("fill_value")
        values = _floating(eqn, operands)
        return _joined(values if fill is None else [*values, Bounds(fill, fill)])
    return ANYTHING


#: What a function's values lie between, whatever it is given.
_RANGES = {
    "logistic": UNIT,
    "tanh": Bounds(-1.0, 1.0),
    "sin": Bounds(-1.0, 1.0),
    "cos": Bounds(-1.0, 1.0),
    "erf": Bounds(-1.0, 1.0),
    "erfc": Bounds(0.0, 2.0),
    "exp2": _POSITIVE,
    "rsqrt": _POSITIVE,
}


def _floating(eqn: _compat.Eqn, operands: Sequence[Bounds]) -> list[Bounds]:
    """All operands but indices and masks; all, where there are only integers."""
    floating = [b for b, v in zip(operands, eqn.invars, strict=True) if _compat.floating(v)]
    return floating or list(operands)


def _summed(eqn: _compat.Eqn, operands: Sequence[Bounds]) -> Bounds:
    """Of sums of any number of terms; none of them may count."""
    (low, high) = _joined(_floating(eqn, operands))
    return Bounds(0.0 if low >= 0 else -math.inf, 0.0 if high <= 0 else math.inf)


def _add(*terms: float) -> float:
    """A sum of ends of intervals, all of them lower or all of them upper ones."""
    return sum(terms)


def _product(a: Bounds, b: Bounds) -> Bounds:
    ends = [0.0 if 0 in (x, y) else x * y for x in a for y in b]
    return Bounds(min(ends), max(ends))


def _inverse(b: Bounds) -> Bounds:
    if b.low >= 0:
        return Bounds(1 / b.high if b.high else math.inf, 1 / b.low if b.low else math.inf)
    if b.high <= 0:
        return Bounds(1 / b.high if b.high else -math.inf, 1 / b.low)
    return ANYTHING


def _power(b: Bounds, power: float) -> Bounds:
    """x ** p; what is not real there is no number at all."""
    if power % 2 == 1 and power > 0:
        return b.under(lambda v: _raised(v, power))
    if power % 2 == 0 and power > 0:
        ends = (_raised(b.low, power), _raised(b.high, power))
        return Bounds(0.0 if b.low <= 0 <= b.high else min(ends), max(ends))
    if power % 2 in (0, 1):
        return _inverse(_power(b, -power)) if power else Bounds(1.0, 1.0)
    if power == 1 / 3:
        return _POSITIVE if b.low >= 0 else ANYTHING
    if power < 0:
        return _exponentiated(b)
    return Bounds(max(b.low, 0.0), max(b.high, 0.0)).under(lambda v: _raised(v, power))


def _exponentiated(base: Bounds) -> Bounds:
    return _POSITIVE if base.low >= 0 else ANYTHING


def _raised(value: float, power: float) -> float:
    try:
        return value**power if math.isfinite(value) or power > 0 else 0.0
    except OverflowError:
        return math.copysign(math.inf, value)


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


_INCREASING: dict[str, Callable[[float], float]] = {
    "exp": _exp,
    "expm1": lambda v: _exp(v) - 1,
    "log": _log,
    "log1p": lambda v: _log(1 + v),
}


def _body(jaxpr: _compat.Jaxpr, operands: Sequence[Bounds]) -> Bounds:
    known = dict(zip(jaxpr.invars, operands, strict=True))

    def bounds(atom: Any) -> Bounds:
        literal = isinstance(atom, _compat.Literal)
        return _literal(atom.val) if literal else known.get(atom, ANYTHING)

    for eqn in jaxpr.eqns:
        found = _equation(eqn, list(map(bounds, eqn.invars)), [id(v) for v in eqn.invars])
        known |= dict.fromkeys(eqn.outvars, found)
    return bounds(jaxpr.outvars[0])
