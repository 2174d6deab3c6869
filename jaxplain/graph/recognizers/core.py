"""Cores: the operations that make a layer, without the scales, offsets and moves next to them."""

import enum
from dataclasses import dataclass
from typing import Any

from jaxplain.graph.ir import Node, Var


class Before(enum.Enum):
    """Which scales, offsets and moves before it a core takes (see `boundaries`)."""

    NOTHING = "none"
    NUMBERS_ADDED = "offsets that are one number"
    CONSTANTS_ADDED = "offsets, where there is nothing else"
    UNSHARED = "all that nobody else reads"
    ALL = "all, copied where somebody else reads them"


class Behind(enum.Enum):
    """Which scales, offsets and moves behind it a core takes (see `boundaries`)."""

    NOTHING = "none"
    NUMBERS = "scales and offsets that are one number"
    CONSTANTS = "scales and offsets, numbers or arrays"
    CONSTANTS_ADDED = "offsets, numbers or arrays, until somebody else reads the value"
    ALL = "all, until somebody else reads the value"


@dataclass(frozen=True, eq=False)
class Core:
    """Operations that mean one thing, found from their last value backward.

    Attributes:
        kind: Affine, Merge, Activation, Softmax, Normalization, Product, Matmul, Selection,
            Unknown; or, without a rule, Structure, which only moves values, and Loop, Branch and
            Shards (of a shard_map), which hold layers.
        op: the variety of its kind: for Affine "dense", "convolution", "filter" (a kernel whose
            numbers the function spells out, as resizing does), "pooling", "sum", "cumulative",
            "linear" or "scale"; for Activation "rectifier", "elementwise" or the primitive; for
            Softmax "softmax", "log_softmax" or "logsumexp"; for Product "product" or "quotient";
            for Merge "sum"; for Normalization "normalization"; for all other kinds the primitive.
        nodes: the operations in topological order.
        inputs: the values that they are a function of, and send relevance to.
        outputs: the values that they produce (one, but for operations with several outputs).
        affine_vars: the values on the affine path from the inputs to the output. Weights are not
            among them, nor the statistic of a normalisation: they are constants to the layer.
        mixing: the operations that mix inputs: the kernel, if there is one.
        before, behind: which of its neighbours the core takes.
    """

    kind: str
    op: str
    nodes: tuple[Node, ...]
    inputs: tuple[Var, ...]
    outputs: tuple[Var, ...]
    affine_vars: frozenset[Var]
    mixing: tuple[Node, ...] = ()
    before: Before = Before.NOTHING
    behind: Behind = Behind.NOTHING


def linear_core(
    kind: str, op: str, nodes: tuple[Node, ...], inputs: tuple[Var, ...], **more: Any
) -> Core:
    """A core whose every value is on the affine path; `more` are its other attributes."""
    path = frozenset((*inputs, *(v for n in nodes for v in n.outputs)))
    return Core(kind, op, nodes, inputs, nodes[-1].outputs, path, **more)
