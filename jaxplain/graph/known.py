"""The values of what constants alone make, computed while a program is analysed."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax

from jaxplain import _compat

if TYPE_CHECKING:
    from jaxplain.graph.program import Node, Var


class Known:
    """Values that are known before the program runs.

    Args:
        computes: which operations may be run for them.
        values: those that are known from the start.
    """

    def __init__(self, computes: "Callable[[Node], bool]", values: "Mapping[Var, Any]"):
        self._computes = computes
        self._values: dict[Var, Any] = dict(values)

    def of(self, var: "Var") -> Any:
        """A value; None where it is not known."""
        if var.literal is not None:
            return var.literal
        if var not in self._values:
            self._values |= {var: None} if var.producer is None else self._made(var.producer)
        value = self._values[var]
        return None if isinstance(value, jax.core.Tracer) else value

    def _made(self, node: "Node") -> "dict[Var, Any]":
        operands = [self.of(v) for v in node.inputs] if self._computes(node) else [None]
        if any(v is None for v in operands):
            return dict.fromkeys(node.outputs)
        return dict(zip(node.outputs, run(node, operands), strict=True))


def run(node: "Node", values: Sequence[Any]) -> Sequence[Any]:
    """The outputs of one operation, now."""
    with _compat.now():
        return node.evaluate([jax.numpy.asarray(v) for v in values])
