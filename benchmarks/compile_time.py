"""Trace plus compile of an explainer, against `jax.grad` of the same output.

    python -m benchmarks.compile_time

Cold (JAX's caches are cleared before each), the median of five, in one run.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxplain as jxp
from benchmarks.networks import vgg16, vgg16_parameters
from jaxplain.models import efficientnet_lite0

_REPEATS = 5


def seconds(make: Callable[[], Callable[..., Any]], *args: Any) -> float:
    """The median time to trace, lower and compile."""
    taken = []
    for _ in range(_REPEATS):
        jax.clear_caches()
        start = time.perf_counter()
        jax.jit(make()).lower(*args).compile()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    """Prints one line per network and method."""
    module = efficientnet_lite0.EfficientNetLite0()
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    networks = {
        "VGG16": (vgg16, jax.eval_shape(vgg16_parameters, jax.random.key(0))),
        "EfficientNet-Lite0": (
            lambda x, v: module.apply(v, x),
            jax.eval_shape(module.init, jax.random.key(0), images),
        ),
    }
    rules = {
        "epsilon": jxp.rules.Epsilon(),
        "EpsilonPlusFlat": jxp.composites.EpsilonPlusFlat(),
        "EpsilonAlpha2Beta1Flat": jxp.composites.EpsilonAlpha2Beta1Flat(),
        "EpsilonGammaBox": jxp.composites.EpsilonGammaBox(-1.0, 1.0),
    }
    for name, (f, params) in networks.items():

        def gradient(f: Any = f) -> Callable[..., Any]:
            return lambda x, p: jax.grad(lambda x: f(x, p)[:, 0].sum())(x)

        base = seconds(gradient, images, params)
        print(f"{name}: jax.grad {base:.2f} s")
        for label, rule in rules.items():

            def explain(f: Any = f, rule: Any = rule) -> Callable[..., Any]:
                return lambda x, p: jxp.lrp(f, rule)(x, p, target=0)

            print(f"  {label:<24} {seconds(explain, images, params) / base:.2f} x")


if __name__ == "__main__":
    main()
