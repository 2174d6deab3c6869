"""Constants: their values, computed while a program is analysed, and where they come from."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _compat
from jaxplain.graph.ir import Node, Var
from jaxplain.graph.layouts import is_move, meeting_axes
from jaxplain.graph.primitives import Role


class Known:
    """Values that are known before the program runs.

    Args:
        computes: whether an operation may be run to compute one.
        values: the values that are known from the start.
    """

    def __init__(self, computes: Callable[[Node], bool], values: Mapping[Var, Any]):
        self._computes = computes
        self._values: dict[Var, Any] = dict(values)

    def of(self, var: Var) -> Any:
        """A value; None where it is not known."""
        if var.literal is not None:
            return var.literal
        if var not in self._values:
            self._values |= {var: None} if var.producer is None else self._made(var.producer)
        value = self._values[var]
        return None if isinstance(value, jax.core.Tracer) else value

    def _made(self, node: Node) -> dict[Var, Any]:
        operands = [self.of(v) for v in node.inputs] if self._computes(node) else [None]
        if any(v is None for v in operands):
            return dict.fromkeys(node.outputs)
        return dict(zip(node.outputs, run(node, operands), strict=True))


def run(node: Node, values: Sequence[Any]) -> Sequence[Any]:
    """The outputs of one operation, computed at once, also while JAX traces."""
    with _compat.now():
        return node.evaluate([jnp.asarray(v) for v in values])


_COPIES = (Role.BROADCAST, Role.CAST, Role.RESHAPE, Role.TRANSPOSE, Role.REVERSAL)


def literal_value(var: Var) -> float | None:
    """The number that a uniform constant is, seen through casts and broadcasts."""
    while var.producer is not None and var.producer.info.role in _COPIES:
        var = var.producer.inputs[0]
    if var.literal is None:
        return None
    value = np.asarray(var.literal)
    real = value.dtype.kind in "iub" or jnp.issubdtype(value.dtype, jnp.floating)  # bfloat16 too
    return float(value) if value.ndim == 0 and real else None


def varying_axes(var: Var) -> set[int]:
    """The axes along which a constant may vary."""
    axes, node = {i for i, n in enumerate(var.shape) if n > 1}, var.producer
    if node is not None and node.info.role is Role.BROADCAST:
        inner = varying_axes(node.inputs[0])
        axes &= {d for i, d in enumerate(node.params["broadcast_dimensions"]) if i in inner}
    elif node is not None and is_move(node):
        inner = varying_axes(node.inputs[0])
        axes &= {j for i, j in meeting_axes(node) if i in inner}
    return axes
