"""The weights of a kernel layer, and the outputs that each of their entries belongs to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain.affine.dtypes import wide
from jaxplain.affine.folding import along
from jaxplain.graph.contractions import contraction
from jaxplain.graph.ir import Node, Var, read
from jaxplain.graph.layer import Layer


@dataclass(frozen=True)
class Kernel:
    """A dot product or convolution y = K(x, w) with one set of weights.

    Outputs of one *feature* (a unit of a dense layer, a channel of a convolution) share their
    weights; they are its positions (examples, pixels).

    Attributes:
        node: the operation.
        weights: the weights, as the operation takes them.
        data: its other operand.
        axes: for the axes of the output that count features, the axis of the weights.
    """

    node: Node
    weights: Var
    data: Var
    axes: Mapping[int, int]

    def sums(self, values: jax.Array) -> jax.Array:
        """The sum over positions of an array like y, which it broadcasts against."""
        positions = tuple(i for i in range(values.ndim) if i not in self.axes)
        return values.sum(positions, keepdims=True)

    def along_weights(self, values: jax.Array) -> jax.Array:
        """The result of `sums`, reshaped to broadcast against the weights."""
        return along(values, self.axes, self.axes, self.weights.shape)

    def run(
        self, env: Mapping[Var, Any]
    ) -> tuple[jax.Array, jax.Array, Callable[[jax.Array], jax.Array]]:
        """(w, y, gradient), where `gradient(g)` is dL/dw for the cotangent g = dL/dy.

        In at least float32.
        """
        dtype = wide(self.data.aval.dtype, self.weights.aval.dtype)
        x = jnp.asarray(read(env, self.data), dtype)

        def apply(w: jax.Array) -> jax.Array:
            operands = [w if v is self.weights else x for v in self.node.inputs]
            return self.node.evaluate(operands, dtype)[0]

        w = jnp.asarray(read(env, self.weights), dtype)
        y, pullback = jax.vjp(apply, w)
        return w, y, lambda g: pullback(g)[0]


def of(layer: Layer) -> Kernel:
    """The kernel of a layer to which there is no `objection`."""
    node = layer.mixing[0]
    (data,) = (v for v in node.inputs if v in layer.affine_vars)
    (weights,) = (v for v in node.inputs if v is not data)
    product = contraction(node)
    axes = {} if product is None else product.features[node.inputs.index(weights)]
    return Kernel(node, weights, data, axes)


def objection(layer: Layer) -> str:
    """Why the weights of a layer cannot be told apart by output; "" when they can."""
    if layer.around and layer.is_kernel:
        within = layer.around[-1].main.primitive
        return (
            f"the layer is inside of a {within}: write that out (jaxplain.unroll does with loops)"
        )
    copied = [n for n in layer.nodes if sum(v in layer.affine_vars for v in n.inputs) > 1]
    if not layer.is_kernel:
        return "it adds a value to itself: write that as a product" if copied else ""
    if len(layer.mixing) > 1:
        return (
            f"the layer is a sum of {len(layer.mixing)} kernels: make it one, of the concatenated "
            "inputs"
        )
    node = layer.mixing[0]
    if not node.info.multiplies:
        return "the layer is a dot product spelled as a product and a sum: write it as x @ w"
    if copied:
        return "the layer adds a value to itself: write that as a product"
    kernel = of(layer)
    if kernel.weights in layer.frozen:
        return "the weights of the layer depend on the explained input"
    product = contraction(node)
    if product is None:
        return f"it is not known which axes of the weights of {node.primitive} belong to an output"
    if product.slides and not kernel.axes:
        return "the layer is a convolution with weights that are grouped by example, or come first"
    return ""
