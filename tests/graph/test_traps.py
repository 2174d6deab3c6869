"""Known ways to misread a jaxpr, one test each, and what must never be silent."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from numpy.testing import assert_allclose

import jaxplain as jxp
import oracle
import zoo
from comparing import assert_same, together
from jaxplain.graph import trace
from jaxplain.rules import AlphaBeta, Epsilon, Gamma, ZPlus
from zoo import normal

pytestmark = pytest.mark.usefixtures("float64")


def kinds(f: Callable[..., Any], *args: Any) -> list[str]:
    return [layer.kind for layer in trace(f, *args).layers]


def whole(cotangent: Any) -> Callable[[Any], Any]:
    """The target that starts from exactly this cotangent."""
    return lambda output: cotangent


# T1: functions with a derivative of their own are looked into, but executed as written.


@pytest.mark.parametrize(
    ("activation", "value"),
    [
        (jax.nn.relu, 0.0),
        (lambda z: jnp.maximum(z, 0), 0.0),
        (jax.nn.relu6, 0.0),
        (jax.nn.relu6, 6.0),
        (jax.nn.softplus, 0.0),
        (jax.nn.log_sigmoid, 0.0),
        (jax.nn.mish, 0.0),
        (jax.nn.selu, 0.0),
    ],
)
def test_t01_custom_jvp_is_executed_as_written(activation, value):
    w = normal(3, 4)
    x = jnp.zeros((2, 3))

    def f(x):
        return activation(x @ w + value).sum(-1, keepdims=True)

    expected = jax.grad(lambda x: f(x).sum())(x)
    assert_allclose(jxp.gradient(f)(x, target=0), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    "written",
    [
        lambda z: 1.0 * z,
        lambda z: -z,
        lambda z: 3 * z + 1,
        lambda z: z * z,
        lambda a, b: a + b,
        lambda a, b: a * b,
        jnp.maximum,
        jnp.logaddexp,
    ],
)
def test_t01_sums_and_products_with_their_own_derivative_are_what_they_are(written):
    """As are functions of several values: only what bends a single one is an activation."""

    @jax.custom_jvp
    def own(*z):
        return written(*z)

    own.defjvp(lambda z, t: (written(*z), 7.0 * t[0]))
    w, b, v, x = normal(3, 4), normal(4, seed=2), normal(4, 2, seed=1), normal(2, 3)
    count = written.__code__.co_argcount if hasattr(written, "__code__") else 2

    def f(x, g):
        return jax.nn.relu(g(*(x @ w, jnp.tanh(x) @ w)[:count]) + b) @ v

    asked = {}
    for rule in (jxp.rules.Z(), jxp.rules.AlphaBeta(2, 1)):
        composite = jxp.composites.Composite([(jxp.composites.kernel, rule)])
        for g in (own, written):
            asked[rule, g] = partial(jxp.lrp(lambda x, g=g: f(x, g), composite), target=0)
    maps = together(asked, x)
    for rule, g in asked:
        assert_same(maps[rule, g], maps[rule, written])


def test_t01_rounding_with_a_derivative_is_an_activation_and_no_rectifier():
    @jax.custom_jvp
    def straight_through(z):
        return jnp.round(z)

    straight_through.defjvp(lambda z, t: (jnp.round(z[0]), t[0]))
    w, v, x = normal(3, 4), normal(4, 2, seed=1), normal(2, 3)

    def f(x):
        return straight_through(x @ w) @ v

    assert kinds(f, x) == ["Affine", "Activation", "Affine"]
    expected = jnp.broadcast_to((w @ v)[:, 0], x.shape)
    for method in (jxp.gradient, jxp.deconvnet, jxp.guided_backprop):
        assert_allclose(method(f)(x, target=0), expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("written", "op"),
    [
        (lambda z: z * jnp.clip(z + 3, 0, 6) / 6, "elementwise"),
        (lambda z: z / (1 + jnp.abs(z)), "elementwise"),
        (lambda z: z * jnp.abs(z), "elementwise"),
        (lambda z: z * jnp.asarray(z > 0, z.dtype), "rectifier"),
        (lambda z: jnp.where(z > 0, z, 0.1 * z), "rectifier"),
    ],
)
def test_t01_a_rectifier_with_its_own_derivative_has_a_kink_and_no_curve(written, op):
    own = jax.custom_jvp(lambda z: written(z))
    own.defjvp(lambda z, t: (written(*z), jax.jvp(written, z, t)[1]))
    w, v, x = normal(3, 4), normal(4, 2, seed=1), normal(2, 3)
    maps = []
    for g in (own, written):
        explain = jxp.guided_backprop(lambda x, g=g: g(x @ w) @ v)
        found = explain.plan(x).layers[1].op
        assert found == op or (g is own and op == "elementwise" and found == "custom_jvp_call")
        maps.append(explain(x, target=0))
    assert_same(*maps)


@pytest.mark.parametrize(
    "act", [jax.nn.relu, jax.nn.relu6, jax.nn.softplus, lambda z: jnp.maximum(z, 0)]
)
def test_t01_an_activation_written_twice_is_one(act):
    w, v, x = normal(3, 4), normal(4, 2, seed=1), normal(2, 3)
    plan = jxp.lrp(lambda x: (act(x @ w) @ v) * (act(x @ w) @ v[::-1])).plan(x)
    assert [layer.kind for layer in plan.layers].count("Activation") == 1


@pytest.mark.parametrize("act", [jax.nn.relu, lambda z: jnp.maximum(z, 0)])
@pytest.mark.parametrize("method", [jxp.guided_backprop, jxp.deconvnet])
def test_t01_modified_gradients_act_on_every_rectifier_that_is_written(method, act):
    """By hand, and the same in a loop."""
    v, x = normal(3, 4), normal(1, 3)

    def looped(x):
        body = lambda h, v: (h + jnp.tanh(act(x) @ v), None)  # noqa: E731
        return jax.lax.scan(body, jnp.zeros((1, 1)), v.T[:, :, None])[0]

    def written(x):
        return sum(jnp.tanh(act(x) @ v[:, i : i + 1]) for i in range(4))

    gradient = (1 - jnp.tanh(jnp.maximum(x, 0) @ v) ** 2) * v
    expected = jnp.maximum(gradient, 0).sum(1) * (1 if method is jxp.deconvnet else x[0] > 0)
    for f in (looped, jxp.unroll(looped), written):
        assert_allclose(method(f)(x)[0], expected, rtol=1e-12)


def test_t01_the_users_own_derivative_survives_in_gradient():
    @jax.custom_jvp
    def odd(z):
        return jnp.tanh(z)

    odd.defjvp(lambda primals, tangents: (jnp.tanh(primals[0]), 7.0 * tangents[0]))
    w, x = normal(3, 4), normal(2, 3)

    def f(x):
        return odd(x @ w)

    assert kinds(f, x) == ["Affine", "Activation"]
    assert_allclose(
        jxp.gradient(f)(x, target=1), np.broadcast_to(7.0 * w[:, 1], x.shape), rtol=1e-14
    )


def test_t01_a_custom_vjp_is_read_through_by_relevance_but_kept_by_gradient():
    @jax.custom_vjp
    def odd(z):
        return jnp.tanh(z)

    odd.defvjp(lambda z: (jnp.tanh(z), z), lambda z, g: (7.0 * g,))
    w, v, x = normal(3, 4), normal(4, 2, seed=1), normal(2, 3)
    as_written, plain = (lambda x, g=g: g(x @ w) @ v for g in (odd, jnp.tanh))

    assert_same(jxp.lrp(as_written)(x, target=0), jxp.lrp(plain)(x, target=0))
    assert_allclose(
        jxp.gradient(as_written)(x, target=0),
        np.broadcast_to(7.0 * w @ v[:, 0], x.shape),
        rtol=1e-13,
    )


@pytest.mark.parametrize("derivative", ["jvp", "vjp"])
def test_t01_straight_through_estimators_are_activations(derivative):
    """Rounding alone cuts relevance off; a derivative of its own says that it should not."""
    if derivative == "jvp":
        rounded = jax.custom_jvp(lambda z: jnp.round(z))
        rounded.defjvp(lambda z, t: (jnp.round(*z), *t))
    else:
        rounded = jax.custom_vjp(lambda z: jnp.round(z))
        rounded.defvjp(lambda z: (jnp.round(z), None), lambda _, g: (g,))
    w, v, x = 3 * normal(3, 4), normal(4, 2, seed=1), normal(2, 3)

    def f(x):
        return rounded(x @ w) @ v

    assert kinds(f, x) == ["Affine", "Activation", "Affine"]
    z = x @ w
    s = np.round(z) * v[:, 0] / np.where(z == 0, 1, z)  # what the rounded values hand on, over z
    assert_same(jxp.lrp(f, jxp.rules.Z())(x, target=0), x * (s @ w.T))
    assert_allclose(jxp.gradient(f)(x, target=0), np.broadcast_to(w @ v[:, 0], x.shape))


def test_t01_a_derivative_of_what_is_only_chosen_is_noted():
    """Relevance cannot follow it: what a codebook holds is no part of the input."""
    codes, w = normal(5, 4), normal(3, 4, seed=1)

    @jax.custom_vjp
    def nearest(z):
        return jnp.asarray(codes)[((z[:, None] - codes) ** 2).sum(-1).argmin(-1)]

    nearest.defvjp(lambda z: (nearest(z), None), lambda _, g: (g,))

    def f(x):
        return nearest(x @ w) + x @ w[:, ::-1]

    plan = str(jxp.lrp(f).plan(normal(2, 3)))
    assert re.search(r"nothing flows through the custom derivative at test_traps\.py:\d+", plan)
    straight = str(jxp.lrp(lambda x: jax.nn.relu(x @ w) + jax.nn.silu(x @ w)).plan(normal(2, 3)))
    assert "custom derivative" not in straight


# T2 to T5: what is active, what is shared.


def test_t02_gelu_of_half_a_dense_layer_is_one_activation():
    """The split is not the source of the gelu's own sums and products: its half is."""
    w = normal(3, 8)

    def f(x):
        value, gate = jnp.split(x @ w, 2, -1)
        return value * jax.nn.gelu(gate)

    assert kinds(f, normal(2, 3)) == ["Affine", "Activation", "Product"]


def test_t03_a_stopped_maximum_is_neither_selection_nor_activation():
    w, v = normal(3, 4), normal(4, 2, seed=1)

    def f(x):
        z = x @ w
        e = jnp.exp(z - lax.stop_gradient(jnp.maximum(-1e30, z.max(-1, keepdims=True))))
        return (e / e.sum(-1, keepdims=True)) @ v

    assert kinds(f, normal(2, 3)) == ["Affine", "Softmax", "Affine"]


def test_t03_whatever_is_stopped_is_a_constant():
    w, x = normal(3, 4), normal(2, 3)

    def f(x):
        return (x * lax.stop_gradient(jnp.tanh(x).max(-1, keepdims=True))) @ w

    factor = jnp.tanh(x).max(-1, keepdims=True)
    assert kinds(f, x) == ["Affine"]
    assert_same(
        jxp.lrp(f, ZPlus())(x, target=0),
        jxp.lrp(lambda x: (x * factor) @ w, ZPlus())(x, target=0),
    )


def test_t04_a_choice_is_frozen():
    """The expert is chosen by the input, but nothing is explained through the choice."""
    gate, experts, x = normal(3, 4, seed=1), normal(4, 3, 5, seed=2), normal(3)

    def f(x):
        return x @ experts[jnp.argmax(x @ gate)]

    chosen = int(jnp.argmax(x @ gate))
    assert kinds(f, x) == ["Affine"]
    for rule in (Epsilon(), ZPlus()):
        assert_same(
            jxp.lrp(f, rule)(x, target=2),
            jxp.lrp(lambda x: x @ experts[chosen], rule)(x, target=2),
        )


def test_t05_softmax_and_log_softmax_share_their_exponentials():
    w = normal(3, 4)

    def entropy(x):
        z = x @ w
        return -(jax.nn.softmax(z) * jax.nn.log_softmax(z)).sum(-1)

    found = trace(entropy, normal(2, 3)).layers
    assert [layer.kind for layer in found] == ["Affine", "Softmax", "Softmax", "Product", "Affine"]
    assert {layer.op for layer in found[1:3]} == {"softmax", "log_softmax"}


# T6 to T9: where scales and biases go.


def test_t06_the_last_bias_is_not_the_softmaxs():
    w, b, x = normal(3, 4), 3 * normal(4, seed=1), normal(2, 3)
    seen = []

    def target(logits):
        seen.append(logits.shape)
        return jnp.where(jnp.arange(4) == 1, logits, 0.0)

    relevance = jxp.lrp(lambda x: jax.nn.softmax(x @ w + b))(x, target=target)
    assert seen
    assert_same(relevance, jxp.lrp(lambda x: x @ w + b)(x, target=1))


@pytest.mark.parametrize("rule", [ZPlus(), AlphaBeta(2, 1), Gamma(0.25)])
def test_t07_a_scale_before_an_activation_belongs_to_the_kernel(rule):
    w, b, v, x = normal(3, 4), normal(4, seed=1), normal(4, 2, seed=2), normal(2, 3)
    scaled = jxp.lrp(lambda x: jax.nn.relu(-2 * (x @ w + b)) @ v, rule)
    folded = jxp.lrp(lambda x: jax.nn.relu(x @ (-2 * w) + -2 * b) @ v, rule)
    assert_same(scaled(x, target=0), folded(x, target=0))


@pytest.mark.parametrize("rule", [Epsilon(), ZPlus(), AlphaBeta(2, 1)])
def test_t08_scale_and_bias_before_three_kernels_or_one(rule):
    x = normal(2, 6)
    scale, bias, w, v = normal(6, seed=1), normal(6, seed=2), normal(6, 9, seed=3), normal(9, 2)

    def norm(x):
        mean = x.mean(-1, keepdims=True)
        return (x - mean) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale + bias

    def three(x):
        h = norm(x)
        q, k, values = (h @ part for part in jnp.split(w, 3, -1))
        return jnp.tanh(jnp.concatenate([q, k, values], -1)) @ v

    def fused(x):
        return jnp.tanh(norm(x) @ w) @ v

    expected = ["Normalization", *("Affine",) * 3, "Activation", "Affine"]
    assert kinds(three, x) == expected
    assert kinds(fused, x) == ["Normalization", "Affine", "Activation", "Affine"]
    assert_same(jxp.lrp(three, rule)(x, target=0), jxp.lrp(fused, rule)(x, target=0))


def test_t09_a_bias_between_the_statistics_makes_no_second_normalization():
    scale, bias = normal(6, seed=1), normal(6, seed=2)

    def f(x):
        mean = x.mean(-1, keepdims=True)
        inverse = scale * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * inverse + (bias - mean * inverse)

    assert kinds(f, normal(2, 6)) == ["Normalization"]


# T10 and T11: what is a normalisation.

RMS = {
    "sqrt_div": lambda z: z / jnp.sqrt((z * z).mean(-1, keepdims=True)),
    "rsqrt_mul": lambda z: z * lax.rsqrt((z * z).mean(-1, keepdims=True)),
    "minimum": lambda z: z * jnp.minimum(lax.rsqrt((z * z).mean(-1, keepdims=True)), 1e6),
    "power": lambda z: z * ((z * z).mean(-1, keepdims=True)) ** -0.5,
    "dot": lambda z: z / jnp.sqrt(jnp.einsum("...i,...i", z, z) / z.shape[-1])[..., None],
    "norm": lambda z: z * (z.shape[-1] ** 0.5 / jnp.linalg.norm(z, axis=-1, keepdims=True)),
}


@pytest.mark.parametrize("name", RMS)
def test_t10_normalizations_by_what_they_are(name):
    w, b, v, x = normal(3, 6), normal(6, seed=1), normal(6, 2, seed=2), normal(2, 3)
    f, reference = (lambda x, g=g: g(x @ w + b) @ v for g in (RMS[name], RMS["sqrt_div"]))
    assert kinds(f, x) == ["Affine", "Normalization", "Affine"]
    assert_same(jxp.lrp(f)(x, target=1), jxp.lrp(reference)(x, target=1))


def test_t11_residual_blocks_are_never_swallowed():
    w, v = normal(4, 4), normal(4, 4, seed=1)
    g = normal(4, seed=2)

    def norm(z):
        return z * lax.rsqrt((z * z).mean(-1, keepdims=True) + 1e-6) * g

    x = normal(2, 4)
    assert kinds(lambda x: x + x @ w, x) == ["Affine", "Merge"]
    assert kinds(lambda x: x + jax.nn.relu(x) @ w, x) == ["Activation", "Affine", "Merge"]
    block = ["Affine", "Activation", "Affine", "Merge"]
    assert kinds(lambda x: x + jnp.tanh(x @ w) @ v, x) == block
    # The scale g has no kernel to go to, so it is a layer of its own.
    found = kinds(lambda x: x + norm(x), x)
    assert found in (["Normalization", "Merge"], ["Normalization", "Affine", "Merge"])
    assert kinds(lambda x: x + jax.nn.relu(x), x) == ["Activation"]
    assert kinds(lambda x: x + 0.1 * x**2, x) == ["Activation"]


# T12 to T15: chains.


def test_t12_an_average_pool_before_a_convolution_stays_a_layer():
    kernel = normal(2, 2, 3, 4)

    def f(x):
        x = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    found = trace(f, normal(1, 4, 4, 3)).layers
    assert [(layer.kind, layer.op) for layer in found] == [
        ("Affine", "pooling"),
        ("Affine", "convolution"),
    ]


@pytest.mark.parametrize("rule", [Epsilon(1e-3), ZPlus(), AlphaBeta(2, 1)], ids=str)
def test_t13_a_batch_norm_behind_a_concatenation_is_that_of_the_whole(rule):
    w, v, scale, shift = normal(3, 4), normal(3, 4, seed=1), normal(8, seed=2), normal(8, seed=3)
    whole = jnp.concatenate([w, v], -1)

    def pieces(x):
        return jax.nn.relu(jnp.concatenate([x @ w, x @ v], -1) * scale + shift)

    found = trace(pieces, normal(2, 3)).layers
    assert [layer.kind for layer in found] == ["Affine", "Activation"]
    wanted = jxp.lrp(lambda x: jax.nn.relu(x @ whole * scale + shift), rule)(normal(2, 3))
    assert_same(jxp.lrp(pieces, rule)(normal(2, 3)), wanted)


def test_t14_a_thing_added_to_itself_is_twice_the_thing():
    w, v, x = normal(3, 4), normal(4, 2, seed=1), normal(2, 3)

    def double(x):
        h = jnp.tanh(x @ w)
        return (h + h) @ v

    def computed_twice(x):
        return (jnp.tanh(x @ w) + jnp.tanh(x @ w)) @ v

    reference = jxp.lrp(lambda x: jnp.tanh(x @ w) @ (2 * v), ZPlus())(x, target=0)
    for f in (double, computed_twice):
        assert kinds(f, x) == ["Affine", "Activation", "Affine"]
        assert_same(jxp.lrp(f, ZPlus())(x, target=0), reference)


def test_t15_a_kernel_written_twice_is_one():
    w, b, v, x = normal(3, 4), normal(4, seed=1), normal(4, 2, seed=2), normal(2, 3)

    def f(x):
        return ((x @ w + b) * jax.nn.sigmoid(x @ w + b)) @ v

    assert kinds(f, x) == ["Affine", "Activation", "Affine"]
    assert_same(jxp.lrp(f)(x, target=0), jxp.lrp(lambda x: jax.nn.silu(x @ w + b) @ v)(x, target=0))


# T16 to T19: masks, glue and padding.


@pytest.mark.parametrize("make", [jxp.lrp, jxp.input_times_gradient])
def test_t16_infinite_masks_make_no_nans(make):
    model = zoo.ATTENTIONS["mask_select"]()
    relevance = make(model.f)(*model.args, target=3)
    assert np.isfinite(relevance).all()
    assert np.abs(relevance).max() > 0
    # The target of the last position is not used by an earlier one.
    seed = jnp.zeros((2, 5, 8)).at[:, 0].set(1.0)
    first = make(model.f)(*model.args, target=whole(seed))
    assert np.abs(first[:, 0]).max() > 0
    assert_allclose(first[:, 1:], 0, atol=0)


def test_t17_transposes_inside_a_softmax():
    w, v = normal(3, 4), normal(4, 2, seed=1)

    def f(x):
        z = x @ w
        e = jnp.exp(z.T - lax.stop_gradient(z.max(-1)))
        return (e / e.sum(0)).T @ v

    x = normal(2, 3)
    plain = jxp.lrp(lambda x: jax.nn.softmax(x @ w) @ v)
    assert kinds(f, x) == ["Affine", "Softmax", "Affine"]
    assert_same(jxp.lrp(f)(x, target=0), plain(x, target=0))


def test_t18_casts_are_not_layers():
    w, v, scale = normal(3, 6), normal(6, 2, seed=1), normal(6, seed=2)

    def f(x):
        w16, v16, scale16 = (p.astype(jnp.bfloat16) for p in (w, v, scale))
        z = (x @ w16).astype(jnp.float32)
        z = (z * lax.rsqrt((z * z).mean(-1, keepdims=True) + 1e-6)).astype(jnp.bfloat16) * scale16
        p = jax.nn.softmax((z @ v16).astype(jnp.float32)).astype(jnp.bfloat16)
        return p @ v16.T

    assert kinds(f, normal(2, 3).astype(jnp.bfloat16)) == [
        "Affine",
        "Normalization",
        "Affine",
        "Softmax",
        "Affine",
    ]


@pytest.mark.parametrize(
    ("rule", "by_hand"),
    [
        (Epsilon(1e-3), lambda *a: oracle.epsilon(*a, eps=1e-3)),
        (ZPlus(), oracle.z_plus),
        (AlphaBeta(2, 1), oracle.alpha_beta),
        (Gamma(0.25), oracle.gamma),
    ],
)
def test_t19_the_bias_of_a_batch_norm_before_padding_varies_over_space(rule, by_hand):
    kernel, bias = normal(3, 3, 2, 3), normal(3, seed=1)
    scale, shift = normal(2, seed=2), 2 + normal(2, seed=3)

    def f(x):
        x = x * scale + shift
        return bias + lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    x, r = normal(1, 4, 4, 2, seed=4), normal(1, 4, 4, 3, seed=5)
    assert kinds(f, x) == ["Affine"]
    matrix = np.asarray(jax.jacobian(f)(jnp.zeros_like(x))).reshape(r.size, x.size)
    constant = np.asarray(f(jnp.zeros_like(x)))
    assert np.ptp(constant[0, :, :, 0]) > 0.1
    expected = by_hand(matrix, constant.ravel(), np.ravel(x), np.ravel(r)).reshape(x.shape)
    assert_same(jxp.lrp(f, rule)(x, target=whole(r)), expected)


def test_t20_one_minus_a_gate_is_a_gate():
    w, b = normal(4, 4), normal(4, seed=1)

    def f(x):
        t = jax.nn.sigmoid(x @ w + b)
        return (1 - t) * x, t * x

    found = kinds(f, normal(2, 4))
    assert "Merge" not in found
    assert found.count("Affine") == 1
    assert found.count("Product") == 2
    assert found.count("Activation") == 2


# Something inside a layer that others use too is not lost.


def _on_output(f: Callable[..., Any], i: int) -> Callable[..., Any]:
    return lambda x: f(x)[i]


def _assert_each_output_is_explained(f: Callable[..., Any], x: jax.Array) -> None:
    """Each output of ``f`` gets the relevance that it has in a function of its own."""
    outputs = f(x)
    explain = jxp.lrp(f)
    total = 0.0
    for i, output in enumerate(outputs):
        alone = jxp.lrp(_on_output(f, i))(x, target=whole(output))
        seed = tuple(o if i == j else jnp.zeros_like(o) for j, o in enumerate(outputs))
        assert_same(explain(x, target=whole(seed)), alone)
        total = total + alone
    assert_same(explain(x, target=whole(outputs)), total)


def test_silu_that_also_returns_its_sigmoid():
    w, b, x = normal(3, 4), normal(4, seed=1), normal(2, 3)

    def f(x):
        z = x @ w + b
        gate = jax.nn.sigmoid(z)
        return z * gate, gate

    _assert_each_output_is_explained(f, x)


def test_silu_whose_sigmoid_is_used_again():
    w, b, v, u, x = (
        normal(3, 4),
        normal(4, seed=1),
        normal(4, 2, seed=2),
        normal(4, 2, seed=3),
        normal(2, 3),
    )

    def shared(x):
        z = x @ w + b
        gate = jax.nn.sigmoid(z)
        return jnp.concatenate([(z * gate) @ v, gate @ u], -1)

    def first(x):
        return jax.nn.silu(x @ w + b) @ v

    def second(x):
        return jax.nn.sigmoid(x @ w + b) @ u

    for i in range(2):
        assert_same(jxp.lrp(shared)(x, target=i), jxp.lrp(first)(x, target=i))
        assert_same(jxp.lrp(shared)(x, target=2 + i), jxp.lrp(second)(x, target=i))


@pytest.mark.parametrize("fast", [True, False])
def test_layer_norm_that_also_returns_its_statistics(fast):
    w, b, v, x = normal(3, 6), normal(6, seed=1), normal(6, 4, seed=2), normal(2, 3)

    def f(x):
        z = x @ w + b
        mean = z.mean(-1, keepdims=True)
        if fast:
            variance = (z * z).mean(-1, keepdims=True) - mean * mean
        else:
            variance = ((z - mean) ** 2).mean(-1, keepdims=True)
        return ((z - mean) * lax.rsqrt(variance + 1e-6)) @ v, mean, variance

    assert kinds(_on_output(f, 0), x) == ["Affine", "Normalization", "Affine"]
    assert kinds(_on_output(f, 1), x) == ["Affine", "Affine"]
    assert kinds(f, x).count("Normalization") == 1
    _assert_each_output_is_explained(f, x)


def test_softmax_that_also_returns_its_sum():
    w, v, x = normal(3, 4), normal(4, 2, seed=1), normal(2, 3)

    def f(x):
        e = jnp.exp(x @ w)
        total = e.sum(-1, keepdims=True)
        return (e / total) @ v, total

    _assert_each_output_is_explained(f, x)


def test_a_pre_activation_that_is_also_an_output():
    w, v, x = normal(3, 4), normal(4, 2, seed=1), normal(2, 3)

    def f(x):
        z = x @ w
        return jax.nn.gelu(z) @ v, z

    _assert_each_output_is_explained(f, x)


def test_an_output_that_is_the_input():
    x, w = normal(2, 3), normal(3, 4)
    r = normal(2, 3, seed=1)
    relevance = jxp.lrp(lambda x: (x @ w, x))(x, target=whole((jnp.zeros((2, 4)), r)))
    assert_allclose(relevance, r, rtol=1e-14)


# Look-alikes.


@pytest.mark.parametrize(
    "g",
    [
        lambda z: z / (1 + jnp.abs(z).sum(-1, keepdims=True)),
        lambda z: z / (jnp.square(z).sum(-1, keepdims=True) + 0.5),
        lambda z: z * lax.rsqrt(1.0 + (z * z).sum(-1, keepdims=True)),
        lambda z: z / jnp.sqrt(jnp.abs(z).sum(-1, keepdims=True)),
    ],
)
def test_what_is_not_invariant_to_scale_is_no_normalization(g):
    model = zoo.between_dense(g)
    found = kinds(model.f, *model.args)
    assert "Normalization" not in found
    assert found.count("Product") == 1
    assert np.isfinite(jxp.lrp(model.f)(*model.args, target=0)).all()


LOGSUMEXPS = {
    "jax": lambda z, keepdims: jax.nn.logsumexp(z, axis=-1, keepdims=keepdims),
    "bare": lambda z, keepdims: jnp.log(jnp.exp(z).sum(-1, keepdims=keepdims)),
    "maximum": lambda z, keepdims: (
        jnp.log(jnp.exp(z - z.max(-1, keepdims=True)).sum(-1, keepdims=keepdims))
        + z.max(-1, keepdims=keepdims)
    ),
}


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", LOGSUMEXPS)
def test_logsumexp_is_one_layer(name, keepdims):
    w, b, x = normal(3, 4), normal(4, seed=1), normal(2, 3)
    f, reference = (
        lambda x, g=LOGSUMEXPS[key]: g(x @ w + b, keepdims=keepdims) for key in (name, "jax")
    )
    assert [(layer.kind, layer.op) for layer in trace(f, x).layers] == [
        ("Affine", "dense"),
        ("Softmax", "logsumexp"),
    ]
    start = whole(normal(*f(x).shape, seed=2))
    assert_same(jxp.lrp(f)(x, target=start), jxp.lrp(reference)(x, target=start))


def test_a_residual_around_an_attention_is_a_merge():
    model = zoo.ATTENTIONS["plain"]()
    found = kinds(lambda x: x + model.f(x), *model.args)
    assert tuple(found) == (*zoo.ATTENTION, "Merge")


# What has no rule is an error that says where.


def fft(x):
    return jnp.fft.fft(x).real


def complex_sort(x):
    return jnp.sort(lax.complex(x, x)).real


def callback(x):
    return jax.pure_callback(lambda v: v, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def eigenvalues(x):
    return jnp.linalg.eigvalsh(x.T @ x)


def inside(x):
    return lax.scan(lambda h, row: (jnp.fft.fft(h + row).real, h), x[0], x)[0]


def loop(x):
    return lax.while_loop(lambda h: h[0, 0] < 10, lambda h: 2 * jnp.abs(h) + 1, x)


@pytest.mark.parametrize(
    ("g", "primitive"),
    [
        (fft, "fft"),
        (complex_sort, "sort|complex"),
        (callback, "pure_callback"),
        (eigenvalues, "eigh"),
        (inside, "fft"),
        (loop, "while"),
    ],
)
@pytest.mark.parametrize("jit", [False, True])
def test_an_operation_without_a_rule_is_an_error_that_says_where(g, primitive, jit):
    w = normal(4, 4)
    f = jax.jit(g) if jit else g
    explain = jxp.lrp(lambda x: f(jnp.tanh(x @ w)) @ w)
    line = g.__code__.co_firstlineno + 1
    with pytest.raises(jxp.NotAnalyzableError) as error:
        explain(normal(3, 4))
    message = str(error.value)
    assert re.search(rf"\b({primitive})\b", message)
    assert f"test_traps.py:{line}" in message


def test_an_operation_without_a_rule_on_constants_is_no_error():
    w = normal(4, 4)
    spectrum = jnp.fft.fft(w).real
    x = normal(2, 4)
    assert_same(
        jxp.lrp(lambda x: x @ jnp.fft.fft(w).real)(x, target=0),
        jxp.lrp(lambda x: x @ spectrum)(x, target=0),
    )
    powers = lax.scan(lambda h, _: (h @ w, None), jnp.eye(4), None, length=3)[0]

    def scanned(x):
        return x @ lax.scan(lambda h, _: (h @ w, None), jnp.eye(4), None, length=3)[0]

    assert_same(
        jxp.lrp(scanned)(x, target=0),
        jxp.lrp(lambda x: x @ powers)(x, target=0),
    )


def test_gradient_works_through_scan():
    w = normal(4, 4)

    def f(x):
        return lax.scan(lambda h, row: (jnp.tanh(h @ w + row), h), jnp.zeros(4), x)[0]

    x = normal(3, 4)
    expected = jax.grad(lambda x: f(x)[2])(x)
    assert_same(jxp.gradient(f)(x, target=2), expected, 1e-14)


def test_a_plan_tells_what_rounding_cuts_off() -> None:
    """As in a quantised layer, of which only the scale would be explained."""
    w = jnp.ones((4, 3))

    def quantised(x):
        scale = jnp.abs(x).max(-1, keepdims=True) / 127
        return (jnp.round(x / scale).astype(jnp.int8) @ w.astype(jnp.int8)) * scale

    (note,) = jxp.lrp(quantised).plan(jnp.ones((2, 4))).notes
    assert note.startswith("nothing flows through round at test_traps.py:")
    assert not jxp.lrp(lambda x: x @ w + jnp.round(w).sum(0)).plan(jnp.ones((2, 4))).notes


def test_what_cuts_an_input_off_is_named() -> None:
    """Where the input arrives, not what comes behind it."""
    w = jnp.ones((4, 3))

    def each_step(x):
        return jax.lax.scan(lambda h, x: (h + jnp.floor(x), None), jnp.zeros(4), x)[0] @ w

    for f, cuts in (
        (lambda x: jnp.where(jnp.round(x) @ w > 0, 1.0, 2.0), ["round"]),
        (
            lambda x: jax.lax.stop_gradient(x) @ w + (x > 0) @ w.astype(bool),
            ["stop_gradient", "gt"],
        ),
        (lambda x: w[:, x[:, 0].astype(int)].T, ["convert_element_type"]),
        (each_step, ["floor"]),
    ):
        there = ", ".join(rf"{cut} at test_traps.py:\d+" for cut in cuts)
        with pytest.raises(jxp.NotAnalyzableError, match=f"is cut off from it by {there}$"):
            jxp.lrp(f)(jnp.ones((2, 4)))


def test_what_is_cut_off_in_many_places() -> None:
    def f(x):
        return sum(getattr(jnp, g)(x) for g in ("round", "floor", "ceil", "sign", "argmax", "any"))

    with pytest.raises(jxp.NotAnalyzableError, match=r"(\w+ at [\w.:]+, ){4}\w+ at .* and 1 more$"):
        jxp.lrp(f)(jnp.ones((2, 4)))


def test_products_of_three_factors_are_noted():
    """Linear attention: (q k) v and q (k v) are one function with two maps, by definition."""
    q, k, v, x = normal(4, 4), normal(4, 4, seed=1), normal(4, 3, seed=2), normal(5, 4, seed=3)
    told = "a product of several factors, which share by halves: how it is bracketed decides"

    def noted(f):
        return any(told in note for note in jxp.lrp(f).plan(x).notes)

    assert noted(lambda x: ((x @ q) @ (x @ k).T) @ (x @ v))
    assert noted(lambda x: (x @ q) @ ((x @ k).T @ (x @ v)))
    assert noted(lambda x: (x @ q) * jnp.tanh(x) * jax.nn.sigmoid(x))
    assert not noted(lambda x: jax.nn.softmax((x @ q) @ (x @ k).T) @ (x @ v))
    assert not noted(lambda x: (jax.nn.silu(x @ q) * (x @ k)) @ v)
