"""Rows of the table of primitives that a user adds."""

import enum
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from jaxplain import _compat
from jaxplain.graph.primitives import TABLE, Kind, Operand, PrimitiveInfo

#: The operands of a diagonal primitive, and the primitive of JAX that treats them alike.
_DIAGONAL = {
    (Operand.FACTOR,): "mul",
    (Operand.FACTOR, Operand.FACTOR): "mul",
    (Operand.FACTOR, Operand.DIVISOR): "div",
    (Operand.TERM, Operand.TERM): "add",
    (Operand.TERM, Operand.SUBTRAHEND): "sub",
    (Operand.SUBTRAHEND,): "neg",
}
#: The primitives that were registered.
REGISTERED: set[str] = set()

_PLACES = {Operand.INDEX, Operand.CONDITION}


def register_primitive(
    name: str, kind: str, operands: Sequence[str] = (), *, op: str = "", piecewise: bool = False
) -> None:
    """Adds a row to the table of primitives, for a primitive of your own or of another library.

    Layers of this primitive then get their rules like any other (but PatternNet's, which refuses
    it). The row is taken as the truth: a matrix product that is registered as a move gets a wrong
    map. Register before the first explanation: plans that were made before do not change. A
    structural primitive goes with a kernel's layer, as a gather does; activations and
    normalisations look through JAX's own moves alone.

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
        op: `layer.op` of a mixing primitive's layers: "dense" or "convolution" for products of
            factors (by default "dense"), "sum", "pooling", "cumulative" or "linear" for terms (by
            default "sum"; always "linear" with a subtrahend or setting).
        piecewise: whether an elementwise primitive is made of straight lines, as a rectifier is.

    Raises:
        TypeError: the name is no text.
        ValueError: the kind or an operand has no known name; the operands do not go with the kind
            or with each other; or the name is that of a primitive that jaxplain knows, or of a
            call, loop or branch, which it looks into. A row of yours may be replaced.

    Example:
        Equinox writes into the buffers of its loops with a primitive of its own,
        `maybe_set(condition, buffer, value, *index)`:

        >>> import jaxplain as jxp
        >>> jxp.register_primitive(
        ...     "maybe_set", "structural", ("condition", "moved", "moved", "index")
        ... )
    """
    if not isinstance(name, str):
        raise TypeError(f"a primitive is registered by its name, got {name!r}")
    info = replace(_row(kind, operands, op), piecewise=piecewise)
    if piecewise and info.kind is not Kind.ELEMENTWISE:
        raise ValueError(f"piecewise=True is for elementwise primitives, not for {kind} ones")
    if name in _compat.LOOKED_INTO or (name not in REGISTERED and TABLE.get(name, info) != info):
        raise ValueError(f"jaxplain knows the primitive {name!r} already")
    TABLE[name] = info
    REGISTERED.add(name)


def _row(kind: str, operands: Sequence[str], op: str) -> PrimitiveInfo:
    (member,) = _named(Kind, [kind], "kind")
    treated = _named(Operand, [operands] if isinstance(operands, str) else operands, "operand")
    if op and member is not Kind.MIXING:
        raise ValueError(f"op={op!r} is for mixing primitives, not for {kind} ones")
    if member is Kind.DIAGONAL and treated in _DIAGONAL:
        return TABLE[_DIAGONAL[treated]]
    used = set(treated) - _PLACES
    if member is Kind.STRUCTURAL and used == {Operand.MOVED}:
        return PrimitiveInfo(member, operands=treated, local=False)
    if member is Kind.MIXING and used == {Operand.FACTOR} and op in ("", "dense", "convolution"):
        return PrimitiveInfo(member, operands=treated, op=op or "dense", local=False)
    ops = ("sum", "pooling", "cumulative", "linear") if used == {Operand.TERM} else ("linear",)
    if member is Kind.MIXING and Operand.TERM in used <= _ADDED and op in ("", *ops):
        return PrimitiveInfo(member, operands=treated, op=op or ops[0], local=False)
    if member in (Kind.ELEMENTWISE, Kind.SELECTION, Kind.DISCRETE) and not treated:
        return PrimitiveInfo(member, local=member is not Kind.SELECTION)
    raise ValueError(
        f"operands {tuple(operands)}, op={op!r} do not go with kind {kind!r}: {_EXPECTED[member]}"
    )


_ADDED = {Operand.TERM, Operand.SUBTRAHEND, Operand.SETTING}
_EXPECTED = {
    Kind.DIAGONAL: "give one of "
    + ", ".join(str(tuple(kind.name.lower() for kind in key)) for key in _DIAGONAL),
    Kind.STRUCTURAL: 'give "moved", with "index" and "condition" where they say where to',
    Kind.MIXING: 'give "factor" for products (op "dense" or "convolution"), or "term" for sums (op '
    '"sum", "pooling", "cumulative" or "linear"; with "subtrahend" or "setting" "linear" alone); a '
    "product with a term added is two primitives",
    Kind.UNKNOWN: "leave it out of the table",
    **dict.fromkeys((Kind.ELEMENTWISE, Kind.SELECTION, Kind.DISCRETE), "it has none: not linear"),
}

_Enum = TypeVar("_Enum", bound=enum.Enum)


def _named(members: type[_Enum], names: Sequence[str], what: str) -> tuple[_Enum, ...]:
    known = {member.name.lower(): member for member in members}
    for name in names:
        if name not in known:
            raise ValueError(f"no {what} is called {name!r}; there are: {', '.join(known)}")
    return tuple(known[name] for name in names)
