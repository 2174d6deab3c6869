"""Functions with a derivative of their own: what they are, read off their bodies.

One that bends a single value, element by element, is an activation as a whole, as written. What is
no more than sums and products is looked through, as is what does anything else.
"""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxplain.graph.primitives import CUSTOM_ELEMENTWISE, CUSTOM_RECTIFIER, Class, Role, Row

if TYPE_CHECKING:
    from jaxplain.graph.program import Node, Program, Var


def row(body: "Program") -> Row | None:
    """What the table of primitives would say of the function; None when it is no activation."""
    (output, *others) = body.outputs
    if others or not all(_is_elementwise(node, output) for node in body.nodes):
        return None
    flowing = set(body.inputs)
    nonlinear = bent = curved = False
    for node in body.nodes:
        inputs = [v for v in node.inputs if v in flowing]
        if not inputs:
            continue
        discrete = node.row.cls is Class.DISCRETE
        if not discrete:
            flowing.update(node.outputs)
        elementwise = node.row.cls is Class.ELEMENTWISE
        kink = node.row.piecewise or node.row.role in (Role.SELECT, Role.COMPARISON)
        nonlinear |= elementwise or discrete or kink
        bent |= kink
        curved |= (elementwise and not node.row.piecewise) or _is_curve(node, inputs)
    if bent and not curved:
        return CUSTOM_RECTIFIER
    return CUSTOM_ELEMENTWISE if nonlinear else None


def signature(body: "Program") -> Hashable:
    """What functions that compute the same have in common; arrays that they hold are their own."""
    names: dict[Var, Hashable] = {v: i for i, v in enumerate(body.inputs)}

    def named(values: "Sequence[Var]") -> Hashable:
        return tuple(names.get(v, v if v.literal is None else _literal(v)) for v in values)

    found: list[Hashable] = []
    for node in body.nodes:
        found.append((node.primitive, tuple(sorted(node.params.items())), named(node.inputs)))
        names.update((v, len(names) + i) for i, v in enumerate(node.outputs))
    return (*found, named(body.outputs))


def _literal(var: "Var") -> Hashable:
    return str(var.aval), np.asarray(var.literal).tobytes()


def _is_elementwise(node: "Node", output: "Var") -> bool:
    bends = node.row.cls in (Class.DIAGONAL, Class.ELEMENTWISE, Class.DISCRETE)
    moves = node.row.role in (Role.CAST, Role.SELECT, Role.BROADCAST)
    shapes = {v.shape for v in node.outputs}
    return node.row.local and (bends or moves) and shapes <= {output.shape, ()}


def _is_curve(node: "Node", flowing: "list[Var]") -> bool:
    """Whether the operation multiplies or divides two values that the input flows to."""
    divides = node.row.role is Role.QUOTIENT and node.inputs[-1] in flowing
    return divides or (node.row.role is Role.PRODUCT and len(flowing) > 1)
