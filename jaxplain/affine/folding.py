"""Folding the scales around a kernel into its weights.

`x -> s_out * K(s_in * x, W)` is a kernel with the weights `s_out * W * s_in` when the scales vary
only along features of the weights, as BatchNorm does. Where they provably do, the positive part of
the layer is one kernel with the positive part of the folded weights.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _compat
from jaxplain.graph.analyses.axes import Labels, moved
from jaxplain.graph.contractions import Contraction, contraction
from jaxplain.graph.ir import Node, Var
from jaxplain.graph.layer import Layer
from jaxplain.graph.layouts import is_move, varying_axes
from jaxplain.graph.primitives import Kind, Role


def fold(
    layer: Layer,
    nodes: Sequence[Node],
    scales: Sequence[Node],
    weights: jax.Array,
    through: Callable[[Sequence[Node], Var], Callable[[jax.Array], jax.Array]],
) -> jax.Array | None:
    """The layer's weights with every scale folded in; None where that cannot be proved right.

    Args:
        layer: an affine layer with one kernel.
        nodes: its operations.
        scales: the operations among them that scale.
        weights: those of the kernel.
        through: (operations in a row, the value that the first of them reads) -> their linear map.
    """
    kernel = layer.mixing[0]
    product = contraction(kernel)
    if len(layer.inputs) != 1 or product is None:
        return None
    data = 0 if kernel.inputs[0] in layer.affine_vars else 1
    position = list(nodes).index(kernel)
    before, after = nodes[:position], nodes[position + 1 :]
    (source,), (made,) = layer.inputs, kernel.outputs

    _, varying = _varying(after, scales, made, layer)
    features = product.features[1 - data]
    if varying is None or not varying <= set(features):
        return None
    if any(n in scales for n in after):
        # in shard_map it varies over devices as its scales do: a replicated one would be summed
        like = _compat.along(_ones(made), _compat.varying(layer.output.aval))
        (scale,) = jax.linear_transpose(through(after, made), like)(_ones(layer.output))
        weights = weights * along(scale, varying, features, weights.shape)

    labels, varying = _varying(before, scales, source, layer)
    if varying is None or not varying <= set(labels):
        return None
    if any(n in scales for n in before):
        scale = through(before, source)(_ones(source))
        axes = {labels.index(label) for label in varying}
        factor = _input_factor(product, data, scale, axes, weights.shape)
        return None if factor is None else weights * factor
    return weights


def _ones(var: Var) -> jax.Array:
    return _compat.along(jnp.ones(var.shape, var.aval.dtype), _compat.varying(var.aval))


def _varying(
    nodes: Sequence[Node], scales: Sequence[Node], start: Var, layer: Layer
) -> tuple[Labels, set[int | None] | None]:
    """The axes of a value along which the scales among some operations vary; None where unknown.

    The first of the pair holds, for each axis of the last value, the axis of `start` that it came
    from; axes that a reshape makes on the way have numbers of their own.
    """
    labels: Labels = tuple(range(len(start.shape)))
    new = count(len(labels))
    varying: set[int | None] = set()
    for node in nodes:
        behind = _behind(node, labels, layer)
        if behind is None:
            return labels, None
        labels = tuple(next(new) if label is None else label for label in behind)
        if node in scales and not node.info.adds:
            constants = [v for v in node.inputs if v not in layer.affine_vars and v.floating]
            varying |= {labels[axis] for v in constants for axis in varying_axes(v)}
    return labels, varying


def _behind(node: Node, labels: Labels, layer: Layer) -> Labels | None:
    """The labels of the axes behind one operation; None where unknown."""
    (operand, *others) = {v for v in node.inputs if v in layer.affine_vars}
    if others or len(node.outputs) > 1:
        return None
    if node.info.kind is Kind.DIAGONAL or node.info.role is Role.CAST:
        return labels if operand.shape == node.outputs[0].shape else None
    return moved(node, labels) if is_move(node) else None


def _input_factor(
    product: Contraction, data: int, scale: jax.Array, varying: set[int], shape: tuple[int, ...]
) -> jax.Array | None:
    """The scale of the kernel's input, as a factor of its weights."""
    weight = 1 - data
    if product.slides:
        if weight != 1 or not varying <= set(product.contracted[0]) or not product.contracted[0]:
            return None
        (feature,) = product.contracted[0]
        to = (*product.features[1].values(), *product.contracted[1])
        outputs, inputs = (shape[axis] for axis in to)
        values = _compact(scale, [feature]).reshape(product.groups, inputs)
        values = jnp.repeat(values, outputs // product.groups, axis=0)
        return _place(values, to, shape)
    axes = dict(zip(product.contracted[data], product.contracted[weight], strict=True))
    axes |= dict(zip(product.shared[data], product.shared[weight], strict=True))
    return along(scale, varying, axes, shape) if varying <= set(axes) else None


def _compact(scale: jax.Array, axes: Sequence[int]) -> jax.Array:
    """A scale that varies along `axes` only, without its other axes."""
    return scale[tuple(slice(None) if i in axes else 0 for i in range(scale.ndim))]


def along(
    scale: jax.Array, axes: Iterable[Any], to: Mapping[int, int], shape: tuple[int, ...]
) -> jax.Array:
    """A scale that varies along `axes` only, for weights of the given shape.

    Args:
        scale: like the kernel's input or output.
        axes: the axes along which it varies.
        to: for these, the weights' axes.
        shape: the weights' shape.
    """
    axes = sorted(axes)
    return _place(_compact(scale, axes), [to[axis] for axis in axes], shape)


def _place(values: jax.Array, axes: Sequence[int], shape: tuple[int, ...]) -> jax.Array:
    """Puts the axes of `values` at the given axes of an array of the weights' rank."""
    values = values.transpose([int(i) for i in np.argsort(axes)])
    return values.reshape([n if i in axes else 1 for i, n in enumerate(shape)])
