"""Trace plus compile of an explainer, against `jax.grad` of the same output.

    python -m benchmarks.compile_time [network ...]

Cold (JAX's caches are cleared before each), the median ratio of five rounds. The networks of Keras
see images of 64 x 64: it is their thousands of operations that take long, whatever the size.
"""

import functools
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxplain as jxp
from benchmarks.networks import vgg16, vgg16_parameters
from jaxplain.models import efficientnet_lite0

_REPEATS = 5


def seconds(f: Callable[..., Any], *args: Any) -> float:
    """The time to trace, lower and compile."""
    jax.clear_caches()
    start = time.perf_counter()
    jax.jit(f).lower(*args).compile()
    return time.perf_counter() - start


def images(size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)


Network = tuple[Callable[..., Any], Any, jax.ShapeDtypeStruct]


def plain() -> Network:
    return vgg16, jax.eval_shape(vgg16_parameters, jax.random.key(0)), images(224)


def linen() -> Network:
    module, x = efficientnet_lite0.EfficientNetLite0(), images(224)
    return lambda x, v: module.apply(v, x), jax.eval_shape(module.init, jax.random.key(0), x), x


def keras(name: str) -> Network:
    """A network of `keras.applications` without its weights."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    from keras import applications

    x = images(64)
    model = getattr(applications, name)(weights=None, input_shape=x.shape[1:])
    variables = [
        [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in some]
        for some in (model.trainable_variables, model.non_trainable_variables)
    ]
    return lambda x, v: model.stateless_call(*v, x, training=False)[0], variables, x


NETWORKS: dict[str, Callable[[], Network]] = {
    "VGG16": plain,
    "EfficientNet-Lite0": linen,
    "ResNet50": functools.partial(keras, "ResNet50"),
    "NASNetMobile": functools.partial(keras, "NASNetMobile"),
}


def main(names: list[str]) -> None:
    """Prints one line per network and method."""
    rules = {
        "epsilon": jxp.rules.Epsilon(),
        "EpsilonPlus": jxp.composites.EpsilonPlus(),
        "EpsilonPlusFlat": jxp.composites.EpsilonPlusFlat(),
        "EpsilonAlpha2Beta1Flat": jxp.composites.EpsilonAlpha2Beta1Flat(),
        "EpsilonGammaBox": jxp.composites.EpsilonGammaBox(-1.0, 1.0),
    }
    for name in names or NETWORKS:
        f, params, image = NETWORKS[name]()
        methods = {"jax.grad": lambda x, p, f=f: jax.grad(lambda x: f(x, p)[:, 0].sum())(x)}
        for label, rule in rules.items():
            methods[label] = lambda x, p, f=f, rule=rule: jxp.lrp(f, rule)(x, p, target=0)
        rounds = [
            [seconds(method, image, params) for method in methods.values()] for _ in range(_REPEATS)
        ]
        base = statistics.median(times[0] for times in rounds)
        print(f"{name}: jax.grad {base:.2f} s", flush=True)
        for i, label in enumerate(methods):
            ratio = statistics.median(times[i] / times[0] for times in rounds)
            print(f"  {label:<24} {ratio:.2f} x", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
