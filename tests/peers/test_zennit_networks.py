"""Whole VGG16 and ResNet50 against zennit: BatchNorm merged, residual sums by its Norm rule.

`references/zennit_networks.py` made the maps; the weights are drawn again here from its seeds. Both
are computed in float64, full width.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxplain as jxp
from jaxplain import composites
from reference_models import FOLDER, load

sys.path.insert(0, str(FOLDER))
import whole_networks as networks

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("float64")]

COMPOSITES = {
    "EpsilonPlusFlat": composites.EpsilonPlusFlat(),
    "EpsilonAlpha2Beta1": composites.EpsilonAlpha2Beta1(),
}


def convolution(w: Any, name: str, x: Any, stride: int = 1) -> Any:
    kernel = w[f"{name}/kernel"]
    padding = [(n // 2, n // 2) for n in kernel.shape[:2]]
    layout = ("NHWC", "HWIO", "NHWC")
    x = lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=layout)
    if f"{name}/bias" in w:
        return x + w[f"{name}/bias"]
    x = (x - w[f"{name}/mean"]) * lax.rsqrt(w[f"{name}/variance"])
    return x * w[f"{name}/scale"] + w[f"{name}/shift"]


def maximum(x: Any, size: int, stride: int, padding: int) -> Any:
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    pads = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, pads)


def vgg16(w: Any, x: Any) -> Any:
    for i, features in enumerate(networks.VGG):
        x = jax.nn.relu(convolution(w, f"conv{i}", x)) if features else maximum(x, 2, 2, 0)
    x = x.reshape(len(x), -1)
    for i in range(len(networks.VGG_DENSE)):
        x = jax.nn.relu(x) if i else x
        x = x @ w[f"dense{i}/kernel"] + w[f"dense{i}/bias"]
    return x


def resnet50(w: Any, x: Any) -> Any:
    x = maximum(jax.nn.relu(convolution(w, "stem", x, 2)), 3, 2, 1)
    for name, _, _, stride, projects in networks.blocks():
        y = jax.nn.relu(convolution(w, f"{name}.1", x))
        y = jax.nn.relu(convolution(w, f"{name}.2", y, stride))
        shortcut = convolution(w, f"{name}.shortcut", x, stride) if projects else x
        x = jax.nn.relu(shortcut + convolution(w, f"{name}.3", y))
    return x.mean((1, 2)) @ w["dense/kernel"] + w["dense/bias"]


MODELS: dict[str, Callable[[Any, Any], Any]] = {"vgg16": vgg16, "resnet50": resnet50}


@functools.cache
def model(network: str) -> Callable[[Any], Any]:
    return jax.tree_util.Partial(MODELS[network], networks.weights(network))


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("network", MODELS)
def test_zennit(network: str, composite: str) -> None:
    stored = load("whole_networks", "zennit")
    explain = jxp.lrp(model(network), COMPOSITES[composite], with_output=True)
    output, heat = explain(networks.image())
    np.testing.assert_allclose(output, stored[f"{network}/logits"], rtol=1e-6)
    for key, found in networks.summary(np.asarray(heat[0])).items():
        expected = stored[f"{network}/{composite}/{key}"]
        assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max(), key
