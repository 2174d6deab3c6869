"""Loops, branches, jax.checkpoint and shard_map: as if their bodies were written out."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox
import equinox.internal
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P
from numpy.testing import assert_allclose

import jaxplain as jxp
from comparing import Together, assert_same, together
from jaxplain import composites, rules
from jaxplain.transforms.explainer import Explainer


def normal(*shape: int, seed: int = 0) -> Any:
    """Drawn in float64 wherever it is called."""
    return np.random.default_rng(seed).normal(size=shape)


METHODS: dict[str, Callable[..., Any]] = {
    "gradient": jxp.gradient,
    "guided_backprop": jxp.guided_backprop,
    "integrated_gradients": partial(jxp.integrated_gradients, steps=3),
    "epsilon": jxp.lrp,
    "z_plus": partial(jxp.lrp, rule=rules.ZPlus()),
    "alpha_beta": partial(jxp.lrp, rule=rules.AlphaBeta(2, 1)),
    "gamma": partial(jxp.lrp, rule=rules.Gamma(0.25)),
    "deep_taylor": partial(jxp.lrp, rule=composites.DeepTaylor()),
}


pytestmark = pytest.mark.usefixtures("float64")


def assert_closes(explain: Any, *args: Any, **keywords: Any) -> None:
    assert_closed(explain.ledger(*args, **keywords))


def assert_closed(ledger: Any) -> None:
    """At every step, and over all of them."""
    assert ledger.error() < 1e-13
    kept = float(np.sum(ledger.absorbed))
    flow = float(np.max(ledger.flow))
    assert abs(float(np.sum(ledger.output)) - float(np.sum(ledger.inputs)) - kept) < 1e-12 * flow


# Loops


def lstm_cell(p: Any, carry: Any, x: Any) -> Any:
    h, c = carry
    i, f, g, o = jnp.split(x @ p["W"] + h @ p["U"] + p["b"], 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def lstm_parameters(features: int = 3, size: int = 4, classes: int = 3) -> Any:
    shapes = {"W": (features, 4 * size), "U": (size, 4 * size), "b": (4 * size,)}
    params = {k: normal(*shape, seed=i) for i, (k, shape) in enumerate(shapes.items())}
    params |= {"head": normal(size, classes, seed=9), "bias": normal(classes, seed=10)}
    return jax.tree.map(jnp.asarray, params)


def scanned_lstm(x: Any, p: Any, **options: Any) -> Any:
    start = (jnp.zeros((x.shape[0], p["U"].shape[0])),) * 2
    (h, _), hs = lax.scan(partial(lstm_cell, p), start, x.swapaxes(0, 1), **options)
    return (h + hs.mean(0)) @ p["head"] + p["bias"]


def unrolled_lstm(x: Any, p: Any, reverse: bool = False) -> Any:
    carry = (jnp.zeros((x.shape[0], p["U"].shape[0])),) * 2
    hs = []
    for t in range(x.shape[1])[:: -1 if reverse else 1]:
        carry, h = lstm_cell(p, carry, x[:, t])
        hs.append(h)
    return (carry[0] + jnp.stack(hs).mean(0)) @ p["head"] + p["bias"]


X = normal(2, 5, 3, seed=11)


def by_methods(
    f: Callable[..., Any], *args: Any, target: int, methods: Any = METHODS, ledgers: bool = False
) -> Together:
    """Every method's map, and the ledgers as "ledger of METHOD" where it has one."""
    asked = {}
    for method in methods:
        explain = METHODS[method](f)
        asked[method] = partial(explain, target=target)
        if ledgers and has_ledger(explain):
            asked[f"ledger of {method}"] = partial(explain.ledger, target=target)
    return together(asked, *args)


@functools.cache
def lstms() -> list[Together]:
    return [by_methods(f, X, lstm_parameters(), target=1) for f in (scanned_lstm, unrolled_lstm)]


@pytest.mark.parametrize("method", METHODS)
def test_a_scanned_lstm_is_the_unrolled_one(method: str) -> None:
    scanned, unrolled = lstms()
    assert_same(scanned[method], unrolled[method])


@pytest.mark.parametrize(
    "options", [{"reverse": True}, {"unroll": 2}, {"reverse": True, "unroll": 5}], ids=str
)
def test_how_a_loop_runs_does_not_matter(options: Any) -> None:
    p = lstm_parameters()
    found = jxp.lrp(partial(scanned_lstm, **options))(X, p, target=1)
    reverse = options.get("reverse", False)
    assert_same(found, jxp.lrp(partial(unrolled_lstm, reverse=reverse))(X, p, target=1))


@pytest.mark.parametrize("rule", [rules.Epsilon(0.1), rules.AlphaBeta(2, 1), rules.Flat()], ids=str)
def test_the_ledger_of_an_lstm_closes(rule: Any) -> None:
    assert_closes(jxp.lrp(scanned_lstm, rule), X, lstm_parameters(), target=1)


def block(x: Any, w: Any) -> Any:
    return x + 0.5 * jnp.tanh(jax.nn.gelu(x @ w["up"] + w["b"]) @ w["down"])


def blocks(depth: int = 12, size: int = 6) -> Any:
    weights = {
        "up": normal(depth, size, size, seed=1) / 2,
        "b": normal(depth, size, seed=2),
        "down": normal(depth, size, size, seed=3) / 2,
    }
    return jax.tree.map(jnp.asarray, weights)


def scanned_net(x: Any, w: Any, wrap: Callable[..., Any] = lambda f: f) -> Any:
    return lax.scan(lambda x, w: (wrap(block)(x, w), None), x, w)[0]


def written_net(x: Any, w: Any, wrap: Callable[..., Any] = lambda f: f) -> Any:
    for i in range(len(w["b"])):
        x = wrap(block)(x, jax.tree.map(lambda v, i=i: v[i], w))
    return x


@functools.cache
def nets() -> list[Together]:
    args = normal(4, 6), blocks()
    return [
        by_methods(scanned_net, *args, target=2, ledgers=True),
        by_methods(written_net, *args, target=2),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_twelve_scanned_layers_are_twelve_layers(method: str) -> None:
    scanned, written = nets()
    assert_same(scanned[method], written[method])
    if method not in ("gradient", "guided_backprop", "integrated_gradients"):
        assert_closed(scanned[f"ledger of {method}"])


W, U, V, B = (normal(*s, seed=i) for i, s in enumerate([(3, 4), (4, 4), (4, 2), (4,)]))


def delayed(x: Any) -> Any:
    """What the last row says takes two more iterations to reach the carry that is read."""

    def body(carry: Any, row: Any) -> Any:
        a, b, c, steps = carry
        return (jnp.tanh(row @ W), a, jnp.sin(b @ U), steps + 1), (c, steps)

    start = (jnp.zeros(4), jnp.zeros(4), jnp.zeros(4), 0)
    (_, _, c, steps), (cs, _) = lax.scan(body, start, x)
    return (c + cs.sum(0) + steps) @ V


def delayed_written(x: Any) -> Any:
    a = b = c = jnp.zeros(4)
    total = jnp.zeros(4)
    for row in x:
        total = total + c
        a, b, c = jnp.tanh(row @ W), a, jnp.sin(b @ U)
    return (c + total + len(x)) @ V


def nested(x: Any) -> Any:
    def inner(h: Any, v: Any) -> Any:
        return jax.nn.relu(v * B + h @ U), None

    def outer(h: Any, row: Any) -> Any:
        return lax.scan(inner, jnp.tanh(h) + row @ W, row)[0], h.sum()

    h, sums = lax.scan(outer, jnp.zeros(4), x)
    return h @ V + sums[-1]


def nested_written(x: Any) -> Any:
    h = last = jnp.zeros(4)
    for row in x:
        last = h
        h = jnp.tanh(h) + row @ W
        for v in row:
            h = jax.nn.relu(v * B + h @ U)
    return h @ V + last.sum()


def mapped(x: Any) -> Any:
    return lax.map(lambda row: jax.nn.relu(row @ W + B), x).sum(0) @ V


def static(x: Any) -> Any:
    return lax.fori_loop(0, 3, lambda i, h: jax.nn.relu(h @ U + i * B), x[0] @ W) @ V


def static_written(x: Any) -> Any:
    h = x[0] @ W
    for i in range(3):
        h = jax.nn.relu(h @ U + i * B)
    return h @ V


def counted(x: Any) -> Any:
    """The same number for all outputs is a threshold of the activation, not a bias."""

    def step(i: Any, carry: Any) -> Any:
        h, time, total = carry
        h = jax.nn.silu(h @ U + jnp.cos(0.3 * i) - time)
        return h, 0.5 * time, total + h.sum()

    h, _, total = lax.fori_loop(0, 3, step, (x[0] @ W, 1.0, 0.0))
    return h @ V + total


def counted_written(x: Any) -> Any:
    h, time, total = x[0] @ W, 1.0, 0.0
    for i in range(3):
        h = jax.nn.silu(h @ U + float(np.cos(0.3 * i)) - time)
        time, total = 0.5 * time, total + h.sum()
    return h @ V + total


def scanned_weights(x: Any) -> Any:
    """The explained value is fixed, the weights are scanned."""
    weights = jnp.stack([W, 2 * W, -W])
    return lax.scan(lambda h, w: (h + jax.nn.relu(x[0] @ w), None), jnp.zeros(4), weights)[0] @ V


def scanned_weights_written(x: Any) -> Any:
    h = jnp.zeros(4)
    for w in (W, 2 * W, -W):
        h = h + jax.nn.relu(x[0] @ w)
    return h @ V


def the_same_again(x: Any) -> Any:
    """Every iteration computes `x[0] @ W`: written out, that is one value with many readers."""
    step = lambda i, h: jax.nn.relu(x[0] @ W + h @ U + B)  # noqa: E731
    return lax.fori_loop(0, 3, step, x[1] @ W) @ V


def the_same_again_written(x: Any) -> Any:
    h = x[1] @ W
    for _ in range(3):
        h = jax.nn.relu(x[0] @ W + h @ U + B)
    return h @ V


def the_row_again(x: Any) -> Any:
    """As `the_same_again`, in a loop in a loop that gives it its row."""

    def outer(h: Any, row: Any) -> Any:
        return lax.fori_loop(0, 2, lambda i, h: jax.nn.relu(row @ W + h @ U + B), h), None

    return lax.scan(outer, x[0] @ W, x[1:])[0] @ V


def the_row_again_written(x: Any) -> Any:
    h = x[0] @ W
    for row in x[1:]:
        for _ in range(2):
            h = jax.nn.relu(row @ W + h @ U + B)
    return h @ V


def the_rows_again(x: Any) -> Any:
    """As `the_same_again`: what differs in the inner loop is the same in every outer iteration."""
    inner = lambda h, row: (jax.nn.relu(row @ W + h @ U + B), None)  # noqa: E731
    return lax.fori_loop(0, 2, lambda i, h: lax.scan(inner, h, x[1:])[0], x[0] @ W) @ V


def the_rows_again_written(x: Any) -> Any:
    h = x[0] @ W
    for _ in range(2):
        for row in x[1:]:
            h = jax.nn.relu(row @ W + h @ U + B)
    return h @ V


def activation_again(x: Any) -> Any:
    step = lambda i, h: jnp.tanh(jax.nn.relu(x[0]) @ W + h @ U)  # noqa: E731
    return lax.fori_loop(0, 3, step, x[1] @ W) @ V


def activation_again_written(x: Any) -> Any:
    h = x[1] @ W
    for _ in range(3):
        h = jnp.tanh(jax.nn.relu(x[0]) @ W + h @ U)
    return h @ V


BARE = (rules.Z(), rules.AlphaBeta(2, 1, epsilon=0))
LOOPS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "delayed": (delayed, delayed_written),
    "nested": (nested, nested_written),
    "map": (mapped, lambda x: jnp.stack([jax.nn.relu(r @ W + B) for r in x]).sum(0) @ V),
    "fori_loop": (static, static_written),
    "counter": (counted, counted_written),
    "scanned weights": (scanned_weights, scanned_weights_written),
    "the same again": (the_same_again, the_same_again_written),
    "the row again": (the_row_again, the_row_again_written),
    "the rows again": (the_rows_again, the_rows_again_written),
    "activation again": (activation_again, activation_again_written),
}


@pytest.mark.parametrize("name", LOOPS)
def test_loops(name: str) -> None:
    """Without stabilisers: a sum with an initial zero has one more in the loop."""
    loop, written = LOOPS[name]
    sums = composites.kind("Merge") | composites.op("sum")
    asked: dict[Any, Any] = {
        "gradient": partial(jxp.gradient(loop), target=0),
        "by JAX": jax.grad(lambda x: loop(x)[0]),
    }
    for rule in BARE:
        entries = [(composites.kernel, rule), (sums, rules.Norm(0))]
        composite = composites.Composite(entries, strict=False)
        asked[rule, "loop"] = partial(jxp.lrp(loop, composite), target=0)
        asked[rule, "written"] = partial(jxp.lrp(written, composite), target=0)
        asked[rule, "ledger"] = partial(jxp.lrp(loop, composite).ledger, target=0)
    found = together(asked, normal(4, 3, seed=7))
    assert_same(found["gradient"], found["by JAX"], 1e-13)
    for rule in BARE:
        assert_same(found[rule, "loop"], found[rule, "written"])
        assert_closed(found[rule, "ledger"])


def unread_slices(x: Any, unread: bool) -> Any:
    def body(h: Any, row: Any) -> Any:
        a = row @ W
        return jax.nn.relu(a + h @ U + B), a if unread else None

    return lax.scan(body, jnp.ones(4), x)[0] @ V


def unread_carry(x: Any, unread: bool) -> Any:
    def body(carry: Any, row: Any) -> Any:
        h, own = carry
        a = row @ W
        return (jax.nn.relu(a + h @ U + B), own / 2 + a if unread else own), None

    return lax.scan(body, (jnp.ones(4), jnp.zeros(4)), x)[0][0] @ V


def unread_output(x: Any, unread: bool) -> Any:
    def case(x: Any) -> Any:
        a = x @ W
        return jax.nn.relu(a + B), a if unread else None

    return lax.cond(x.sum() > 0, case, case, x)[0] @ V


@pytest.mark.parametrize("f", [unread_slices, unread_carry, unread_output])
@pytest.mark.parametrize("rule", [rules.Z(), rules.AlphaBeta(2, 1)], ids=str)
def test_what_nobody_reads_divides_no_layer(f: Callable[..., Any], rule: Any) -> None:
    x = normal(4, 3, seed=7)
    found, expected = (jxp.lrp(partial(f, unread=u), rule) for u in (True, False))
    assert_same(found(x, target=0), expected(x, target=0))
    assert len(found.plan(x).layers) == len(expected.plan(x).layers)


def test_what_arrives_at_an_initial_state_is_booked() -> None:
    """h = x w + h0 u by hand: the state's share goes to `constants`."""

    def f(x: Any) -> Any:
        return lax.scan(lambda h, v: (2 * v + 3 * h, None), jnp.array([5.0]), x)[0]

    x = jnp.array([[1.0], [1.0]])  # h = 5, 2 + 15 = 17, 2 + 51 = 53
    ledger = jxp.lrp(f, rules.Z()).ledger(x)
    assert_allclose(ledger.output, 53.0)
    assert_allclose(ledger.inputs, 51 * 2 / 17 + 2)
    assert_allclose(ledger.constants.sum(), 51 * 15 / 17)


def test_an_inner_kernel_is_first_only_where_no_kernel_is_before_it() -> None:
    def f(x: Any) -> Any:
        def body(h: Any, row: Any) -> Any:
            return jnp.tanh(jax.nn.relu(row @ W) @ U + h), None

        return lax.scan(body, jnp.zeros(4), x)[0] @ V

    plan = jxp.lrp(f).plan(normal(4, 3))
    kernels = [layer for layer in plan.layers if layer.is_kernel]
    assert [k.first for k in kernels] == [True, False, False]
    assert [k.last for k in kernels] == [False, False, True]
    recurrent = jxp.lrp(lambda x: lax.scan(lambda h, r: (r + h @ U, None), x[0], x)[0])
    (layer,) = (v for v in recurrent.plan(normal(5, 4)).layers if v.is_kernel)
    assert not layer.first and not layer.last


def test_signs_hold_in_every_iteration() -> None:
    def always(x: Any) -> Any:
        return lax.scan(lambda h, r: (jax.nn.relu(h @ U) + r, None), jnp.zeros(4), jnp.exp(x))[0]

    def at_first(x: Any) -> Any:
        return lax.scan(lambda h, r: (jnp.tanh(h @ U) + r, None), jnp.zeros(4), jnp.exp(x))[0]

    for f, sign in ((always, True), (at_first, False)):
        (kernel,) = (v for v in jxp.lrp(f).plan(normal(3, 4)).layers if v.is_kernel)
        assert kernel.nonnegative == (sign,)


# Branches


def branching(x: Any, k: Any) -> Any:
    cases = [
        lambda y: jax.nn.relu(y @ U + B) @ U,
        lambda y: jax.nn.gelu(y) + y,
        lambda y: jnp.ones_like(y),
    ]
    return jnp.tanh(lax.switch(k, cases, jnp.tanh(x @ W))) @ V


def has_ledger(explain: Any) -> bool:
    return isinstance(explain, Explainer) and explain.method.ledger


def branched(x: Any, k: int) -> Any:
    y = jnp.tanh(x @ W)
    y = [jax.nn.relu(y @ U + B) @ U, jax.nn.gelu(y) + y][k]
    return jnp.tanh(y) @ V


@functools.cache
def branches(k: int) -> Together:
    """By the branching function, called with the case as an array and not; as written out."""
    asked: dict[Any, Any] = {}
    for name, method in METHODS.items():
        explain, written = method(branching), method(partial(branched, k=k))
        asked[name, "array"] = partial(explain, target=1)
        asked[name, "number"] = lambda x, _, explain=explain: explain(x, k, target=1)
        asked[name, "written"] = lambda x, _, written=written: written(x, target=1)
        if has_ledger(explain):
            asked[name, "ledger"] = partial(explain.ledger, target=1)
    return together(asked, normal(3, 3, seed=5), k)


@pytest.mark.parametrize("method", METHODS)
def test_a_branch_is_the_case_that_runs(method: str) -> None:
    for k in (0, 1):
        found = branches(k)
        assert_same(found[method, "array"], found[method, "written"])
        assert_same(found[method, "number"], found[method, "written"])
        if has_ledger(METHODS[method](branching)):
            assert_closed(found[method, "ledger"])


def test_a_branch_explained_without_jit_around_it() -> None:
    x = normal(3, 3, seed=5)
    for k in (0, 1):
        found = jxp.lrp(branching)(x, k, target=1)
        assert_same(found, jxp.lrp(partial(branched, k=k))(x, target=1))


def test_a_constant_case_keeps_what_arrives() -> None:
    x = normal(3, 3)
    explain = jxp.lrp(branching, rules.Z())
    assert not np.any(explain(x, 2, target=1))
    ledger = explain.ledger(x, 2, target=1)
    assert_allclose(ledger.constants.sum(), ledger.output)
    assert ledger.error() < 1e-13


def test_every_example_its_own_branch() -> None:
    x, k = normal(4, 3), jnp.array([0, 1, 1, 0])
    explain = jxp.lrp(branching)
    found = jax.vmap(lambda x, k: explain(x, k, target=0))(x, k)
    expected = jnp.stack([explain(v, int(i), target=0) for v, i in zip(x, k, strict=True)])
    assert_same(found, expected)


def test_a_branch_that_overflows_elsewhere_harms_nobody() -> None:
    def f(x: Any) -> Any:
        return lax.cond(x[0] > 0, lambda x: x @ W, lambda x: jnp.exp(-1e5 * x) @ W, x) @ V

    x = jnp.array([[1.0, 2.0, 3.0], [4.0, -1.0, 1.0]])
    found = jax.vmap(lambda x: jxp.lrp(f)(x, target=0))(x)
    assert np.isfinite(found).all()


def test_a_loop_that_may_end_early() -> None:
    """What the error about while_loop proposes."""

    def f(x: Any) -> Any:
        def body(_: Any, h: Any) -> Any:
            return lax.cond(jnp.abs(h).max() < 3, lambda h: jax.nn.relu(h @ U), lambda h: h, h)

        return lax.fori_loop(0, 6, body, x @ W) @ V

    def written(x: Any) -> Any:
        h = x @ W
        for _ in range(count):
            h = jax.nn.relu(h @ U)
        return h @ V

    x = normal(3)
    h, count = x @ W, 0
    while np.abs(h).max() < 3 and count < 6:
        h, count = jax.nn.relu(h @ U), count + 1
    assert count > 0
    assert_same(jxp.lrp(f)(x, target=1), jxp.lrp(written)(x, target=1))
    assert_closes(jxp.lrp(f), x, target=1)


@pytest.mark.parametrize("method", [jxp.lrp, jxp.gradient, partial(jxp.lrp, unknown="gradient")])
def test_a_while_loop_is_refused(method: Any) -> None:
    def f(x: Any, n: Any) -> Any:
        return lax.fori_loop(0, n, lambda i, h: jnp.tanh(h @ U), x @ W) @ V

    with pytest.raises(jxp.NotAnalyzableError, match=r"(?s)`while` at test_control.*jax.lax.scan"):
        method(f)(normal(2, 3), 3)


def test_a_while_loop_of_equinox() -> None:
    def f(x: Any, kind: str) -> Any:
        loop = partial(equinox.internal.while_loop, max_steps=16, kind=kind)
        return loop(lambda s: s[1] < 3, lambda s: (jnp.tanh(s[0] @ U), s[1] + 1), (x @ W, 0))[0] @ V

    @equinox.filter_jit
    def plain(x: Any) -> Any:
        return lax.while_loop(lambda h: h.sum() < 3, lambda h: jnp.tanh(h @ U), x @ W) @ V

    def written(x: Any) -> Any:
        h = x @ W
        for _ in range(3):
            h = jnp.tanh(h @ U)
        return h @ V

    x = normal(2, 3)
    bounded = jxp.lrp(partial(f, kind="bounded"))(x, target=1)
    assert_same(bounded, jxp.lrp(written)(x, target=1))
    for kind in ("lax", "checkpointed"):
        with pytest.raises(jxp.NotAnalyzableError, match='or Equinox\'s kind="bounded"'):
            jxp.lrp(partial(f, kind=kind))(x)
    with pytest.raises(jxp.NotAnalyzableError) as caught:
        jxp.lrp(plain)(x)
    assert "Equinox" not in str(caught.value)


def test_a_while_loop_on_constants_is_none_of_our_business() -> None:
    def f(x: Any, n: Any) -> Any:
        return x @ lax.fori_loop(0, n, lambda i, w: w @ U, W)

    assert_same(jxp.lrp(f)(normal(2, 3), 2), jxp.lrp(lambda x: x @ (W @ U @ U))(normal(2, 3)))


def test_how_often_a_while_loop_runs_is_no_part_of_its_result() -> None:
    def f(x: Any) -> Any:
        steps = lax.while_loop(lambda n: n < x.sum(), lambda n: 2 * n, 1.0)
        return (x * steps) @ W

    x = jnp.array([[1.0, 2.0, 3.0]])
    assert_same(jxp.lrp(f)(x), jxp.lrp(lambda x: (x * 8) @ W)(x))


# Probes


def test_layers_inside_of_a_loop_are_captured_by_iteration() -> None:
    p = lstm_parameters()
    r, captured = jxp.lrp(scanned_lstm, capture="^W$")(X, p, target=1)
    (name,) = captured
    assert captured[name].shape == (5, 2, 16)
    values = jxp.lrp(scanned_lstm).activations(X, p, layers=name)[name]
    carry = (jnp.zeros((2, 4)),) * 2
    for t in range(5):
        assert_same(values[t], X[:, t] @ p["W"] + carry[0] @ p["U"] + p["b"], 1e-13)
        carry, _ = lstm_cell(p, carry, X[:, t])
    assert_same(jxp.lrp(scanned_lstm, stop=name)(X, p, target=1), captured[name])
    assert r.shape == X.shape


def test_a_mask_may_differ_between_iterations() -> None:
    p = lstm_parameters()
    explain = jxp.lrp(scanned_lstm, rules.Epsilon(), capture="^W$")
    (name,) = explain(X, p, target=1)[1]
    whole = explain(X, p, target=1)[0]
    assert_same(explain(X, p, target=1, masks={name: jnp.ones((5, 1, 1))})[0], whole)
    for t in range(5):
        mask = jnp.ones((5, 1, 1)).at[t].set(0)
        cut = explain(X, p, target=1, masks={name: mask})[0]
        assert not np.any(cut[:, t]) and np.any(cut[:, t:]) == (t < 4)
    none = explain(X, p, target=1, masks={name: jnp.zeros(16)})[0]
    assert not np.any(none)


def test_a_start_inside_of_a_loop_is_refused() -> None:
    with pytest.raises(ValueError, match="inside of 'scan'"):
        jxp.lrp(scanned_net, start="up").plan(normal(2, 6), blocks())


def test_the_first_layer_that_is_not_finite_may_be_inside() -> None:
    w = blocks() | {"b": blocks()["b"].at[3, 2].set(jnp.inf)}
    explain = jxp.lrp(scanned_net, check_finite=True)
    assert explain(normal(2, 6), blocks(), target=0).shape == (2, 6)
    with pytest.raises(FloatingPointError, match=r"input .*b is not finite"):
        explain(normal(2, 6), w, target=0)
    with pytest.raises(FloatingPointError, match=r"output of layer 0 \(up\)"):
        big = blocks() | {"up": blocks()["up"] * 1e200}
        explain(1e200 * normal(2, 6), big, target=0)


def test_the_plan_shows_what_a_loop_holds() -> None:
    text = str(jxp.lrp(scanned_net).plan(normal(2, 6), blocks()))
    assert "Loop (12 times)" in text
    lines = text.splitlines()
    (heading,) = (i for i, line in enumerate(lines) if "Loop" in line)
    assert "  up" in lines[heading + 1] and "test_control_flow.py" in lines[heading]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("method", [jxp.lrp, jxp.gradient])
def test_half_precision_is_kept_apart_from_relevance(dtype: Any, method: Any) -> None:
    x, w = (jax.tree.map(lambda v: jnp.asarray(v, dtype), v) for v in (normal(2, 6), blocks(3)))
    found, expected = (method(f)(x, w, target=2) for f in (scanned_net, written_net))
    assert found.dtype == dtype
    bound = 0.02 if method is jxp.lrp else 1e-6
    assert_allclose(np.float64(found), np.float64(expected), atol=bound * np.abs(expected).max())


def test_explanations_of_loops_differentiate() -> None:
    x, w = normal(2, 6), blocks(2)
    explain = jxp.lrp(scanned_net, rules.Epsilon(0.1))

    def loss(w: Any) -> Any:
        return jnp.square(explain(x, w, target=2)).sum()

    gradient = jax.grad(loss)(w)["up"]
    direction = normal(*gradient.shape, seed=4)
    step = 1e-6
    moved = [loss(w | {"up": w["up"] + s * step * direction}) for s in (1, -1)]
    assert_allclose(jnp.vdot(gradient, direction), (moved[0] - moved[1]) / (2 * step), rtol=1e-6)


# jax.checkpoint


POLICIES = {
    "everything": {},
    "dots": {"policy": jax.checkpoint_policies.dots_saveable},
    "no barrier": {"prevent_cse": False},
}


@functools.cache
def checkpointed(net: Any, policy: str | None) -> Together:
    wrap = partial(jax.checkpoint, **POLICIES[policy]) if policy else lambda f: f
    return by_methods(partial(net, wrap=wrap), normal(4, 6), blocks(2), target=2)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("net", [written_net, scanned_net])
def test_checkpointing_changes_nothing(policy: str, method: str, net: Any) -> None:
    assert_same(checkpointed(net, policy)[method], checkpointed(net, None)[method])


def dots(f: Any, *args: Any) -> int:
    return jax.jit(f).lower(*args).as_text().count("dot_general")


def test_checkpointed_layers_are_computed_again() -> None:
    """In the program that XLA is given; on CPUs it may undo that."""
    x, w = normal(4, 6), blocks(2)

    def count(**options: Any) -> int:
        wrap = partial(jax.checkpoint, **options) if options else lambda f: f
        return dots(partial(jxp.lrp(partial(written_net, wrap=wrap)), target=2), x, w)

    plain = count()
    assert count(prevent_cse=True) == plain + 4
    assert count(policy=jax.checkpoint_policies.dots_saveable) == plain


def test_every_call_of_a_jitted_checkpoint_is_one() -> None:
    """Though all calls share one jaxpr: together they would all be held at once."""
    block = jax.jit(jax.checkpoint(lambda h, u: jnp.tanh(jnp.tanh(h @ u) @ u)))

    def net(x: Any) -> Any:
        h = x @ W
        for u in (U, 2 * U, -U):
            h = block(h, u)
        return h @ V

    program = jax.make_jaxpr(jxp.lrp(net))(normal(2, 3))
    assert str(program).count("checkpoint[") + str(program).count("remat2[") == 3


def test_part_of_a_layer_in_a_checkpoint_is_still_that_layer() -> None:
    def net(x: Any, wrap: Any) -> Any:
        h = wrap(lambda x: jax.nn.relu(x @ W))(x)
        return (wrap(lambda h: h @ U)(h) + B) * 2 @ V

    x = normal(4, 3)
    for rule in (rules.Epsilon(), rules.AlphaBeta(2, 1)):
        on, off = (jxp.lrp(partial(net, wrap=w), rule) for w in (jax.checkpoint, lambda f: f))
        assert_same(on(x, target=0), off(x, target=0), 1e-14)
        assert [str(v) for v in on.plan(x).layers] == [str(v) for v in off.plan(x).layers]


@pytest.mark.optimized
def test_checkpointing_saves_memory() -> None:
    x = jnp.ones((256, 6 * 8))
    w = jax.eval_shape(lambda: blocks(12, 48))

    def temporaries(wrap: Any) -> int:
        explain = partial(jxp.lrp(partial(scanned_net, wrap=wrap)), target=2)
        return jax.jit(explain).lower(x, w).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(jax.checkpoint) < 0.4 * temporaries(lambda f: f)


def test_captures_and_ledgers_reach_into_a_checkpoint() -> None:
    x, w = normal(4, 6), blocks(2)
    on = jxp.lrp(partial(written_net, wrap=jax.checkpoint), capture=lambda v: v.is_kernel)
    off = jxp.lrp(written_net, capture=lambda v: v.is_kernel)
    for a, b in zip(*(e(x, w, target=2)[1].values() for e in (on, off)), strict=True):
        assert_same(a, b, 1e-13)
    assert_closes(on, x, w, target=2)


# shard_map


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    assert jax.device_count() == 8
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def perceptron(x: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    h = jax.nn.relu(x @ a + b)
    return 2 * jnp.tanh(h @ c + d)


def split_perceptron(x: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    h = jax.nn.relu(x @ a + b)
    return 2 * jnp.tanh(lax.psum(h @ c, "model") + d)


OPERANDS = tuple(normal(*s, seed=i) for i, s in enumerate([(8, 4), (4, 6), (6,), (6, 5), (5,)]))
SPECS = {
    "data": (perceptron, (P("data"), P(), P(), P(), P())),
    "model": (split_perceptron, (P(), P(None, "model"), P("model"), P("model"), P())),
    "both": (split_perceptron, (P("data"), P(None, "model"), P("model"), P("model"), P())),
}


def sharded(mesh: Mesh, name: str, check: bool) -> Callable[..., Any]:
    f, specs = SPECS[name]
    return jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=specs[0], check_vma=check)


SHARDED = [m for m in METHODS if m not in ("gamma", "deep_taylor")]


@functools.cache
def distributed(mesh: Mesh, name: str, check: bool) -> Together:
    f = sharded(mesh, name, check) if name else perceptron
    return by_methods(f, *OPERANDS, target=2, methods=SHARDED, ledgers=True)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("method", SHARDED)
def test_a_sharded_function_is_that_of_one_device(
    mesh: Mesh, name: str, check: bool, method: str
) -> None:
    found, expected = distributed(mesh, name, check), distributed(mesh, "", True)
    assert_same(found[method], expected[method])
    if has_ledger(METHODS[method](perceptron)):
        ledger, whole = (v[f"ledger of {method}"] for v in (found, expected))
        assert_closed(ledger)
        assert_allclose(ledger.bias.sum(), whole.bias.sum(), rtol=1e-10)


def test_a_sharded_function_explained_without_jit_around_it(mesh: Mesh) -> None:
    found = jxp.lrp(sharded(mesh, "both", True))(*OPERANDS, target=2)
    assert_same(found, jxp.lrp(perceptron)(*OPERANDS, target=2))


@pytest.mark.parametrize("rule", [rules.ZBox(-3, 3), rules.Flat(), rules.ZPlus()], ids=str)
def test_what_moves_between_devices_before_a_kernel(mesh: Mesh, rule: Any) -> None:
    def to_next(x: Any) -> Any:
        return lax.ppermute(x, "data", [(i, (i + 1) % 4) for i in range(4)]) @ U

    def gathered(x: Any) -> Any:
        return lax.all_gather(x, "data", axis=1, tiled=True) @ U

    x = normal(8, 4)
    moved = jax.shard_map(to_next, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    expected = jxp.lrp(lambda x: jnp.roll(x, 2, axis=0) @ U, rule)
    assert_same(jxp.lrp(moved, rule)(x, target=1), expected(x, target=1))
    every = jax.shard_map(gathered, mesh=mesh, in_specs=P(None, "data"), out_specs=P("data"))
    expected = jxp.lrp(lambda x: jnp.tile(x @ U, (4, 1)), rule)
    assert_same(jxp.lrp(every, rule)(x, target=1), expected(x, target=1))


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("rule", [rules.Gamma(), rules.AlphaBeta(2, 1), rules.ZPlus()], ids=str)
def test_a_scale_that_differs_between_devices(mesh: Mesh, rule: Any, check: bool) -> None:
    """The input and the kernel are the same on all of them."""

    def f(x: Any) -> Any:
        return x @ U * (2.5 - lax.axis_index("data"))

    x = normal(1, 4)
    devices = jax.shard_map(f, mesh=mesh, in_specs=P(), out_specs=P("data"), check_vma=check)
    explain = jxp.lrp(devices, rule)
    expected = jxp.lrp(lambda x: jnp.concatenate([x @ (U * (2.5 - i)) for i in range(4)]), rule)
    assert_same(explain(x, target=1), expected(x, target=1))
    assert_closes(explain, x, target=1)


def test_a_ledger_per_example_tells_that_it_calls_with_one(mesh: Mesh) -> None:
    f = jax.shard_map(lambda x: x @ U, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    with pytest.raises(ValueError, match="divisible") as caught:
        jxp.lrp(f).ledger(normal(8, 4), per_example=True)
    assert "per_example=True calls the function with one example" in caught.value.__notes__[0]


def test_what_every_device_has_is_captured(mesh: Mesh) -> None:
    explain = jxp.lrp(sharded(mesh, "both", True), capture=lambda v: True)
    _, found = explain(*OPERANDS, target=2)
    _, expected = jxp.lrp(perceptron, capture=lambda v: True)(*OPERANDS, target=2)
    assert found["rectifier"].shape == (8, 2, 3) and found["tanh"].shape == (4, 2, 5)
    per_device = found["rectifier"].reshape(4, 2, 2, 3).swapaxes(1, 2).reshape(8, 6)
    assert_same(per_device, expected["rectifier"])
    assert_same(found["tanh"].reshape(8, 5), expected["tanh"])


@pytest.mark.parametrize("method", [m for m in METHODS if m != "integrated_gradients"])
def test_an_explainer_inside_of_shard_map(mesh: Mesh, method: str) -> None:
    specs = SPECS["data"][1]
    explain = METHODS[method](perceptron)
    inside = jax.shard_map(
        partial(explain, target=2), mesh=mesh, in_specs=specs, out_specs=P("data")
    )
    assert_same(inside(*OPERANDS), explain(*OPERANDS, target=2))


def test_wrappers_inside_of_shard_map(mesh: Mesh) -> None:
    specs = SPECS["data"][1]
    for explain in (
        jxp.integrated_gradients(perceptron, steps=5, batch_size=2),
        jxp.occlusion(perceptron, window=2),
    ):
        inside = jax.shard_map(
            partial(explain, target=2), mesh=mesh, in_specs=specs, out_specs=P("data")
        )
        assert_same(inside(*OPERANDS), explain(*OPERANDS, target=2))


def test_a_sum_over_devices_of_activations_is_shared_by_contribution(mesh: Mesh) -> None:
    """x = (1, 3) on two devices; their sum's relevance 4 is theirs as 1 and 3."""

    def f(x: Any) -> Any:
        return lax.psum(x, "model")

    f = jax.shard_map(f, mesh=mesh, in_specs=P("model"), out_specs=P())
    assert_allclose(jxp.lrp(f, composites.EpsilonPlus(0))(jnp.array([1.0, 3.0])), [1, 3], rtol=1e-6)


EDGE = "may belong to a layer beyond the edge of a loop, branch or mesh"
WRITES = " (jaxplain.unroll writes loops out)"
STACKS = normal(2, 4, 4), normal(2, 4, 4, seed=1)


def residual(h: Any, w: Any) -> Any:
    return h + jax.nn.relu(h @ w[0]) @ w[1], None


CUT: dict[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {
    "bias behind": (
        lambda x: lax.scan(lambda h, w: (jnp.tanh(h) @ w, None), x, STACKS[0])[0] + B,
        (f"scale {EDGE}{WRITES}",),
    ),
    "bias behind slices": (lambda x: lax.map(lambda v: v @ U, x) + B, (f"scale {EDGE}",)),
    "bias behind cases": (
        lambda x: lax.cond(x[0, 0] > 0, lambda v: v @ U, lambda v: v @ U.T, x) + B,
        (f"scale {EDGE}",),
    ),
    "sum of kernels": (
        lambda x: lax.scan(
            lambda c, w: (c + jax.nn.relu(x @ w[0]) @ w[1], None), jnp.zeros((3, 4)), STACKS
        )[0],
        (f"sum {EDGE}{WRITES}",),
    ),
    "residual": (lambda x: lax.scan(residual, x, STACKS)[0] @ V, ()),
    "sum of activations": (
        lambda x: lax.scan(lambda c, r: (c + jnp.tanh(r @ U), None), jnp.zeros(4), x)[0],
        (),
    ),
}


@pytest.mark.parametrize("name", CUT)
def test_a_plan_tells_what_an_edge_cuts(name: str) -> None:
    f, notes = CUT[name]
    assert jxp.lrp(f).plan(normal(3, 4)).notes == notes


def test_a_plan_tells_that_no_kernel_of_a_loop_is_first() -> None:
    weights, x = jnp.ones((3, 4, 4)), jnp.ones((2, 4))

    def f(x: Any) -> Any:
        return lax.scan(lambda h, w: (jax.nn.relu(h @ w), None), x, weights)[0]

    told = "no kernel is first: those in scan also come behind themselves"
    (note,) = jxp.lrp(f, composites.EpsilonPlusFlat()).plan(x).notes
    assert note.startswith(told)
    assert not jxp.lrp(f, composites.EpsilonPlus()).plan(x).notes
    assert not jxp.lrp(lambda x: f(x @ weights[0]), composites.EpsilonPlusFlat()).plan(x).notes


def classify(end: Any, x: Any) -> Any:
    return end(jax.nn.relu(x @ _W + 0.1) @ _V)


_W, _V = (np.random.default_rng(i).normal(size=s) for i, s in enumerate([(4, 5), (5, 3)]))

# Where a trailing softmax may stand.
WRAPPED: dict[str, Callable[[Any], Any]] = {
    "chunks": lambda f: lambda x: lax.map(f, x, batch_size=4),
    "one by one": lambda f: lambda x: lax.map(lambda row: f(row[None])[0], x),
    "chunks and a rest": lambda f: lambda x: lax.map(f, x, batch_size=3),
    "once": lambda f: lambda x: lax.map(f, x[None])[0],
    "unrolled": lambda f: jxp.unroll(lambda x: lax.map(lambda row: f(row[None])[0], x)),
    "in half precision": lambda f: (
        lambda x: lax.map(lambda r: f(r[None])[0].astype(jnp.float32), x).astype(float)
    ),
    "nested": lambda f: (
        lambda x: lax.map(
            lambda rows: lax.map(lambda r: f(r[None])[0], rows), x.reshape(2, 4, 4)
        ).reshape(8, 3)
    ),
    "cases": lambda f: lambda x: lax.cond(x.sum() > 0, f, lambda x: f(1.0 * x), x),
    "devices": lambda f: jax.shard_map(
        f, mesh=Mesh(np.array(jax.devices()[:4]), "d"), in_specs=P("d"), out_specs=P("d")
    ),
}


@pytest.mark.parametrize("end", [jax.nn.softmax, jax.nn.log_softmax])
@pytest.mark.parametrize("name", WRAPPED)
def test_a_softmax_that_ends_a_body_is_left_out(name: str, end: Any) -> None:
    f, x = partial(classify, end), np.random.default_rng(2).normal(size=(8, 4))
    explain = jxp.lrp(WRAPPED[name](f), rules.Z(), with_output=True)
    told = together(
        {
            "map": partial(explain, target=1),
            "expected": partial(jxp.lrp(f, rules.Z(), with_output=True), target=1),
            "outputs": explain.outputs,
            "logits": partial(classify, lambda z: z),
            "ledger": partial(jxp.lrp(WRAPPED[name](f)).ledger, target=1),
        },
        x,
    )
    (output, found), (_, expected) = told["map"], told["expected"]
    precision = 1e-6 if "precision" in name else 1e-9
    assert_allclose(output, f(x), rtol=precision)
    assert_allclose(found, expected, rtol=0, atol=precision * np.abs(expected).max())
    assert_allclose(told["outputs"], told["logits"], rtol=precision)
    assert explain.plan(x).notes[0].startswith(f"the trailing {end.__name__} is left out")
    assert told["ledger"].error() < precision


def test_a_softmax_that_is_read_elsewhere_stays_and_is_told() -> None:
    def f(x: Any) -> Any:
        p = lax.map(partial(classify, jax.nn.softmax), x, batch_size=4)
        return p, -(p * jnp.log(p)).sum(-1)

    x = np.random.default_rng(2).normal(size=(8, 4))
    told = "the output is that of a softmax: targets are probabilities"
    assert told in jxp.lrp(f).plan(x).notes
    assert told in jxp.gradient(partial(classify, jax.nn.softmax)).plan(x).notes
    assert not jxp.gradient(partial(classify, jnp.tanh)).plan(x).notes


@pytest.mark.parametrize("reverse", [False, True])
def test_what_is_not_finite_first_in_a_loop(reverse: bool) -> None:
    """In the iteration where it begins, not in the order of the body."""

    def f(x: Any) -> Any:
        def body(h: Any, row: Any) -> Any:
            return jnp.log(2.0 * h @ _W[:, :4] + row), None

        return lax.scan(body, jnp.zeros(4), x, reverse=reverse)[0]

    with pytest.raises(FloatingPointError, match=r"the output of layer \d \(log\)"):
        jxp.lrp(f, check_finite=True)(-jnp.ones((3, 4)))
