"""What provably lies between 0 and 1, and who takes the relevance of a product."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, nn
from numpy.testing import assert_allclose

import jaxplain as jxp
from jaxplain import rules
from jaxplain.composites import Composite, kernel, kind

W = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), jnp.float32)
X = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)), jnp.float32)

GATES: dict[str, Callable[[Any], Any]] = {
    "sigmoid": nn.sigmoid,
    "sigmoid, written out": lambda z: 1 / (1 + jnp.exp(-z)),
    "what is left": lambda z: 1 - nn.sigmoid(z),
    "half a tanh": lambda z: 0.5 * (1 + jnp.tanh(z)),
    "hard sigmoid": nn.hard_sigmoid,
    "clipped": lambda z: jnp.clip(0.2 * z + 0.5, 0, 1),
    "clipped by hand": lambda z: jnp.minimum(jnp.maximum(z, 0), 1),
    "softmax": nn.softmax,
    "softmax of slices": lambda z: nn.softmax(z)[:, :1],
    "mask": lambda z: (nn.sigmoid(z) > 0.5) * nn.sigmoid(z),
    "two gates": lambda z: nn.sigmoid(z) * nn.sigmoid(2 * z),
    "square of a tanh": lambda z: jnp.tanh(z) ** 2,
    "padded": lambda z: jnp.pad(nn.sigmoid(z)[:, :3], ((0, 0), (1, 0))),
    "selected": lambda z: jnp.where(X > 0, nn.sigmoid(z), 0.0),
    "in half precision": lambda z: nn.sigmoid(z.astype(jnp.bfloat16)).astype(jnp.float32),
    "exponential decay": lambda z: jnp.exp(-nn.relu(z)),
    "decay of a state space": lambda z: jnp.exp(nn.softplus(z) * -jnp.exp(W[0])),
    "what such a decay leaves": lambda z: -jnp.expm1(-nn.softplus(z)),
    "in a loop": lambda z: lax.scan(lambda h, _: (0.5 * h, None), nn.sigmoid(z), None, 3)[0],
    "a case": lambda z: lax.cond(X[0, 0] > 0, nn.sigmoid, lambda z: 0.5 + 0 * z, z),
}

SIGNALS: dict[str, Callable[[Any], Any]] = {
    "tanh": jnp.tanh,
    "twice a sigmoid": lambda z: 2 * nn.sigmoid(z),
    "relu": nn.relu,
    "linear": lambda z: z,
    "relu6": nn.relu6,
    "not a number, but now it is": lambda z: jnp.where(jnp.isnan(z), -1.0, nn.sigmoid(z)),
    "clipped too high": lambda z: jnp.clip(z, 0, 1.5),
    "sum of sigmoids": lambda z: nn.sigmoid(z) + nn.sigmoid(-2 * z),
    "sigmoid times a weight": lambda z: nn.sigmoid(z) * W[0],
    "softplus": nn.softplus,
    "growing in a loop": lambda z: lax.scan(lambda h, _: (h + 0.1, None), nn.sigmoid(z), None, 3)[
        0
    ],
    "a case that is none": lambda z: lax.cond(X[0, 0] > 0, nn.sigmoid, jnp.tanh, z),
}


def gates(f: Callable[[Any], Any]) -> tuple[bool, ...]:
    layers = jxp.lrp(lambda x: f(x @ W) * (x @ W.T)).plan(X).layers
    return [v for v in layers if v.kind == "Product"][-1].gates


@pytest.mark.parametrize("name", GATES)
def test_gates(name: str) -> None:
    value = GATES[name](10 * X @ W)
    assert (value >= 0).all() and (value <= 1 + 1e-6).all()
    assert sorted(gates(GATES[name])) == [False, True]


@pytest.mark.parametrize("name", SIGNALS)
def test_signals(name: str) -> None:
    value = SIGNALS[name](10 * X @ W)
    lowest = jnp.min(value) >= 0 and jnp.max(value) <= 1
    assert not lowest or "case" in name or "not a number" in name
    assert gates(SIGNALS[name]) == (False, False)


def product(rule: Any, f: Any, x: Any) -> Any:
    composite = Composite([(kind("Product"), rule)])
    return jxp.lrp(f, composite)(x, target=lambda z: jnp.ones_like(z))


def test_the_signal_takes_all() -> None:
    def f(x: Any) -> Any:
        return nn.sigmoid(x[:, :2]) * x[:, 2:]

    x = jnp.array([[0.0, 1.0, 3.0, -2.0]])
    assert_allclose(product(rules.SignalTake(), f, x), [[0, 0, 1, 1]])
    assert_allclose(product(rules.Uniform(), f, x), [[0.5, 0.5, 0.5, 0.5]])


def test_a_gate_of_whole_channels() -> None:
    """Squeeze and excitation: the gate is broadcast, its share is the sum."""

    def f(x: Any) -> Any:
        return nn.sigmoid(x[:, :, :1]) * x

    x = jnp.ones((1, 2, 3))
    assert_allclose(product(rules.SignalTake(), f, x), jnp.ones((1, 2, 3)))
    even = product(rules.Uniform(), f, x)
    assert_allclose(even, 0.5 + jnp.zeros((1, 2, 3)).at[:, :, 0].set(1.5))


def test_where_nobody_or_everybody_is_a_gate_all_share() -> None:
    x = jnp.array([[0.3, 1.0]])
    for f in (
        lambda x: jnp.tanh(x[:, :1]) * x[:, 1:],
        lambda x: nn.sigmoid(x[:, :1]) * nn.sigmoid(x[:, 1:]),
    ):
        assert_allclose(product(rules.SignalTake(), f, x), [[0.5, 0.5]])


def test_a_quotient_goes_to_its_numerator() -> None:
    def f(x: Any) -> Any:
        return nn.sigmoid(x[:, :1]) / (1 + nn.sigmoid(x[:, 1:]))

    assert_allclose(product(rules.SignalTake(), f, jnp.array([[0.3, 1.0]])), [[1, 0]])


def test_an_lstm_whose_gates_take_nothing() -> None:
    """With the signals alone an LSTM is linear in them: only the candidate's weights count."""

    def cell(p: Any, carry: Any, x: Any) -> Any:
        h, c = carry
        i, f, o = (nn.sigmoid(x @ p[k] + h @ p[k.upper()]) for k in ("i", "f", "o"))
        c = f * c + i * jnp.tanh(x @ p["g"] + h @ p["G"])
        return (o * jnp.tanh(c), c), None

    rng = np.random.default_rng(2)
    with jax.enable_x64(True):
        p = {k: jnp.asarray(rng.normal(size=(4, 4)) / 2) for k in "ifogIFOG"}
        x = jnp.asarray(rng.normal(size=(5, 4)))

        def lstm(x: Any) -> Any:
            return lax.scan(lambda c, v: cell(p, c, v), (jnp.zeros(4),) * 2, x)[0][0]

        rule = Composite([(kind("Product"), rules.SignalTake()), (kernel, rules.Epsilon(1e-3))])
        explain = jxp.lrp(lstm, rule, capture=lambda v: v.is_kernel)
        _, captured = explain(x, target=1)
        flowing = {name for name, r in captured.items() if np.any(r)}
        assert len(captured) == 4
        assert len(flowing) == 1
        (name,) = flowing
        candidate = jxp.lrp(lstm, rule).activations(x, layers=name)[name][0]
        assert_allclose(candidate, x[0] @ p["g"], rtol=1e-12)
        ledger = jxp.lrp(lstm, rule).ledger(x, target=1)
        assert ledger.error() < 1e-13


@pytest.mark.parametrize("start", [0.5, 1.5])
def test_a_gate_of_a_loop_is_one_in_all_iterations(start: float) -> None:
    """A carried value is proven for all of them together, with what it starts from."""

    def f(x: Any) -> Any:
        def step(gate: Any, x: Any) -> Any:
            return nn.sigmoid(x @ W), gate * (x @ W)

        return lax.scan(step, jnp.full(4, start), x)[1].sum(0)

    (product,) = [layer for layer in jxp.lrp(f).plan(X).layers if layer.kind == "Product"]
    assert product.gates == (start <= 1, False)
    later = [layer for layer in jxp.lrp(jxp.unroll(f)).plan(X).layers if layer.kind == "Product"]
    assert [layer.gates for layer in later] == [(True, False)] * 2
