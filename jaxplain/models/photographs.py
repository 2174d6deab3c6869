"""Photographs that ship with scikit-image and scikit-learn, and the user's own.

The files are opened where the packages were installed: nothing is downloaded.
"""

import os
from pathlib import Path

import numpy as np

from jaxplain.models._packages import data_file

_FILES = {
    "astronaut": ("scikit-image", "skimage/data/astronaut.png"),
    "camera": ("scikit-image", "skimage/data/camera.png"),
    "chelsea": ("scikit-image", "skimage/data/chelsea.png"),
    "china": ("scikit-learn", "sklearn/datasets/images/china.jpg"),
    "coffee": ("scikit-image", "skimage/data/coffee.png"),
    "flower": ("scikit-learn", "sklearn/datasets/images/flower.jpg"),
    "motorcycle_left": ("scikit-image", "skimage/data/motorcycle_left.png"),
    "rocket": ("scikit-image", "skimage/data/rocket.jpg"),
}


def names() -> tuple[str, ...]:
    """List the names that `photograph` knows."""
    return tuple(_FILES)


def photograph(name: str) -> np.ndarray:
    """Open a photograph that ships with an installed package.

    Args:
        name: One of `names()`.

    Returns:
        The photograph, uint8 of shape (H, W, 3).

    Raises:
        ValueError: There is no photograph of this name.
        ImportError: The package that ships it is not installed.
    """
    if name not in _FILES:
        raise ValueError(f"no photograph is called {name!r}; there are {', '.join(_FILES)}")
    return read(data_file(*_FILES[name]))


def read(path: str | os.PathLike[str]) -> np.ndarray:
    """Open an image file, upright if it says which way is up.

    Args:
        path: A file in any format that Pillow reads, with 8 bits per channel.

    Returns:
        The picture, uint8 of shape (H, W, 3). Grey becomes RGB; an alpha channel is dropped.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not an image, or has more than 8 bits per channel.
    """
    from PIL import Image, ImageOps

    with Path(path).open("rb") as file:
        try:
            image = ImageOps.exif_transpose(Image.open(file))
        except Exception as error:  # each of Pillow's decoders fails in its own way
            raise ValueError(f"{path} is not an image that Pillow can read") from error
    if image.mode.startswith(("I", "F")):  # Pillow would clip these at 255
        raise ValueError(f"{path} has more than 8 bits per channel; convert it to 8 bits first")
    if image.has_transparency_data:  # Pillow warns of palettes that go to RGB directly
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))
