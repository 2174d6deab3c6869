"""Integer inputs: the relevance of what they look up."""

import functools
from collections.abc import Callable
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
import zoo
from comparing import Together, together
from jaxplain import rules

IDS = jnp.array([[3, 1, 4, 1], [5, 2, 0, 3]])
TABLE = np.random.default_rng(0).normal(size=(7, 5))
W = np.random.default_rng(1).normal(size=(5, 3))
POSITIONS = np.random.default_rng(2).normal(size=(4, 5))


pytestmark = pytest.mark.usefixtures("float64")


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


@functools.cache
def by_methods(lookup: str) -> Together:
    """The maps of the rows that are picked, or of the rows themselves."""
    f = (lambda ids: behind(LOOKUPS[lookup](ids))) if lookup else behind
    asked = {name: partial(method(f), target=1) for name, method in METHODS.items()}
    return together(asked, IDS if lookup else TABLE[IDS])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lookup", LOOKUPS)
def test_the_rows_that_were_picked_are_explained(lookup: str, method: str) -> None:
    found, rows = by_methods(lookup)[method], by_methods("")[method]
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


def test_an_explainer_on_many_devices() -> None:
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), "d")
    explain = partial(jxp.lrp(lambda ids: behind(jnp.asarray(TABLE)[ids])), target=1)
    spec = jax.sharding.PartitionSpec("d")
    on_each = jax.shard_map(explain, mesh=mesh, in_specs=spec, out_specs=spec)
    assert_allclose(on_each(IDS), explain(IDS), rtol=1e-10)


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


def with_table(ids: Any, table: Any) -> Any:
    return behind(table[ids])


V = 7
BIGGER = np.random.default_rng(4).normal(size=(3 * V, 5))
KINDS = jnp.array([[0, 1, 2, 1], [1, 0, 0, 2]])
FIELDS = BIGGER.reshape(3, V, 5)
REMAP = np.array([3, 0, 6, 1, 2, 5, 4])


def mask(ids: Any) -> Any:
    return (ids != 1).astype(int)


# How the rows are picked; which they are, as rows of BIGGER.
PICKED: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "a table per field": (
        lambda i: jnp.asarray(FIELDS)[jnp.arange(3), i[:, :3]],
        lambda i: i[:, :3] + V * np.arange(3),
    ),
    "one of several tables": (lambda i: jnp.asarray(FIELDS)[1, i], lambda i: i + V),
    "by coordinates": (lambda i: jnp.asarray(FIELDS)[jnp.zeros_like(i), i], lambda i: i),
    "with an offset that is not explained": (
        lambda i: jnp.asarray(BIGGER)[i + V * KINDS],
        lambda i: i + V * np.asarray(KINDS),
    ),
    "by a remainder": (lambda i: jnp.asarray(BIGGER)[(7 * i + 3) % 5], lambda i: (7 * i + 3) % 5),
    "through a table of integers": (
        lambda i: jnp.asarray(BIGGER)[jnp.asarray(REMAP)[i]],
        lambda i: REMAP[i],
    ),
    "some columns": (
        lambda i: jnp.asarray(BIGGER)[i[:, np.array([3, 1])]],
        lambda i: i[:, [3, 1]],
    ),
    "filled up": (
        lambda i: jnp.asarray(BIGGER)[i.at[:, np.array([3, 9])].get(mode="fill", fill_value=2)],
        lambda i: np.stack([i[:, 3], np.full(2, 2)], 1),
    ),
    "split": (
        lambda i: jnp.concatenate([jnp.asarray(BIGGER)[j] for j in jnp.split(i, 4, 1)], 1),
        lambda i: i,
    ),
    "behind floats": (lambda i: jnp.asarray(BIGGER)[i.astype(float).astype(int)], lambda i: i),
    "clipped as floats": (
        lambda i: jnp.asarray(BIGGER)[jnp.clip(i, 0.0, 4.0).astype(int)],
        lambda i: np.clip(i, 0, 4),
    ),
    "replaced": (
        lambda i: jnp.asarray(BIGGER)[jnp.where(i == 1, i + V, i)],
        lambda i: np.where(i == 1, i + V, i),
    ),
    "one-hot vectors by where": (
        lambda i: jnp.where(i[..., None] == jnp.arange(3 * V), 1.0, 0.0) @ BIGGER,
        lambda i: i,
    ),
    "one-hot vectors in a loop": (
        lambda i: lax.map(lambda v: v @ BIGGER, jax.nn.one_hot(i, 3 * V, dtype=float)),
        lambda i: i,
    ),
    "a case for each": (
        lambda i: jax.vmap(
            jax.vmap(
                lambda j: lax.switch(j, [lambda k=k: jnp.asarray(BIGGER)[k] for k in range(7)])
            )
        )(i),
        lambda i: i,
    ),
    "rows by where": (
        lambda i: jnp.where(
            i[..., None, None] == np.arange(3 * V)[:, None], jnp.asarray(BIGGER), 0
        ).sum(2),
        lambda i: i,
    ),
}


@pytest.mark.parametrize("name", PICKED)
def test_each_row_belongs_to_the_integer_that_picked_it(name: str) -> None:
    pick, rows_of = PICKED[name]
    found = jxp.input_times_gradient(lambda ids: behind_any(pick(ids)))(IDS, target=1)
    rows = np.asarray(rows_of(np.asarray(IDS)))
    expected = jxp.input_times_gradient(behind_any)(BIGGER[rows], target=1).sum(-1)
    if name == "some columns":
        expected = expected[:, [0, 1, 0, 0]] * np.array([0, 1, 0, 1])
    if name == "filled up":
        expected = np.pad(expected[:, :1], ((0, 0), (3, 0)))
    if name == "a table per field":
        expected = np.pad(expected, ((0, 0), (0, 1)))
    assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def behind_any(e: Any) -> Any:
    """What follows an embedding of any length."""
    return jax.nn.relu(jnp.tanh(e) + e.mean(1, keepdims=True)).mean(1) @ W


def test_a_row_that_was_put_in_is_a_constant() -> None:
    def f(ids: Any) -> Any:
        return behind(jnp.asarray(TABLE)[ids.at[:, 0].set(6)])

    explain, whole = jxp.lrp(f), np.asarray(IDS.at[:, 0].set(6))
    rows = jxp.lrp(behind)(TABLE[whole], target=1).sum(-1)
    expected = np.concatenate([np.zeros((2, 1)), rows[:, 1:]], 1)
    assert_allclose(explain(IDS, target=1), expected, rtol=1e-10, atol=1e-12)
    ledger = explain.ledger(IDS, target=1)
    assert_allclose(ledger.inputs, expected.sum(), rtol=1e-10)
    assert f"{rows[:, 0].sum():.4g} reaches numbers that the explained integers did" in str(ledger)


def test_places_made_of_a_mask_are_constants() -> None:
    """Like RoBERTa's positions."""
    longer = jnp.asarray(np.random.default_rng(6).normal(size=(9, 5)))

    def f(ids: Any, places: Any) -> Any:
        return behind(jnp.asarray(TABLE)[ids] + longer[places])

    def alone(ids: Any) -> Any:
        return f(ids, jnp.cumsum(mask(ids), 1) * mask(ids))

    fixed = np.cumsum(mask(IDS), 1) * mask(IDS)
    found, expected = jxp.lrp(alone)(IDS, target=1), jxp.lrp(f)(IDS, fixed, target=1)
    assert_allclose(found, expected, rtol=1e-10)


def test_numbers_that_integers_only_choose_among() -> None:
    """The last token's vector, the probability of the next one: they were looked up already."""

    def last(ids: Any) -> Any:
        return (jnp.asarray(TABLE)[ids] + POSITIONS)[jnp.arange(2), ids.argmax(1)] @ W

    end = np.asarray(IDS.argmax(1))
    rows = (TABLE[IDS] + POSITIONS)[np.arange(2), end]
    expected = np.zeros((2, 4))
    expected[np.arange(2), end] = jxp.gradient(lambda e: e @ W)(rows, target=1).sum(-1)
    assert_allclose(jxp.gradient(last)(IDS, target=1), expected, rtol=1e-12)

    def likelihood(e: Any, ids: Any) -> Any:
        logs = jax.nn.log_softmax(jnp.cumsum(jnp.tanh(e), 1) @ TABLE.T)[:, :-1]
        return jnp.take_along_axis(logs, ids[:, 1:, None], -1).sum((1, 2))

    found = jxp.gradient(lambda ids: likelihood(jnp.asarray(TABLE)[ids], ids)[:, None])(IDS)
    expected = jax.grad(lambda e: likelihood(e, IDS).sum())(TABLE[IDS]).sum(-1)
    assert_allclose(found, expected, rtol=1e-10)


def test_integers_that_are_numbers() -> None:
    """Pixels, counts: what is cast to floats, with a table beside it."""
    kernel = np.random.default_rng(5).normal(size=(4, 3))

    def f(x: Any) -> Any:
        return jax.nn.relu(x / 255 @ kernel + 0.1) @ W[:3]

    pixels = jnp.asarray(np.random.default_rng(6).integers(0, 256, (2, 4)), jnp.uint8)
    found, expected = jxp.lrp(f)(pixels, target=1), jxp.lrp(f)(pixels.astype(float), target=1)
    assert_allclose(found, expected, rtol=1e-6)  # JAX divides small integers in float32

    def both(row: Any) -> Any:
        return jnp.asarray(TABLE)[row[:, 0]] @ W + row[:, 1:].astype(float) @ kernel[1:]

    found = jxp.lrp(both)(IDS, target=1)
    numbers = np.asarray(IDS[:, 1:]) * kernel[1:, 1]
    expected = np.concatenate([TABLE[IDS[:, :1]] @ W[:, 1], numbers], 1)
    assert_allclose(found, expected, rtol=1e-4)  # epsilon


def test_keras_embeddings_of_what_it_takes_for_floats() -> None:
    keras = zoo._keras()
    layers = [keras.layers.Embedding(7, 5), keras.layers.GlobalAveragePooling1D()]
    for given in ([], [keras.Input((4,))]):
        model = keras.Sequential([*given, *layers, keras.layers.Dense(3)])
        model(IDS)
        table, kernel, _ = (v.value for v in model.weights)
        found = jxp.input_times_gradient(jxp.from_keras(model))(IDS, target=1)
        assert_allclose(found, table[IDS] @ kernel[:, 1] / 4, rtol=1e-4)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "a mask": (
        lambda: jxp.lrp(lambda i: (i > 0) @ TABLE)(jnp.ones((2, 7), int)),
        "masks and places",
    ),
    "pairs": (
        lambda: jxp.lrp(lambda i: jnp.asarray(FIELDS)[i[:, :-1] % 3, i[:, 1:]].sum(1))(IDS),
        r"gather at test_integers.py:\d+ makes numbers of several",
    ),
    "sums": (
        lambda: jxp.lrp(lambda i: jnp.asarray(BIGGER)[i[:, :-1] + i[:, 1:]].sum(1))(IDS),
        "makes numbers of several",
    ),
    "two inputs": (
        lambda: jxp.lrp(lambda i, k: jnp.asarray(BIGGER)[i + V * k].sum(1), argnums=(0, 1))(
            IDS, KINDS
        ),
        "makes numbers of several",
    ),
    "one-hot inside": (
        lambda: jxp.lrp(
            lambda i: (
                jnp.asarray(TABLE)[i].sum(1)
                + lax.map(lambda j: jax.nn.one_hot(j, 7, dtype=float) @ TABLE, i).sum(1)
            )
        )(IDS),
        "looked up inside of a scan.*unroll",
    ),
    "cast inside": (
        lambda: jxp.lrp(lambda i: lax.map(lambda j: j.astype(float) @ TABLE[:4], i))(IDS),
        "looked up inside of a scan",
    ),
    "a case of a branch": (
        lambda: jxp.lrp(
            lambda i: lax.cond(
                i.sum() > 3, lambda j: jnp.asarray(TABLE)[j], lambda j: jnp.asarray(TABLE)[0 * j], i
            ).sum(1)
        )(IDS),
        "looked up inside of a cond.*all at once$",
    ),
    "counted": (
        lambda: jxp.lrp(lambda i: jnp.asarray(TABLE)[jnp.cumsum(i, 1) % 7].sum(1))(IDS),
        "makes numbers of several",
    ),
    "truth values": (lambda: jxp.lrp(lambda x: x @ TABLE)(jnp.ones((2, 7), bool)), "dtype bool"),
    "in a loop": (lambda: jxp.lrp(in_a_loop)(IDS), "inside of a scan, at test_integers.py.*before"),
    "with the table": (
        lambda: jxp.lrp(with_table, argnums=(0, 1))(IDS, jnp.asarray(TABLE)),
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
