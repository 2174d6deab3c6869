"""A primitive that another library brings is one row of the table; no other file changes.

That every rule explains a layer made of it is in `test_rules_matrix` (`product_*`, `ragged`).
"""

from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import jaxplain as jxp
from comparing import assert_same
from jaxplain.graph.primitives import TABLE, Operand, PrimitiveInfo, PrimitiveKind
from jaxplain.graph.registration import REGISTERED
from product_primitive import product
from zoo import draw, normal

pytestmark = pytest.mark.usefixtures("float64")
W, V, B, S = draw(4, 6, seed=1), draw(6, 3, seed=2), draw(6, seed=3), draw(6, seed=4)
RULES = [
    jxp.rules.Epsilon(),
    jxp.rules.ZPlus(),
    jxp.rules.AlphaBeta(),
    jxp.rules.Gamma(),
    jxp.rules.Flat(),
    jxp.rules.WSquare(),
]


def matmul(a: Any, b: Any) -> Any:
    return a @ jnp.asarray(b)


def network(x: Any, dot: Any) -> Any:
    """With BatchNorm behind the product, and a scale before it."""
    h = jax.nn.relu((dot(2 * x, W) - B) * S + B)
    return dot(h, V)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_network_of_it_has_the_map_of_dot_products(rule: Any) -> None:
    x = normal(5, 4)
    own, dots = (lambda x, dot=dot: network(x, dot) for dot in (product, matmul))
    assert_same(jxp.lrp(own, rule)(x, target=1), jxp.lrp(dots, rule)(x, target=1))
    assert jxp.lrp(own, rule).ledger(x, target=1).error() < 1e-14


def test_deep_lift_and_patterns_of_it() -> None:
    x = normal(5, 4)
    own, dots = (lambda x, dot=dot: network(x, dot) for dot in (product, matmul))
    assert_same(*(jxp.deep_lift(f, baseline=x[::-1])(x, target=1) for f in (own, dots)))
    with pytest.raises(ValueError, match="which axes of the weights of tests_product belong"):
        jxp.pattern_net(own, {}).plan(x)


def test_both_operands_may_carry_relevance() -> None:
    x = normal(4, 4)
    own, dots = (lambda x, dot=dot: dot(x @ W, (x @ W).T) for dot in (product, matmul))
    assert [layer.kind for layer in jxp.lrp(own).plan(x).layers][-1] == "Matmul"
    assert_same(jxp.lrp(own)(x), jxp.lrp(dots)(x))


def test_a_linear_primitive_says_what_its_operands_are() -> None:
    with pytest.raises(ValueError, match=r"linear \(MIXING\) needs operands="):
        PrimitiveInfo(PrimitiveKind.MIXING)
    with pytest.raises(ValueError, match="do not go with kind 'diagonal': give one of"):
        jxp.register_primitive("tests_other", "diagonal")
    assert "tests_other" not in TABLE


def test_wrong_words() -> None:
    with pytest.raises(ValueError, match="no kind is called 'linear'; there are: diagonal"):
        jxp.register_primitive("tests_other", "linear")
    with pytest.raises(ValueError, match="no operand is called 'weight'; there are: factor"):
        jxp.register_primitive("tests_other", "mixing", ("moved", "weight"))
    for known in ("add", "scan", "jit", "custom_jvp_call"):
        with pytest.raises(ValueError, match=f"knows the primitive '{known}' already"):
            jxp.register_primitive(known, "mixing", ("factor",))
    with pytest.raises(ValueError, match="for elementwise primitives, not for mixing ones"):
        jxp.register_primitive("tests_other", "mixing", ("factor",), piecewise=True)
    with pytest.raises(TypeError, match="registered by its name, got 3"):
        jxp.register_primitive(3, "elementwise")  # type: ignore[arg-type]
    assert "tests_other" not in TABLE


def test_a_row_of_ones_own_may_be_mended() -> None:
    jxp.register_primitive("tests_mended", "structural", ("moved",))
    jxp.register_primitive("tests_mended", "mixing", ("factor", "factor"))
    assert TABLE.pop("tests_mended").op == "dense"
    REGISTERED.remove("tests_mended")


@pytest.mark.parametrize(
    ("kind", "operands", "op"),
    [
        ("mixing", ("index",), ""),
        ("mixing", ("factor", "factor", "term"), ""),  # would lose the term's share
        ("mixing", ("divisor",), ""),
        ("mixing", ("factor",), "pooling"),
        ("mixing", ("term",), "blur"),
        ("mixing", ("term", "subtrahend"), "pooling"),
        ("mixing", ("factor",), "convoluton"),
        ("structural", ("factor",), ""),
        ("structural", ("index",), ""),
        ("diagonal", ("setting",), ""),
        ("diagonal", ("factor", "factor", "term"), ""),
        ("diagonal", ("factor",), "dense"),
        ("elementwise", ("factor",), ""),
        ("selection", ("moved",), ""),
        ("unknown", (), ""),
    ],
)
def test_operands_that_do_not_go_together(kind: str, operands: Any, op: str) -> None:
    with pytest.raises(
        ValueError, match=f"kind '{kind}': |for mixing primitives, not for {kind} ones"
    ):
        jxp.register_primitive("tests_other", kind, operands, op=op)
    assert "tests_other" not in TABLE


def test_every_linear_row_names_its_operands() -> None:
    kinds = (PrimitiveKind.DIAGONAL, PrimitiveKind.STRUCTURAL, PrimitiveKind.MIXING)
    linear = {name: info for name, info in TABLE.items() if info.kind in kinds}
    assert linear and all(info.operands for info in linear.values())
    assert all(isinstance(kind, Operand) for info in linear.values() for kind in info.operands)


def experts(x: Any) -> Any:
    """A mixture of experts: the first two tokens go to one, the others to another."""
    h = jax.nn.silu(lax.ragged_dot(x, jnp.stack([W, -W]), jnp.array([2, 3])) + B)
    return lax.ragged_dot(h, jnp.stack([V, 2 * V]), jnp.array([2, 3]))


def written_out(x: Any) -> Any:
    h = jax.nn.silu(jnp.concatenate([x[:2] @ W, x[2:] @ -W]) + B)
    return jnp.concatenate([h[:2] @ V, h[2:] @ (2 * V)])


@pytest.mark.parametrize("rule", [jxp.rules.ZPlus(), jxp.rules.AlphaBeta()], ids=str)
def test_a_mixture_of_experts_is_that_of_its_tokens(rule: Any) -> None:
    """Kernel by kernel; the bias, which the concatenation leaves alone, is left out of it."""
    x = normal(5, 4)
    bare = jxp.lrp(lambda x: lax.ragged_dot(x, jnp.stack([W, -W]), jnp.array([2, 3])), rule)
    first, second = (jxp.lrp(lambda x, w=w: x @ w, rule) for w in (W, -W))
    tokens = [first(x[:2], target=1), second(x[2:], target=1)]
    assert_same(bare(x, target=1), jnp.concatenate(tokens))
    np.testing.assert_allclose(experts(x), written_out(x), rtol=1e-12)
    assert jxp.lrp(experts, rule).ledger(x, target=1).error() < 1e-14


@pytest.fixture
def maybe_set(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Equinox's write into the buffer of a loop; the example of `register_primitive`."""
    common = pytest.importorskip("equinox.internal._loop.common")
    monkeypatch.delitem(TABLE, "maybe_set", raising=False)
    jxp.register_primitive("maybe_set", "structural", ("condition", "moved", "moved", "index"))
    return lambda buffer, value, place: common._maybe_set(
        jnp.array(True), buffer, value, place, kwargs={}, makes_false_steps=False
    )


@pytest.mark.parametrize("vmapped", [False, True])
def test_a_primitive_of_equinox_also_under_vmap(maybe_set: Any, vmapped: bool) -> None:
    """Under vmap it is the operand of a primitive that batches it."""

    def f(x: Any, write: Any) -> Any:
        buffer = jnp.zeros((3, 6))
        for place in range(3):
            buffer = write(buffer, jnp.tanh(x @ W + place), jnp.array(place))
        return buffer.sum(0) @ V

    def plain(buffer: Any, value: Any, place: Any) -> Any:
        return buffer.at[place].set(value)

    x = normal(2, 4) if vmapped else normal(4)
    own, known = ((lambda x, w=w: f(x, w)) for w in (maybe_set, plain))
    if vmapped:
        own, known = jax.vmap(own), jax.vmap(known)
    names = {node.primitive for node in jxp.lrp(own).plan(x).graph.program.nodes}
    assert "maybe_set" in names
    for rule in (jxp.rules.Epsilon(), jxp.rules.ZPlus()):
        assert_same(jxp.lrp(own, rule)(x, target=1), jxp.lrp(known, rule)(x, target=1))


def test_a_product_of_three_factors_is_refused() -> None:
    """With two constant factors its matrix is no product of constants entry by entry."""
    triple = jex.Primitive("tests_triple")
    triple.def_abstract_eval(lambda a, b, c: jax.core.ShapedArray(a.shape, a.dtype))
    jxp.register_primitive("tests_triple", "mixing", ("factor",))
    w = jnp.ones((3, 3))
    with pytest.raises(jxp.NotAnalyzableError, match="`tests_triple` at test_new_primitives"):
        jxp.lrp(lambda x: triple.bind(x, w, w)).plan(jnp.ones((2, 3)))


def test_names_for_checkpoint_policies_are_looked_through() -> None:
    x, w, v = normal(2, 4), normal(4, 6), normal(6, 3)
    for rule in (jxp.rules.Epsilon(), jxp.rules.ZPlus(), jxp.rules.AlphaBeta(2, 1)):
        wanted = jxp.lrp(lambda x: jax.nn.relu(x @ w) @ v, rule)(x)
        found = jxp.lrp(
            lambda x: checkpoint_name(jax.nn.relu(checkpoint_name(x @ w, "a")), "b") @ v, rule
        )(x)
        assert_same(found, wanted)
