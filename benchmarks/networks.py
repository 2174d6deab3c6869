"""Networks to measure on, in plain JAX, as functions of `(x, params)`."""

from typing import Any

import jax
import jax.numpy as jnp

_VGG16 = (
    64,
    64,
    None,
    128,
    128,
    None,
    256,
    256,
    256,
    None,
    512,
    512,
    512,
    None,
    512,
    512,
    512,
    None,
)


def vgg16_parameters(
    key: jax.Array, width: float = 1.0, size: int = 224, classes: int = 1000
) -> list[dict[str, jax.Array]]:
    """Random (He) parameters of VGG16."""
    shapes, channels = [], 3
    for features in _VGG16:
        if features is None:
            size //= 2
        else:
            features = round(features * width)
            shapes.append((3, 3, channels, features))
            channels = features
    inputs = size * size * channels
    for features in (round(4096 * width), round(4096 * width), classes):
        shapes.append((inputs, features))
        inputs = features
    params = []
    for shape, k in zip(shapes, jax.random.split(key, len(shapes)), strict=True):
        fan_in = 1
        for n in shape[:-1]:
            fan_in *= n
        kernel = jax.random.normal(k, shape) * (2 / fan_in) ** 0.5
        params.append({"kernel": kernel, "bias": jnp.full(shape[-1], 0.01)})
    return params


def vgg16(x: jax.Array, params: list[dict[str, jax.Array]]) -> jax.Array:
    """VGG16: (B, H, W, 3) to logits."""
    layers = iter(params)

    def affine(x: jax.Array, layer: dict[str, Any]) -> jax.Array:
        kernel, bias = layer["kernel"], layer["bias"]
        if kernel.ndim == 2:
            return x @ kernel + bias
        dimensions = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
        return y + bias

    for features in _VGG16:
        if features is None:
            window = (1, 2, 2, 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
        else:
            x = jax.nn.relu(affine(x, next(layers)))
    x = x.reshape(x.shape[0], -1)
    x = jax.nn.relu(affine(x, next(layers)))
    x = jax.nn.relu(affine(x, next(layers)))
    return affine(x, next(layers))
