"""A small convolutional network for handwritten digits, in Flax linen.

Three 3 x 3 convolutions, each with ReLU and a maximum, and two dense layers (0.39 million
parameters), from 28 x 28 pixels to 10 digits; trained on MNIST.
Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Gradient-based learning applied to document
recognition, Proceedings of the IEEE 86(11), 1998, https://doi.org/10.1109/5.726791.

The weights are those of the package digit-recognizer-py 0.1.0 (MIT):
`python -m jaxplain.models fetch mnist_cnn`.

Example:
    >>> import numpy as np
    >>> from jaxplain.models import mnist_cnn
    >>> module, variables = mnist_cnn.load()
    >>> seven = np.zeros((28, 28), np.uint8)
    >>> seven[5:8, 7:21] = seven[8:24, 17:20] = 255
    >>> logits = module.apply(variables, mnist_cnn.preprocess(seven)[None])
    >>> int(logits[0].argmax())
    7
"""

from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxplain.models import _checkpoint
from jaxplain.models._layouts import from_torch
from jaxplain.models._pictures import resize
from jaxplain.models._weights import weights_file

SIZE = 28
"""Height and width of the network's input, in pixels."""

_MEAN, _DEVIATION = 0.1307, 0.3081

LOW = -_MEAN / _DEVIATION
"""The smallest value a preprocessed picture can hold (the background)."""
HIGH = (1 - _MEAN) / _DEVIATION
"""The largest value a preprocessed picture can hold (the stroke)."""

_CONVOLUTIONS = (32, 64, 128)
_HIDDEN = 256
_FLAT = 3  # height and width of the last convolution's picture, pooled


class MnistCNN(nn.Module):
    """The network: preprocessed pictures (B, 28, 28, 1) to logits."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map preprocessed pictures (B, 28, 28, 1) to the logits (B, 10) of the digits."""
        for i, features in enumerate(_CONVOLUTIONS):
            x = nn.relu(nn.Conv(features, (3, 3), padding=1, name=f"conv{i}")(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Dense(_HIDDEN, name="dense")(x.reshape(x.shape[0], -1)))
        return nn.Dense(10, name="classifier")(x)


_PLACES = {
    "conv_layers.0": ("conv0",),
    "conv_layers.3": ("conv1",),
    "conv_layers.6": ("conv2",),
    "fc_layers.0": ("dense",),
    "fc_layers.2": ("classifier",),
}


def load() -> tuple[MnistCNN, dict[str, Any]]:
    """Build the network with its weights.

    Returns:
        The module and its variables, for `module.apply(variables, pictures)`.

    Raises:
        FileNotFoundError: The weights have not been fetched.
        ValueError: The file with the weights is not the one this module was written for.
    """
    tensors = _checkpoint.read(weights_file("mnist_cnn"))
    # PyTorch flattens channels first.
    dense = tensors["fc_layers.0.weight"].reshape(_HIDDEN, -1, _FLAT, _FLAT)
    tensors["fc_layers.0.weight"] = dense.transpose(0, 2, 3, 1).reshape(_HIDDEN, -1)
    return MnistCNN(), from_torch(tensors, _PLACES.__getitem__)


def preprocess(image: np.ndarray) -> np.ndarray:
    """Turn a picture of a digit into the network's input.

    Args:
        image: A bright digit on a dark ground, of dtype uint8 and shape (H, W) or (H, W, channels).

    Returns:
        The picture in grey, squeezed to 28 x 28 pixels and standardised to between `LOW` and
        `HIGH`: float32 of shape (28, 28, 1).
    """
    grey = resize(image, SIZE, grey=True)[..., None].astype(np.float32)
    return (grey / 255 - np.float32(_MEAN)) / np.float32(_DEVIATION)
