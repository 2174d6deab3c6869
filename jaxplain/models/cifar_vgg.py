"""A small VGG for CIFAR-10 in Flax linen, with BatchNorm after ReLU.

Six 3 x 3 convolutions without padding and three dense layers (0.97 million parameters), from
32 x 32 pixels to 10 classes. BatchNorm follows the ReLU, so that what it hands on has both signs.
K. Simonyan and A. Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition,
ICLR 2015, https://arxiv.org/abs/1409.1556.

The weights are a Keras file of the package cifar-10-model 7.4.0 (BSD-3-Clause; its classifiers say
MIT): `python -m jaxplain.models fetch cifar_vgg`. Its last ReLU, after the logits, is left out.

Example:
    >>> import jax
    >>> from jaxplain.models import cifar_vgg, photographs
    >>> module, variables = cifar_vgg.load()
    >>> image = cifar_vgg.preprocess(photographs.photograph("chelsea")[:, 75:375])
    >>> logits = jax.jit(module.apply)(variables, image[None])
    >>> cifar_vgg.CLASSES[int(logits[0].argmax())]
    'cat'
"""

from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxplain.models._layouts import from_keras
from jaxplain.models._pictures import resize
from jaxplain.models._weights import weights_file

SIZE = 32
"""Height and width of the network's input, in pixels."""
LOW = 0.0
"""The smallest value a picture can hold."""
HIGH = 255.0
"""The largest value a picture can hold."""
CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
"""The names of the classes."""

_CONVOLUTIONS = (64, 64, 128, 128, 64, 64)
_POOLED = (1, 3)  # the convolutions that a maximum follows
_DENSE = (1024, 512)


class CifarVGG(nn.Module):
    """The network in evaluation mode: pictures (B, 32, 32, 3) to logits."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map pictures (B, 32, 32, 3) to the logits (B, 10) of the classes."""
        for i, features in enumerate(_CONVOLUTIONS):
            x = nn.relu(nn.Conv(features, (3, 3), padding="VALID", name=f"conv{i}")(x))
            x = nn.BatchNorm(use_running_average=True, epsilon=1e-3, name=f"norm{i}")(x)
            if i in _POOLED:
                x = nn.max_pool(x, (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        for i, features in enumerate(_DENSE):
            x = nn.relu(nn.Dense(features, name=f"dense{i}")(x))
        return nn.Dense(len(CLASSES), name="classifier")(x)


def load() -> tuple[CifarVGG, dict[str, Any]]:
    """Build the network with its weights.

    Returns:
        The module and its variables, for `module.apply(variables, pictures)`.

    Raises:
        ImportError: The package h5py is not installed.
        FileNotFoundError: The weights have not been fetched.
        ValueError: The file with the weights is not the one this module was written for.
    """
    return CifarVGG(), from_keras(weights_file("cifar_vgg"), _place)


def _place(layer: str) -> tuple[str, ...]:
    """Keras numbers each kind of layer: the first is NAME, the second NAME_1."""
    if layer == f"dense_{len(_DENSE)}":
        return ("classifier",)
    name, number = layer, "0"
    if layer.rpartition("_")[2].isdecimal():
        name, _, number = layer.rpartition("_")
    return ({"conv2d": "conv", "batch_normalization": "norm"}.get(name, name) + number,)


def preprocess(image: np.ndarray) -> np.ndarray:
    """Turn a picture into the network's input.

    Args:
        image: Picture of dtype uint8 and shape (H, W) or (H, W, channels).

    Returns:
        The whole picture, squeezed to 32 x 32 pixels: float32 of shape (32, 32, 3), between `LOW`
        and `HIGH`.
    """
    return resize(image, SIZE).astype(np.float32)
