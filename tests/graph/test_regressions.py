"""Bugs that random models found, each by its own name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import nn
from numpy.testing import assert_allclose

import jaxplain as jxp
from jaxplain.graph import trace

pytestmark = pytest.mark.usefixtures("float64")


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("square", [lambda h: h * h, lambda h: h**2], ids=["product", "power"])
def test_a_square_beside_moved_copies_is_not_linear(square):
    """`h * h + roll(h)` was taken for a linear map of h, and its transpose crashed inside JAX."""
    w, v, x = normal(3, 4), normal(4, 2, seed=1), normal(5, 3, seed=2)

    def f(x):
        h = x @ w
        return (square(h) + jnp.roll(h, 1, -1)) @ v

    assert [layer.kind for layer in trace(f, x).layers] == [
        "Affine",
        "Activation",
        "Merge",
        "Affine",
    ]
    h, r, z = x @ w, normal(5, 2, seed=3), f(x)
    s = (r / z) @ v.T
    got = jxp.lrp(f, jxp.rules.Epsilon(0.0), argnums=0)(x, target=lambda z: r)
    arriving = s * h * h + jnp.roll(s * jnp.roll(h, 1, -1), -1, -1)
    assert_allclose(got, x * ((arriving / h) @ w.T), rtol=1e-4)


def test_integers_that_are_cast_may_be_negative():
    """Every cast of integers counted as provably not negative: alpha-beta dropped half of them."""
    a, b, x = normal(4, 6), normal(3, 5, seed=1), normal(2, 4, seed=2)

    def f(x, offset):
        return (jax.nn.relu(x @ a) + offset).reshape(2, 3, 2).max(-1) @ b

    offset = jnp.arange(6) - 7
    for rule in (jxp.rules.AlphaBeta(), jxp.rules.Gamma()):
        cast = jxp.lrp(lambda x, rule=rule: f(x, offset.astype(x.dtype)), rule)(x)
        assert_allclose(cast, jxp.lrp(f, rule)(x, offset * 1.0), rtol=1e-9)


@pytest.mark.parametrize("fill", [-3.0, 2.0])
def test_what_a_gather_fills_up_with_is_a_constant(fill):
    """It was counted as a contribution and as a bias, and a negative one as not negative."""
    a, b, x = normal(4, 6), normal(6, 5, seed=1), normal(2, 4, seed=2)
    inside = jnp.asarray([True, False, True, True, True, False])

    def filled(x):
        h, places = jax.nn.relu(x @ a), jnp.asarray([0, 9, 1, 2, 3, 8])
        return jnp.take(h, places, axis=1, mode="fill", fill_value=fill) @ b

    def chosen(x):
        h = jax.nn.relu(x @ a)[:, jnp.asarray([0, 0, 1, 2, 3, 0])]
        return jnp.where(inside, h, fill) @ b

    for rule in (jxp.rules.Epsilon(1e-3), jxp.rules.AlphaBeta(), jxp.rules.Gamma()):
        assert_allclose(jxp.lrp(filled, rule)(x), jxp.lrp(chosen, rule)(x), rtol=1e-9)
        assert jxp.lrp(filled, rule).ledger(x).error() < 1e-12


@pytest.mark.parametrize("rule", [jxp.rules.ZPlus(), jxp.rules.AlphaBeta(2, 1)], ids=repr)
def test_a_sum_of_kernels_is_one_layer_when_one_is_spelled_out(rule):
    """`x W + (y * U).sum()` became two layers and a merge, unlike `x W + y U`."""
    w, u, b, v = normal(3, 4), normal(3, 4, seed=1), normal(4, seed=2), normal(4, 2, seed=3)

    def model(dense):
        return lambda x: jax.nn.relu(jnp.tanh(x) @ w + dense(jnp.sin(x)) + b) @ v

    dot, spelled = model(lambda y: y @ u), model(lambda y: (y[..., None] * u).sum(-2))
    x = normal(5, 3, seed=4)
    assert [str(a) for a in trace(spelled, x).layers] == [str(a) for a in trace(dot, x).layers]
    assert_allclose(jxp.lrp(spelled, rule)(x), jxp.lrp(dot, rule)(x), rtol=1e-10)


@pytest.mark.parametrize(
    "add",
    [
        lambda h: h.at[:, 0].add(0.7),
        lambda h: jnp.ones_like(h).at[:, ::-1].add(h),
    ],
    ids=["constant update", "constant operand"],
)
def test_a_constant_that_is_scattered_is_a_bias(add):
    """It counted in z but not as a bias: the ledger did not close, alpha-beta shared it out."""
    a, b, x = normal(4, 6), normal(6, 5, seed=1), normal(2, 4, seed=2)
    constant = add(jnp.zeros((2, 6)))

    def scattered(x):
        return jnp.tanh(add(x @ a)) @ b

    def added(x):
        return jnp.tanh(add(x @ a) - constant + constant) @ b

    for rule in (jxp.rules.Epsilon(1e-3), jxp.rules.AlphaBeta(), jxp.rules.Gamma()):
        assert jxp.lrp(scattered, rule).ledger(x).error() < 1e-12
        assert_allclose(jxp.lrp(scattered, rule)(x), jxp.lrp(added, rule)(x), rtol=1e-9)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda f: jax.vmap(lambda x: f(x[None])[0]),
        lambda f: lambda x: f(x).reshape(-1, 3),
        lambda f: lambda x: f(x.T.T).T.T.astype(jnp.float32),
    ],
    ids=["vmap of a batch of one", "reshape", "transpose and cast"],
)
def test_a_trailing_softmax_may_be_moved_about(wrap):
    """Behind a squeeze it was no trailing softmax: relevance started from probabilities."""
    w, x = normal(4, 3), normal(5, 4, seed=1)
    explain = jxp.lrp(wrap(lambda x: jax.nn.softmax(x @ w)), jxp.rules.Z(), with_output=True)
    output, relevance = explain(x, target=1)
    assert_allclose(relevance, x * w[:, 1], rtol=1e-6)
    assert_allclose(output, jax.nn.softmax(x @ w), rtol=1e-6)
    assert "softmax is left out" in str(explain.plan(x))
    assert [layer.op for layer in explain.plan(x).layers] == ["dense"]
    assert explain.ledger(x).error() < 1e-6
    assert "!" not in str(explain.ledger(x))


@pytest.mark.parametrize("softmax", [nn.softmax, lambda v: jnp.exp(nn.log_softmax(v))])
def test_what_normalises_a_softmax_is_no_part_of_it(softmax):
    """Behind `exp(log_softmax(v))` a normalisation was taken for the end of another softmax."""
    w, x = normal(3, 4), normal(5, 3, seed=1)

    def f(x):
        p = softmax(x @ w)
        return p / jnp.sqrt((p * p).mean(-1, keepdims=True))

    layers = [(layer.kind, layer.op) for layer in trace(f, x).layers]
    assert layers == [
        ("Affine", "dense"),
        ("Softmax", "softmax"),
        ("Normalization", "normalization"),
    ]


def test_a_constant_in_front_of_a_product_makes_no_activation():
    """`x * s + s * (x + b)` was a rectifier, `x * s + (x + b) * s` a sum of two terms."""
    w, v, x = normal(3, 4), normal(4, 2, seed=1), normal(5, 3, seed=2)
    s, b = normal(4, seed=3), normal(4, seed=4)

    def f(x, front):
        h = x @ w
        scaled = s * (h + b) if front else (h + b) * s
        return (h * s + scaled) @ v

    for front in (True, False):
        kinds = [layer.op for layer in trace(lambda x, front=front: f(x, front), x).layers]
        assert kinds == ["dense", "linear", "dense"]
    maps = [jxp.lrp(lambda x, front=front: f(x, front))(x) for front in (True, False)]
    assert_allclose(*maps, rtol=1e-9)
