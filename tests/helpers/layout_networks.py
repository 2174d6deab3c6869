"""Small networks with what layers are made of between two kernels, to be written in many layouts.

Each builder takes a source of weights, and returns a function of a batch and the shape of one
example.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from jax import lax, nn

import random_models


class Weights:
    """Normal weights of a precision."""

    def __init__(self, seed: int, dtype: Any):
        self.rng, self.dtype = np.random.default_rng(seed), dtype

    def __call__(self, *shape: int, scale: float = 0.6) -> jax.Array:
        return jnp.asarray(self.rng.normal(0, scale, shape), self.dtype)

    def positive(self, *shape: int) -> jax.Array:
        """Between a half and one and a half."""
        return jnp.asarray(self.rng.uniform(0.5, 1.5, shape), self.dtype)


Built = tuple[Callable[[Any], Any], tuple[int, ...]]


def gelu_offset(w: Weights) -> Built:
    a, b, c, d = w(4, 6), w(6), w(6, 3), w(3)
    return lambda x: (nn.gelu(x @ a + b) + 1) @ c + d, (4,)


def scaled_silu(w: Weights) -> Built:
    a, b, c = w(4, 6), w(6), w(6, 3)
    return lambda x: (1.7 * nn.silu(x @ a + b) - 0.3) @ c, (4,)


def residual(w: Weights) -> Built:
    a, b, c, d, e, g = w(4, 4), w(4), w(4, 6), w(6), w(6, 4), w(4)
    head = w(4, 3)

    def f(x: Any) -> Any:
        h = x @ a + b
        return (h + nn.relu(h @ c + d) @ e + g) @ head

    return f, (4,)


def layer_norm(w: Weights) -> Built:
    a, b, c, gain, shift = w(4, 6), w(6), w(6, 3), w.positive(6), w(6)

    def f(x: Any) -> Any:
        h = x @ a + b
        mean = h.mean(-1, keepdims=True)
        variance = ((h - mean) ** 2).mean(-1, keepdims=True)
        return nn.relu((h - mean) / jnp.sqrt(variance + 1e-2) * gain + shift) @ c

    return f, (4,)


def rms_norm(w: Weights) -> Built:
    a, c, gain = w(4, 6), w(6, 3), w.positive(6)

    def f(x: Any) -> Any:
        h = nn.gelu(x @ a)
        return (h * lax.rsqrt(jnp.square(h).mean(-1, keepdims=True) + 1e-2) * gain) @ c

    return f, (4,)


def batch_norm(w: Weights) -> Built:
    a, c, d = w(4, 6), w(6, 3), w(3)
    mean, variance, gain, shift = w(6), w.positive(6), w.positive(6), w(6)

    def f(x: Any) -> Any:
        h = (x @ a - mean) / jnp.sqrt(variance + 1e-3) * gain + shift
        return nn.relu(h) @ c + d

    return f, (4,)


def gates(w: Weights) -> Built:
    a, b, c, d, e = w(4, 12), w(12), w(6, 12), w(6, 3), w(3)

    def f(x: Any) -> Any:
        h = nn.glu(x @ a + b)
        gate, value = jnp.split(h @ c, 2, -1)
        return (nn.silu(gate) * value) @ d + e

    return f, (4,)


def attention(w: Weights) -> Built:
    q, k, v, o, b, head = w(4, 4), w(4, 4), w(4, 4), w(4, 4), w(4), w(4, 3)
    mask = jnp.asarray(np.tril(np.ones((3, 3), bool)))

    def f(x: Any) -> Any:
        scores = jnp.einsum("btd,bsd->bts", x @ q, x @ k) * 0.5
        shares = nn.softmax(jnp.where(mask, scores, -1e9))
        return (x + shares @ (x @ v) @ o + b).mean(1) @ head

    return f, (3, 4)


def convolutions(w: Weights) -> Built:
    a, b, c = w(3, 3, 2, 4, scale=0.4), w(4), w(3, 3, 4, 4, scale=0.3)
    mean, variance, gain, shift, head = w(4), w.positive(4), w.positive(4), w(4), w(4, 3)

    def conv(x: Any, kernel: Any) -> Any:
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)

    def f(x: Any) -> Any:
        h = conv(x, a) + b
        h = nn.relu((h - mean) * (gain * lax.rsqrt(variance + 1e-3)) + shift)
        h = lax.reduce_window(h, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return nn.hard_swish(conv(h, c)).mean((1, 2)) @ head

    return f, (4, 4, 2)


def classifier(w: Weights) -> Built:
    a, b, c, d, e = w(4, 6), w(6), w(6, 5), w(5, 3), w(3)
    mask = jnp.asarray([0, 0, -1e9, 0, 0], w.dtype)

    def f(x: Any) -> Any:
        logits = nn.relu(x @ a + b) @ c
        return nn.softmax(nn.softmax(logits / 1.7 + mask) @ d * 2 + e)

    return f, (4,)


def recurrent(w: Weights) -> Built:
    a, u, b, c, d = w(4, 4), w(4, 4), w(4), w(4, 3), w(3)

    def f(x: Any) -> Any:
        h = jnp.tanh(x[:, 0] @ a + b)
        for i in (1, 2):
            z = nn.sigmoid(h @ u + b)
            h = (1 - z) * h + z * jnp.tanh(x[:, i] @ a + h @ u + b)
        return h @ c + d

    return f, (3, 4)


def hard_sigmoid(w: Weights) -> Built:
    a, b, c, d, e = w(4, 6), w(6), w(6, 4), w(4), w(4, 3)

    def f(x: Any) -> Any:
        h = x @ a + b
        h = h * (jnp.clip(h + 3, 0, 6) / 6)
        return nn.hard_sigmoid(h @ c + d) @ e

    return f, (4,)


def group_norm(w: Weights) -> Built:
    a, b, c, gain, shift = w(4, 6), w(6), w(6, 3), w.positive(6), w(6)

    def f(x: Any) -> Any:
        h = nn.silu(x @ a + b).reshape(-1, 2, 3)
        mean = h.mean(-1, keepdims=True)
        variance = jnp.square(h).mean(-1, keepdims=True) - jnp.square(mean)
        h = ((h - mean) * lax.rsqrt(variance + 1e-2)).reshape(-1, 6)
        return (h * gain + shift) @ c

    return f, (4,)


def sums(w: Weights) -> Built:
    a, b, c, d, e = w(4, 6), w(4, 6), w(6), w(6, 4), w(4, 3)

    def f(x: Any) -> Any:
        h = nn.gelu(x @ a) + nn.silu(x @ b) + c
        return (nn.softplus(h) - 0.5 + h) @ d / 2 @ e

    return f, (4,)


NETWORKS: dict[str, Callable[[Weights], Built]] = {
    build.__name__: build
    for build in (
        gelu_offset, scaled_silu, residual, layer_norm, rms_norm, batch_norm, gates, attention,
        convolutions, classifier, recurrent, hard_sigmoid, group_norm, sums,
    )
}  # fmt: skip


def random_model(seed: int) -> random_models.Model:
    """The random model of a seed."""
    found: list[random_models.Model] = []

    @hypothesis_seed(seed)
    @settings(
        max_examples=2,  # the first one is the smallest there is
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(random_models.models(most=2))
    def take(model: random_models.Model) -> None:
        found.append(model)

    take()
    return found[-1]
