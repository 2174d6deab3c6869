"""Folding the scales around a kernel into its weights.

`x -> s_out * K(s_in * x, W)` is a kernel with the weights `s_out * W * s_in` when the scales vary
only along features of the weights, as BatchNorm does. Where they provably do, the positive part of
the layer is one kernel with the positive part of the folded weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _compat
from jaxplain.graph.analyses.axes import reshaped
from jaxplain.graph.analyses.constants import varying_axes
from jaxplain.graph.contractions import contraction
from jaxplain.graph.ir import Node, Var, read
from jaxplain.graph.layer import Layer
from jaxplain.graph.layouts import axes_read, is_move
from jaxplain.graph.primitives import Kind, Operand, Role

_Labels = list[int | None]  # for each axis of a value, the axis of the kernel's operand it is


def fold(
    layer: Layer, nodes: Sequence[Node], scales: Sequence[Node], env: Mapping[Var, Any]
) -> jax.Array | None:
    """The layer's weights with every scale folded in; None where that cannot be proved right.

    Args:
        layer: an affine layer with one kernel and one source.
        nodes: its operations.
        scales: the operations among them that scale.
        env: the values of its constants.
    """
    kernel = layer.mixing[0]
    if len(layer.inputs) != 1 or len(layer.mixing) != 1:
        return None
    position = list(nodes).index(kernel)
    before, after = nodes[:position], nodes[position + 1 :]
    if contraction(kernel) is None:
        return None
    (weight,) = (i for i, v in enumerate(kernel.inputs) if v not in layer.affine_vars)
    (data,) = (i for i, v in enumerate(kernel.inputs) if v in layer.affine_vars)
    folded = jnp.asarray(read(env, kernel.inputs[weight]))

    varying = _varying_after(after, scales, kernel, layer)
    if varying is None:
        return None
    axes = output_axes(kernel, weight)
    if not varying <= set(axes):
        return None
    if any(n in scales for n in after):
        # in shard_map it varies over devices as its scales do: a replicated one would be summed
        made = kernel.outputs[0]
        like = _compat.along(_ones(made), _compat.varying(layer.output.aval))
        (scale,) = jax.linear_transpose(lambda u: _scale(after, made, u, layer, env), like)(
            _ones(layer.output)
        )
        folded = folded * along(scale, sorted(varying), axes, folded.shape)

    varying = _varying_before(before, scales, kernel.inputs[data], layer)
    if varying is None:
        return None
    if any(n in scales for n in before):
        source = layer.inputs[0]
        scale = _scale(before, source, _ones(source), layer, env)
        factor = _input_factor(kernel, weight, data, scale, varying, folded.shape)
        if factor is None:
            return None
        folded = folded * factor
    return folded


def _ones(var: Var) -> jax.Array:
    return _compat.along(jnp.ones(var.shape, var.aval.dtype), _compat.varying(var.aval))


def _scale(
    nodes: Sequence[Node], start: Var, value: jax.Array, layer: Layer, env: Mapping[Var, Any]
) -> jax.Array:
    """The value behind scales and moves, without their offsets."""
    values: dict[Var, Any] = {start: value}
    for node in nodes:
        live = [v for v in node.inputs if v in values]
        if node.info.adds:
            turned = node.info.operand(node.inputs.index(live[0])) is Operand.SUBTRAHEND
            out = -values[live[0]] if turned else values[live[0]]
            out = jnp.broadcast_to(out, node.outputs[0].shape)
        else:
            operands = [values[v] if v in values else read(env, v) for v in node.inputs]
            out = node.evaluate(operands, linear=True)[0]
        values[node.outputs[0]] = out
    return values[nodes[-1].outputs[0]] if nodes else value


def _scale_axes(node: Node, labels: _Labels, layer: Layer) -> set[int] | None:
    """The kernel axes along which the constants of a scale vary."""
    found: set[int] = set()
    for var in node.inputs:
        if var in layer.affine_vars or not var.floating or node.info.adds:
            continue
        for axis in varying_axes(var):
            label = labels[axis]
            if label is None:
                return None
            found.add(label)
    return found


def _varying_after(
    nodes: Sequence[Node], scales: Sequence[Node], kernel: Node, layer: Layer
) -> set[int] | None:
    """The axes of the kernel's output along which the scales behind it vary."""
    labels: _Labels = list(range(len(kernel.outputs[0].shape)))
    found: set[int] = set()
    for node in nodes:
        moved = _move(node, labels, layer)
        if moved is None:
            return None
        labels = moved
        if node in scales:
            axes = _scale_axes(node, labels, layer)
            if axes is None:
                return None
            found |= axes
    return found


def _varying_before(
    nodes: Sequence[Node], scales: Sequence[Node], data: Var, layer: Layer
) -> set[int] | None:
    """The axes of the kernel's input along which the scales before it vary."""
    labels: _Labels = list(range(len(data.shape)))
    found: set[int] = set()
    for node in reversed(nodes):
        if node in scales:
            axes = _scale_axes(node, labels, layer)
            if axes is None:
                return None
            found |= axes
        moved = _move(node, labels, layer, back=True)
        if moved is None:
            return None
        labels = moved
    return found


def _move(node: Node, labels: _Labels, layer: Layer, back: bool = False) -> _Labels | None:
    """The labels on the other side of one operation: of its output, or `back` of its input."""
    role = node.info.role
    operands = {v for v in node.inputs if v in layer.affine_vars}
    if len(operands) > 1 or len(node.outputs) > 1:
        return None
    (operand,) = operands
    before, after = operand.shape, node.outputs[0].shape
    if back:
        before, after = after, before
    if node.info.kind is Kind.DIAGONAL or role is Role.CAST:
        return labels if before == after else None
    if role is Role.TRANSPOSE:
        order = node.params["permutation"]
        return [labels[i] for i in (np.argsort(order) if back else order)]
    in_order = axes_read(node) == tuple(range(len(operand.shape)))
    if (role is Role.RESHAPE and in_order) or (role is Role.BROADCAST and is_move(node)):
        return list(reshaped(before, after, labels))
    return None


def output_axes(kernel: Node, weight: int) -> Mapping[int, int]:
    """For the output axes that are features of the weights, the weights' axis."""
    axes = contraction(kernel)
    return {} if axes is None else axes.features[weight]


def _input_factor(
    kernel: Node,
    weight: int,
    data: int,
    scale: jax.Array,
    varying: set[int],
    shape: tuple[int, ...],
) -> jax.Array | None:
    """The scale of the kernel's input, as a factor of its weights."""
    product = contraction(kernel)
    if product is None:
        return None
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
    if not varying <= set(axes):
        return None
    return along(scale, sorted(varying), axes, shape)


def _compact(scale: jax.Array, axes: Sequence[int]) -> jax.Array:
    """A scale that varies along `axes` only, without its other axes."""
    return scale[tuple(slice(None) if i in axes else 0 for i in range(scale.ndim))]


def along(
    scale: jax.Array, axes: Sequence[int], to: Mapping[int, int], shape: tuple[int, ...]
) -> jax.Array:
    """A scale that varies along `axes` only, for weights of the given shape.

    Args:
        scale: like the kernel's input or output.
        axes: the axes along which it varies, ascending.
        to: for these, the weights' axes.
        shape: the weights' shape.
    """
    return _place(_compact(scale, axes), [to[axis] for axis in axes], shape)


def _place(values: jax.Array, axes: Sequence[int], shape: tuple[int, ...]) -> jax.Array:
    """Puts the axes of `values` at the given axes of an array of the weights' rank."""
    values = values.transpose([int(i) for i in np.argsort(axes)])
    return values.reshape([n if i in axes else 1 for i, n in enumerate(shape)])
