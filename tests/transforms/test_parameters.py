"""The relevance of weights that are used more than once, made of others, or beside the input."""

import functools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxplain as jxp
from comparing import Together, together
from jaxplain.composites import EpsilonPlusFlat, kernel
from jaxplain.rules import AlphaBeta, Epsilon, WSquare, Z, ZBox, ZPlus

pytestmark = pytest.mark.usefixtures("float64")


def normal(*shape: int, seed: int = 0) -> Any:
    return jnp.asarray(np.random.default_rng((seed, *shape)).normal(size=shape))


def close(a: Any, b: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * float(np.abs(b).max()))


def whole(output: Any) -> Any:
    return output


def same(found: Any, expected: Any, tolerance: float = 1e-12) -> None:
    jax.tree.map(lambda a, b: close(a, b, tolerance), found, expected)


def layers(x: Any, p: Any) -> Any:
    for w in p["w"]:
        x = jax.nn.relu(x @ w + p["b"])
    return x


def scanned(x: Any, p: Any) -> Any:
    return lax.scan(lambda h, w: (jax.nn.relu(h @ w + p["b"]), None), x, p["w"])[0]


def indexed(x: Any, p: Any) -> Any:
    return lax.fori_loop(0, 3, lambda i, h: jax.nn.relu(h @ p["w"][i] + p["b"]), x)


SPELLINGS = {
    "unrolled list": lambda x, p: layers(x, {**p, "w": list(p["w"])}),
    "scan": scanned,
    "unroll": jxp.unroll(scanned),
    "index": indexed,
    "checkpoint": jax.checkpoint(scanned),
}


SOME = [Z(), Epsilon(0.1), ZPlus(), AlphaBeta()]


@functools.cache
def by_rules(spelling: str) -> Together:
    """The relevance of the stacked weights; without a spelling, of a list of them."""
    f = SPELLINGS[spelling] if spelling else layers
    x, ws, b = normal(3, 4), normal(3, 4, 4, seed=1), normal(4, seed=2) / 4
    asked = {rule: partial(jxp.parameter_relevance(f, rule), target=whole) for rule in SOME}
    return together(asked, x, {"w": ws if spelling else list(ws), "b": b})


@pytest.mark.parametrize("rule", SOME, ids=str)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_stacked_weights_are_explained_as_a_list_of_them(spelling: str, rule: Any) -> None:
    listed = by_rules("")[rule]
    same(by_rules(spelling)[rule], {"w": jnp.stack(listed["w"]), "b": listed["b"]})


@pytest.mark.parametrize("f", SPELLINGS.values(), ids=SPELLINGS)
def test_every_layer_hands_on_all_of_the_output(f: Any) -> None:
    x, p = normal(3, 4), {"w": normal(3, 4, 4, seed=1), "b": jnp.zeros(4)}
    output = layers(x, p).sum()
    found = jxp.parameter_relevance(f, Z())(x, p, target=whole)
    close(found["w"].sum((1, 2)), jnp.full(3, output), 1e-12)


def recurrent(x: Any, p: Any) -> Any:
    start = jnp.broadcast_to(p["start"], (len(x), len(p["U"])))
    step = lambda h, x: (jnp.tanh(x @ p["W"] + h @ p["U"] + p["b"]), None)  # noqa: E731
    return lax.scan(step, start, jnp.swapaxes(x, 0, 1))[0] @ p["V"]


@pytest.mark.parametrize("f", [recurrent, jxp.unroll(recurrent)], ids=["scan", "unroll"])
def test_recurrent_weights_by_hand(f: Any) -> None:
    shapes = {"W": (3, 5), "U": (5, 5), "b": (5,), "V": (5, 2), "start": (5,)}
    p = {k: normal(*shape, seed=ord(k[0])) / 2 for k, shape in shapes.items()}
    x = normal(2, 6, 3)
    w, u, b, v, start = (np.asarray(p[k]) for k in shapes)
    hs, zs = [np.broadcast_to(start, (2, 5))], []
    for t in range(6):
        zs.append(x[:, t] @ w + hs[-1] @ u + b)
        hs.append(np.tanh(zs[-1]))
    s = np.array([[1.0, 0.0]] * 2)  # R / z of the first output
    expected = {"V": v * (hs[-1].T @ s), "W": 0, "U": 0, "b": 0}
    r = hs[-1] * (s @ v.T)
    for t in reversed(range(6)):
        s = r / zs[t]
        expected["W"] += w * (x[:, t].T @ s)
        expected["U"] += u * (hs[t].T @ s)
        expected["b"] += b * s.sum(0)
        r = hs[t] * (s @ u.T)
    expected["start"] = r.sum(0)
    found = jxp.parameter_relevance(f, Z())(x, p, target=0)
    same(found, {k: expected[k] for k in p}, 1e-4)  # a bias is stabilised
    for kernel_ in "WUV":
        close(found[kernel_], expected[kernel_], 1e-6)


@pytest.mark.parametrize("rule", [Z(), Epsilon(0.1), ZPlus()], ids=str)
def test_a_tied_weight_gets_what_its_copies_get(rule: Any) -> None:
    x, w = normal(3, 4), normal(4, 4, seed=1)

    def apart(x: Any, p: Any) -> Any:
        return jax.nn.relu(jax.nn.relu(x @ p[0]) @ p[1])

    for tie in (lambda w: w, lambda w: w.T):
        tied = jxp.parameter_relevance(lambda x, w, tie=tie: apart(x, (w, tie(w))), rule)
        first, second = jxp.parameter_relevance(apart, rule)(x, (w, tie(w)), target=whole)
        close(tied(x, w, target=whole), first + tie(second), 1e-12)


def test_weights_that_are_made_in_and_around_a_loop() -> None:
    """Normalised, scaled, and changed from iteration to iteration."""
    x, p = normal(3, 4), {"w": normal(3, 4, 4, seed=1), "g": normal(4, seed=2)}

    def normalized(w: Any) -> Any:
        return w / jnp.sqrt(jnp.square(w).sum(-2, keepdims=True))

    def step(h: Any, w: Any) -> Any:
        return jax.nn.relu(h @ w), None

    def written_out(x: Any, p: Any) -> Any:
        for w in p["w"]:
            x, _ = step(x, normalized(w) * p["g"])
        return x

    def inside(x: Any, p: Any) -> Any:
        return lax.scan(lambda h, w: step(h, normalized(w) * p["g"]), x, p["w"])[0]

    def before(x: Any, p: Any) -> Any:
        return lax.scan(step, x, normalized(p["w"]) * p["g"])[0]

    expected = jxp.parameter_relevance(written_out, Z())(x, p, target=whole)
    for f in (inside, before):
        same(jxp.parameter_relevance(f, Z())(x, p, target=whole), expected)

    def powers(x: Any, u: Any) -> Any:
        turn = lambda c, _: ((step(c[0], c[1])[0], c[1] @ u), None)  # noqa: E731
        h, last = lax.scan(turn, (x, u), None, length=3)[0]
        return h @ last

    def powers_written_out(x: Any, u: Any) -> Any:
        return jax.nn.relu(jax.nn.relu(jax.nn.relu(x @ u) @ (u @ u)) @ (u @ u @ u)) @ (
            u @ u @ u @ u
        )

    u = p["w"][0]
    expected = jxp.parameter_relevance(powers_written_out, Z())(x, u, target=whole)
    close(jxp.parameter_relevance(powers, Z())(x, u, target=whole), expected, 1e-12)


def test_a_product_of_parameters_is_no_first_layer() -> None:
    def f(x: Any, p: Any) -> Any:
        return jax.nn.relu(x @ p["w"]) @ (p["a"] @ p["b"])

    x, shapes = normal(3, 4), {"w": (4, 5), "a": (5, 2), "b": (2, 3)}
    p = {name: normal(*shape) for name, shape in shapes.items()}
    found = jxp.parameter_relevance(f, EpsilonPlusFlat())(x, p, target=1)
    hidden = jax.nn.relu(x @ p["w"]).sum(0)  # the seed is z: R_j = w_ij x_i of the one output
    close(found["a"], hidden[:, None] * p["a"] * p["b"][:, 1])
    close(found["b"], jnp.zeros((2, 3)).at[:, 1].set(hidden @ p["a"] * p["b"][:, 1]))


def test_weights_of_attention_get_the_messages_of_their_layer() -> None:
    def attention(x: Any, p: Any) -> Any:
        q, k, v = (jax.named_call(lambda x, w=p[name]: x @ w, name=name)(x) for name in "qkv")
        return (jax.nn.softmax(q @ jnp.swapaxes(k, 1, 2)) @ v).mean(1)

    x, p = normal(2, 3, 4), {name: normal(4, 4, seed=ord(name)) for name in "qkv"}
    _, arriving = jxp.lrp(attention, Z(), capture=kernel)(x, p, target=0)
    found = jxp.parameter_relevance(attention, Z())(x, p, target=0)
    for name in p:
        assert float(found[name].sum()) == pytest.approx(float(arriving[name].sum()))


def test_parameters_beside_the_way_of_the_input() -> None:
    """A class token, a position table and an embedding, by hand through one linear map."""
    p = {"token": normal(4), "places": normal(3, 4, seed=1), "table": normal(7, 4, seed=2)}
    w, ids = normal(4, 2, seed=3), jnp.asarray([5, 2])

    def f(ids: Any, p: Any) -> Any:
        rows = jnp.concatenate([p["token"][None], p["table"][ids]]) + p["places"]
        return (rows @ w).sum(0)

    found = jxp.parameter_relevance(f, Z())(ids, p, target=1)
    close(found["token"], p["token"] * w[:, 1], 1e-5)
    close(found["places"], p["places"] * w[:, 1], 1e-5)
    close(found["table"], jnp.zeros((7, 4)).at[ids].set(p["table"][ids] * w[:, 1]), 1e-5)


def test_parameters_come_first_or_alone() -> None:
    x, w = normal(3, 4), normal(4, 2, seed=1)
    expected = jxp.parameter_relevance(jnp.matmul, Z())(x, w, target=0)
    close(jxp.parameter_relevance(lambda w, x: x @ w, Z(), argnum=0)(w, x, target=0), expected)
    close(jxp.parameter_relevance(lambda w: x @ w, Z(), argnum=0)(w, target=0), expected)
    unused = jxp.parameter_relevance(lambda x, p: p[0] @ p[1], Z())
    close(unused(jnp.ones(3), (x, w), target=0)[1], expected)


def test_every_class_of_every_weight() -> None:
    x, p = normal(3, 4), {"w": normal(3, 4, 4, seed=1), "b": normal(4, seed=2)}
    explain = jxp.parameter_relevance(scanned, Epsilon(0.1))
    every = explain(x, p, target="all")
    same(jax.tree.map(lambda v: v[2], every), jax.jit(lambda x: explain(x, p, target=2))(x))


def test_the_other_half_of_a_message() -> None:
    """What has no relevance, or no rule for it, is refused."""
    x, w = normal(3, 4), normal(4, 2)
    for rule in (ZBox(-5.0, 5.0), WSquare()):
        with pytest.raises(jxp.NotAnalyzableError, match="treats inputs otherwise than weights"):
            jxp.parameter_relevance(jnp.matmul, rule)(x, w)
    f = lambda x, p: x @ p["w"] + lax.stop_gradient(p["b"])  # noqa: E731
    with pytest.raises(jxp.NotAnalyzableError, match="no relevance can reach parameter b"):
        jxp.parameter_relevance(f)(x, {"w": w, "b": jnp.ones(2)})
    f = lambda x, p: x @ p["w"][:, p["order"]]  # noqa: E731
    with pytest.raises(TypeError, match="parameter order has dtype int64"):
        jxp.parameter_relevance(f)(x, {"w": w, "order": jnp.asarray([1, 0])})


def test_a_bias_under_any_rule_and_a_threshold() -> None:
    x, w, b = normal(3, 4), normal(4, 2), normal(2)
    found = jxp.parameter_relevance(lambda x, b: x @ w + b, ZBox(-5.0, 5.0))(x, b, target=0)
    close(found, jnp.asarray([3 * b[0], 0.0]))
    f = lambda x, b: (lambda h: jnp.where(h > b, h, 0) + b)(x @ w)  # noqa: E731
    close(jxp.parameter_relevance(f)(x, b, target=0), jnp.asarray([3 * b[0], 0.0]))


@pytest.mark.parametrize("rule", SOME, ids=str)
def test_a_weight_in_columns_beside_another_kernel(rule: Any) -> None:
    """Kernels whose outputs are concatenated share a sum with another one as the whole would."""
    x, w, u, v = (normal(4, 4, seed=i) for i in range(4))

    def f(x: Any, p: Any) -> Any:
        return jax.nn.silu(x @ p["w"] + x[::-1] @ p["u"]) @ p["v"]

    def g(x: Any, p: Any) -> Any:
        columns = jnp.concatenate([x @ p["w"][:, :1], x @ p["w"][:, 1:]], 1)
        return jax.nn.silu(columns + x[::-1] @ p["u"]) @ p["v"]

    weights = {"w": w, "u": u, "v": v}
    wanted, found = (jxp.parameter_relevance(h, rule)(x, weights) for h in (f, g))
    same(found, wanted)
