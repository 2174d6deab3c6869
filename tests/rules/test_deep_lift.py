"""DeepLIFT: the sums, the peers' maps, numbers worked by hand, and what is refused."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, nn

import jaxplain as jxp
import reference_models
from jaxplain.transforms import baselines
from jaxplain.transforms.deep_lift import DeepLift
from reference_models import MODELS, load

RULES = ("rescale", "reveal_cancel")


pytestmark = pytest.mark.usefixtures("float64")


# The references. Both libraries differentiate the max-pooling of these models as it is written, so
# that their sums miss f(x) - f(x0) (by up to 3.4 for captum on cnn_bn): with that one rule in its
# place jaxplain reproduces them, and without it the sums are right.


def at_zero(explain: Callable[..., DeepLift], x: Any, others: Any, **call: Any) -> Any:
    return explain(0.0)(x, **call)


def at_own_baseline(explain: Callable[..., DeepLift], x: Any, others: Any, **call: Any) -> Any:
    return explain(np.concatenate([others[:4], others[:4]]))(x, **call)


def mean_of_baselines(explain: Callable[..., DeepLift], x: Any, others: Any, **call: Any) -> Any:
    return jax.vmap(lambda x0: explain(x0)(x, **call))(others).mean(0)


CAPTUM: dict[str, Callable[..., Any]] = {
    "DeepLift": at_zero,
    "DeepLift@baseline": at_own_baseline,
    "DeepLiftShap@8baselines": mean_of_baselines,
}
INNVESTIGATE: dict[str, Callable[..., Any]] = {"deep_lift.wrapper": at_zero}
PEERS = [
    *(("captum", key, name) for key in CAPTUM for name in MODELS),
    *(("inn1", key, name) for key in INNVESTIGATE for name in MODELS if name != "dilated"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("peer", "key", "name"), PEERS)
def test_peers(peer: str, key: str, name: str) -> None:
    stored, maps = load(name, "model"), load(name, peer)
    params = reference_models.params(name)
    x = np.concatenate([stored["x"], stored["x"]]).astype(float)
    target = np.concatenate([stored["logits"].argmax(1), np.ones(4, int)])
    f = reference_models.build(name)
    method = {"captum": CAPTUM, "inn1": INNVESTIGATE}[peer][key]
    found = method(
        lambda x0: jxp.deep_lift(lambda x: f(x, params), x0, maxima="gradient"),
        x,
        load(name, "captum")["baselines"].astype(float),
        target=target,
    )
    expected = np.concatenate([maps[f"{key}/max"], maps[f"{key}/idx1"]])
    axes = tuple(range(1, expected.ndim))
    error = np.abs(found - expected).max(axes) / np.abs(expected).max(axes)
    np.testing.assert_array_less(error, 5e-6)


@pytest.mark.parametrize("rule", RULES)
def test_sums_where_the_peers_miss(rule: Any) -> None:
    name = "cnn_bn"
    x, logits = (load(name, "model")[key].astype(float) for key in ("x", "logits"))
    x0 = load(name, "captum")["baselines"][:4].astype(float)
    f, params = reference_models.build(name), reference_models.params(name)
    found = jxp.deep_lift(f, x0, rule=rule)(x, params).sum((1, 2, 3))
    expected = (f(x, params) - f(x0, params))[np.arange(4), logits.argmax(1)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    peer = load(name, "captum")["DeepLift@baseline/max"].sum((1, 2, 3))
    assert np.abs(peer - expected).max() > 1


# The sums: f(x) - f(x0) over everything that a network is made of.

_RNG = np.random.default_rng(0)
W, V, Q = (_RNG.normal(size=(6, 8)) for _ in range(3))
U, R = _RNG.normal(size=(8, 3)) / 2, _RNG.normal(size=(8, 8)) / 2
B = _RNG.normal(size=8)
X, X0 = (_RNG.normal(size=(4, 6)) for _ in range(2))


def layer_norm(x: Any) -> Any:
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)


def attention(x: Any) -> Any:
    return nn.softmax((x @ W) @ (x @ V).T / 3) @ (x @ Q)


def block(x: Any) -> Any:
    h = x @ W + attention(layer_norm(x))
    return (h + nn.gelu(layer_norm(h) @ R) @ R.T) @ U


def recurrent(x: Any) -> Any:
    h = jnp.zeros(8)
    for step in x:
        h = jnp.tanh(step @ W + h @ R)
    return h @ U


ZOO: dict[str, Callable[[Any], Any]] = {
    "relu": lambda x: nn.relu(x @ W + B) @ U,
    "gelu": lambda x: nn.gelu(x @ W + B) @ U,
    "clip": lambda x: jnp.clip(x @ W, -1, 1) @ U,
    "step": lambda x: (x @ W * (x @ W > 0.3)) @ U,
    "silu gate": lambda x: (nn.silu(x @ W) * (x @ V)) @ U,
    "residual": lambda x: (x @ W + nn.relu(nn.relu(x @ W) @ R + x @ V)) @ U,
    "product": lambda x: ((x @ W) * (x @ V).sum(-1, keepdims=True)) @ U,
    "quotient": lambda x: ((x @ W) / (1 + (x @ V) ** 2)) @ U,
    "quotient of a sum": lambda x: (x @ W / (1 + jnp.exp(x @ V).sum(-1, keepdims=True))) @ U,
    "constant numerator": lambda x: B / (1 + ((x @ V) ** 2).sum(-1, keepdims=True)),
    "maximum": lambda x: jnp.maximum(x @ W, x @ V) @ U,
    "minimum": lambda x: jnp.minimum(x @ W, x @ V) @ U,
    "max": lambda x: (x @ W).max(-1, keepdims=True) * B,
    "min": lambda x: (x @ W).min(-1, keepdims=True) * B,
    "max-pool": lambda x: lax.reduce_window(x @ W, -jnp.inf, lax.max, (1, 3), (1, 2), "SAME"),
    "cummax": lambda x: lax.cummax(x @ W, axis=1) @ U,
    "norm": lambda x: layer_norm(x @ W + B) @ U,
    "norm first": lambda x: nn.relu(layer_norm(x) @ W) @ U,
    "softmax inside": lambda x: nn.softmax(x @ W) @ U,
    "logsumexp": lambda x: nn.logsumexp(x @ W, -1, keepdims=True) * B,
    "gram": lambda x: nn.relu(x @ W) @ nn.relu(x @ W).T,
    "shared": lambda x: jnp.tanh(jnp.tanh(x @ W @ R) @ R) @ U,
    "recurrent": recurrent,
    "transformer": block,
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ZOO)
def test_sum_is_the_difference(name: str, rule: Any) -> None:
    f = ZOO[name]
    some = np.where(_RNG.random(X.shape) < 0.5, X, X0)  # half of the differences are exactly zero

    def sums(x0: Any) -> Any:
        found = jxp.deep_lift(f, x0, rule=rule)(X, target=1)
        return jnp.sum(found), jnp.isfinite(found).all() & jnp.all(
            jnp.where(x0 == X, found, 0) == 0
        )

    bases = np.stack([np.zeros_like(X), X0, X, some, X + 1e-13 * X0])
    found, clean = jax.vmap(sums)(bases)
    expected = [jnp.sum((f(X) - f(x0))[..., 1]) for x0 in bases]
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)
    assert clean.all()


def test_each_example_has_its_own_sum() -> None:
    f = ZOO["norm first"]
    found = jxp.deep_lift(f, X0)(X, target="all")
    assert found.shape == (3, 4, 6)
    np.testing.assert_allclose(found.sum(-1).T, f(X) - f(X0), atol=1e-11)


def test_several_inputs() -> None:
    def f(x: Any, y: Any) -> Any:
        return nn.softplus(x["a"] @ W) * (y @ V) + x["b"]

    x, y = {"a": X[0], "b": B}, X[1]
    explain = jxp.deep_lift(f, (0.5, {"a": X0[0], "b": B}), argnums=(1, 0))
    of_y, of_x = explain(x, y, target=2)
    assert of_x["a"].shape == (6,) and np.all(of_x["b"] == 0)
    y0, x0 = jnp.full(6, 0.5), {"a": X0[0], "b": B}
    expected = f(x, y)[2] - f(x0, y0)[2]
    np.testing.assert_allclose(of_y.sum() + of_x["a"].sum(), expected, atol=1e-12)


@pytest.mark.parametrize("logits", [True, False])
def test_trailing_softmax(logits: bool) -> None:
    def f(x: Any) -> Any:
        return nn.softmax(nn.relu(x @ W) @ U)

    g = (lambda x: nn.relu(x @ W) @ U) if logits else f
    found = jxp.deep_lift(f, X0, logits=logits)(X, target=1).sum(-1)
    np.testing.assert_allclose(found, (g(X) - g(X0))[:, 1], atol=1e-12)


# Worked by hand.


def test_rescale_by_hand() -> None:
    # z = 2 - 3 = -1 at the baseline and 4 - 1 = 3 at x: relu gives 0 and 3, so that m = 3 / 4 for z
    # and (3/4, -3/4) for the inputs, whose differences are 2 and -2.
    found = jxp.deep_lift(lambda x: nn.relu(x @ jnp.array([[1.0], [-1.0]])), jnp.array([2.0, 3.0]))
    np.testing.assert_allclose(found(jnp.array([4.0, 1.0])), [1.5, 1.5])


@pytest.mark.parametrize(
    ("f", "x", "x0", "expected"),
    [
        # (3 - 1) (5 + 2) / 2 and (5 - 2) (3 + 1) / 2
        (lambda a, b: a * b, (3, 5), (1, 2), (7, 6)),
        # (6 - 2) (1/3 + 1/1) / 2, and as much for the denominator the other way: 6/3 = 2/1
        (lambda a, b: a / b, (6, 3), (2, 1), (8 / 3, -8 / 3)),
        # 2 -> 3, all by a, which rises to the top
        (jnp.maximum, (3, 1), (0, 2), (1, 0)),
        # 3 -> 1, all by a, which falls from the top
        (jnp.maximum, (0, 1), (3, 0), (-2, 0)),
        # 1 -> 3 by what wins now, as max(z, z0) = z
        (jnp.maximum, (3, 0), (0, 1), (2, 0)),
        # 0 -> 1: the old winner a leaves the bottom; b, the new one, was never below
        (jnp.minimum, (3, 1), (0, 2), (1, 0)),
        # 2 -> -1 by the new winner b
        (jnp.minimum, (3, -1), (2, 4), (0, -3)),
    ],
)
def test_two_operands_by_hand(
    f: Callable[..., Any], x: Any, x0: Any, expected: tuple[float, float]
) -> None:
    x, x0 = (tuple(map(float, v)) for v in (x, x0))
    found = jxp.deep_lift(f, x0, argnums=(0, 1))(*x)
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_reveal_cancel_by_hand() -> None:
    def minimum(x: Any) -> Any:  # i1 - relu(i1 - i2)
        return x[:, :1] - nn.relu(x @ jnp.array([[1.0], [-1.0]]))

    x = jnp.array([[3.0, 1.0], [1.0, 3.0]])
    # Rescale: 3 - relu(2) = 1 has m = 1 at the relu, (3 - 3, 0 + 1); 1 - relu(-2) has m = 0.
    np.testing.assert_allclose(jxp.deep_lift(minimum)(x), [[0, 1], [1, 0]])
    # Reveal-cancel, first example: dz+ = 3, dz- = -1, and of relu
    #   dy+ = (relu(3) - relu(0) + relu(2) - relu(-1)) / 2 = (3 + 2) / 2 = 5/2
    #   dy- = (relu(-1) - relu(0) + relu(2) - relu(3)) / 2 = (2 - 3) / 2 = -1/2
    # so that i1 gets 3 - 5/2 and i2 gets 1/2. Second example: dz+ = 1, dz- = -3,
    #   dy+ = (relu(1) + relu(-2) - relu(-3)) / 2 = 1/2, dy- = (relu(-3) + relu(-2) - relu(1)) / 2,
    # and i1 gets 1 - 1/2, i2 gets 1/2. Each time both get half of the minimum.
    np.testing.assert_allclose(
        jxp.deep_lift(minimum, rule="reveal_cancel")(x), [[0.5, 0.5], [0.5, 0.5]]
    )


def test_reveal_cancel_at_a_sum() -> None:
    # as above: dz+ = 3 from x, dz- = -1 from y
    explain = jxp.deep_lift(lambda x, y: nn.relu(x + y), rule="reveal_cancel", argnums=(0, 1))
    np.testing.assert_allclose(explain(3.0, -1.0), [2.5, -0.5])


def reveal_cancel(
    f: Callable[[Any], Any], a: np.ndarray, x: np.ndarray, x0: np.ndarray, z0: np.ndarray, m: Any
) -> np.ndarray:
    """The paper's formulas on one example and one layer f(a x + b), connection by connection."""
    contributions = a * (x - x0)
    up, down = (np.where(s * contributions > 0, contributions, 0).sum(1) for s in (1, -1))
    y_up = (f(z0 + up) - f(z0) + f(z0 + up + down) - f(z0 + down)) / 2
    y_down = (f(z0 + down) - f(z0) + f(z0 + up + down) - f(z0 + up)) / 2
    multipliers = np.where(
        contributions > 0, (m * y_up / up)[:, None], (m * y_down / down)[:, None]
    )
    return (a * multipliers).sum(0)


def test_reveal_cancel_against_the_formulas() -> None:
    def f(x: Any) -> Any:
        return nn.gelu(nn.gelu(x @ W + B) @ R + B) @ U

    x, x0 = X[0], X0[0]
    h, h0 = (np.asarray(nn.gelu(v @ W + B)) for v in (x, x0))
    m = reveal_cancel(nn.gelu, R.T, h, h0, h0 @ R + B, U[:, 2])
    m = reveal_cancel(nn.gelu, W.T, x, x0, x0 @ W + B, m)
    found = jxp.deep_lift(f, x0, rule="reveal_cancel")(x, target=2)
    np.testing.assert_allclose(found, m * (x - x0), rtol=1e-10)


def test_reveal_cancel_needs_the_activation_for_itself() -> None:
    def f(x: Any) -> Any:
        h = x @ W
        return (nn.relu(h) + nn.relu(nn.relu(h) @ R)) @ U + h @ U  # h has two readers

    base = jxp.deep_lift(f, rule="reveal_cancel").base
    assert isinstance(base, jxp.Explainer)
    rules = {row.layer.name: type(row.rule).__name__ for row in base.plan(X)}
    assert sorted(rules.values()).count("RevealCancel") == 1
    found = jxp.deep_lift(f, X0, rule="reveal_cancel")(X, target=0).sum(-1)
    np.testing.assert_allclose(found, (f(X) - f(X0))[:, 0], atol=1e-12)


def secant(f: Callable[[Any], Any], a: Any, b: Any) -> Any:
    return (f(a) - f(b)) / (a - b)


def test_softmax_by_logarithmic_means() -> None:
    """z = exp(u - log sum exp(u)): a chain of secants."""
    u, u0 = X[0], X0[0]
    e, e0 = np.exp(u), np.exp(u0)
    weights = secant(np.exp, u, u0) * secant(np.log, e.sum(), e0.sum())
    v, v0 = u - np.log(e.sum()), u0 - np.log(e0.sum())
    chain = secant(np.exp, v, v0)[:, None] * (np.eye(len(u)) - weights)
    assert (weights > 0).all()
    assert weights.sum() <= 1
    for name, f, matrix in (
        ("softmax", nn.softmax, chain),
        ("log_softmax", nn.log_softmax, np.eye(len(u)) - weights),
        ("logsumexp", lambda x: nn.logsumexp(x, keepdims=True), weights[None]),
    ):
        found = jxp.deep_lift(f, u0, logits=False)(u, target="all")
        np.testing.assert_allclose(found, matrix * (u - u0), atol=1e-13, err_msg=name)


SOFTMAXES: dict[str, Callable[[Any], Any]] = {
    "stable": nn.softmax,
    "plain": lambda x: jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True),
    "inverse": lambda x: jnp.exp(x) * (1 / jnp.exp(x).sum(-1, keepdims=True)),
    "logarithms": lambda x: jnp.exp(nn.log_softmax(x)),
    "differentiable maximum": lambda x: nn.softmax(x - x.max(-1, keepdims=True)),
    "other axis": lambda x: nn.softmax(x.T, 0).T,
    "where": lambda x: nn.softmax(jnp.pad(x, ((0, 0), (0, 2))), where=jnp.arange(10) < 8)[:, :8],
    "mask": lambda x: nn.softmax(jnp.pad(x, ((0, 0), (0, 2)), constant_values=-jnp.inf))[:, :8],
}


@pytest.mark.parametrize("name", SOFTMAXES)
def test_softmax_in_any_spelling(name: str) -> None:
    def f(softmax: Any, x: Any) -> Any:
        return softmax(3 * (x @ W)) @ U

    wanted = jxp.deep_lift(partial(f, nn.softmax), X0)(X, target="all")
    found = jxp.deep_lift(partial(f, SOFTMAXES[name]), X0)(X, target="all")
    np.testing.assert_allclose(found, wanted, atol=1e-12)


NORMALIZATIONS: dict[str, Callable[[Any], Any]] = {
    "two pass": layer_norm,
    "one pass": lambda x: (
        (x - x.mean(-1, keepdims=True))
        * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) - x.mean(-1, keepdims=True) ** 2 + 1e-6)
    ),
    "root": lambda x: (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6),
}


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_layer_norm_in_any_spelling(name: str) -> None:
    """c r, for c the centred input and r the root of the variance: the mean of two orders."""
    x, x0 = X[0], X0[0]
    c, c0 = x - x.mean(), x0 - x0.mean()
    v, v0 = (c**2).mean() + 1e-6, (c0**2).mean() + 1e-6
    r, r0 = v**-0.5, v0**-0.5
    centre = np.eye(len(x)) - 1 / len(x)
    of_root = secant(lambda v: v**-0.5, v, v0) * ((c + c0) / len(x)) @ centre
    multiplier = (r + r0) / 2 * centre + np.outer((c + c0) / 2, of_root)
    found = jxp.deep_lift(NORMALIZATIONS[name], x0)(x, target="all")
    np.testing.assert_allclose(found, multiplier * (x - x0), rtol=1e-9, atol=1e-12)


SHARP: dict[str, Callable[[Any], Any]] = {
    "sharp softmax": lambda x: nn.softmax(1000 * x @ W) @ U,
    "sharp attention": lambda x: nn.softmax((x @ W) @ (x @ W).T * 50) @ (x @ W) @ U,
    "absolute": lambda x: (x @ W / jnp.abs(x @ W).sum(-1, keepdims=True)) @ U,
    "largest": lambda x: (x @ W / jnp.abs(x @ W).max(-1, keepdims=True)) @ U,
    "almost no variance": lambda x: layer_norm(1e-4 * x @ W) @ U,
}


@pytest.mark.parametrize("name", SHARP)
def test_sums_are_exact_where_a_path_would_be_rough(name: str) -> None:
    f = SHARP[name]
    found = jxp.deep_lift(f, X0, logits=False)(X, target="all")
    wanted = (f(X) - f(X0)).sum(0)  # attention mixes the rows
    np.testing.assert_allclose(found.sum((1, 2)), wanted, rtol=1e-9, atol=1e-12)


# Edges.


def test_nothing_is_divided_by_nothing() -> None:
    # the derivative of the root is infinite where nothing changes: there the multiplier is zero
    found = jxp.deep_lift(lambda x: jnp.sqrt(jnp.abs(x)).sum())(jnp.array([0.0, 4.0]))
    np.testing.assert_array_equal(found, [0, 2])
    # an infinite difference stays one
    assert jxp.deep_lift(jnp.log)(jnp.array([1.0]), target=0) == jnp.inf


def test_differences_that_are_rounding() -> None:
    # 100 and -100 cancel but for 1e-14: of exp' = e a quotient would give two digits
    x, w = jnp.array([[1.0, -1.0 + 1e-16]]), jnp.array([[100.0], [100.0]])
    found = jxp.deep_lift(lambda x: jnp.exp(x @ w + 1))(x)
    np.testing.assert_allclose(found, [[100 * np.e, -100 * np.e]], rtol=1e-12)


def test_equal_infinities_make_no_difference() -> None:
    mask = jnp.array([0.0, 0.0, -jnp.inf])

    def f(x: Any) -> Any:
        return nn.softmax(jnp.exp(x @ W) @ U + mask) @ U.T

    found = jxp.deep_lift(f, X0)(X, target=0)
    np.testing.assert_allclose(found.sum(-1), (f(X) - f(X0))[:, 0], atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision(dtype: Any) -> None:
    def f(x: Any) -> Any:
        w, u = jnp.asarray(W, dtype), jnp.asarray(U, dtype)
        return nn.softmax(nn.gelu(x @ w) @ u) @ u.T

    x, x0 = jnp.asarray(X, dtype), jnp.asarray(X0, dtype)
    found = jxp.deep_lift(f, x0)(x, target=0)
    assert found.dtype == dtype
    change = (f(x) - f(x0))[:, 0].astype(float)
    np.testing.assert_allclose(found.astype(float).sum(-1), change, atol=0.03)


# It is a function of JAX.


def test_baselines() -> None:
    f = ZOO["gelu"]
    full = jxp.deep_lift(f, jnp.broadcast_to(X.mean(0), X.shape))(X, target=0)
    assert np.abs(full).max() > 0.1
    for baseline in (X.mean(0), lambda x: x.mean(0), X.mean(0)[None]):
        np.testing.assert_allclose(jxp.deep_lift(f, baseline)(X, target=0), full, atol=1e-13)
    one = jxp.deep_lift(f, 1)(X, target=0)
    np.testing.assert_allclose(one, jxp.deep_lift(f, np.ones_like(X))(X, target=0), atol=1e-13)


def test_transformations() -> None:
    def one(x: Any, x0: Any, w: Any) -> Any:
        return jxp.deep_lift(lambda x: nn.gelu(x @ w) @ U, x0, rule="reveal_cancel")(x)

    eager = one(X, X0, W)
    np.testing.assert_allclose(jax.jit(one)(X, X0, W), eager, atol=1e-14)
    np.testing.assert_allclose(jax.vmap(one, (0, 0, None))(X, X0, W), eager, atol=1e-14)

    def loss(t: Any) -> Any:
        return jnp.square(one(X + t, X0, W * (1 + t))).sum()

    step = 1e-5
    np.testing.assert_allclose(
        jax.grad(loss)(0.0), (loss(step) - loss(-step)) / (2 * step), rtol=1e-7
    )


def test_the_target_is_fixed_at_the_input() -> None:
    f = ZOO["relu"]
    found = jxp.deep_lift(f, X0)(X)
    np.testing.assert_array_equal(found, jxp.deep_lift(f, X0)(X, target=f(X).argmax(-1)))


# What is refused.


def loop(x: Any) -> Any:
    return lax.scan(lambda h, _: (jnp.tanh(h @ R), None), x @ W, length=2)[0]


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (lambda x: jnp.sort(x @ W), "`sort`.*no DeepLIFT rule"),
        (lambda x: lax.top_k(x @ W, 2)[0], "`top_k`.*no DeepLIFT rule"),
        (loop, "`scan`.*is a loop"),
        (lambda x: jnp.where(x[:, :1] > 0, x @ W, x @ V), "`select_n`.*switched by a value"),
        (lambda x: (x @ W) * (x[:, :1] > 0), "switched by a value"),
        (lambda x: (x @ W)[jnp.argmax(x[:, 0])], "switched by a value"),
        (lambda x: x @ W + lax.stop_gradient(x @ V), "switched by a value"),
        (
            lambda x: x / lax.stop_gradient(jnp.sqrt((x**2).sum(-1, keepdims=True))) @ W,
            "switched by a value|behind a stop_gradient",
        ),
    ],
)
def test_not_analyzable(f: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(jxp.NotAnalyzableError, match=words) as caught:
        jxp.deep_lift(f)(X, target=0)
    assert "test_deep_lift.py:" in str(caught.value)


@pytest.mark.parametrize(
    ("baseline", "words"),
    [
        (np.zeros(5), r"broadcasts to the explained input of shape \(4, 6\), got float64\[5\]"),
        (np.zeros((2, 4, 6)), r"got float64\[2, 4, 6\]"),
        (1j, "real array"),
        ("zero", "got str"),
        ([0.0] * 6, "a tree like the explained argument"),
        (None, "a tree like the explained argument"),
        (lambda x: x[:, :2], r"got float64\[4, 2\]"),
    ],
)
def test_wrong_baselines(baseline: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        jxp.deep_lift(ZOO["relu"], baseline)(X)


def test_wrong_rule() -> None:
    with pytest.raises(ValueError, match=r"rule must be one of .*got 'linear'"):
        jxp.deep_lift(ZOO["relu"], rule="linear")  # type: ignore[arg-type]


def test_baselines_resolve_to_the_tree() -> None:
    explained = (jnp.ones((2, 3)), {"a": jnp.ones(3, jnp.float32)})
    first, second = baselines.resolve(lambda tree: (tree[0] * 2, {"a": 1}), explained)
    np.testing.assert_array_equal(first, np.full((2, 3), 2.0))
    assert second["a"].dtype == jnp.float32 and second["a"].shape == (3,)
    with pytest.raises(ValueError, match=r"baseline\[1\]\['a'\]"):
        baselines.check((0.0, {"a": np.ones(2)}), explained)
