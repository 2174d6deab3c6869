"""Filters: kernels whose numbers the function itself spells out, as resizing and patches do."""

import numpy as np

from jaxplain.graph.known import Known
from jaxplain.graph.primitives import Class, Role
from jaxplain.graph.program import Node, Var


def has_weights(node: Node) -> bool:
    """Whether the constants of a kernel come from outside of the function."""
    pending = [v for v in node.inputs if not v.carries]
    seen = set(pending)
    while pending:
        var = pending.pop()
        maker = var.producer
        if var.active or (var.literal is None and maker is None):
            return True
        if maker is not None:
            if maker.row.cls is Class.UNKNOWN:
                return True  # random numbers
            pending += [v for v in maker.inputs if v not in seen]
            seen.update(maker.inputs)
    return False


def picks(node: Node) -> bool:
    """Whether every output of a kernel is one entry of its input, or none: it moves values.

    Its numbers are then truth values, and of those that an output is made by at most one is true.
    """
    constants = [(i, v) for i, v in enumerate(node.inputs) if not v.carries]
    if len(constants) != 1 or not _is_boolean(constants[0][1]) or has_weights(node):
        return False
    ((place, weight),) = constants
    numbers = node.params["dimension_numbers"]
    if node.row.role is Role.DOT:
        summed = numbers[0][place]
    elif place == 1 and node.params["batch_group_count"] == 1:
        summed = numbers.rhs_spec[1:]
    else:
        return False
    value = Known(lambda _: True, {}).of(weight)
    return value is not None and bool((np.asarray(value).sum(tuple(summed)) <= 1).all())


def _is_boolean(var: Var) -> bool:
    """Whether a value is made of truth values, by casts and moves alone."""
    moves = (Role.CAST, Role.RESHAPE, Role.BROADCAST, Role.TRANSPOSE)
    while var.producer is not None and var.producer.row.role in moves:
        var = var.producer.inputs[0]
        if var.aval.dtype == bool:
            return True
    return False
