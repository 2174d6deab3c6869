"""A trailing sigmoid is left out as a softmax is: a negative logit must not turn the map's sign."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, nn

import jaxplain as jxp
from comparing import assert_same
from zoo import draw

pytestmark = pytest.mark.usefixtures("float64")

W, V, X = draw(4, 6), draw(6, 3, seed=1), draw(5, 4, seed=2)
LEFT_OUT = "the trailing sigmoid is left out: targets are logits"

SIGMOIDS = {
    "nn.sigmoid": nn.sigmoid,
    "quotient": lambda z: 1 / (1 + jnp.exp(-z)),
    "reciprocal": lambda z: lax.reciprocal(1 + jnp.exp(-z)),
    "tanh": lambda z: 0.5 * (jnp.tanh(z / 2) + 1),
    "exponentials": lambda z: jnp.exp(z) / (1 + jnp.exp(z)),
    "moved": lambda z: nn.sigmoid(z.T).T,
    "reshaped": lambda z: nn.sigmoid(z).reshape(-1, 3),
    "cast": lambda z: nn.sigmoid(z).astype(jnp.float32),
    "checkpoint": jax.checkpoint(nn.sigmoid),
    "pieces": lambda z: jnp.concatenate([nn.sigmoid(z[:, :1]), nn.sigmoid(z[:, 1:])], -1),
}
OTHERS = {
    "scaled": lambda z: 2 * nn.sigmoid(z),
    "steeper": lambda z: 1 / (1 + jnp.exp(-1.01 * z) * 1.0 + 1e-3),
    "hard": nn.hard_sigmoid,
    "tanh": jnp.tanh,
}


def logits(x: Any) -> Any:
    return nn.relu(x @ W) @ V


@pytest.mark.parametrize("name", SIGMOIDS)
def test_its_map_is_that_of_the_logits(name: str) -> None:
    explain = jxp.lrp(lambda x: SIGMOIDS[name](logits(x)), jxp.rules.ZPlus())
    assert LEFT_OUT in explain.plan(X).notes
    assert (logits(X)[:, 1] < 0).any()
    wanted = jxp.lrp(logits, jxp.rules.ZPlus())(X, target=1)
    np.testing.assert_allclose(explain(X, target=1), wanted, atol=1e-6)


@pytest.mark.parametrize("name", OTHERS)
def test_near_misses_stay(name: str) -> None:
    plan = jxp.lrp(lambda x: OTHERS[name](logits(x))).plan(X)
    assert LEFT_OUT not in plan.notes
    assert plan.layers[-1].kind != "Affine" or name == "scaled"


def test_one_logit_of_either_sign() -> None:
    one = lambda x: logits(x)[:, :1]  # noqa: E731
    for f in (lambda x: nn.sigmoid(one(x)), lambda x: nn.sigmoid(one(x))[:, 0][:, None]):
        assert_same(jxp.lrp(f)(X), jxp.lrp(one)(X))


def test_gradients_and_names_of_innvestigate_keep_it() -> None:
    f = lambda x: nn.sigmoid(logits(x))  # noqa: E731
    assert (
        "the output is that of a sigmoid: targets are probabilities"
        in jxp.gradient(f).plan(X).notes
    )
    here, there = (jxp.create_analyzer("lrp.z", f, compat=c) for c in (None, "innvestigate"))
    assert_same(here.analyze(X), jxp.create_analyzer("lrp.z", logits).analyze(X))
    assert np.abs(np.asarray(here.analyze(X)) - np.asarray(there.analyze(X))).max() > 0.01


def test_at_the_end_of_a_loop() -> None:
    def looped(x: Any) -> Any:
        return lax.map(lambda row: nn.sigmoid(logits(row[None])[0]), x)

    assert_same(jxp.lrp(looped)(X, target=1), jxp.lrp(logits)(X, target=1))
