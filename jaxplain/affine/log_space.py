"""A softmax in logarithms: exponents in the place of exponentials.

A product of exponentials is a sum of their exponents, a quotient a difference. The caller computes
the logarithm of a sum of exponentials. The maximum that a softmax subtracts for stability is left
out: nothing can overflow.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain.graph.analyses.invariance import degree
from jaxplain.graph.ir import Node, Var, read
from jaxplain.graph.layer import Layer
from jaxplain.graph.primitives import Role

#: A function like log-sum-exp, of exponents and the axes summed over.
Total = Callable[[jax.Array, tuple[int, ...]], jax.Array]

_SAME = (Role.RESHAPE, Role.TRANSPOSE, Role.BROADCAST, Role.SELECT, Role.REVERSAL)


def run(
    layer: Layer, constants: Mapping[Var, Any], x: jax.Array, total: Total
) -> tuple[jax.Array, bool]:
    """The layer's output and False, or the output's logarithm and True.

    Args:
        layer: a softmax, log-softmax or logsumexp.
        constants: the values of its constants.
        x: its input, in the dtype of the arithmetic.
        total: gives the logarithm of sums of exponentials.

    Raises:
        NotImplementedError: an operation of the layer has no form in exponents.
    """
    values: dict[Var, Any] = {**constants, layer.inputs[0]: x}
    exponents: set[Var] = set()
    for node in layer.nodes:
        (out,) = node.outputs
        operands = [read(values, v) for v in node.inputs]
        if not exponents.isdisjoint(node.inputs):
            for place, v in enumerate(node.inputs):
                if v.floating and v not in exponents:
                    operands[place] = jnp.log(jnp.asarray(operands[place], x.dtype))
            values[out] = _of_exponents(node, operands, total)
            if node.info.role is not Role.LOG:
                exponents.add(out)
        elif node.info.role is Role.EXP:
            values[out] = operands[0]
            exponents.add(out)
        elif node.info.role is Role.EXTREMUM_REDUCTION:
            values[out] = jnp.zeros(out.shape, x.dtype)
        else:
            values[out] = node.evaluate(operands, x.dtype)[0]
    return values[layer.output], layer.output in exponents


def objection(layer: Layer) -> str:
    """Why a softmax has no form in exponents; "" when it has."""
    names = [v for v in layer.constants if v.literal is None]

    def attempt(constants: list[Any], x: jax.Array) -> jax.Array:
        env = dict(zip(names, constants, strict=True))
        return run(layer, env, x, jax.nn.logsumexp)[0]

    (source,) = layer.inputs
    try:
        jax.eval_shape(attempt, [v.aval for v in names], source.aval)
    except NotImplementedError as error:
        return f"is a softmax with {error} of its exponentials"
    return ""


def _of_exponents(node: Node, operands: list[Any], total: Total) -> Any:
    """The logarithm of an operation's output, from those of its operands."""
    role = node.info.role
    if role is Role.SUM_REDUCTION:
        return total(operands[0], tuple(node.params["axes"]))
    if role in (Role.CAST, Role.LOG):
        return operands[0]
    if role in _SAME:
        return node.evaluate(operands)[0]
    if role is Role.PRODUCT:
        return operands[0] + operands[1]
    if role is Role.QUOTIENT:
        return operands[0] - operands[1]
    power = degree(node) if role is Role.POWER else None
    if power is None:
        raise NotImplementedError(node.primitive)
    return power * operands[0]
