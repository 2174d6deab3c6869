"""Integer inputs: the relevance of what they look up."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import lax
from numpy.testing import assert_allclose

import jaxplain as jxp
from jaxplain import rules

IDS = jnp.array([[3, 1, 4, 1], [5, 2, 0, 3]])
TABLE = np.random.default_rng(0).normal(size=(7, 5))
W = np.random.default_rng(1).normal(size=(5, 3))
POSITIONS = np.random.default_rng(2).normal(size=(4, 5))


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def behind(e: Any) -> Any:
    """What follows the embedding."""
    e = e + POSITIONS
    weights = jax.nn.softmax(e @ e.swapaxes(-1, -2))
    return jax.nn.relu(weights @ e).mean(-2) @ W


METHODS: dict[str, Callable[..., Any]] = {
    "epsilon": jxp.lrp,
    "alpha_beta": partial(jxp.lrp, rule=rules.AlphaBeta(2, 1)),
    "gradient": jxp.gradient,
    "input_times_gradient": jxp.input_times_gradient,
    "guided_backprop": jxp.guided_backprop,
}

LOOKUPS: dict[str, Callable[[Any], Any]] = {
    "index": lambda ids: jnp.asarray(TABLE)[ids],
    "take": lambda ids: jnp.take(jnp.asarray(TABLE), ids, axis=0),
    "vmap": jax.vmap(lambda ids: jnp.asarray(TABLE)[ids]),
    "vmapped twice": jax.vmap(jax.vmap(lambda i: jnp.asarray(TABLE)[i])),
    "clipped": lambda ids: jnp.asarray(TABLE)[jnp.clip(ids, 0, 6)],
    "flat": lambda ids: jnp.asarray(TABLE)[ids.reshape(-1)].reshape(2, 4, 5),
    "one hot": lambda ids: jax.nn.one_hot(ids, 7, dtype=float) @ TABLE,
    "one hot by hand": lambda ids: (ids[..., None] == jnp.arange(7)).astype(float) @ TABLE,
    "table times one hot": lambda ids: (
        TABLE.T @ jax.nn.one_hot(ids, 7, dtype=float, axis=-2)
    ).swapaxes(-1, -2),
    "one by one": lambda ids: jnp.stack(
        [jnp.stack([jnp.asarray(TABLE)[i] for i in r]) for r in ids]
    ),
    "turned": lambda ids: jnp.asarray(TABLE)[ids.T].swapaxes(0, 1),
    "in other integers": lambda ids: jnp.asarray(TABLE)[ids.astype(jnp.uint8)],
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lookup", LOOKUPS)
def test_the_rows_that_were_picked_are_explained(lookup: str, method: str) -> None:
    explain = METHODS[method](lambda ids: behind(LOOKUPS[lookup](ids)))
    found = explain(IDS, target=1)
    rows = METHODS[method](behind)(TABLE[IDS], target=1)
    assert found.shape == IDS.shape and found.dtype == jnp.float64
    assert_allclose(found, rows.sum(-1), rtol=0, atol=1e-10 * np.abs(rows).max())


def test_a_ledger_of_integers_closes() -> None:
    explain = jxp.lrp(lambda ids: behind(LOOKUPS["index"](ids)))
    ledger = explain.ledger(IDS, target=1)
    assert ledger.error() < 1e-13
    assert_allclose(ledger.inputs, explain(IDS, target=1).sum(), rtol=1e-12)
    each = explain.ledger(IDS, target=1, per_example=True)
    assert_allclose(each.inputs, explain(IDS, target=1).sum(-1), rtol=1e-12)


def test_only_some_of_the_integers_and_a_constant_before_them() -> None:
    """What is cut off has none; what is put in front takes its own with it."""

    def f(ids: Any) -> Any:
        start = jnp.full((2, 1), 6, ids.dtype)
        return behind(jnp.asarray(TABLE)[jnp.concatenate([start, ids[:, :3]], 1)])

    found = jxp.lrp(f)(IDS, target=1)
    whole = np.concatenate([np.full((2, 1), 6), IDS[:, :3]], 1)
    rows = jxp.lrp(behind)(TABLE[whole], target=1).sum(-1)
    assert_allclose(found, np.concatenate([rows[:, 1:], np.zeros((2, 1))], 1), atol=1e-12)


def test_two_tables_and_a_mask() -> None:
    """A mask made of the integers is a constant: the tables' rows get all."""

    def rest(a: Any, b: Any, mask: Any) -> Any:
        e = jnp.where(mask[..., None], a + 2 * b, 0)
        return e.sum(1) / mask.sum(1, keepdims=True) @ W

    def f(ids: Any) -> Any:
        return rest(jnp.asarray(TABLE)[ids], jnp.asarray(TABLE[::-1])[ids], ids != 0)

    found = jxp.lrp(f)(IDS, target=0)
    given = (TABLE[IDS], TABLE[::-1][IDS], np.asarray(IDS != 0))
    a, b = jxp.lrp(rest, argnums=(0, 1))(*given, target=0)
    assert_allclose(found, (a + b).sum(-1), rtol=1e-10, atol=1e-12)
    assert found[1, 2] == 0


def test_frameworks() -> None:
    module = linen.Embed(7, 5)
    variables = {"params": {"embedding": jnp.asarray(TABLE)}}
    expected = jxp.lrp(behind)(TABLE[IDS], target=1).sum(-1)
    found = jxp.lrp(lambda ids: behind(module.apply(variables, ids)))(IDS, target=1)
    assert_allclose(found, expected, rtol=1e-9)
    embed = nnx.Embed(7, 5, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    embed.embedding.set_value(jnp.asarray(TABLE))
    assert_allclose(jxp.lrp(lambda ids: behind(embed(ids)))(IDS, target=1), expected, rtol=1e-9)


def test_transformations() -> None:
    explain = jxp.lrp(lambda ids: behind(jnp.asarray(TABLE)[ids]))
    expected = explain(IDS, target=1)
    assert_allclose(jax.jit(partial(explain, target=1))(IDS), expected, rtol=1e-10)
    one = jax.vmap(lambda ids: explain(ids, target=1))(IDS)
    assert_allclose(one, expected, rtol=1e-10)
    every = explain(IDS, target="all")
    assert every.shape == (3, 2, 4)
    assert_allclose(every[1], expected, rtol=1e-10)


def test_one_hot_vectors_that_meet_no_table() -> None:
    """They are numbers themselves."""
    found = jxp.gradient(lambda ids: jax.nn.one_hot(ids, 7, dtype=float).sum(1) ** 2)(IDS, target=3)
    count = (np.asarray(IDS) == 3).sum(1)
    assert_allclose(found, np.repeat(2 * count[:, None], 4, 1))


def test_integers_and_numbers_together() -> None:
    def f(ids: Any, x: Any) -> Any:
        return behind(jnp.asarray(TABLE)[ids] + x)

    x = np.random.default_rng(3).normal(size=(2, 4, 5))
    of_ids, of_x = jxp.lrp(f, argnums=(0, 1))(IDS, x, target=2)

    def g(e: Any, x: Any) -> Any:
        return behind(e + x)

    of_rows, expected = jxp.lrp(g, argnums=(0, 1))(TABLE[IDS], x, target=2)
    assert_allclose(of_ids, of_rows.sum(-1), rtol=1e-10)
    assert_allclose(of_x, expected, rtol=1e-10)


def in_a_loop(ids: Any) -> Any:
    def body(h: Any, i: Any) -> Any:
        return jnp.tanh(jnp.asarray(TABLE)[i] + h), None

    return lax.scan(body, jnp.zeros((2, 5)), ids.T)[0] @ W


def together(ids: Any, table: Any) -> Any:
    return behind(table[ids])


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "an image": (lambda: jxp.lrp(lambda x: x / 255 @ TABLE)(jnp.ones((2, 7), int)), "Cast images"),
    "truth values": (lambda: jxp.lrp(lambda x: x @ TABLE)(jnp.ones((2, 7), bool)), "dtype bool"),
    "in a loop": (lambda: jxp.lrp(in_a_loop)(IDS), "inside of a scan, at test_integers.py.*before"),
    "with the table": (
        lambda: jxp.lrp(together, argnums=(0, 1))(IDS, jnp.asarray(TABLE)),
        "Explain one of them",
    ),
    "integrated": (
        lambda: jxp.integrated_gradients(lambda i: behind(jnp.asarray(TABLE)[i]))(IDS),
        "integers have none between",
    ),
    "compared": (
        lambda: jxp.deep_lift(lambda i: behind(jnp.asarray(TABLE)[i]), 0)(IDS),
        "integers have none between",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused(name: str) -> None:
    call, words = WRONG[name]
    with pytest.raises(TypeError, match=f"(?s){words}"):
        call()
