"""The main job on real photographs: relevance lies on the object, and depends on the head."""

from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import jaxplain as jxp
from jaxplain.models import efficientnet_lite0 as network
from jaxplain.models import imagenet, photographs

# (x0, y0, x1, y1) in pixels of the 224 x 224 picture, drawn by hand around what the class names.
BOXES = {
    "coffee": ("espresso", (31, 0, 181, 181)),
    "camera": ("tripod", (104, 77, 182, 224)),
    "flower": ("daisy", (21, 35, 188, 200)),
    "chelsea": ("Egyptian Mau", (65, 75, 172, 172)),
}


def whole(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The uncropped photograph on grey, and which pixels are photograph.

    The cat's face fills the centre crop; around it there is something only in the whole picture.
    """
    height, width = image.shape[:2]
    scale = network.SIZE / max(height, width)
    size = round(width * scale), round(height * scale)
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    top = (network.SIZE - size[1]) // 2
    canvas = np.full((network.SIZE, network.SIZE, 3), 127, np.uint8)
    canvas[top : top + size[1], : size[0]] = small
    inside = np.zeros(canvas.shape[:2], bool)
    inside[top : top + size[1], : size[0]] = True
    return canvas, inside


pytestmark = pytest.mark.optimized


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    images, inside = [], []
    for name in BOXES:
        photo = photographs.photograph(name)
        full = np.ones((network.SIZE, network.SIZE), bool)
        image = network.display(photo)
        if name == "chelsea":
            image, full = whole(photo)
        images.append(network.preprocess(image) if image.shape != (224, 224, 3) else _normal(image))
        inside.append(full)
    return np.stack(images), np.stack(inside)


def _normal(image: np.ndarray) -> np.ndarray:
    return (image.astype(np.float32) - 127) / 128


def test_positive_relevance_lies_on_the_object(lite0: Any, pictures: Any) -> None:
    x, inside = pictures
    explain = jxp.lrp(lite0, jxp.composites.EpsilonPlusFlat(), with_output=True)
    logits, relevance = explain(x)
    positive = np.maximum(np.asarray(relevance).sum(-1), 0) * inside
    names = imagenet.class_names()
    for k, (name, (label, (x0, y0, x1, y1))) in enumerate(BOXES.items()):
        assert names[int(np.argmax(logits[k]))] == label
        share = positive[k, y0:y1, x0:x1].sum() / positive[k].sum()
        area = inside[k, y0:y1, x0:x1].sum() / inside[k].sum()
        assert share >= 1.5 * area, (
            f"{name}: {share:.2f} of the relevance in {area:.2f} of the area"
        )


def test_randomising_the_head_changes_the_map(lite0: Any, pictures: Any) -> None:
    x = pictures[0][:1]
    variables = jax.tree.map(lambda v: v, lite0.variables)
    kernel = variables["params"]["classifier"]["kernel"]
    noise = np.random.default_rng(0).normal(size=kernel.shape).astype(np.float32)
    variables["params"]["classifier"]["kernel"] = noise * np.std(np.asarray(kernel))
    explain = jxp.lrp(lite0, jxp.composites.EpsilonPlusFlat())
    randomised = jxp.lrp(lite0.replace(variables), jxp.composites.EpsilonPlusFlat())
    target = int(np.argmax(lite0(x)[0]))
    a, b = (np.asarray(e(x, target=target)).sum(-1).ravel() for e in (explain, randomised))
    assert np.corrcoef(a, b)[0, 1] < 0.9
    again = np.asarray(explain(x, target=target)).sum(-1).ravel()
    np.testing.assert_array_equal(a, again)
