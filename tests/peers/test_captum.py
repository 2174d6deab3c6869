"""captum's paths, windows and Grad-CAM, reproduced (its gradients and DeepLIFT: other files)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

import jaxplain as jxp
import reference_models
from reference_models import MODELS, load

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("float64")]


def path(quadrature: Any, steps: int) -> Callable[..., Any]:
    return lambda f: jxp.integrated_gradients(
        f, quadrature=quadrature, steps=steps, batch_size=steps
    )


def occlusion(window: Any, strides: Any) -> Callable[..., Any]:
    return lambda f: jxp.occlusion(f, window, strides, batch_size=4)


# The layer that captum was given is the one that jaxplain takes by itself.
CAM: dict[str, Callable[..., Any]] = {
    "LayerGradCam@{}": partial(jxp.grad_cam, relu=False),
    "LayerGradCam@{}_relu": jxp.grad_cam,
    "GuidedGradCam@{}": jxp.guided_grad_cam,
    "GuidedGradCam@{}_bilinear": partial(jxp.guided_grad_cam, resize="linear"),
}
PATHS: dict[str, Callable[..., Any]] = {
    "IntegratedGradients@gausslegendre50": path("gauss_legendre", 50),
    "IntegratedGradients@riemann_left64": path("left", 64),
    "IntegratedGradients@riemann_trapezoid32": path("trapezoid", 32),
}


def methods(name: str) -> dict[str, Callable[..., Any]]:
    if name == "mlp":
        return PATHS | {"Occlusion@3_stride2": occlusion(3, 2)}
    layer = "s2_relu" if name == "dilated" else "c3_relu"
    cams = {key.format(layer): method for key, method in CAM.items()}
    return PATHS | cams | {"Occlusion@3x3xC_stride2": occlusion((3, 3, 3), (2, 2, 3))}


@pytest.mark.parametrize(("name", "key"), [(name, key) for name in MODELS for key in methods(name)])
def test_captum(name: str, key: str) -> None:
    f, params = reference_models.build(name), reference_models.params(name)
    stored, maps = load(name, "model"), load(name, "captum")
    x = stored["x"].astype(float)
    target = np.concatenate([stored["logits"].argmax(1), np.ones(len(x), int)])

    def explain(x: Any, params: Any, target: Any) -> Any:
        model = jax.tree_util.Partial(lambda params, x: f(x, params), params)
        return methods(name)[key](model)(x, target=target)

    found = np.asarray(jax.jit(explain)(np.concatenate([x, x]), params, target))
    expected = np.concatenate([maps[f"{key}/max"], maps[f"{key}/idx1"]])
    if "trapezoid" in key:
        expected = expected * 32 / 31  # captum's weights add up to 31 / 32
    if (name, key) == ("dilated", "GuidedGradCam@s2_relu"):
        # The middle of 17 pixels is as near to the first of 2 as to the second.
        found, expected = (np.delete(np.delete(v, 8, 1), 8, 2) for v in (found, expected))
    axes = tuple(range(1, expected.ndim))
    scale = np.maximum(np.abs(expected).max(axes), 1e-30)
    assert (np.abs(found - expected).max(axes) / scale).max() < 1e-5
