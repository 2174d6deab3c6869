"""Pictures as networks want them."""

import numpy as np


def rgb(image: np.ndarray) -> np.ndarray:
    """A picture (H, W) or (H, W, channels) in three channels; an alpha channel is dropped.

    Raises:
        TypeError: It is not of dtype uint8.
        ValueError: It has another shape.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8:
        raise TypeError(f"a picture of dtype uint8 is expected, not {image.dtype}")
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 2, 3, 4) or image.size == 0:
        raise ValueError(f"a picture (H, W) or (H, W, channels) is expected, not {image.shape}")
    colours = image[..., :1] if image.shape[-1] < 3 else image[..., :3]
    return np.broadcast_to(colours, (*image.shape[:2], 3))


def resize(image: np.ndarray, size: int, *, grey: bool = False) -> np.ndarray:
    """The whole picture as a square of `size` pixels, (size, size, 3) or grey: (size, size)."""
    from PIL import Image

    picture = Image.fromarray(rgb(image))
    if grey:
        picture = picture.convert("L")
    return np.array(picture.resize((size, size), Image.Resampling.BILINEAR))
