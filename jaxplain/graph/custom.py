"""Functions with a custom derivative (`jax.custom_jvp`, `jax.custom_vjp`), told by their bodies.

A nonlinear elementwise function, such as `jax.nn.relu`, is one activation, run as written. All
others are inlined: a body of sums and products alone, as well as a softmax.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from jaxplain.graph.ir import Node, Program, Var
from jaxplain.graph.primitives import (
    CUSTOM_ELEMENTWISE,
    CUSTOM_RECTIFIER,
    Kind,
    PrimitiveInfo,
    Role,
)

_KINKS = (Role.SELECT, Role.COMPARISON, Role.EQUALITY)


def info(body: Program) -> PrimitiveInfo | None:
    """The row that an activation would have in the table of primitives; None for no activation."""
    (output, *others) = body.outputs
    if others or not all(_is_elementwise(node, output) for node in body.nodes):
        return None
    flowing = set(body.inputs)
    nonlinear = bent = curved = False
    for node in body.nodes:
        inputs = [v for v in node.inputs if v in flowing]
        if not inputs:
            continue
        discrete = node.info.kind is Kind.DISCRETE
        if not discrete:
            flowing.update(node.outputs)
        elementwise = node.info.kind is Kind.ELEMENTWISE
        kink = node.info.piecewise or node.info.role in _KINKS
        nonlinear |= elementwise or discrete or kink
        bent |= kink
        curved |= (elementwise and not node.info.piecewise) or _is_curve(node, inputs)
    if bent and not curved:
        return CUSTOM_RECTIFIER
    return CUSTOM_ELEMENTWISE if nonlinear else None


def signature(body: Program) -> Hashable:
    """A key that functions of the same operations share; a captured array makes it unique."""
    names: dict[Var, Hashable] = {v: i for i, v in enumerate(body.inputs)}

    def named(values: Sequence[Var]) -> Hashable:
        return tuple(names.get(v, v if v.literal is None else _literal(v)) for v in values)

    found: list[Hashable] = []
    for node in body.nodes:
        found.append((node.primitive, tuple(sorted(node.params.items())), named(node.inputs)))
        names |= {v: len(names) + i for i, v in enumerate(node.outputs)}
    return (*found, named(body.outputs))


def _literal(var: Var) -> Hashable:
    return str(var.aval), np.asarray(var.literal).tobytes()


def _is_elementwise(node: Node, output: Var) -> bool:
    bends = node.info.kind in (Kind.DIAGONAL, Kind.ELEMENTWISE, Kind.DISCRETE)
    moves = node.info.role in (Role.CAST, Role.SELECT, Role.BROADCAST)
    shapes = {v.shape for v in node.outputs}
    return node.info.local and (bends or moves) and shapes <= {output.shape, ()}


def _is_curve(node: Node, flowing: list[Var]) -> bool:
    """Whether the operation multiplies or divides two values that the input flows to."""
    divides = node.info.role is Role.QUOTIENT and node.inputs[-1] in flowing
    return divides or (node.info.role is Role.PRODUCT and len(flowing) > 1)
