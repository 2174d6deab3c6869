"""Random networks: small programs whose every step can be written in several ways.

A `Model` is a list of steps; `Model.source(way)` is the program as text, which is what runs and
what a failing test prints. All values of one model have one shape `(batch, ..., WIDTH)`, and no
step mixes examples.

Left out, because they are known to differ between spellings or have no well-conditioned relevance:

- `x - 2 * x` against `-x`: a linear region of its own against a scale of the kernel before it. So
  are `a - (-b)` against `a + b`, `-sort(-x)`, and `1 / (1 + exp(-x))` for a sigmoid that stands
  alone: rules that tell signs apart see the negation.
- A constant column of ones with the bias as its weight: `Flat` and `WSquare` see a connection.
- A product with a matrix of ones or zeros and ones for a mean or a permutation: that is a kernel.
- `jnp.roll` against a gather: concatenations end a chain, so a scale behind is a layer of its own.
- `x * mask` against `jnp.where(mask, x, 0)`: a scale by zero still passes relevance.
- Division against a product with the reciprocal of a value: the quotient rule is another one.
- A mean of means against one mean: two layers, with two stabilisers.
- A value stacked with itself and taken out again: like `jnp.roll`.
- What rescales the value that a stabiliser is added to: `2 * sigmoid(2 * x) - 1` for tanh, `x / s`
  before a kernel `s W` and behind a normalisation.
- A product `x @ W` used with and without its bias: where both are written alike the bias is a layer
  of its own. For the same reason no block is applied to one value twice.
- `x.at[1].set(0)` against `jnp.where` between elementwise operations: not elementwise.
- A window's sum times (instead of divided by) its size: with a mean behind, a product and sum.
- Twice `x @ V[:4] + y @ V[4:]` with the same y: written as sums, they read one product of y.
- A concatenation of two linear images of one value before a kernel, against a sum of kernels.
- A reshape in one of two elementwise branches of a value: together they are no activation.
- A scale between two kernels, against its inverse in the second one's weights: it is the first's.
- Padding by hand right behind a kernel: it is the first kernel's, and `Flat` counts it.
- `jnp.stack([a, b]).sum(0)` for a sum of two linear images of one value: a linear region.
- `a - a`, or a mean of what was centred: zero up to rounding, of either sign.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax import lax

WIDTH = 4
SHAPES = {"vector": (WIDTH,), "sequence": (3, WIDTH), "image": (4, 4, WIDTH)}
CLASSES = 3

# What the spellings below may call, next to jax, jnp, lax and nn.

NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")
NLC, NCL = ("NLC", "LIO", "NLC"), ("NCL", "OIL", "NCL")


def conv(x: Any, kernel: Any, layout: tuple[str, str, str], padding: Any = "SAME") -> Any:
    """A convolution with stride one."""
    strides = (1,) * (x.ndim - 2)
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=layout)


def window(x: Any, start: float, step: Any, size: int, stride: int, padding: str) -> Any:
    """A pooling window over the space of an image."""
    return lax.reduce_window(x, start, step, (1, size, size, 1), (1, stride, stride, 1), padding)


def larger(x: Any) -> Any:
    """Every pixel of an image twice in height and width."""
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)


def unrolled(step: Any, h: Any, xs: Any) -> list[Any]:
    """The states of a recurrence."""
    found: list[Any] = []
    for x in xs:
        found.append(step(found[-1] if found else h, x))
    return found


_HELPERS = {
    "jax": jax, "jnp": jnp, "lax": lax, "nn": jax.nn, "math": math,
    "conv": conv, "window": window, "larger": larger, "unrolled": unrolled,
    "NHWC": NHWC, "NCHW": NCHW, "NLC": NLC, "NCL": NCL,
}  # fmt: skip

# Ways to write a block. {a} and {b} are values, {k} numbers the weights: two blocks with the same
# number share them.

# fmt: off
COMMON = {
    "dense": [
        "{a} @ W{k} + b{k}",
        "b{k} + jnp.einsum('...i,ij->...j', {a}, W{k})",
        "jnp.tensordot({a}, W{k}, 1) + jnp.broadcast_to(b{k}, {a}.shape)",
        "lax.dot_general({a}, W{k}.T, ((({a}.ndim - 1,), (1,)), ((), ()))) + b{k}",
        "(W{k}.T @ {a}[..., None])[..., 0] + b{k}",
        "({a}[..., None] * W{k}).sum(-2) + b{k}",
        "-(-b{k} - {a} @ W{k})",
        "({a} @ (2 * W{k}) + 2 * b{k}) / 2",
        "jax.vmap(lambda v: v @ W{k} + b{k})({a})",
        "jax.jit(jnp.matmul)({a}, W{k}) + b{k}",
        "({a}.reshape(-1, 4) @ W{k} + b{k}).reshape({a}.shape)",
        "(W{k}.T @ {a}.reshape(-1, 4).T + b{k}[:, None]).T.reshape({a}.shape)",
        "({a} @ (W{k} / s{k}) + b{k} / s{k}) * s{k}",
        "{a}[..., :2] @ W{k}[:2] + {a}[..., 2:] @ W{k}[2:] + b{k}",
        "jnp.concatenate([{a} @ W{k}[:, :1] + b{k}[:1], {a} @ W{k}[:, 1:] + b{k}[1:]], -1)",
    ],
    "batch_norm": [
        "({a} - m{k}) / jnp.sqrt(q{k} + 1e-3) * s{k} + b{k}",
        "({a} - m{k}) * (s{k} * lax.rsqrt(q{k} + 1e-3)) + b{k}",
        "(s{k} * ({a} - m{k})) / jnp.sqrt(q{k} + 1e-3) + b{k}",
        "{a} * (s{k} / jnp.sqrt(q{k} + 1e-3)) + (b{k} - m{k} * s{k} / jnp.sqrt(q{k} + 1e-3))",
        "jax.vmap(lambda v: (v - m{k}) / jnp.sqrt(q{k} + 1e-3) * s{k} + b{k})({a})",
        "b{k} - (m{k} - {a}) * (s{k} / jnp.sqrt(q{k} + 1e-3))",
    ],
    "scale": ["{a} * s{k}", "s{k} * {a}", "{a} / (1 / s{k})", "-{a} * -s{k}"],
    "offset": ["{a} + b{k}", "b{k} + {a}", "{a} - (-b{k})", "-(-b{k} - {a})"],
    "relu": [
        "nn.relu({a})", "jnp.maximum({a}, 0)", "jnp.maximum(0, {a})", "jnp.clip({a}, 0)",
        "jnp.where({a} > 0, {a}, 0)", "{a} * ({a} > 0)", "({a} + jnp.abs({a})) / 2",
        "jax.checkpoint(nn.relu)({a})", "lax.select({a} > 0, {a}, jnp.zeros_like({a}))",
    ],
    "leaky_relu": [
        "nn.leaky_relu({a}, 0.1)", "jnp.maximum({a}, 0.1 * {a})",
        "jnp.where({a} > 0, {a}, 0.1 * {a})", "nn.relu({a}) - 0.1 * nn.relu(-{a})",
    ],
    "silu": [
        "nn.silu({a})", "{a} * nn.sigmoid({a})", "{a} / (1 + jnp.exp(-{a}))",
        "{a} * (jnp.tanh({a} / 2) + 1) / 2", "{a} * (1 / (1 + jnp.exp(-{a})))",
    ],
    "gelu": [
        "nn.gelu({a})",
        "0.5 * {a} * (1 + jnp.tanh(math.sqrt(2 / math.pi) * ({a} + 0.044715 * {a} ** 3)))",
        "{a} * nn.sigmoid(2 * math.sqrt(2 / math.pi) * ({a} + 0.044715 * {a} * {a} * {a}))",
    ],
    "tanh": ["jnp.tanh({a})", "(lambda e: (e - 1 / e) / (e + 1 / e))(jnp.exp({a}))"],
    "softplus": ["nn.softplus({a})", "jnp.log1p(jnp.exp({a}))", "jnp.logaddexp({a}, 0.0)"],
    "square": ["{a} * {a}", "{a} ** 2", "jnp.square({a})"],
    "hard_tanh": ["jnp.clip({a}, -1, 1)", "jnp.minimum(jnp.maximum({a}, -1), 1)",
                  "nn.hard_tanh({a})", "jnp.where({a} > 1, 1, jnp.where({a} < -1, -1, {a}))"],
    "hard_swish": ["nn.hard_swish({a})", "{a} * jnp.clip({a} + 3, 0, 6) / 6",
                   "{a} * nn.hard_sigmoid({a})"],
    "layer_norm": [
        "({a} - {a}.mean(-1, keepdims=True)) / jnp.sqrt({a}.var(-1, keepdims=True) + 1e-3)"
        " * s{k} + b{k}",
        "nn.standardize({a}, epsilon=1e-3) * s{k} + b{k}",
        "(lambda c: c * lax.rsqrt((c ** 2).mean(-1, keepdims=True) + 1e-3) * s{k} + b{k})"
        "({a} - {a}.mean(-1, keepdims=True))",
        "({a} - {a}.mean(-1, keepdims=True)) * (s{k} * lax.rsqrt("
        "jnp.square({a}).mean(-1, keepdims=True) - jnp.square({a}.mean(-1, keepdims=True)) + 1e-3"
        ")) + b{k}",
    ],
    "rms_norm": [
        "{a} * lax.rsqrt(({a} * {a}).mean(-1, keepdims=True) + 1e-3) * s{k}",
        "s{k} * ({a} / jnp.sqrt(({a} ** 2).mean(-1, keepdims=True) + 1e-3))",
        "{a} / jnp.sqrt(jnp.einsum('...i,...i->...', {a}, {a})[..., None] / 4 + 1e-3) * s{k}",
    ],
    "softmax": [
        "nn.softmax({a})", "jnp.exp(nn.log_softmax({a}))",
        "(lambda e: e / e.sum(-1, keepdims=True))(jnp.exp({a} - {a}.max(-1, keepdims=True)))",
        "(lambda e: e / e.sum(-1, keepdims=True))(jnp.exp({a}))",
    ],
    "add_mean": [
        "{a} + {a}.mean(-1, keepdims=True)", "{a}.sum(-1, keepdims=True) / 4 + {a}",
        "{a} + {a}.sum(-1, keepdims=True) * 0.25", "{a} + jnp.average({a}, -1)[..., None]",
    ],
    "subtract_mean": [
        "{a} - {a}.mean(-1, keepdims=True) + b{k}", "b{k} + ({a} - {a}.sum(-1)[..., None] / 4)",
    ],
    "cumsum": ["jnp.cumsum({a}, -1)", "lax.cumsum({a}, {a}.ndim - 1)"],
    "reverse": ["{a}[..., ::-1]", "jnp.flip({a}, -1)", "lax.rev({a}, ({a}.ndim - 1,))"],
    "reorder": ["{a}[..., jnp.array([2, 0, 0, 3])]", "jnp.take({a}, jnp.array([2, 0, 0, 3]), -1)",
                "jnp.moveaxis(jnp.moveaxis({a}, -1, 0)[jnp.array([2, 0, 0, 3])], 0, -1)"],
    "roll": ["jnp.roll({a}, 1, -1)", "jnp.concatenate([{a}[..., 3:], {a}[..., :3]], -1)"],
    "shift": ["jnp.pad({a}, [(0, 0)] * ({a}.ndim - 1) + [(1, 0)])[..., :4]",
              "jnp.pad({a}[..., :3], [(0, 0)] * ({a}.ndim - 1) + [(1, 0)])"],
    "mask": [
        "jnp.where(keep, {a}, 0)", "jnp.where(~keep, 0, {a})",
        "lax.select(jnp.broadcast_to(keep, {a}.shape), {a}, jnp.zeros_like({a}))",
    ],
    "max_pairs": [
        "jnp.repeat({a}.reshape(*{a}.shape[:-1], 2, 2).max(-1), 2, -1)",
        "jnp.repeat(jnp.maximum({a}[..., ::2], {a}[..., 1::2]), 2, -1)",
        "jnp.repeat(jnp.stack([{a}[..., ::2], {a}[..., 1::2]], -1).max(-1), 2, -1)",
    ],
    "sort": ["jnp.sort({a}, -1)", "jnp.take_along_axis({a}, jnp.argsort({a}, -1), -1)"],
    "top": ["jnp.concatenate([lax.top_k({a}, 2)[0], {a}[..., :2]], -1)",
            "(lambda i: jnp.concatenate([jnp.take_along_axis({a}, i, -1), {a}[..., :2]], -1))"
            "(lax.top_k({a}, 2)[1])"],
    # What loops and cases hold begins and ends with an activation: layers end at their edges.
    "repeated": [
        "lax.scan(lambda v, w: (nn.relu(jnp.tanh(v) @ w + b{k}), None), {a}, stacked)[0]",
        "lax.fori_loop(0, 2, lambda i, v: nn.relu(jnp.tanh(v) @ stacked[i] + b{k}), {a})",
        "nn.relu(jnp.tanh(nn.relu(jnp.tanh({a}) @ W0 + b{k})) @ W1 + b{k})",
        "lax.scan(jax.checkpoint(lambda v, w: (nn.relu(jnp.tanh(v) @ w + b{k}), None)), {a},"
        " stacked, unroll=2)[0]",
    ],
    "case": [
        "lax.cond(keep[0], lambda v: nn.relu(jnp.tanh(v) @ W{k} + b{k}), jnp.tanh, {a})",
        "lax.cond(~keep[0], jnp.cos, lambda v: nn.relu(jnp.tanh(v) @ W{k} + b{k}), {a})",
        "nn.relu(jnp.tanh({a}) @ W{k} + b{k})",
        "lax.switch(jnp.argmin(keep), [jnp.tanh, lambda v: nn.relu(jnp.tanh(v) @ W{k} + b{k})],"
        " {a})",
        "lax.map(lambda v: nn.relu(jnp.tanh(v) @ W{k} + b{k}), {a})",
    ],
    "rotary": [
        "{a} * s{k} + jnp.concatenate([-{a}[..., 2:], {a}[..., :2]], -1) * m{k}",
        "{a} * s{k} + jnp.concatenate([{a}[..., 2:], {a}[..., :2]], -1)"
        " * jnp.concatenate([-m{k}[:2], m{k}[2:]])",
    ],
}
JOINS = {
    "add": ["{a} + {b}", "{b} + {a}", "lax.add({a}, {b})", "sum([{a}, {b}])",
"jax.jit(jnp.add)({a}, {b})"],
    "subtract": ["{a} - 0.7 * {b}", "lax.sub({a}, {b} * 0.7)"],
    "average": ["0.5 * {a} + 0.5 * {b} + b{k}", "({a} + {b}) / 2 + b{k}",
                "b{k} + 0.5 * ({b} + {a})"],
    "gate": ["{a} * nn.sigmoid({b})", "nn.sigmoid({b}) * {a}", "lax.mul({a}, lax.logistic({b}))"],
    "product": ["{a} * {b}", "jnp.multiply({b}, {a})"],
    "quotient": ["{a} / (1.5 + jnp.tanh({b}))", "lax.div({a}, jnp.tanh({b}) + 1.5)"],
    "maximum": ["jnp.maximum({a}, {b})", "jnp.where({a} >= {b}, {a}, {b})"],
    "choose": ["jnp.where(keep, {a}, {b})", "jnp.where(~keep, {b}, {a})",
               "{a}.at[..., 1].set({b}[..., 1])"],
    "interleave": ["jnp.concatenate([{a}[..., :2], {b}[..., 2:]], -1)",
                   "jnp.concatenate([jnp.split({a}, 2, -1)[0], jnp.split({b}, 2, -1)[1]], -1)"],
    "joint_dense": [
        "jnp.concatenate([nn.relu({a}), jnp.tanh({b})], -1) @ V + b{k}",
        "jnp.concatenate([jnp.tanh({b}), nn.relu({a})], -1) @ jnp.concatenate([V[4:], V[:4]])"
        " + b{k}",
        "nn.relu({a}) @ V[:4] + jnp.tanh({b}) @ V[4:] + b{k}",
        "b{k} + jnp.tanh({b}) @ V[4:] + nn.relu({a}) @ V[:4]",
        "jnp.einsum('...gi,gij->...j', jnp.stack([nn.relu({a}), jnp.tanh({b})], -2),"
        " V.reshape(2, 4, 4)) + b{k}",
    ],
    "linear_unit": [
        "({a} @ W{k} + b{k}) * nn.sigmoid({b} @ U)",
        "jnp.multiply(nn.sigmoid(jnp.einsum('...i,ij->...j', {b}, U)), b{k} + {a} @ W{k})",
    ],
}
SEQUENCE = {
    "attention": [
        "nn.softmax(({a} @ Q) @ ({a} @ U).swapaxes(1, 2) / 2) @ ({a} @ W{k} + b{k})",
        "jnp.einsum('bqk,bkd->bqd', nn.softmax(jnp.einsum('bqd,bkd->bqk', {a} @ Q, {a} @ U)"
        " * 0.5), {a} @ W{k} + b{k})",
        "jax.vmap(lambda v: nn.softmax((v @ Q) @ (v @ U).T / 2) @ (v @ W{k} + b{k}))({a})",
    ],
    "causal_attention": [
        "nn.softmax(jnp.where(causal, {a} @ {a}.swapaxes(1, 2), -jnp.inf)) @ {a}",
        "nn.softmax({a} @ {a}.swapaxes(1, 2), where=causal) @ {a}",
        "nn.softmax({a} @ {a}.swapaxes(1, 2) + jnp.where(causal, 0, -jnp.inf)) @ {a}",
    ],
    "conv": [
        "conv({a}, K1, NLC) + b{k}", "b{k} + conv({a}, K1, NLC, [(1, 1)])",
        "(conv({a}.swapaxes(1, 2), K1.transpose(2, 1, 0), NCL) + b{k}[:, None]).swapaxes(1, 2)",
    ],
    "relu_conv": [
        "conv(nn.relu({a}), K1, NLC) + b{k}",
        "conv(jnp.pad(nn.relu({a}), ((0, 0), (1, 1), (0, 0))), K1, NLC, 'VALID') + b{k}",
    ],
    "recurrent": [
        "lax.scan(lambda h, v: 2 * (jnp.tanh(jnp.tanh(v) @ W{k} + h @ U + b{k}),),"
        " jnp.tanh({a}[:, 2]), {a}.swapaxes(0, 1))[1].swapaxes(0, 1)",
        "jnp.stack(lax.scan(lambda h, i: 2 * (jnp.tanh(jnp.tanh({a}[:, i]) @ W{k} + h @ U + b{k}),"
        "), jnp.tanh({a}[:, 2]), jnp.arange(3))[1], 1)",
        "jnp.stack(unrolled(lambda h, v: jnp.tanh(jnp.tanh(v) @ W{k} + h @ U + b{k}),"
        " jnp.tanh({a}[:, 2]), {a}.swapaxes(0, 1)), 1)",
    ],
    "position": ["{a} + P", "P + {a}", "jax.vmap(lambda v: v + P)({a})"],
    "mean_token": ["{a} + {a}.mean(1, keepdims=True)", "{a} + ({a}.sum(1) / 3)[:, None]"],
    "last_token": ["{a} + {a}[:, -1:]", "{a} + lax.slice_in_dim({a}, 2, 3, axis=1)"],
}
IMAGE = {
    "conv": [
        "conv({a}, K2, NHWC) + b{k}", "b{k} + conv({a}, K2, NHWC, [(1, 1), (1, 1)])",
        "(conv({a}.transpose(0, 3, 1, 2), K2.transpose(3, 2, 0, 1), NCHW) + b{k}[:, None, None])"
        ".transpose(0, 2, 3, 1)",
        "(conv({a}, K2 / s{k}, NHWC) * s{k} + b{k})",
        "jax.vmap(lambda v: conv(v[None], K2, NHWC)[0] + b{k})({a})",
    ],
    "relu_conv": [
        "conv(nn.relu({a}), K2, NHWC) + b{k}",
        "conv(jnp.pad(nn.relu({a}), ((0, 0), (1, 1), (1, 1), (0, 0))), K2, NHWC, 'VALID') + b{k}",
    ],
    "depthwise": [
        "lax.conv_general_dilated({a}, KD, (1, 1), 'SAME', dimension_numbers=NHWC,"
        " feature_group_count=4)",
        "lax.conv_general_dilated({a}.transpose(0, 3, 1, 2), KD.transpose(3, 2, 0, 1), (1, 1),"
        " 'SAME', dimension_numbers=NCHW, feature_group_count=4).transpose(0, 2, 3, 1)",
    ],
    "max_pool": [
        "larger({a}.reshape(-1, 2, 2, 2, 2, 4).max((2, 4)))",
        "larger(window({a}, -jnp.inf, lax.max, 2, 2, 'VALID'))",
        "larger({a}.reshape(-1, 2, 2, 2, 2, 4).transpose(0, 1, 3, 2, 4, 5)"
        ".reshape(-1, 2, 2, 4, 4).max(3))",
    ],
    "average_pool": [
        "window({a}, 0.0, lax.add, 3, 1, 'SAME') / window(jnp.ones_like({a}), 0.0, lax.add, 3, 1,"
        " 'SAME')",
        "window({a}, 0.0, lax.add, 3, 1, 'SAME') / window(jnp.ones((1, 4, 4, 1)), 0.0, lax.add,"
        " 3, 1, 'SAME')",
    ],
    "excite": [
        "{a} * nn.sigmoid({a}.mean((1, 2), keepdims=True) @ W{k} + b{k})",
        "nn.sigmoid({a}.mean((1, 2)) @ W{k} + b{k})[:, None, None] * {a}",
    ],
}
PLUMBING = [
    "{a}", "lax.optimization_barrier({a})", "{a}.astype(float)", "jax.jit(lambda v: v)({a})",
    "{a}[:]", "jax.checkpoint(lambda v: v)({a})",
]
NECKS = {
    "vector": {"none": ["{a}"]},
    "sequence": {
        "flat": ["{a}.reshape(-1, 12)", "{a}.reshape(-1, 3, 2, 2).reshape(-1, 12)"],
        "mean": ["{a}.mean(1)", "{a}.sum(1) / 3"],
        "first": ["{a}[:, 0]", "jnp.take({a}, 0, axis=1)"],
        "max": ["{a}.max(1)", "lax.reduce_max({a}, (1,))"],
    },
    "image": {
        "flat": ["{a}.reshape(-1, 64)", "{a}.reshape(-1, 16, 4).reshape(-1, 64)"],
        "mean": ["{a}.mean((1, 2))", "{a}.reshape(-1, 16, 4).mean(1)", "{a}.sum((1, 2)) * 0.0625"],
        "max": ["{a}.max((1, 2))", "{a}.reshape(-1, 16, 4).max(1)"],
    },
}
HEADS = {
    "logits": ["{a} @ H + h", "h + jnp.einsum('bi,ij->bj', {a}, H)"],
    "probabilities": ["nn.softmax({a} @ H + h)", "jnp.exp(nn.log_softmax({a} @ H + h))"],
    "log_probabilities": [
        "nn.log_softmax({a} @ H + h)",
        "(lambda z: z - nn.logsumexp(z, -1, keepdims=True))({a} @ H + h)",
    ],
}
STEMS = {
    "dense": ["x @ S + t", "t + jnp.einsum('...i,ij->...j', x, S)"],
    "normalized": ["(x - xm) / xs @ S + t", "x @ (S / xs[:, None]) + (t - xm / xs @ S)"],
    "dense_relu": ["nn.relu(x @ S + t)", "jnp.maximum(t + x @ S, 0)"],
}
CONV_STEMS = {
    "sequence": {"conv": ["conv(x, S1, NLC) + t", "conv(x * xs, S1 / xs[:, None], NLC) + t"]},
    "image": {"conv": ["conv(x, S2, NHWC) + t", "t + conv(x, S2, NHWC, [(1, 1), (1, 1)])"]},
}
# fmt: on


def _some(names: str) -> dict[str, list[str]]:
    return {name: (COMMON | JOINS)[name] for name in names.split()}


# Vectors meet every block; what is alike for all shapes is not compiled again for each.
BLOCKS = {
    "vector": COMMON | JOINS,
    "sequence": SEQUENCE
    | _some("dense relu gelu layer_norm rms_norm mask rotary add gate joint_dense linear_unit")
    | _some("repeated case"),
    "image": IMAGE
    | _some("dense batch_norm relu hard_swish roll add gate maximum interleave joint_dense"),
}

# Blocks that begin alike: applied to one value, what they share is a layer of its own.
ALIKE = {"linear_unit": "dense", "attention": "dense", "subtract_mean": "add_mean"}
GROWING = frozenset({"square", "product", "linear_unit", "cumsum", "causal_attention"})
PERMUTED = {"S": 0, "S1": 1, "S2": 2, "xm": 0, "xs": 0}  # along which axis they meet the input


@dataclass(frozen=True)
class Step:
    """One block: what it is, the values it reads, its weights, and how it is written either way."""

    block: str
    operands: tuple[int, int]
    weights: int
    ways: tuple[int, int]
    plumbing: tuple[int, int]

    def source(self, domain: str, way: int) -> str:
        """The block as an expression."""
        ways = BLOCKS[domain][self.block]
        a, b = (f"v{i}" for i in self.operands)
        text = ways[self.ways[way] % len(ways)].format(a=a, b=b, k=self.weights)
        return PLUMBING[self.plumbing[way]].format(a=f"({text})") if self.plumbing[way] else text


@dataclass(frozen=True, repr=False)
class Model:
    """A random network, in two spellings; printing it shows both programs.

    Attributes:
        seed: of the weights.
        domain: the shape of its values, a key of `SHAPES`.
        stem, neck, head: `(name, ways)` of what comes before and behind the steps.
        steps: the blocks; step i computes `v{i + 1}`. Values that nobody reads are added up.
        extra: a value that is returned beside the output, if any.
        jitted: whether each spelling is jitted as a whole.
    """

    seed: int
    domain: str
    stem: tuple[str, tuple[int, int]]
    steps: tuple[Step, ...]
    neck: tuple[str, tuple[int, int]]
    head: tuple[str, tuple[int, int]]
    extra: int | None
    jitted: tuple[bool, bool]

    def source(self, way: int) -> str:
        """The program in one of its two spellings."""
        stems = STEMS | CONV_STEMS.get(self.domain, {})
        used = {i for s in self.steps for i in s.operands[: 1 + (s.block in JOINS)]}
        ends = " + ".join(f"v{i}" for i in range(len(self.steps) + 1) if i not in used)
        lines = [f"v0 = {_choose(stems, self.stem, way)}"]
        lines += [
            f"v{i} = {step.source(self.domain, way)}" for i, step in enumerate(self.steps, start=1)
        ]
        lines += [f"y = {_choose(NECKS[self.domain], self.neck, way, a=f'({ends})')}"]
        lines += [f"y = {_choose(HEADS, self.head, way, a='y')}"]
        lines += ["return y" if self.extra is None else f"return y, v{self.extra}"]
        return "\n    ".join(["def f(x):", *lines]) + (
            "\nf = jax.jit(f)" if self.jitted[way] else ""
        )

    @cached_property
    def weights(self) -> dict[str, Any]:
        """The values of the names in the program."""
        rng = np.random.default_rng(self.seed)

        def normal(*shape: int, scale: float = 0.5) -> np.ndarray:
            return rng.normal(0, scale, shape)

        def factor(*shape: int) -> np.ndarray:
            return rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape)

        found = {
            "S": normal(4, 4), "S1": normal(3, 4, 4), "S2": normal(3, 3, 4, 4, scale=0.3),
            "t": normal(4), "xm": normal(4), "xs": np.abs(factor(4)),
            "Q": normal(4, 4), "U": normal(4, 4), "V": normal(8, 4), "P": normal(3, 4),
            "K1": normal(3, 4, 4, scale=0.3), "K2": normal(3, 3, 4, 4, scale=0.2),
            "KD": normal(3, 3, 1, 4, scale=0.3),
            "H": normal(self._width, CLASSES), "h": normal(CLASSES),
            "keep": np.array([True, False, True, True]), "causal": np.tril(np.ones((3, 3), bool)),
        }  # fmt: skip
        for k in (0, 1):
            found |= {f"W{k}": normal(4, 4), f"b{k}": normal(4), f"m{k}": normal(4)}
            found |= {f"s{k}": factor(4), f"q{k}": np.abs(factor(4))}
        found["stacked"] = np.stack([found["W0"], found["W1"]])
        return {name: jnp.asarray(value) for name, value in found.items()}

    @property
    def _width(self) -> int:
        flat = math.prod(SHAPES[self.domain])
        return flat if self.neck[0] == "flat" else WIDTH

    def inputs(self, batch: int) -> np.ndarray:
        """Random examples."""
        return np.random.default_rng(self.seed + 1).normal(size=(batch, *SHAPES[self.domain]))

    def function(self, way: int, order: np.ndarray | None = None) -> Any:
        """The network; with `order`, for inputs whose features are permuted."""
        weights = dict(self.weights)
        if order is not None:
            weights |= {n: jnp.take(weights[n], order, axis) for n, axis in PERMUTED.items()}
        namespace = _HELPERS | weights
        exec(compile(self.source(way), "<random model>", "exec"), namespace)
        return namespace["f"]

    def __repr__(self) -> str:
        text = [f"Model(seed={self.seed}, {self.domain})", self.source(0), self.source(1)]
        return "\n".join(text).replace("\n", "\n  ")


def _choose(table: dict[str, list[str]], which: tuple[str, Any], way: int, a: str = "") -> str:
    name, ways = which
    return table[name][ways[way] % len(table[name])].format(a=a)


def _two(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(values, values)


_WAYS = _two(st.integers(0, 14))


@st.composite
def models(draw: Any, domains: tuple[str, ...] = tuple(SHAPES), most: int = 3) -> Model:
    """Random models with up to `most` steps."""
    domain = draw(st.sampled_from(domains))
    stem = draw(st.sampled_from(list(STEMS | CONV_STEMS.get(domain, {})))), draw(_WAYS)
    names = list(BLOCKS[domain])
    steps: list[Step] = []
    begun: set[tuple[str, int]] = set()
    for number in range(draw(st.integers(1, most))):
        block = draw(st.sampled_from(names if number else [n for n in names if n not in JOINS]))
        if block in GROWING:  # once per model, else values explode
            names = [n for n in names if n not in GROWING]
        if block == "joint_dense":
            names = [n for n in names if n != block]
        before = draw(st.sampled_from([0, 0, 0, 1, 2]))
        a = max(number - before, 0)
        if (ALIKE.get(block, block), a) in begun:  # never the same twice
            a = number
        begun.add((ALIKE.get(block, block), a))
        b = draw(st.integers(0, number))
        if a == b and block in JOINS:
            b = number - 1 if a == number else number
        plumbing = draw(_two(st.sampled_from([0] * 9 + list(range(len(PLUMBING))))))
        steps.append(Step(block, (a, b), draw(st.integers(0, 1)), draw(_WAYS), plumbing))
    neck = draw(st.sampled_from(list(NECKS[domain]))), draw(_WAYS)
    head = draw(st.sampled_from(list(HEADS))), draw(_WAYS)
    hidden = [i for i in range(len(steps) + 1) if i == 0 or steps[i - 1].block != "softmax"]
    extra = draw(st.none() | st.sampled_from(hidden))  # a softmax among the outputs is left out
    jitted = draw(_two(st.booleans()))
    seed = draw(st.integers(0, 2**20))
    return Model(seed, domain, stem, tuple(steps), neck, head, extra, jitted)
