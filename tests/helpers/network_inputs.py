"""What the pretrained networks are shown, by their tests and by those who made the references."""

from typing import Any

import numpy as np

from jaxplain.models import (
    cifar_vgg,
    crepe_tiny,
    fer_xception,
    mnist_cnn,
    mobilenet_v2,
    open_nsfw,
    photographs,
)

# These are PNG files: every decoder reads the same numbers.
PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "motorcycle_left")
FREQUENCIES = (110.0, 220.0, 440.0, 660.0)  # in Hz
DIGITS = 100


def faces() -> list[np.ndarray]:
    """A face that smiles, two parts of it, and a cat's."""
    astronaut, cat = photographs.photograph("astronaut"), photographs.photograph("chelsea")
    whole = astronaut[50:200, 160:290]
    return [whole, whole[20:110], whole[:, 20:], cat[20:220, 120:340]]


def tone(frequency: float) -> np.ndarray:
    """64 ms of a tone with five overtones."""
    time = np.arange(crepe_tiny.FRAME) / crepe_tiny.RATE
    overtones = [np.sin(2 * np.pi * frequency * k * time + k) / k for k in range(1, 6)]
    return np.sum(overtones, axis=0, dtype=np.float32)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Handwritten digits, 8 x 8 pixels enlarged to 20 x 20 within 28 x 28, and their labels."""
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    pictures = np.zeros((DIGITS, 28, 28), np.uint8)
    for picture, small in zip(pictures, data.images, strict=False):
        image = Image.fromarray((small * (255 / 16)).astype(np.uint8))
        picture[4:24, 4:24] = image.resize((20, 20), Image.Resampling.BICUBIC)
    return pictures, data.target[:DIGITS]


def inputs(network: str) -> np.ndarray:
    """A batch for a network."""
    seen: Any
    match network:
        case "cifar_vgg":
            seen = map(cifar_vgg.preprocess, map(photographs.photograph, PHOTOGRAPHS))
        case "crepe_tiny":
            half = crepe_tiny.FRAME // 2  # where the frame that holds the whole tone is centred
            seen = (crepe_tiny.preprocess(tone(f), hop=half)[1] for f in FREQUENCIES)
        case "fer_xception":
            seen = map(fer_xception.preprocess, faces())
        case "mnist_cnn":
            seen = map(mnist_cnn.preprocess, digits()[0])
        case "mobilenet_v2":
            seen = map(mobilenet_v2.preprocess, map(photographs.photograph, PHOTOGRAPHS))
        case "open_nsfw":  # without the compression, which every library does in its own way
            crops = map(mobilenet_v2.display, map(photographs.photograph, PHOTOGRAPHS))
            seen = (crop[..., ::-1] + open_nsfw.LOW for crop in crops)
    return np.stack(list(seen)).astype(np.float32)
