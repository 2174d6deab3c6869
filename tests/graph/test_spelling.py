"""How a function is written, or transformed, does not change what it explains."""

import functools
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from numpy.testing import assert_allclose

import jaxplain as jxp
import zoo
from comparing import Together, assert_same, together
from jaxplain.rules import AlphaBeta, Epsilon, Gamma, ZPlus
from zoo import normal

RULES = {
    "epsilon": Epsilon(1e-6),
    "z_plus": ZPlus(),
    "alpha_beta": AlphaBeta(2, 1),
    "gamma": Gamma(0.25),
    "epsilon_plus_flat": jxp.composites.EpsilonPlusFlat(),
}


pytestmark = pytest.mark.usefixtures("float64")


class Spellings(NamedTuple):
    """One function of ``x`` in several ways; the first is the reference."""

    x: Any
    ways: dict[str, Callable[..., Any]]
    tolerance: float = 1e-10


def nhwc(x: Any, kernel: Any, padding: str = "SAME") -> Any:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def residual() -> Spellings:
    w, b, u, c = normal(3, 5), normal(5), normal(5, 6, seed=1), normal(6)
    t, d, v = normal(6, 5, seed=2), normal(5, seed=2), normal(5, 3, seed=3)

    def model(add: Callable[[Any, Any], Any]) -> Callable[..., Any]:
        def f(x: Any) -> Any:
            h = jax.nn.relu(x @ w + b)
            return jax.nn.relu(add(h, jax.nn.relu(h @ u + c) @ t + d)) @ v

        return f

    adds: dict[str, Callable[[Any, Any], Any]] = {
        "plus": lambda h, y: h + y,
        "swapped": lambda h, y: y + h,
        "lax": lax.add,
        "python_sum": lambda h, y: sum([h, y]),
        "stack": lambda h, y: jnp.stack([h, y]).sum(0),
        "jit": jax.jit(jnp.add),
    }
    return Spellings(normal(2, 3), {name: model(add) for name, add in adds.items()})


def shared_layer() -> Spellings:
    w, b, v = normal(4, 4), normal(4), normal(4, 3)
    copies = [(w, b), (w + 0, b + 0), (w * 1, b * 1)]

    def model(layers: list[Any]) -> Callable[..., Any]:
        def f(x: Any) -> Any:
            for w, b in layers:
                x = jax.nn.relu(x @ w + b)
            return x @ v

        return f

    return Spellings(normal(2, 4), {"shared": model([(w, b)] * 3), "copied": model(copies)})


def siamese() -> Spellings:
    w, b, v = normal(4, 5), normal(5), normal(5, 3)
    w2, b2 = w + 0, b + 0

    def shared(x: Any) -> Any:
        return sum(jax.nn.relu(half @ w + b) for half in jnp.split(x, 2, -1)) @ v

    def copied(x: Any) -> Any:
        return (jax.nn.relu(x[:, :4] @ w + b) + jax.nn.relu(x[:, 4:] @ w2 + b2)) @ v

    def batched(x: Any) -> Any:
        """Both halves through the one layer at once."""
        h = jax.nn.relu(jnp.stack(jnp.split(x, 2, -1)) @ w + b)
        return (h[0] + h[1]) @ v

    return Spellings(normal(2, 8), {"shared": shared, "copied": copied, "batched": batched})


def _activations(ways: dict[str, Callable[[Any], Any]]) -> Spellings:
    w, b, u, c, v = normal(3, 5), normal(5), normal(5, 6, seed=1), normal(6), normal(6, 3, seed=2)
    return Spellings(
        normal(2, 3),
        {name: lambda x, g=g: g(g(x @ w + b) @ u + c) @ v for name, g in ways.items()},
    )


def relus() -> Spellings:
    import equinox
    from flax import linen, nnx

    return _activations(
        {
            "jax": jax.nn.relu,
            "maximum": lambda z: jnp.maximum(z, 0),
            "swapped": lambda z: jnp.maximum(0, z),
            "where": lambda z: jnp.where(z > 0, z, 0),
            "clip": lambda z: jnp.clip(z, min=0),
            "linen": linen.relu,
            "nnx": nnx.relu,
            "equinox": jax.vmap(equinox.nn.Lambda(jax.nn.relu)),
            "keras": zoo._keras().layers.ReLU(),
        }
    )


def gelus() -> Spellings:
    from flax import linen

    def by_hand(z: Any) -> Any:
        return z / 2 * (1 + jnp.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z)))

    return _activations({"jax": jax.nn.gelu, "linen": linen.gelu, "by_hand": by_hand})


def silus() -> Spellings:
    from flax import linen

    return _activations(
        {
            "jax": jax.nn.silu,
            "linen": linen.swish,
            "keras": zoo._keras().activations.silu,
            "product": lambda z: z * jax.nn.sigmoid(z),
            "division": lambda z: z / (1 + jnp.exp(-z)),
            "shared": lambda z: jnp.multiply(*(h(z) for h in (jax.nn.sigmoid, lambda z: z))),
        }
    )


def batch_norm() -> Spellings:
    """Normalised input, BatchNorm after and before a convolution; scales have either sign."""
    from flax import linen

    weights = zoo._cast(zoo.cnn_weights())
    k1, b1, k2, b2 = (weights[c][p] for c in ("conv1", "conv2") for p in ("kernel", "bias"))
    mean, variance = weights["input"]["mean"], weights["input"]["variance"]
    v = normal(6, 4)

    def scale_shift(name: str) -> tuple[Any, Any]:
        p = weights[name]
        scale = p["scale"] / jnp.sqrt(p["var"] + 1e-3)
        return scale, p["bias"] - p["mean"] * scale

    def explicit(x: Any) -> Any:
        (s1, t1), (s2, t2) = scale_shift("bn1"), scale_shift("bn2")
        x = (nhwc((x - mean) / jnp.sqrt(variance), k1, "VALID") + b1) * s1 + t1
        x = nhwc(jax.nn.relu(x) * s2 + t2, k2, "VALID") + b2
        return jax.nn.relu(x).mean((1, 2)) @ v

    def modules(x: Any) -> Any:
        def apply_bn(x: Any, name: str) -> Any:
            p = weights[name]
            variables = {
                "params": {key: p[key] for key in ("scale", "bias")},
                "batch_stats": {key: p[key] for key in ("mean", "var")},
            }
            return linen.BatchNorm(use_running_average=True, epsilon=1e-3).apply(variables, x)

        x = apply_bn(nhwc((x - mean) * lax.rsqrt(variance), k1, "VALID") + b1, "bn1")
        x = nhwc(apply_bn(linen.relu(x), "bn2"), k2, "VALID") + b2
        return linen.relu(x).mean((1, 2)) @ v

    def folded(x: Any) -> Any:
        (s1, t1), (s2, t2) = scale_shift("bn1"), scale_shift("bn2")
        std = jnp.sqrt(variance)[:, None]
        first = k1 / std * s1
        bias = (b1 - (k1 / std * mean[:, None]).sum((0, 1, 2))) * s1 + t1
        second = k2 * s2[:, None]
        x = jax.nn.relu(nhwc(x, first, "VALID") + bias)
        x = jax.nn.relu(nhwc(x, second, "VALID") + b2 + (k2 * t2[:, None]).sum((0, 1, 2)))
        return x.mean((1, 2)) @ v

    x = normal(2, 6, 6, 3)
    return Spellings(x, {"folded": folded, "explicit": explicit, "modules": modules})


def jit_inside() -> Spellings:
    w, b, v = normal(3, 5), normal(5), normal(5, 3)

    def model(dense: Any = jnp.matmul, relu: Any = jax.nn.relu) -> Callable[..., Any]:
        return lambda x: dense(relu(dense(x, w) + b), v)

    def disabled(x: Any) -> Any:
        with jax.disable_jit():
            return model()(x)

    def scoped(x: Any) -> Any:
        with jax.named_scope("scope"):
            return model()(x)

    return Spellings(
        normal(2, 3),
        {
            "plain": model(),
            "whole": jax.jit(model()),
            "nested": jax.jit(jax.jit(model())),
            "parts": model(jax.jit(jnp.matmul), jax.jit(lambda z: jnp.maximum(z, 0))),
            "inlined": jax.jit(model(), inline=True),
            "disabled": disabled,
            "scoped": scoped,
        },
    )


def vmap() -> Spellings:
    kernel, bias = normal(3, 3, 2, 4), normal(4)
    w, b = normal(16, 5), normal(5)

    def batch(x: Any) -> Any:
        x = jax.nn.relu(nhwc(x, kernel) + bias)
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return jnp.tanh(x.reshape(x.shape[0], -1) @ w + b)

    def single(x: Any) -> Any:
        x = jax.nn.relu(nhwc(x[None], kernel)[0] + bias)
        x = x.reshape(2, 2, 2, 2, 4).max((1, 3))
        return jnp.tanh(x.ravel() @ w + b)

    return Spellings(
        normal(3, 4, 4, 2),
        {
            "batch": batch,
            "vmap": jax.vmap(lambda x: batch(x[None])[0]),
            "single": jax.vmap(single),
            "vmap_inside_jit": jax.jit(jax.vmap(jax.jit(single))),
            "other_axis": lambda x: jax.vmap(single, in_axes=-1)(jnp.moveaxis(x, 0, -1)),
        },
    )


def dense() -> Spellings:
    w, b, v = normal(5, 3), normal(5), normal(5, 4)
    ways: dict[str, Callable[[Any], Any]] = {
        "matmul": lambda x: x @ w.T,
        "einsum": lambda x: jnp.einsum("bi,oi->bo", x, w),
        "einsum_swapped": lambda x: jnp.einsum("oi,bi->bo", w, x),
        "weight_left": lambda x: lax.dot_general(w, x, (((1,), (1,)), ((), ()))).T,
        "matmul_left": lambda x: (w @ x.T).T,
        "tensordot": lambda x: jnp.tensordot(x, w, (1, 1)),
        "vmap": jax.vmap(lambda x: w @ x),
        "product_and_sum": lambda x: (x[:, None] * w).sum(-1),
        "extra_axes": lambda x: (x[:, None, None] @ w.T)[:, 0, 0],
        "reshaped": lambda x: jnp.einsum("bij,oij->bo", x[:, None], w.reshape(5, 1, 3)),
    }
    return Spellings(
        normal(2, 3),
        {name: lambda x, g=g: jax.nn.relu(g(x) + b) @ v for name, g in ways.items()},
    )


def mean() -> Spellings:
    from flax import linen

    kernel, v = normal(3, 3, 2, 4), normal(4, 3)

    ways: dict[str, Callable[[Any], Any]] = {
        "mean": lambda x: x.mean((1, 2)),
        "sum": lambda x: x.sum((1, 2)) / 16,
        "product": lambda x: (x * (1 / 16)).sum((1, 2)),
        "flattened": lambda x: x.reshape(2, 16, 4).mean(1),
        "linen": lambda x: linen.avg_pool(x, (4, 4)).reshape(2, 4),
        "window": lambda x: (
            lax.reduce_window(x, 0.0, lax.add, (1, 4, 4, 1), (1, 1, 1, 1), "VALID")[:, 0, 0] / 16
        ),
    }
    return Spellings(
        normal(2, 4, 4, 2),
        {name: lambda x, g=g: g(jax.nn.relu(nhwc(x, kernel))) @ v for name, g in ways.items()},
    )


def max_pool() -> Spellings:
    from flax import linen

    kernel, w = normal(3, 3, 2, 4), normal(16, 3)

    ways: dict[str, Callable[[Any], Any]] = {
        "linen": lambda x: linen.max_pool(x, (2, 2), (2, 2)),
        "reshape": lambda x: x.reshape(2, 2, 2, 2, 2, 4).max((2, 4)),
        "window": lambda x: lax.reduce_window(
            x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
        ),
        "one_axis_at_a_time": lambda x: x.reshape(2, 2, 2, 2, 2, 4).max(2).max(3),
        "maximum": lambda x: functools.reduce(
            jnp.maximum, [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        ),
        "keras": zoo._keras().layers.MaxPooling2D(2),
    }

    def model(g: Callable[[Any], Any]) -> Callable[..., Any]:
        # No relu before the pool: ties at zero are another matter.
        return lambda x: jnp.tanh(g(nhwc(x, kernel))).reshape(2, -1) @ w

    return Spellings(normal(2, 4, 4, 2), {name: model(g) for name, g in ways.items()})


def sum_of_kernels() -> Spellings:
    w, u, b, v = normal(3, 5), normal(4, 5), normal(5), normal(5, 2)
    both = jnp.concatenate([w, u])
    ways: dict[str, Callable[[Any], Any]] = {
        "bias_last": lambda s: (s["x"] @ w + s["h"] @ u) + b,
        "bias_inside": lambda s: s["x"] @ w + (s["h"] @ u + b),
        "bias_first": lambda s: (b + s["h"] @ u) + s["x"] @ w,
        "two_biases": lambda s: (s["x"] @ w + b / 2) + (s["h"] @ u + b / 2),
        "concatenated": lambda s: jnp.concatenate([s["x"], s["h"]], -1) @ both + b,
    }
    return Spellings(
        {"x": normal(2, 3), "h": normal(2, 4)},
        {name: lambda s, g=g: jax.nn.relu(g(s)) @ v for name, g in ways.items()},
    )


def layout() -> Spellings:
    k1, b1, k2, b2 = normal(3, 3, 2, 4), normal(4), normal(3, 3, 4, 3), normal(3)

    def last(x: Any) -> Any:
        return nhwc(jax.nn.relu(nhwc(x, k1) + b1), k2).mean((1, 2)) + b2

    def first(x: Any) -> Any:
        x = x.transpose(0, 3, 1, 2)
        x = lax.conv(x, k1.transpose(3, 2, 0, 1), (1, 1), "SAME") + b1[:, None, None]
        x = lax.conv(jax.nn.relu(x), k2.transpose(3, 2, 0, 1), (1, 1), "SAME")
        return x.mean((2, 3)) + b2

    def padded(x: Any) -> Any:
        pad = ((0, 0), (1, 1), (1, 1), (0, 0))
        x = jax.nn.relu(nhwc(jnp.pad(x, pad), k1, "VALID") + b1)
        return nhwc(jnp.pad(x, pad), k2, "VALID").mean((1, 2)) + b2

    return Spellings(normal(2, 4, 4, 2), {"last": last, "first": first, "padded": padded})


def attention() -> Spellings:
    plain, by_jax = zoo.ATTENTIONS["plain"](), zoo.ATTENTIONS["jax"]()
    # jax.nn computes the scores in float32, whatever comes in.
    return Spellings(plain.args[0], {"plain": plain.f, "jax": by_jax.f}, tolerance=1e-5)


def causal_attention() -> Spellings:
    names = ("mask_select", "mask_additive", "jax_causal")
    models = {name: zoo.ATTENTIONS[name]() for name in names}
    x = models["mask_select"].args[0]
    return Spellings(x, {name: model.f for name, model in models.items()}, tolerance=1e-5)


# Where the kernels themselves are written differently, every rule is asked; else the three that
# see inputs, signs and connectivity.
KERNELS = (batch_norm, dense, sum_of_kernels, layout)
OTHERS = (
    residual,
    shared_layer,
    siamese,
    relus,
    gelus,
    silus,
    jit_inside,
    vmap,
    mean,
    max_pool,
    attention,
    causal_attention,
)


SEEING = ("epsilon", "alpha_beta", "epsilon_plus_flat")


@functools.cache
def _spelled(make: Callable[[], Spellings]) -> tuple[Together, Spellings]:
    """Outputs, and the maps of every rule that is asked, of all ways."""
    x, ways, _ = spellings = make()
    asked: dict[Any, Any] = {(name, "output"): f for name, f in ways.items()}
    for name, f in ways.items():
        for rule in RULES if make in KERNELS else SEEING:
            asked[name, rule] = partial(jxp.lrp(f, RULES[rule]), target=1)
    return together(asked, x), spellings


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        *((make, rule) for make in KERNELS for rule in RULES),
        *((make, rule) for make in OTHERS for rule in SEEING),
    ],
)
def test_spelling(make, rule):
    found, (_, ways, tolerance) = _spelled(make)
    first, *others = ways
    for name in others:
        assert_allclose(
            found[name, "output"],
            found[first, "output"],
            rtol=tolerance,
            atol=tolerance,
            err_msg=name,
        )
        try:
            assert_same(found[name, rule], found[first, rule], tolerance)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


@functools.cache
def _cnn(name: str) -> Callable[[str], Any]:
    """The maps of a spelling of the network, by rule."""
    f, x, to_nhwc = zoo.CNNS[name]() if name in zoo.CNNS else zoo.cnn_plain()
    found = together({rule: jxp.lrp(f, RULES[rule]) for rule in SEEING}, x)
    return lambda rule: to_nhwc(found[rule])


@pytest.mark.parametrize("rule", SEEING)
@pytest.mark.parametrize("name", ["linen", "vmap", "disable_jit", "nnx", "equinox", "keras"])
def test_cnn_in_every_framework(name, rule):
    # Keras computes batch normalisation in float32 whatever it is told.
    tolerance = 1e-4 if name == "keras" else 1e-10
    assert_same(_cnn(name)(rule), _cnn("plain")(rule), tolerance)


# It is a JAX function.


def mlp(x: Any, params: Any) -> Any:
    h = jnp.tanh(x @ params["w"] + params["b"])
    return jax.nn.silu(h @ params["u"]) @ params["v"]


def mlp_params() -> dict[str, jax.Array]:
    return {
        "w": normal(4, 5, seed=1),
        "b": normal(5, seed=2),
        "u": normal(5, 6, seed=3),
        "v": normal(6, 3, seed=4),
    }


METHODS = {
    "epsilon": lambda f: jxp.lrp(f, Epsilon(0.1)),
    "z_plus": lambda f: jxp.lrp(f, ZPlus()),
    "alpha_beta": lambda f: jxp.lrp(f, AlphaBeta(2, 1, epsilon=0.1)),
    "gamma": lambda f: jxp.lrp(f, Gamma(0.25, epsilon=0.1)),
    "gradient": jxp.gradient,
    "input_times_gradient": jxp.input_times_gradient,
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


@every_method
def test_jit_changes_nothing(method):
    x, params = normal(2, 4), mlp_params()
    explain = method(mlp)
    targets = (None, 1, "all")
    jitted = together({target: partial(explain, target=target) for target in targets}, x, params)
    for target in targets:
        assert_same(jitted[target], explain(x, params, target=target), 1e-12)


@every_method
def test_vmap_is_the_batch(method):
    x, params = normal(3, 4), mlp_params()
    explain = method(mlp)
    batch = explain(x, params, target=2)
    mapped = jax.vmap(lambda x: explain(x, params, target=2))(x)
    loop = jnp.stack([explain(row, params, target=2) for row in x])
    assert_same(mapped, batch, 1e-12)
    assert_same(loop, batch, 1e-12)


def test_vmap_of_a_convolutional_network_is_the_batch():
    f, x, _ = zoo.cnn_plain()
    explain = jxp.lrp(f, jxp.composites.EpsilonPlusFlat())
    mapped = jax.vmap(lambda x: explain(x[None], target=0)[0])(x)
    assert_same(mapped, explain(x, target=0), 1e-12)


def test_vmap_over_targets_and_weights():
    x, params = normal(2, 4), mlp_params()
    explain = jxp.lrp(mlp)
    by_target = jax.vmap(lambda k: explain(x, params, target=k))(jnp.arange(3))
    assert_same(by_target, explain(x, params, target="all"), 1e-12)

    many = jax.tree.map(lambda p: jnp.stack([p, 2 * p, -p]), params)
    by_weights = jax.vmap(lambda params: explain(x, params, target=0))(many)
    for i in range(3):
        one = explain(x, jax.tree.map(lambda p, i=i: p[i], many), target=0)
        assert_same(by_weights[i], one, 1e-12)


def assert_gradient(f: Callable[[Any], Any], point: Any, *, tolerance: float = 1e-6) -> None:
    """The derivative along a random direction is the central difference."""
    direction = jax.tree.map(lambda p: normal(*p.shape, seed=77), point)
    gradient = jax.jit(jax.grad(f))(point)
    slope = sum(
        jnp.vdot(g, d)
        for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
    )
    step = 1e-5
    f = jax.jit(f)
    ahead, behind = (
        f(jax.tree.map(lambda p, d, s=s: p + s * d, point, direction)) for s in (step, -step)
    )
    difference = (ahead - behind) / (2 * step)
    assert abs(difference) > 1e-3
    assert_allclose(slope, difference, rtol=tolerance)


@every_method
def test_gradient_of_a_relevance_is_the_finite_difference(method):
    x, params, weight = normal(2, 4), mlp_params(), normal(2, 4, seed=9)
    explain = method(mlp)

    def loss(x, params):
        return (weight * explain(x, params, target=1) ** 2).sum()

    assert_gradient(lambda params: loss(x, params), params)
    assert_gradient(lambda x: loss(x, params), x)


def test_gradient_of_a_relevance_through_pools_and_normalizations():
    kernel, w, scale = normal(3, 3, 2, 4), normal(16, 3), normal(4)

    def f(x, params):
        z = nhwc(x, params["kernel"])
        z = jnp.tanh(z * lax.rsqrt((z * z).mean(-1, keepdims=True) + 1e-3) * scale)
        z = lax.reduce_window(z, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return jax.nn.softmax(z.reshape(z.shape[0], -1) @ params["w"]) @ params["w"].T

    explain = jxp.lrp(f, Epsilon(0.1))
    x, params, weight = normal(2, 4, 4, 2), {"kernel": kernel, "w": w}, normal(2, 4, 4, 2, seed=9)

    def loss(x, params):
        return (weight * explain(x, params, target=1) ** 2).sum()

    assert_gradient(lambda params: loss(x, params), params)
    assert_gradient(lambda x: loss(x, params), x)


# The function is the function: outputs, weights, tracers.

FORWARD: dict[str, Callable[[], zoo.Model]] = {
    **zoo.BLOCKS,
    "attention": zoo.ATTENTIONS["mask_select"],
    "cnn": lambda: zoo.Model(zoo.cnn_plain().f, (zoo.cnn_plain().x,)),
    "softmax": lambda: zoo.Model(jax.nn.softmax, (normal(2, 3),)),
    "layer_norm": lambda: zoo.between_dense(zoo.NORMALIZATIONS["layer_norm_linen"]()),
}


@pytest.mark.parametrize("name", FORWARD)
def test_the_output_is_the_functions_output(name):
    f, args, _ = FORWARD[name]()
    makes = (jxp.lrp, jxp.gradient)
    told = together({make: partial(make(f, with_output=True), target=0) for make in makes}, *args)
    expected = jax.jit(f)(*args)
    for make in makes:
        output, relevance = told[make]
        assert output.dtype == expected.dtype
        assert_allclose(output, expected, rtol=1e-13, atol=1e-14 * np.abs(expected).max())
        assert jax.tree.structure(relevance) == jax.tree.structure(args[0])
        jax.tree.map(lambda r, x: np.testing.assert_equal(r.shape, x.shape), relevance, args[0])


def test_a_softmax_at_the_end_is_returned_but_not_explained():
    w, x = normal(4, 3), normal(2, 4)
    output, relevance = jxp.lrp(lambda x: jax.nn.softmax(x @ w), with_output=True)(x, target=0)
    assert_allclose(output, jax.nn.softmax(x @ w), rtol=1e-13)
    assert_same(relevance, jxp.lrp(lambda x: x @ w)(x, target=0))


def _lowered_constants(f: Callable[[], Any], folder: Path) -> int:
    """The number of elements of the largest constant in whatever ``f`` compiles."""
    folder.mkdir()
    jax.config.update("jax_dump_ir_to", str(folder))
    try:
        f()
    finally:
        jax.config.update("jax_dump_ir_to", "")
    text = "".join(path.read_text() for path in folder.glob("*.mlir"))
    assert "func.func" in text
    shapes = re.findall(r'dense<"0x\w+"> : tensor<([\dx]+)x\w+>', text)
    return max((math.prod(map(int, shape.split("x"))) for shape in shapes), default=0)


@pytest.mark.parametrize("method", [jxp.lrp, lambda f: jxp.lrp(f, ZPlus()), jxp.gradient])
def test_weights_are_never_constants(method, tmp_path):
    w, x = normal(40, 50), normal(2, 40)

    def f(x):
        return jax.nn.relu(x @ w) @ w.T

    assert _lowered_constants(lambda: jax.jit(f)(x), tmp_path / "jit") == w.size
    assert _lowered_constants(lambda: method(f)(x), tmp_path / "explained") < 100


def test_an_explainer_is_made_inside_jit():
    w, x = normal(4, 3), normal(2, 4)
    relevance = jax.jit(lambda w, x: jxp.lrp(lambda x: jnp.tanh(x @ w))(x, target=0))(w, x)
    assert_same(relevance, jxp.lrp(lambda x: jnp.tanh(x @ w))(x, target=0), 1e-12)


def test_closed_over_tracers_do_not_leak():
    w, x = normal(4, 3), normal(2, 4)
    held = {}
    explain = jxp.lrp(lambda x: jnp.tanh(x @ held["w"]), Epsilon(0.1))

    def loss(w):
        held["w"] = w
        return (explain(x, target=0) ** 2).sum()

    gradient = jax.grad(loss)(w)
    again = jax.jit(jax.grad(loss))(w)
    held["w"] = w
    outside = explain(x, target=0)

    fresh = jxp.lrp(lambda x, w: jnp.tanh(x @ w), Epsilon(0.1))
    expected = jax.grad(lambda w: (fresh(x, w, target=0) ** 2).sum())(w)
    assert_same(gradient, expected, 1e-12)
    assert_same(again, expected, 1e-12)
    assert_same(outside, fresh(x, w, target=0), 1e-12)


def test_an_explainer_inside_scan():
    params, xs = mlp_params(), normal(3, 2, 4)
    explain = jxp.lrp(mlp)
    scanned = lax.scan(lambda _, x: (None, explain(x, params, target=0)), None, xs)[1]
    assert_same(scanned, jnp.stack([explain(x, params, target=0) for x in xs]), 1e-12)


GAIN, OFFSET = np.array([1.5, -0.5, 2.0, 0.7]), np.array([0.3, -1.0, 0.2, 2.0])


def centred(h):
    return h - h.mean(-1, keepdims=True)


BEHIND = ("dense", "relu", "three dense")
LAYER_NORMS = {
    "division": lambda h: centred(h) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-6) * GAIN + OFFSET,
    "gain inside": lambda h: (
        centred(h) * (jax.lax.rsqrt(h.var(-1, keepdims=True) + 1e-6) * GAIN) + OFFSET
    ),
    "offset inside": lambda h: (
        lambda scale: h * scale + (OFFSET - h.mean(-1, keepdims=True) * scale)
    )(jax.lax.rsqrt(h.var(-1, keepdims=True) + 1e-6) * GAIN),
    "second moment": lambda h: (
        centred(h)
        * jax.lax.rsqrt((h * h).mean(-1, keepdims=True) - h.mean(-1, keepdims=True) ** 2 + 1e-6)
        * GAIN
        + OFFSET
    ),
}


@functools.cache
def _normalized():
    rng = np.random.default_rng(7)
    x, w, v = rng.normal(size=(3, 4)), rng.normal(size=(4, 4)), rng.normal(size=(4, 4))

    def model(norm, behind):
        def f(x):
            h = norm(x @ w)
            if behind == "relu":
                h = jax.nn.relu(h)
            if behind == "three dense":
                return jnp.tanh(h @ v) @ v + jnp.tanh(h @ w) @ v + h @ w.T
            return h @ v

        return f

    asked = {
        (name, rule, behind): partial(jxp.lrp(model(norm, behind), RULES[rule]), target=1)
        for name, norm in LAYER_NORMS.items()
        for rule in RULES
        for behind in BEHIND
    }
    return together(asked, x)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("behind", BEHIND)
def test_gain_and_offset_belong_to_the_normalization(rule, behind):
    """Inside, behind or between, alone or before kernels: one layer, one map."""
    maps = _normalized()
    for name in LAYER_NORMS:
        tolerance = 1e-6 if name == "second moment" else 1e-9  # it cancels
        assert_same(maps[name, rule, behind], maps["division", rule, behind], tolerance)


@pytest.mark.parametrize("rule", RULES)
def test_a_dense_layer_spelled_out_keeps_its_weights(rule):
    """Behind another kernel the product is the weights of the sum, not a scale of the kernel."""
    rng = np.random.default_rng(8)
    x, w, u = rng.normal(size=(3, 4)), rng.normal(size=(4, 5)), rng.normal(size=(5, 2))
    b = rng.normal(size=5)
    ways = {
        "plain": lambda x: (x @ w + b) @ u,
        "spelled": lambda x: ((x @ w + b)[:, :, None] * u).sum(1),
        "one": lambda x: (x @ w + b) @ u[:, :1],
        "weighted": lambda x: ((x @ w + b) * u[:, 0]).sum(-1, keepdims=True),
    }
    targets = {"plain": 1, "spelled": 1, "one": 0, "weighted": 0}
    found = together(
        {n: partial(jxp.lrp(f, RULES[rule]), target=targets[n]) for n, f in ways.items()}, x
    )
    assert_same(found["spelled"], found["plain"])
    assert_same(found["weighted"], found["one"])


@pytest.mark.parametrize("rule", RULES)
def test_constants_belong_to_the_sum_that_they_are_added_to(rule):
    """A table of positions takes the same share wherever in the sum it stands."""
    rng = np.random.default_rng(9)
    a, b, p = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4)), rng.normal(size=(3, 4))
    w, v = rng.normal(size=(12, 5)), rng.normal(size=(5, 2))
    sums = [
        lambda a, b: a + b + p,
        lambda a, b: a + p + b,
        lambda a, b: a + (b + p),
        lambda a, b: (a - p) + (b + 3 * p) - p,
    ]
    models = [lambda a, b, f=f: jnp.tanh(f(a, b).reshape(2, 12) @ w) @ v for f in sums]
    explain = [partial(jxp.lrp(f, RULES[rule], argnums=(0, 1)), target=1) for f in models]
    maps = together(dict(enumerate(explain)), a, b)
    for i in range(1, len(sums)):
        assert_same(maps[i], maps[0])


def test_offsets_of_activations_and_normalizations_stay_with_them():
    """Before a sum as anywhere: a threshold or a gain's offset is no term of it."""
    rng = np.random.default_rng(10)
    x, w, u, b = (rng.normal(size=shape) for shape in ((3, 4), (4, 4), (4, 2), (4,)))
    within = {
        "Activation": lambda h: jax.nn.gelu(h) + 0.5,
        "Normalization": lambda h: centred(h) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-6) + b,
    }
    for kind, owner in within.items():
        layers = jxp.lrp(lambda x, owner=owner: (owner(x @ w) + x) @ u).plan(x).layers
        assert [layer.kind for layer in layers] == ["Affine", kind, "Merge", "Affine"]
        assert len(layers[2].nodes) == 1
