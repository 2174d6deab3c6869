"""Whether two programs are one, but for the values of the constants that they close over."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxplain import _compat
from jaxplain.graph.ir import Program, Var


def same(a: Program, b: Program) -> bool:
    """Whether two programs, traced from one function, do the same with the same constants.

    A function may read what changed since it was traced: a number that it closes over, a flag. Its
    own functions, such as custom derivatives, are not compared.
    """
    twin: dict[Var, Var] = {}
    closed_over = [v for v, _ in a.constants], [v for v, _ in b.constants]
    tables = [[value for v, value in p.constants if not v.floating] for p in (a, b)]
    known = _matched(*closed_over, twin) and _alike(*tables)  # of indices, which are read
    return known and _same(a, b, twin) and a.out_tree == b.out_tree


def _same(a: Program, b: Program, twin: dict[Var, Var]) -> bool:
    """The same of programs inside; `twin` has the second's values by those of the first."""
    if len(a.nodes) != len(b.nodes) or not _matched(a.inputs, b.inputs, twin):
        return False
    for one, other in zip(a.nodes, b.nodes, strict=True):
        if one.primitive != other.primitive or one.names != other.names:
            return False
        if not (_read(one.inputs, other.inputs, twin) and _alike(one.params, other.params)):
            return False
        if len(one.bodies) != len(other.bodies) or not _matched(one.outputs, other.outputs, twin):
            return False
        if not all(_same(p, q, twin) for p, q in zip(one.bodies, other.bodies, strict=True)):
            return False
    return _read(a.outputs, b.outputs, twin)


def _matched(some: Sequence[Var], others: Sequence[Var], twin: dict[Var, Var]) -> bool:
    """Whether new values have the same shapes and dtypes; they become twins."""
    twin |= zip(some, others, strict=False)
    return [v.aval for v in some] == [v.aval for v in others]


def _read(some: Sequence[Var], others: Sequence[Var], twin: Mapping[Var, Var]) -> bool:
    """Whether known values are twins, or the same literals."""
    if len(some) != len(others):
        return False
    return all(
        _literal(v) == _literal(w) if v.literal is not None else twin.get(v) is w
        for v, w in zip(some, others, strict=True)
    )


def _literal(var: Var) -> Any:
    return None if var.literal is None else (var.aval, np.asarray(var.literal).tobytes())


def _alike(a: Any, b: Any) -> bool:
    """Whether two parameters of an equation say the same."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if hasattr(a, "eqns") or hasattr(a, "jaxpr"):
        (p, consts), (q, others) = map(_compat.open_jaxpr, (a, b))
        return _same_jaxpr(p, q) and _alike(list(consts), list(others))
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_alike(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(_alike, a, b))
    if callable(a) or isinstance(a, _compat.WrappedFun):
        return getattr(a, "__qualname__", None) == getattr(b, "__qualname__", None)
    if hasattr(a, "shape"):
        return bool(np.array_equal(a, b))
    return bool(a == b)


def _same_jaxpr(p: _compat.Jaxpr, q: _compat.Jaxpr) -> bool:
    """The same of jaxprs, as the body of a custom derivative."""
    twin: dict[Any, Any] = {}

    def read(one: Sequence[Any], other: Sequence[Any]) -> bool:
        return len(one) == len(other) and all(map(atom, one, other))

    def atom(v: Any, w: Any) -> bool:
        if isinstance(v, _compat.Literal) or isinstance(w, _compat.Literal):
            both = isinstance(v, _compat.Literal) and isinstance(w, _compat.Literal)
            return both and _alike((v.aval, v.val), (w.aval, w.val))
        return twin.setdefault(v, w) is w and v.aval == w.aval

    if len(p.eqns) != len(q.eqns):
        return False
    if not (read(p.constvars, q.constvars) and read(p.invars, q.invars)):
        return False
    for one, other in zip(p.eqns, q.eqns, strict=True):
        known = one.primitive == other.primitive and read(one.invars, other.invars)
        if not (known and read(one.outvars, other.outvars) and _alike(one.params, other.params)):
            return False
    return read(p.outvars, q.outvars)
