"""The response of a single-input subgraph when its input is scaled or shifted.

A normalisation is *defined* here as a subgraph that is invariant under x -> c x and has a
statistic; a softmax as one whose exponential makes it invariant under x -> x + c. No framework's
spelling is known: LayerNorm, RMSNorm, GroupNorm, L2 normalisation, one and two pass variance all
have the same property.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from jaxplain.graph.analyses.constants import literal_value
from jaxplain.graph.ir import Node, Var
from jaxplain.graph.primitives import Kind, Role

_KEEP = (
    Role.RESHAPE,
    Role.TRANSPOSE,
    Role.BROADCAST,
    Role.CAST,
    Role.SUM_REDUCTION,
    Role.EXTREMUM_REDUCTION,
    Role.STOP,
    Role.REVERSAL,
    Role.SLICE,
)
_ALIKE = (Role.SUM, Role.DIFFERENCE, Role.EXTREMUM, Role.SELECT, Role.CONCATENATION)
_REDUCTIONS = (Role.SUM_REDUCTION, Role.EXTREMUM_REDUCTION, Role.CONTRACTION)
_COMPARISONS = (Role.COMPARISON, Role.EQUALITY)
_TINY = 1e-2  # literals up to this size count as the epsilon of a division, their inverse as a cap


def degree(node: Node) -> float | None:
    """The degree d of a power, where f(c x) = c^d f(x); None when unknown."""
    if node.info.degree is not None:
        return node.info.degree
    if "y" in node.params:
        return float(node.params["y"])
    return literal_value(node.inputs[1]) if len(node.inputs) == 2 else None


def reduces(nodes: Sequence[Node]) -> bool:
    """Whether some of the operations are reductions, such as a sum or a norm."""
    return any(n.info.role in _REDUCTIONS for n in nodes)


def of_norm(nodes: Sequence[Node], source: Var, end: Var) -> dict[Var, float] | None:
    """The scale weights of a subgraph with a reduction; None where it is not scale-invariant."""
    weights = scale_weights(nodes, source) if reduces(nodes) else None
    return None if weights is None or weights[end] != 0 else weights


def scale_weights(nodes: Sequence[Node], source: Var) -> dict[Var, float] | None:
    """The weight w of every value, where value(c * source) = c^w value(source).

    Of `x / sqrt(sum(x * x))` the root has weight 1, as x has, and the quotient 0. Returns None when
    some value of the subgraph does not scale so. Constants have weight 0; zeros, infinities and
    small literals (the eps of a norm) may be added to or compared with anything, and large ones
    (1 / eps) may bound anything.
    """

    def constant(var: Var, node: Node) -> float | None:
        value = literal_value(var)
        if value is None:
            return 0.0
        size, bounds = abs(value), node.info.role is Role.EXTREMUM
        wildcard = size <= _TINY or not np.isfinite(size) or (bounds and size >= 1 / _TINY)
        return None if wildcard else 0.0

    return _responses(nodes, {source: 1.0}, constant, _scaled)


def _scaled(node: Node, operands: Sequence[float | None]) -> float | None:
    role, known = node.info.role, [w or 0.0 for w in operands]
    if role is Role.SELECT:
        return _common(operands[1:]) if operands[0] == 0 else None
    if role in _ALIKE:
        return _common(operands)
    if role in (Role.PRODUCT, Role.QUOTIENT, Role.CONTRACTION):
        return _total(known, role is Role.QUOTIENT)
    if role is Role.POWER:
        power, base = degree(node), operands[0]
        return None if power is None or base is None else power * base
    if role in _KEEP or role is Role.NEGATION:
        return operands[0]
    if role in _COMPARISONS:
        return 0.0 if len({w for w in operands if w is not None}) <= 1 else None
    return 0.0 if role is Role.FINITE or not any(known) else None


@dataclass(frozen=True)
class _Shift:
    """value(source + c) = value + c * amount (not exponential), or value * exp(c * amount)."""

    amount: float
    exponential: bool = False


def shift_weights(nodes: Sequence[Node], source: Var) -> dict[Var, float | None] | None:
    """The weight w of every value, where value(source + c) = value(source) + w c.

    Values that grow exponentially instead (an exp and its sums) have weight None. Returns None when
    some value of the subgraph responds in yet another way.
    """

    def constant(var: Var, node: Node) -> _Shift | None:
        value = literal_value(var)
        return None if value is not None and (np.isinf(value) or value == 0) else _Shift(0.0)

    shifts = _responses(nodes, {source: _Shift(1.0)}, constant, _shifted)
    if shifts is None:
        return None
    return {v: None if s.exponential and s.amount else s.amount for v, s in shifts.items()}


def _shifted(node: Node, operands: Sequence[_Shift | None]) -> _Shift | None:
    role, known = node.info.role, [w or _Shift(0.0) for w in operands]
    first, amounts = known[0], [w.amount for w in known]
    grows = any(w.amount and w.exponential for w in known)
    moves = any(w.amount and not w.exponential for w in known)
    if role in (Role.SUM, Role.DIFFERENCE) and not grows:
        return _Shift(_total(amounts, role is Role.DIFFERENCE))
    if role is Role.SELECT:
        predicate = node.inputs[0].producer
        guard = predicate is not None and predicate.info.role is Role.FINITE
        return _common(operands[2:] if guard else operands[1:])
    if role in _ALIKE:
        return _common(operands)
    if role in (Role.PRODUCT, Role.QUOTIENT, Role.CONTRACTION):
        total = _total(amounts, role is Role.QUOTIENT)
        return None if moves else _Shift(total, exponential=total != 0)
    if role is Role.NEGATION:
        return first if first.exponential else _Shift(-first.amount)
    if role is Role.EXP:
        return None if grows else _Shift(first.amount, exponential=True)
    if role is Role.LOG:
        return _Shift(first.amount) if first.exponential or not moves else None
    if role is Role.POWER and first.exponential:
        power = degree(node)
        return None if power is None else _Shift(power * first.amount, exponential=True)
    if role is Role.SUM_REDUCTION and moves:
        return None
    if role in _KEEP:
        return first
    return _Shift(0.0) if role is Role.FINITE or not any(amounts) else None


_Response = TypeVar("_Response", float, _Shift)


def _responses(
    nodes: Sequence[Node],
    responses: dict[Var, _Response],
    constant: Callable[[Var, Node], _Response | None],
    respond: Callable[[Node, Sequence[_Response | None]], _Response | None],
) -> dict[Var, _Response] | None:
    """The responses of all values; None when an operation has none.

    Args:
        nodes: the operations.
        responses: that of the source.
        constant: that of a constant to an operation; None for one that goes with any.
        respond: that of an operation's outputs, from those of its operands; None for none.
    """
    for node in nodes:
        operands = [responses[v] if v in responses else constant(v, node) for v in node.inputs]
        response = respond(node, operands)
        if response is None:
            return None
        responses |= dict.fromkeys(node.outputs, response)
    return responses


def _common(operands: Sequence[_Response | None]) -> _Response | None:
    """The response of all operands but those that go with any; None where there are several."""
    known = {w for w in operands if w is not None}
    return known.pop() if len(known) == 1 else None


def _total(amounts: Sequence[float], subtract: bool) -> float:
    first, *others = amounts
    return first - sum(others) if subtract else first + sum(others)


def affine_path(nodes: Sequence[Node], end: Var, weights: dict[Var, float]) -> set[Var] | None:
    """The values from input to output of a normalisation whose statistic is held constant.

    The statistic is the operand of negative weight of each product (x times 1 / norm) and the
    divisor of each quotient (x / norm). None where the other operations are not affine, or there is
    no statistic: the subgraph is then no normalisation.
    """
    live, statistic = {end}, set[Var]()
    for node in reversed(nodes):
        if not any(v in live for v in node.outputs):
            continue
        role, info = node.info.role, node.info
        operands = [v for v in node.inputs if v in weights]
        if role is Role.PRODUCT:
            frozen = [v for v in operands if weights[v] < 0]
            statistic.update(frozen)
            operands = [v for v in operands if v not in frozen]
            if len(operands) != 1:
                return None
        elif role is Role.QUOTIENT:
            statistic.update(node.inputs[1:] if node.inputs[1] in weights else ())
            operands = [v for v in node.inputs[:1] if v in weights]
        elif role is Role.SELECT:
            operands = [v for v in node.inputs[1:] if v in weights]
        elif info.kind is Kind.DISCRETE:
            continue
        elif info.kind not in (Kind.DIAGONAL, Kind.STRUCTURAL) and role is not Role.SUM_REDUCTION:
            return None
        live.update(operands)
    return live if statistic and live.isdisjoint(statistic) else None
