"""The response of a single-input subgraph when its input is scaled or shifted.

A normalisation is *defined* here as a subgraph that is invariant under x -> c x and has a
statistic; a softmax as one whose exponential makes it invariant under x -> x + c. No framework's
spelling is known: LayerNorm, RMSNorm, GroupNorm, L2 normalisation, one and two pass variance all
have the same property.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
    weights: dict[Var, float] = {source: 1.0}

    def weight(var: Var, bounds: bool) -> float | None:
        """None stands for a wildcard."""
        if var in weights:
            return weights[var]
        value = literal_value(var)
        if value is None:
            return 0.0
        size = abs(value)
        wildcard = size <= _TINY or not np.isfinite(size) or (bounds and size >= 1 / _TINY)
        return None if wildcard else 0.0

    for node in nodes:
        role = node.info.role
        operands = [weight(v, role is Role.EXTREMUM) for v in node.inputs]
        result: float | None = None
        if role in _ALIKE:
            terms = operands[1:] if role is Role.SELECT else operands
            known = {w for w in terms if w is not None}
            if len(known) == 1 and (role is not Role.SELECT or operands[0] == 0):
                result = known.pop()
        elif role in (Role.PRODUCT, Role.CONTRACTION):
            result = sum(w or 0.0 for w in operands)
        elif role is Role.QUOTIENT:
            result = (operands[0] or 0.0) - (operands[1] or 0.0)
        elif role is Role.POWER:
            power = degree(node)
            base = operands[0]
            result = None if power is None or base is None else power * base
        elif role in _KEEP or role is Role.NEGATION:
            result = operands[0]
        elif role in _COMPARISONS:
            result = 0.0 if len({w for w in operands if w is not None}) <= 1 else None
        elif role is Role.FINITE or all((w or 0.0) == 0 for w in operands):
            result = 0.0
        if result is None:
            return None
        for var in node.outputs:
            weights[var] = result
    return weights


@dataclass(frozen=True)
class _Response:
    """value(source + c) = value + c * amount (not exponential), or value * exp(c * amount)."""

    amount: float
    exponential: bool = False


def shift_weights(nodes: Sequence[Node], source: Var) -> dict[Var, float | None] | None:
    """The weight w of every value, where value(source + c) = value(source) + w c.

    Values that grow exponentially instead (an exp and its sums) have weight None. Returns None when
    some value of the subgraph responds in yet another way.
    """
    responses: dict[Var, _Response] = {source: _Response(1.0)}

    def response(var: Var) -> _Response | None:
        """None stands for a wildcard."""
        if var in responses:
            return responses[var]
        value = literal_value(var)
        return None if value is not None and (np.isinf(value) or value == 0) else _Response(0.0)

    for node in nodes:
        result = _shift(node, [response(v) for v in node.inputs])
        if result is None:
            return None
        for var in node.outputs:
            responses[var] = result
    return {v: None if r.exponential and r.amount else r.amount for v, r in responses.items()}


def _shift(node: Node, operands: list[_Response | None]) -> _Response | None:
    role = node.info.role
    known = [w for w in operands if w is not None]
    first = operands[0] or _Response(0.0)
    invariant = all(w.amount == 0 for w in known)
    if role in (Role.SUM, Role.DIFFERENCE):
        if any(w.exponential and w.amount for w in known):
            return known[0] if all(w == known[0] for w in known) else None
        return _Response(_total(operands, role is Role.DIFFERENCE))
    if role is Role.SELECT:
        predicate = node.inputs[0].producer
        guard = predicate is not None and predicate.info.role is Role.FINITE
        cases = operands[2:] if guard else operands[1:]
        known = [w for w in cases if w is not None]
        return known[0] if known and all(w == known[0] for w in known) else None
    if role in (Role.EXTREMUM, Role.CONCATENATION):
        return known[0] if known and all(w == known[0] for w in known) else None
    if role in (Role.PRODUCT, Role.QUOTIENT, Role.CONTRACTION):
        if any(w.amount and not w.exponential for w in known):
            return None
        total = _total(operands, role is Role.QUOTIENT)
        return _Response(total, exponential=total != 0)
    if role is Role.NEGATION:
        return first if first.exponential else _Response(-first.amount)
    if role is Role.EXP:
        return None if first.exponential and first.amount else _Response(first.amount, True)
    if role is Role.LOG:
        return _Response(first.amount) if first.exponential or invariant else None
    if role is Role.POWER and first.exponential:
        power = degree(node)
        return None if power is None else _Response(power * first.amount, True)
    if role is Role.SUM_REDUCTION and first.amount and not first.exponential:
        return None
    if role in _KEEP:
        return first
    if role is Role.FINITE or invariant:
        return _Response(0.0)
    return None


def _total(operands: list[_Response | None], subtract: bool) -> float:
    first, *others = [0.0 if w is None else w.amount for w in operands]
    return first - sum(others) if subtract else first + sum(others)


def affine_path(nodes: Sequence[Node], exit_: Var, weights: dict[Var, float]) -> set[Var] | None:
    """The values from input to output of a normalisation whose statistic is held constant.

    The statistic is the operand of negative weight of each product (x times 1 / norm) and the
    divisor of each quotient (x / norm). None where the other operations are not affine, or there is
    no statistic: the subgraph is then no normalisation.
    """
    live, statistic = {exit_}, set[Var]()
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
