"""The bounds between which each value provably lies, whatever the inputs.

By them rules skip the halves of a sign split that are zero, as of a ReLU's output, and tell the
gate of a product, which lies between 0 and 1, from its signal.
"""

from collections.abc import Hashable, Mapping, Sequence
from itertools import count
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxplain import _compat, origins
from jaxplain.graph import intervals, primitives
from jaxplain.graph.intervals import ANYTHING, UNIT, Bounds
from jaxplain.graph.ir import Control, Program, Var
from jaxplain.graph.primitives import Kind, Operand, Role

_PATIENCE = 2  # joins of a carry's bounds before a bound that still grows is given up


def bounds_of(program: Program, known: Mapping[Var, Bounds]) -> dict[Var, Bounds]:
    """The bounds of the values that have some.

    Args:
        program: the program.
        known: bounds from elsewhere: a softmax's output lies in [0, 1].
    """
    bounds = dict(known)
    _program(program, bounds, known)
    return bounds


def _program(program: Program, bounds: dict[Var, Bounds], known: Mapping[Var, Bounds]) -> None:
    for node in program.nodes:
        if node.control is not None:
            _control(node.control, bounds, known)
            continue
        operands = [_read(bounds, v) for v in node.inputs]
        result = _equation(node.eqn, operands, node.inputs)
        for var in node.outputs:
            if var not in known and (len(node.outputs) == 1 or var.floating):
                bounds[var] = result  # not for the indices of top_k


def _control(control: Control, bounds: dict[Var, Bounds], known: Mapping[Var, Bounds]) -> None:
    """Bounds inside of bodies; a carry's hold at the start and after every iteration."""
    for link in control.enters:
        bounds[link.inner] = _read(bounds, link.outer)
    for attempt in count():
        for body in control.bodies:
            _program(body, bounds, known)
        carried = {to: bounds[to].join(_read(bounds, out)) for out, to in control.repeats}
        wider = {to: joined for to, joined in carried.items() if joined != bounds[to]}
        if not wider:
            break
        for to, joined in wider.items():
            bounds[to] = joined if attempt < _PATIENCE else joined.beyond(bounds[to])
    for links in control.outputs:
        inside = [ANYTHING] if control.length == 0 else [_read(bounds, v.inner) for v in links]
        bounds[links[0].outer] = intervals.joined(inside, {})


def _read(bounds: Mapping[Var, Bounds], var: Var) -> Bounds:
    return _literal(var.literal) if var.literal is not None else bounds.get(var, ANYTHING)


def _literal(value: Any) -> Bounds:
    array = np.asarray(value)
    real = array.dtype.kind in "iu" or jnp.issubdtype(array.dtype, jnp.floating)  # bfloat16 too
    if array.dtype == bool:
        return UNIT
    if not real or not array.size or np.isnan(array.astype(float)).any():
        return ANYTHING
    return Bounds(float(array.min()), float(array.max()))


def _equation(eqn: _compat.Eqn, operands: Sequence[Bounds], identity: Sequence[Hashable]) -> Bounds:
    """The bounds of an equation's outputs.

    Args:
        eqn: the equation.
        operands: the bounds of its operands.
        identity: tells which operands are one value.
    """
    name = _compat.primitive_name(eqn)
    inner = _compat.TRANSPARENT.get(name) or _compat.CUSTOM_DERIVATIVE.get(name)
    if inner is not None:
        jaxpr, _ = _compat.body(eqn, inner)
        if origins.is_library(jaxpr) and jaxpr.debug_info.func_name == "logaddexp":
            return intervals.log_add_exp(operands)
        return _body(jaxpr, operands) if len(jaxpr.outvars) == 1 else ANYTHING
    info = primitives.lookup(name)
    if info.bounds is None:
        return ANYTHING
    if info.role is Role.PRODUCT and identity[0] == identity[1]:
        return intervals.raised(operands[0], 2)
    if info.kind in (Kind.STRUCTURAL, Kind.MIXING, Kind.SELECTION):
        operands = _values(eqn, info, operands)
    return info.bounds(operands, eqn.params)


def _values(
    eqn: _compat.Eqn, info: primitives.PrimitiveInfo, operands: Sequence[Bounds]
) -> list[Bounds]:
    """The bounds of the operands whose values reach the outputs: all but conditions and indices."""
    known = [
        (atom, UNIT if _compat.boolean(atom) else bounds)
        for place, (atom, bounds) in enumerate(zip(eqn.invars, operands, strict=True))
        if info.operand(place) not in (Operand.CONDITION, Operand.INDEX)
    ]
    return [b for atom, b in known if _compat.floating(atom)] or [b for _, b in known]


def _body(jaxpr: _compat.Jaxpr, operands: Sequence[Bounds]) -> Bounds:
    known = dict(zip(jaxpr.invars, operands, strict=True))

    def bounds(atom: Any) -> Bounds:
        literal = isinstance(atom, _compat.Literal)
        return _literal(atom.val) if literal else known.get(atom, ANYTHING)

    for eqn in jaxpr.eqns:
        result = _equation(eqn, list(map(bounds, eqn.invars)), list(map(id, eqn.invars)))
        known |= dict.fromkeys(eqn.outvars, result)
    return bounds(jaxpr.outvars[0])
