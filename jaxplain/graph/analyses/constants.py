"""Constants: their values, computed while a program is analysed, and where they come from."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _compat
from jaxplain.graph.ir import Node, Var
from jaxplain.graph.layouts import copies
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


def literal_value(var: Var) -> float | None:
    """The number that a uniform constant is, seen through casts and broadcasts."""
    while (node := var.producer) is not None and copies(node):
        (var,) = node.inputs
    if var.literal is None:
        return None
    value = np.asarray(var.literal)
    real = value.dtype.kind in "iub" or jnp.issubdtype(value.dtype, jnp.floating)  # bfloat16 too
    return float(value) if value.ndim == 0 and real else None


def evaluated(nodes: Sequence[Node], source: Var, samples: Sequence[float]) -> tuple[Any, Any]:
    """Samples in the shape and dtype of a value, and what operations on it make of them.

    The second is None where they read anything else but literals.
    """
    x = np.resize(np.asarray(samples, source.aval.dtype), source.shape)
    env: dict[Var, Any] = {source: x}
    for node in nodes:
        operands = [env.get(v, literal_value(v)) for v in node.inputs]
        if any(v is None for v in operands):
            return x, None
        if node.info.role is Role.CAST and "new_dtype" not in node.params:  # a name, a barrier
            env[node.outputs[0]] = operands[0]
            continue
        pairs = zip(operands, node.inputs, strict=True)
        typed = [np.broadcast_to(np.asarray(v, a.aval.dtype), a.shape) for v, a in pairs]
        env |= zip(node.outputs, run(node, typed), strict=True)
    return x, np.asarray(env[nodes[-1].outputs[0]])
