"""`unroll`: a function whose loops are written out wherever it is explained."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import lax, nn
from numpy.testing import assert_allclose

import jaxplain as jxp
from comparing import Together, together
from jaxplain import composites, rules

_RNG = np.random.default_rng(0)
WS, G, B = _RNG.normal(size=(3, 5, 5)), _RNG.normal(size=(3, 5)), _RNG.normal(size=(3, 5))
V, W = _RNG.normal(size=(5, 2)), _RNG.normal(size=(5, 5))
X, STEPS = _RNG.normal(size=(2, 5)), _RNG.normal(size=(4, 2, 5))
TABLE, IDS = _RNG.normal(size=(7, 5)), jnp.array([[3, 1, 4], [1, 5, 2]])


pytestmark = pytest.mark.usefixtures("float64")


def block(x: Any, w: Any, g: Any, b: Any) -> Any:
    """BatchNorm behind its rectifier: part of the kernel of the next block."""
    return nn.relu(x @ w) * g + b


def stack(x: Any) -> Any:
    return lax.scan(lambda h, p: (block(h, *p), None), x, (WS, G, B))[0] @ V


def stack_written(x: Any) -> Any:
    for p in zip(WS, G, B, strict=True):
        x = block(x, *p)
    return x @ V


def step(h: Any, x: Any) -> Any:
    return jnp.tanh(x @ W + h @ WS[0] + B[0])


def backward(xs: Any) -> Any:
    """Each state as it was before its step, the last step first."""
    return lax.scan(lambda h, x: (step(h, x), h), jnp.full((2, 5), 0.5), xs, reverse=True)[1] @ V


def backward_written(xs: Any) -> Any:
    states = [jnp.full((2, 5), 0.5)]
    for x in xs[:0:-1]:
        states.append(step(states[-1], x))
    return jnp.stack(states[::-1]) @ V


def counted(x: Any) -> Any:
    """A loop in a loop, which only looks at the weights by its counter."""

    def inner(i: Any, h: Any) -> Any:
        return lax.fori_loop(0, 2, lambda j, h: nn.relu(h @ jnp.asarray(WS)[i + j] + B[0]), h)

    return lax.fori_loop(0, 2, inner, x) @ V


def counted_written(x: Any) -> Any:
    for i in (0, 1, 1, 2):
        x = nn.relu(x @ WS[i] + B[0])
    return x @ V


PAIRS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], np.ndarray]] = {
    "stack": (stack, stack_written, X),
    "backward": (backward, backward_written, STEPS),
    "counted": (counted, counted_written, X),
    "in a jitted function": (jax.jit(stack), stack_written, X),
    "never": (
        lambda x: lax.scan(lambda h, w: (nn.relu(h @ w), h), x, jnp.ones((0, 5, 5)))[0] @ V,
        lambda x: x @ V,
        X,
    ),
    "ending in a softmax": (
        lambda x: lax.map(lambda row: nn.softmax(nn.relu(row @ W) @ V), x),
        lambda x: nn.softmax(nn.relu(x @ W) @ V),
        X[:1],
    ),
    "mapped": (
        lambda x: lax.map(lambda r: nn.relu(r @ W + B[0]) @ V, (x - 0.5) / 0.3),
        lambda x: nn.relu((x - 0.5) / 0.3 @ W + B[0]) @ V,
        X,
    ),
}
METHODS: dict[str, Callable[[Any], Any]] = {
    "epsilon": jxp.lrp,
    "z_plus": partial(jxp.lrp, rule=rules.ZPlus()),
    "alpha_beta": partial(jxp.lrp, rule=rules.AlphaBeta(2, 1)),
    "flat": partial(jxp.lrp, rule=composites.EpsilonPlusFlat()),
    "box": partial(jxp.deep_taylor, low=-4.0, high=4.0),
    "deep_lift": partial(jxp.deep_lift, baseline=0.1),
    "guided_backprop": jxp.guided_backprop,
}


@functools.cache
def maps(pair: str) -> Together:
    """By method, of the unrolled loop and of what is written out."""
    f, written, x = PAIRS[pair]
    asked: dict[Any, Any] = {}
    for name, method in METHODS.items():
        asked[name, "unrolled"] = partial(method(jxp.unroll(f)), target=1)
        asked[name, "written"] = partial(method(written), target=1)
    return together(asked, x)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pair", PAIRS)
def test_an_unrolled_loop_is_what_was_written_out(pair: str, method: str) -> None:
    found, expected = (maps(pair)[method, way] for way in ("unrolled", "written"))
    assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_the_first_kernel_and_what_is_left_to_the_next() -> None:
    layers = jxp.lrp(jxp.unroll(stack)).plan(X).layers
    assert [layer.op for layer in layers] == ["dense", "rectifier"] * 3 + ["dense"]
    assert [layer.first for layer in layers].count(True) == 1 and layers[0].first
    assert {layer.location.split(":")[0] for layer in layers} == {"test_unrolling.py"}
    inside = jxp.lrp(stack, composites.EpsilonPlusFlat()).plan(X)
    assert inside.notes == (
        "no kernel is first: those in scan also come behind themselves (jaxplain.unroll writes "
        "loops out)",
        "scale may belong to a layer beyond the edge of a loop, branch or mesh (jaxplain.unroll "
        "writes loops out)",
    )


def test_a_state_that_begins_as_a_constant_is_one() -> None:
    def product(x: Any) -> Any:
        return lax.scan(lambda h, r: (h * r, None), jnp.ones(1), x)[0]

    x = jnp.array([[1.0], [2.0], [4.0]])
    found, written = (jxp.lrp(f)(x) for f in (jxp.unroll(product), lambda x: x[0] * x[1] * x[2]))
    assert_allclose(found, written)
    assert_allclose(found.ravel(), [2, 2, 4])


def test_models_stay_pytrees_and_keep_their_names() -> None:
    module = linen.RNN(linen.SimpleCell(4, dtype=float, param_dtype=float), time_major=True)
    variables = module.init(jax.random.key(0), jnp.asarray(STEPS))
    model = jxp.from_linen(module, variables)
    unrolled = jxp.unroll(model)
    assert len(jax.tree.leaves(unrolled)) == len(jax.tree.leaves(model))
    assert_allclose(unrolled(STEPS), model(STEPS), rtol=1e-12)
    layers = jxp.lrp(unrolled).plan(STEPS).layers
    assert len(layers) == 2 * len(STEPS) and all("unroll" not in layer.name for layer in layers)

    flat = nnx.Sequential(nnx.Linear(5, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 2, rngs=nnx.Rngs(1)))
    for given in (flat, jxp.from_nnx(flat)):
        names, same = (
            [layer.name for layer in jxp.lrp(f).plan(X).layers] for f in (given, jxp.unroll(given))
        )
        assert names == same


def test_methods_that_do_not_go_into_loops() -> None:
    explain = jxp.deep_lift(jxp.unroll(stack), 0.0)
    total = stack(X)[:, 1] - stack(0 * X)[:, 1]
    assert_allclose(explain(X, target=1).sum(-1), total, rtol=1e-10)
    many = _RNG.normal(size=(50, 5))
    fitted = [jxp.pattern_statistics(f, many) for f in (jxp.unroll(stack), stack_written)]
    found, expected = (
        jxp.pattern_attribution(f, statistics.patterns())(X, target=1)
        for f, statistics in zip((jxp.unroll(stack), stack_written), fitted, strict=True)
    )
    assert_allclose(found, expected, rtol=1e-9)

    def read(ids: Any) -> Any:
        start = jnp.zeros((2, 5))
        return lax.scan(lambda h, i: (step(h, jnp.asarray(TABLE)[i]), None), start, ids.T)[0] @ V

    def read_before(e: Any) -> Any:
        h = jnp.zeros((2, 5))
        for x in e.swapaxes(0, 1):
            h = step(h, x)
        return h @ V

    found = jxp.lrp(jxp.unroll(read))(IDS, target=0)
    expected = jxp.lrp(read_before)(TABLE[IDS], target=0).sum(-1)
    assert_allclose(found, expected, rtol=1e-10)


def test_what_runs_once_or_never_otherwise_is_written_out_anyway() -> None:
    """A branch whose case is known, a loop of one iteration."""
    plain = partial(jxp.lrp, rule=rules.AlphaBeta(2, 1))
    expected = plain(lambda x: nn.relu(x @ W * G[0] + B[0]) @ V)(X, target=1)
    for kernel in (
        lambda x: lax.cond(True, lambda v: v @ W, jnp.sin, x),
        lambda x: lax.switch(7, [jnp.sin, lambda v: v @ W], x),
        lambda x: lax.scan(lambda h, _: (h @ W, None), x, None, length=1)[0],
        lambda x: lax.map(lambda v: v @ W, x[None])[0],
    ):
        found = plain(lambda x, k=kernel: nn.relu(k(x) * G[0] + B[0]) @ V)(X, target=1)
        assert_allclose(found, expected, rtol=1e-12)


def test_only_functions_unroll() -> None:
    with pytest.raises(TypeError, match="unroll takes a function"):
        jxp.unroll(X)
