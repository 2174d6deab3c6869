"""A number of the model is one in whatever way the function holds it; guards against NaN are none.

Numbers: Python's, NumPy's and JAX's, written in the function or closed over. Guards:
`where(isnan(h), 0, h)` is `h` for every finite number.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, nn

import jaxplain as jxp
from comparing import assert_same
from jaxplain.graph import trace
from jaxplain.rules import AlphaBeta, Epsilon, ZPlus
from zoo import draw

pytestmark = pytest.mark.usefixtures("float64")

W, V, G, B = draw(4, 6), draw(6, 3, seed=1), draw(6, seed=2) ** 2 + 0.5, draw(6, seed=3)
X = draw(2, 4, seed=4)

Number = Callable[[float], Any]
#: Layers between two kernels, from a way to write numbers, and the kinds that they are.
LAYERS: dict[str, tuple[Callable[[Number, Any], Any], list[str]]] = {
    "rms norm": (
        lambda c, h: h * lax.rsqrt((h**2).mean(-1, keepdims=True) + c(1e-6)),
        ["Normalization"],
    ),
    "layer norm": (
        lambda c, h: (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + c(1e-5)),
        ["Normalization"],
    ),
    "temperature": (lambda c, h: nn.softmax(h / c(1.7)), ["Softmax"]),
    "softmax": (
        lambda c, h: (lambda e: e / e.sum(-1, keepdims=True))(jnp.exp(h * c(0.6))),
        ["Softmax"],
    ),
    "offset": (lambda c, h: nn.gelu(h) + c(1.0), ["Activation"]),
    "scale": (lambda c, h: c(1.7) * nn.silu(h) - c(0.3), ["Activation"]),
    "gate": (lambda c, h: (lambda z: z * nn.tanh(h) + (c(1.0) - z))(nn.sigmoid(h)), ["Activation"]),
    "hard sigmoid": (lambda c, h: jnp.clip(h + c(3.0), c(0.0), c(6.0)) / c(6.0), ["Activation"]),
    "leaky relu": (lambda c, h: jnp.where(h > c(0.0), h, c(0.1) * h), ["Activation"]),
    "bias": (lambda c, h: nn.relu(h + c(0.5)), ["Activation"]),
}


def held(number: Number) -> Number:
    """The numbers made once, outside of the function, as a model holds them."""
    known = {v: number(v) for v in (1e-6, 1e-5, 1.7, 0.6, 1.0, 0.3, 3.0, 0.0, 6.0, 0.1, 0.5)}
    return known.__getitem__


WAYS: dict[str, Number] = {
    "a numpy scalar": np.float64,
    "an array of numpy": lambda v: np.asarray(v),
    "a constant": held(lambda v: np.float64(v)),
    "made in the function": lambda v: jnp.asarray(v),
    "made of another": lambda v: jnp.asarray(2 * v) / 2,
}


def network(layer: Any, number: Number) -> Any:
    return lambda x: layer(number, x @ W) @ V


@pytest.mark.parametrize(
    "way",
    [
        *(pytest.param(way, marks=pytest.mark.slow) for way in WAYS),
        "closed over",
        pytest.param("in a jitted part", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", LAYERS)
def test_numbers(name: str, way: str) -> None:
    layer, kinds = LAYERS[name]
    plain = network(layer, float)
    assert [found.kind for found in trace(plain, X).layers] == ["Affine", *kinds, "Affine"]
    number = WAYS.get(way) or held(lambda v: jnp.asarray(v))
    f = network(layer, number)
    if way == "in a jitted part":
        f = lambda x, f=f: jax.jit(f)(x)  # noqa: E731
    assert [found.kind for found in trace(f, X).layers] == ["Affine", *kinds, "Affine"]
    for rule in (Epsilon(1e-2), AlphaBeta(2, 1)):
        assert_same(jxp.lrp(f, rule)(X, target=1), jxp.lrp(plain, rule)(X, target=1))


def test_a_number_that_changes_is_read_by_the_next_explainer() -> None:
    scale = {"c": jnp.asarray(1.7)}
    f = lambda x: nn.softmax(x @ W / scale["c"]) @ V  # noqa: E731
    for value in (1.7, 0.4):
        scale["c"] = jnp.asarray(value)
        wanted = jxp.lrp(lambda x, c=value: nn.softmax(x @ W / c) @ V)(X, target=1)
        assert_same(jxp.lrp(f)(X, target=1), wanted)


GUARDS: dict[str, Callable[[Any], Any]] = {
    "nan_to_num": jnp.nan_to_num,
    "isnan": lambda h: jnp.where(jnp.isnan(h), 0, h),
    "isfinite": lambda h: jnp.where(jnp.isfinite(h), h, 0),
    "isinf": lambda h: jnp.where(jnp.isinf(h), 0, h),
    "not isnan": lambda h: jnp.where(~jnp.isnan(h), h, 7.0),
    "select": lambda h: lax.select(h != h, jnp.zeros_like(h), h),
}
METHODS: dict[str, Callable[[Any], Any]] = {
    "z_plus": lambda f: jxp.lrp(f, ZPlus()),
    "guided_backprop": jxp.guided_backprop,
    "deconvnet": jxp.deconvnet,
    "deep_lift": lambda f: jxp.deep_lift(f, jnp.zeros(X.shape)),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", GUARDS)
def test_guards(name: str, method: str) -> None:
    guard, explain = GUARDS[name], METHODS[method]
    before_norm = explain(lambda x: nn.relu(guard(x @ W) * G + B) @ V)(X, target=1)
    behind_norm = explain(lambda x: nn.relu(guard((x @ W) * G + B)) @ V)(X, target=1)
    wanted = explain(lambda x: nn.relu((x @ W) * G + B) @ V)(X, target=1)
    assert_same(before_norm, wanted)
    assert_same(behind_norm, wanted)
    activated = explain(lambda x: guard(nn.gelu(x @ W) + 1) @ V)(X, target=1)
    assert_same(activated, explain(lambda x: (nn.gelu(x @ W) + 1) @ V)(X, target=1))


def test_guards_of_what_is_not_finite_keep_the_map_finite() -> None:
    def f(x: Any) -> Any:
        logarithm = jnp.log(nn.relu(x @ W))
        return jnp.where(jnp.isfinite(logarithm), logarithm, 0) @ V

    for explain in (jxp.lrp(f), jxp.lrp(f, ZPlus())):
        assert np.isfinite(explain(X, target=1)).all()


def test_near_misses_of_guards_are_activations() -> None:
    for bend in (nn.relu, lambda h: jnp.where(h > -1e300, h, 0), lambda h: jnp.clip(h, -9e9, 9e9)):
        kinds = [k.kind for k in trace(lambda x, bend=bend: bend(x @ W) @ V, X).layers]
        assert kinds == ["Affine", "Activation", "Affine"]


@pytest.mark.parametrize(
    "rule", [Epsilon(), ZPlus(), AlphaBeta(2, 1), jxp.rules.Gamma(0.25)], ids=str
)
def test_padding_that_a_maximum_never_chooses_is_no_bias(rule: Any) -> None:
    """As KerasHub's networks pad by -inf before they pool."""
    kernel, v, x = draw(3, 3, 2, 4), draw(4, 3), draw(2, 6, 6, 2)
    rows, layout = ((0, 0), (1, 1), (1, 1), (0, 0)), ("NHWC", "HWIO", "NHWC")

    def network(pooled: Any) -> Any:
        def f(x: Any) -> Any:
            h = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
            return pooled(h).mean((1, 2)) @ v

        return jxp.lrp(f, rule)

    def pool(h: Any, padding: Any) -> Any:
        return lax.reduce_window(h, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)

    padded = network(lambda h: pool(jnp.pad(h, rows, constant_values=-jnp.inf), "VALID"))
    assert_same(padded(x, target=1), network(lambda h: pool(h, rows))(x, target=1))
    ledger = padded.ledger(x, target=1)
    assert np.isfinite(ledger.bias).all()
    assert ledger.error() < 1e-12


def test_no_audit_passes_with_a_nan() -> None:
    ledger = jxp.lrp(lambda x: jnp.log(nn.relu(x @ W)) @ V).ledger(X, target=1)
    assert not np.isfinite(ledger.received).all()
    assert ledger.error() == np.inf
