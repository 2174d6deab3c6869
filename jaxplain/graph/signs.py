"""Which values are provably not negative: rules skip the halves of a sign split that are zero."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxplain import _compat
from jaxplain.graph import primitives
from jaxplain.graph.control import Control
from jaxplain.graph.primitives import Class, Role
from jaxplain.graph.program import Program, Var


def nonnegative(program: Program) -> set[Var]:
    """The values of the program that cannot be negative, whatever its inputs."""
    found: set[Var] = set()
    _program(program, found)
    return found


def _program(program: Program, found: set[Var]) -> None:
    """Adds the values that cannot be negative where the ones found cannot."""
    for node in program.nodes:
        found.update(filter(_is_nonnegative_literal, node.inputs))
        flags = [v in found for v in node.inputs]
        if node.control is not None:
            _control(node.control, found)
        elif _equation(node.eqn, flags, [id(v) for v in node.inputs]):
            found.update(node.outputs)


def _control(control: Control, found: set[Var]) -> None:
    """What is carried is not negative if it starts so, and stays so where it is."""
    entered = {link.inner for link in control.enters if link.outer in found}
    while True:
        inside = set(entered)
        for body in control.bodies:
            _program(body, inside)
            inside.update(filter(_is_nonnegative_literal, body.outputs))
        entered -= (wrong := {to for out, to in control.repeats if out not in inside} & entered)
        if not wrong:
            break
    found |= inside
    negative = {link.outer for link in control.leaves if link.inner not in inside}
    found.update(link.outer for link in control.leaves if link.outer not in negative)


def _is_nonnegative_literal(var: Var) -> bool:
    return var.literal is not None and _literal(var.literal)


def _literal(value: Any) -> bool:
    array = np.asarray(value)
    real = array.dtype.kind in "iu" or jnp.issubdtype(array.dtype, jnp.floating)  # bfloat16 too
    return bool(real and (array >= 0).all())


def _equation(eqn: _compat.Eqn, flags: Sequence[bool], identity: Sequence[int]) -> bool:
    name = eqn.primitive.name
    inner = _compat.TRANSPARENT.get(name) or _compat.CUSTOM_DERIVATIVE.get(name)
    if inner is not None:
        jaxpr, _ = _compat.body(eqn, inner)
        return len(jaxpr.outvars) == 1 and _body(jaxpr, flags)
    row = primitives.row(name)
    role = row.role
    if role in (Role.EXP, Role.POSITIVE):
        return True
    if role is Role.POWER:
        even = "y" in eqn.params and eqn.params["y"] % 2 == 0
        absolute = row.degree is not None and row.degree not in (1 / 3,)
        return even or absolute or all(flags)
    if role is Role.EXTREMUM:
        return any(flags) if name in primitives.MAXIMA else all(flags)
    if role is Role.PRODUCT:
        return all(flags) or identity[0] == identity[1]
    if role is Role.SELECT:
        return all(flags[1:])
    if role in (Role.SUM, Role.QUOTIENT, Role.SUM_REDUCTION, Role.CUMULATIVE, Role.SCATTER_SUM):
        return _all_floating(eqn, flags)
    if role is Role.CAST:
        return all(f or _compat.boolean(v) for f, v in zip(flags, eqn.invars, strict=True))
    if row.cls in (Class.STRUCTURAL, Class.SELECTION):
        fill = eqn.params.get("fill_value")
        return _all_floating(eqn, flags) and (fill is None or fill >= 0)
    if role is Role.POOLING:
        return all(flags)
    return False


def _all_floating(eqn: _compat.Eqn, flags: Iterable[bool]) -> bool:
    """All operands but indices and masks; all, where there are only integers."""
    floating = [f for f, v in zip(flags, eqn.invars, strict=True) if _compat.floating(v)]
    return all(floating or flags)


def _body(jaxpr: _compat.Jaxpr, flags: Sequence[bool]) -> bool:
    known = {v for v, flag in zip(jaxpr.invars, flags, strict=True) if flag}
    for eqn in jaxpr.eqns:
        inner = [
            _literal(v.val) if isinstance(v, _compat.Literal) else v in known for v in eqn.invars
        ]
        if _equation(eqn, inner, [id(v) for v in eqn.invars]):
            known.update(eqn.outvars)
    return any(v in known for v in jaxpr.outvars if not isinstance(v, _compat.Literal))
