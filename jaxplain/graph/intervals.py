"""Intervals, and how the operations on numbers act on them.

The interval of a value holds every number that the value can be: `relu(x)` has `[0, inf]`. The
table of primitives names one of these functions for each primitive that has bounds.
"""

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple


class Bounds(NamedTuple):
    """An interval, ends included."""

    low: float
    high: float

    def join(self, other: "Bounds") -> "Bounds":
        """The smallest interval that holds both."""
        return Bounds(min(self.low, other.low), max(self.high, other.high))

    def beyond(self, other: "Bounds") -> "Bounds":
        """The interval, made infinite at each end that lies outside of the other interval.

        A loop's bounds that still grow are given up so: [0, 2].beyond([0, 1]) is [0, inf].
        """
        low = self.low if self.low >= other.low else -math.inf
        return Bounds(low, self.high if self.high <= other.high else math.inf)

    def under(self, function: Callable[[float], float]) -> "Bounds":
        """The image under an increasing function."""
        return Bounds(function(self.low), function(self.high))


ANYTHING = Bounds(-math.inf, math.inf)
UNIT = Bounds(0.0, 1.0)
SIGNED_UNIT = Bounds(-1.0, 1.0)
POSITIVE = Bounds(0.0, math.inf)

#: From the intervals of the operands and the equation's parameters to that of the outputs.
Rule = Callable[[Sequence[Bounds], dict[str, Any]], Bounds]


def within(bounds: Bounds) -> Rule:
    """The rule of a function with bounded values, such as tanh."""
    return lambda operands, params: bounds


def increasing(function: Callable[[float], float]) -> Rule:
    """The rule of an increasing function of one number."""
    return lambda operands, params: operands[0].under(function)


def add(operands: Sequence[Bounds], params: dict[str, Any]) -> Bounds:
    """a + b."""
    return Bounds(sum(b.low for b in operands), sum(b.high for b in operands))


def subtract(operands: Sequence[Bounds], params: dict[str, Any]) -> Bounds:
    """a - b."""
    a, b = operands
    return Bounds(a.low - b.high, a.high - b.low)


def negate(operands: Sequence[Bounds], params: dict[str, Any]) -> Bounds:
    """-a."""
    return Bounds(-operands[0].high, -operands[0].low)


def multiply(operands: Sequence[Bounds], params: dict[str, Any]) -> Bounds:
    """a * b, for two values that are not the same one."""
    ends = [0.0 if 0 in pair else pair[0] * pair[1] for pair in product(*operands)]
    return Bounds(min(ends), max(ends))


def divide(operands: Sequence[Bounds], params: dict[str, Any]) -> Bounds:
    """a / b."""
    return multiply((operands[0], _inverse(operands[1])), params)


def magnitude(operands: Sequence[Bounds], params: dict[str, Any]) -> Bounds:
    """|a|."""
    return raised(operands[0], 2).under(math.sqrt)


def power(exponent: float) -> Rule:
    """The rule of a ** exponent."""
    return lambda operands, params: raised(operands[0], exponent)


def power_of_parameter(operands: Sequence[Bounds], params: dict[str, Any]) -> Bounds:
    """a ** y, for an exponent y that is a parameter of the operation."""
    return raised(operands[0], params["y"])


def power_of_operand(operands: Sequence[Bounds], params: dict[str, Any]) -> Bounds:
    """a ** b: positive for positive a."""
    return POSITIVE if operands[0].low >= 0 else ANYTHING


def largest(operands: Sequence[Bounds], params: dict[str, Any]) -> Bounds:
    """max(a, b)."""
    return Bounds(max(b.low for b in operands), max(b.high for b in operands))


def smallest(operands: Sequence[Bounds], params: dict[str, Any]) -> Bounds:
    """min(a, b)."""
    return Bounds(min(b.low for b in operands), min(b.high for b in operands))


def clamp(operands: Sequence[Bounds], params: dict[str, Any]) -> Bounds:
    """min(max(x, low), high), of (low, x, high)."""
    low, x, high = operands
    return Bounds(min(max(low.low, x.low), high.low), min(max(low.high, x.high), high.high))


def joined(operands: Sequence[Bounds], params: dict[str, Any]) -> Bounds:
    """The interval of values that are operands or the fill value: `concatenate`, `gather`."""
    fill = params.get("fill_value")
    known = [*operands, Bounds(fill, fill)] if fill is not None else operands
    return Bounds(min(b.low for b in known), max(b.high for b in known))


def summed(operands: Sequence[Bounds], params: dict[str, Any]) -> Bounds:
    """A sum of any number of terms, perhaps of none, which is 0."""
    low, high = joined(operands, {})
    return Bounds(0.0 if low >= 0 else -math.inf, 0.0 if high <= 0 else math.inf)


def contracted(operands: Sequence[Bounds], params: dict[str, Any]) -> Bounds:
    """Sums of products, not negative where no factor is."""
    return POSITIVE if all(b.low >= 0 for b in operands) else ANYTHING


def log_add_exp(operands: Sequence[Bounds]) -> Bounds:
    """log(exp(a) + exp(b)); taken as a whole, as its operations would subtract infinities."""
    low, high = map(max, *operands)
    return Bounds(low, high + math.log(2))


def raised(b: Bounds, exponent: float) -> Bounds:
    """x ** p; a power that is not real is NaN, which no interval has to hold."""
    if exponent % 2 == 1 and exponent > 0:
        return b.under(lambda v: _raised(v, exponent))
    if exponent % 2 == 0 and exponent > 0:
        ends = (_raised(b.low, exponent), _raised(b.high, exponent))
        return Bounds(0.0 if b.low <= 0 <= b.high else min(ends), max(ends))
    if exponent % 2 in (0, 1):
        return _inverse(raised(b, -exponent)) if exponent else Bounds(1.0, 1.0)
    if exponent == 1 / 3 or exponent < 0:
        return POSITIVE if b.low >= 0 else ANYTHING
    return Bounds(max(b.low, 0.0), max(b.high, 0.0)).under(lambda v: _raised(v, exponent))


def exp(value: float) -> float:
    """e ** value, infinite where that overflows."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def log(value: float) -> float:
    """The logarithm, -inf where there is none."""
    return math.log(value) if value > 0 else -math.inf


def _inverse(b: Bounds) -> Bounds:
    if b.low >= 0:
        return Bounds(1 / b.high if b.high else math.inf, 1 / b.low if b.low else math.inf)
    if b.high <= 0:
        return Bounds(1 / b.high if b.high else -math.inf, 1 / b.low)
    return ANYTHING


def _raised(value: float, exponent: float) -> float:
    try:
        return value**exponent if math.isfinite(value) or exponent > 0 else 0.0
    except OverflowError:
        return math.copysign(math.inf, value)
