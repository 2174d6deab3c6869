"""The image networks of keras.applications, as they are: random weights and moving statistics.

All eleven are planned, and eight explained here, each by some of the methods. For all methods on
any of them: `python tests/networks/test_applications.py ResNet50`.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
import zoo
from jaxplain import composites
from jaxplain.graph import trace
from jaxplain.rules import Z

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("float64")]

# Network: the smallest input, what it expects of its range.
NETWORKS = {
    "VGG16": (32, 1),
    "InceptionV3": (75, 1),
    "ResNet50": (32, 1),
    "InceptionResNetV2": (75, 1),
    "DenseNet121": (32, 1),
    "NASNetMobile": (32, 1),
    "NASNetLarge": (32, 1),
    "Xception": (71, 1),
    "MobileNetV3Small": (32, 255),
    "EfficientNetV2B0": (32, 255),
    "ConvNeXtTiny": (32, 255),
}

# What is not one layer for one module. The BatchNorms of DenseNet stand before a rectifier or
# behind a concatenation: no kernel takes them. A cell of NASNet adds an average to itself, which is
# twice the average, and writes maxima of the same value twice, and rectifiers: a normal cell two of
# one input and three of the other, a reduction cell three, and both cells that read a cell have one
# of it. The residual sums of ConvNeXt are no modules.
UNLIKE_MODULES: dict[str, dict[str, int]] = {
    "ConvNeXtTiny": {"Merge": 18},
    "DenseNet121": {"scale": 62},
    **{
        name: {
            "scale": 4,
            "pooling": -normal,
            "Merge": -normal,
            "Selection": -4,
            "Activation": -(3 * normal + 2 * 4 + normal + 4),
        }
        for name, normal in (("NASNetMobile", 12), ("NASNetLarge", 18))
    },
}

MODULES = {
    "Conv2D": "convolution",
    "DepthwiseConv2D": "convolution",
    "Dense": "dense",
    "AveragePooling2D": "pooling",
    "GlobalAveragePooling2D": "sum",
    "MaxPooling2D": "Selection",
    "LayerNormalization": "Normalization",
    "Add": "Merge",
    "CustomScaleLayer": "Merge",  # the residual sums of Inception-ResNet
    "Multiply": "Product",
    "ReLU": "Activation",
}


def build(name: str, **options: Any) -> Any:
    """The model; its variables have shapes, but no values."""
    keras = zoo._keras()
    size, _ = NETWORKS[name]
    with keras.StatelessScope(initialize_variables=False):
        return getattr(keras.applications, name)(
            weights=None, input_shape=(size, size, 3), classes=10, **options
        )


def apply(model: Any) -> Callable[[Any, Any], Any]:
    return lambda variables, x: model.stateless_call(*variables, x, training=False)[0]


def expected(name: str, model: Any) -> Counter[str]:
    """The layers by what they are, counted from the model's modules."""
    found: Counter[str] = Counter(UNLIKE_MODULES.get(name, {}))
    for module in model._flatten_layers():
        what = type(module).__name__
        found[MODULES.get(what, "")] += 1
        if what == "SeparableConv2D":
            found["convolution"] += 2
        activation = getattr(getattr(module, "activation", None), "__name__", "linear")
        found["Activation"] += activation not in ("linear", "softmax")
    return Counter({key: count for key, count in found.items() if key and count})


@pytest.mark.parametrize("name", NETWORKS)
def test_plan(name: str) -> None:
    model = build(name)
    size, _ = NETWORKS[name]
    image = jax.ShapeDtypeStruct((1, size, size, 3), float)
    variables = [
        [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in group]
        for group in (model.trainable_variables, model.non_trainable_variables)
    ]
    graph = trace(apply(model), variables, image, argnums=1, logits=True)
    found = Counter(layer.op if layer.kind == "Affine" else layer.kind for layer in graph.layers)
    assert found == expected(name, model)
    assert graph.left_out == "softmax"
    assert [layer.op for layer in graph.layers if layer.first][:1] == ["convolution"]


# Explained


def draw(path: str, shape: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> jax.Array:
    """A variable of sensible size: no activation vanishes or explodes."""
    last = path.rpartition("/")[2]
    if not jnp.issubdtype(dtype, jnp.floating):  # the state of a dropout
        return jnp.zeros(shape, dtype)
    if last in ("gamma", "moving_variance", "variance"):
        value = rng.uniform(0.5, 1.5, shape)
    elif len(shape) > 1:
        depthwise = "depthwise" in path and shape[-1] == 1
        value = rng.normal(0, np.sqrt(2 / np.prod(shape[: 2 if depthwise else -1])), shape)
    else:
        value = rng.normal(0, 0.2, shape)
    return jnp.asarray(value, dtype)


@cache
def network(name: str) -> Callable[[Any], Any]:
    """Without its softmax: where that is saturated, gradients are zero."""
    model, rng = build(name, classifier_activation=None), np.random.default_rng(0)
    variables = [
        [draw(v.path, v.shape, v.dtype, rng) for v in group]
        for group in (model.trainable_variables, model.non_trainable_variables)
    ]
    return jax.tree_util.Partial(apply(model), variables)


def images(name: str, count: int = 1) -> np.ndarray:
    size, highest = NETWORKS[name]
    return highest * np.random.default_rng(1).normal(0.3, 1, (count, size, size, 3))


@cache
def patterns(name: str) -> Any:
    return jxp.pattern_statistics(network(name), images(name, 4)).patterns()


RELEVANCE: dict[str, Callable[[Any], Any]] = {
    "deep_taylor": jxp.deep_taylor,
    "lrp_z": lambda f: jxp.lrp(f, Z()),
    "lrp_epsilon": jxp.lrp,
    "preset_a": lambda f: jxp.lrp(f, composites.SequentialPresetA()),
    "preset_b": lambda f: jxp.lrp(f, composites.SequentialPresetB()),
    "preset_a_flat": lambda f: jxp.lrp(f, composites.SequentialPresetAFlat()),
    "preset_b_flat": lambda f: jxp.lrp(f, composites.SequentialPresetBFlat()),
}
OTHERS: dict[str, Callable[[Any], Any]] = {
    "gradient": jxp.gradient,
    "smoothgrad": lambda f: jxp.smoothgrad(jxp.gradient(f), samples=2),
    "integrated_gradients": lambda f: jxp.integrated_gradients(f, steps=2),
    "deconvnet": jxp.deconvnet,
    "guided_backprop": jxp.guided_backprop,
    "input_times_gradient": jxp.input_times_gradient,
    "deep_lift": jxp.deep_lift,
}
PATTERNS = {"pattern_net": jxp.pattern_net, "pattern_attribution": jxp.pattern_attribution}

EXPLAINED = {
    "VGG16": "gradient deconvnet input_times_gradient deep_lift lrp_z preset_b preset_b_flat "
    "pattern_net pattern_attribution",
    "ResNet50": "guided_backprop deep_taylor lrp_epsilon",
    "DenseNet121": "lrp_epsilon",
    "MobileNetV3Small": "smoothgrad integrated_gradients preset_a_flat",
    "InceptionV3": "preset_a",
    "Xception": "preset_a_flat",
    "EfficientNetV2B0": "lrp_epsilon",
    "ConvNeXtTiny": "lrp_z",
}


def explain(name: str, method: str) -> tuple[np.ndarray | None, float]:
    """The map, and the largest gap in the ledger; there is the one or the other."""
    f, x = network(name), images(name)
    if method in RELEVANCE:
        ledger = RELEVANCE[method](f).ledger(x)
        assert np.isfinite(ledger.inputs).all() and np.isfinite(ledger.sent).all()
        return None, ledger.error()
    if method in PATTERNS:
        return PATTERNS[method](f, patterns(name), project=True)(x), 0.0
    key = {"key": jax.random.key(0)} if method == "smoothgrad" else {}
    return OTHERS[method](f)(x, **key), 0.0


@pytest.mark.parametrize(
    ("name", "method"), [(n, m) for n, methods in EXPLAINED.items() for m in methods.split()]
)
def test_explained(name: str, method: str) -> None:
    """Keras takes means in float32: the ledger closes to its rounding."""
    found, gap = explain(name, method)
    assert gap < 1e-7
    if found is not None:
        assert np.isfinite(found).all() and np.any(found)


def test_every_method_is_run() -> None:
    run = {method for methods in EXPLAINED.values() for method in methods.split()}
    assert run == {*RELEVANCE, *OTHERS, *PATTERNS}


if __name__ == "__main__":
    with jax.enable_x64(True):
        for each in sys.argv[1:]:
            for key in (*OTHERS, *RELEVANCE, *PATTERNS):
                start = time.process_time()
                heat, loss = explain(each, key)
                told = f"gap {loss:.0e}" if heat is None else f"finite {np.isfinite(heat).all()}"
                print(f"{each:18} {key:22} {told:14} {time.process_time() - start:6.1f} s")
