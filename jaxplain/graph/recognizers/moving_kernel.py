"""Kernels that only move entries, by numbers that the function spells out: patches, one-hot picks.

Taken, as in each column of w at most one entry is 1, so that an output is one entry of a, or 0:

    i = iota[dimension=0 shape=(4, 4)]; j = iota[dimension=1 shape=(4, 4)]
    k = eq i j; w = convert_element_type k; b = dot_general a w

Refused, as outputs are sums of entries (`kernel` takes it, as a "filter"):

    k = le i j; w = convert_element_type k; b = dot_general a w
"""

import numpy as np

from jaxplain.graph.analyses.constants import Known
from jaxplain.graph.analyses.flow import Flow
from jaxplain.graph.contractions import summed_axes
from jaxplain.graph.ir import Node, Var
from jaxplain.graph.layouts import copies
from jaxplain.graph.primitives import Kind
from jaxplain.graph.recognizers.core import Core
from jaxplain.graph.recognizers.facts import Facts
from jaxplain.graph.recognizers.operation import single


def match(node: Node, end: Var, facts: Facts) -> Core | None:
    """The kernel that ends at a value, where it only moves entries."""
    return single("Structure", node, facts) if _picks(node, facts.flow) else None


def has_weights(node: Node, flow: Flow) -> bool:
    """Whether the constants of a kernel come from outside of the function."""
    pending = [v for v in node.inputs if v not in flow.carries_relevance]
    seen = set(pending)
    while pending:
        var = pending.pop()
        maker = var.producer
        if var in flow.active or (var.literal is None and maker is None):
            return True
        if maker is not None:
            if maker.info.kind is Kind.UNKNOWN:
                return True  # random numbers
            pending += [v for v in maker.inputs if v not in seen]
            seen.update(maker.inputs)
    return False


def _picks(node: Node, flow: Flow) -> bool:
    """Whether every output of a kernel is one entry of its input, or none: it moves values.

    Its numbers must be cast from booleans, at most one of which is true for each output.
    """
    if not node.info.multiplies:
        return False
    constants = [(i, v) for i, v in enumerate(node.inputs) if v not in flow.carries_relevance]
    if len(constants) != 1 or not _is_boolean(constants[0][1]) or has_weights(node, flow):
        return False
    ((place, weight),) = constants
    summed = summed_axes(node, place)
    value = None if summed is None else Known(lambda _: True, {}).of(weight)
    return value is not None and bool((np.asarray(value).sum(summed) <= 1).all())


def _is_boolean(var: Var) -> bool:
    """Whether a value is made of truth values, by casts and moves alone."""
    while (node := var.producer) is not None and copies(node):
        (var,) = node.inputs
        if var.aval.dtype == bool:
            return True
    return False
