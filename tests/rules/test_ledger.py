"""The ledger: it closes at every layer, its terms are right, and it catches broken rules."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxplain as jxp
import zoo
from comparing import Together, together
from jaxplain.composites import Composite, first, kernel, kind
from jaxplain.ledger import Ledger
from jaxplain.rules import (
    TERMS,
    AlphaBeta,
    AlphaBetaWholeBias,
    Epsilon,
    Flat,
    Gamma,
    Norm,
    Rule,
    Sign,
    StdEpsilon,
    WSquare,
    Z,
    ZBox,
    ZPlus,
    ZPlusFast,
    times,
)

FLOAT64, FLOAT32 = 1e-12, 1e-6


pytestmark = pytest.mark.usefixtures("float64")


def closes(ledger: Ledger, tolerance: float = FLOAT64) -> None:
    """Relevance is accounted for at every layer, and from the output to the input."""
    assert ledger.error() <= tolerance
    rest = ledger.output - ledger.inputs - ledger.absorbed.sum()
    assert abs(rest) <= tolerance * np.asarray(ledger.flow).max()


def everywhere(y: Any) -> Any:
    """A seed that leaves nothing out."""
    return jax.tree.map(jnp.ones_like, y)


# The identity

RULES: dict[str, Any] = {
    "z": Z(),
    "epsilon": Epsilon(1e-2),
    "epsilon without bias": Epsilon(1e-2, bias=False),
    "alpha-beta": AlphaBeta(),
    "alpha-beta without bias": AlphaBeta(epsilon=0.1, bias=False),
    "z+": ZPlus(),
    "gamma": Gamma(),
    "gamma without bias": Gamma(epsilon=0.1, bias=False),
    "box": Composite([(first, ZBox(-3.0, 3.0)), (kernel, ZPlus())]),
    "w^2": WSquare(),
    "w^2 with bias": WSquare(bias=True),
    "flat": Flat(),
    "sign": Composite([(first, Sign()), (kernel, StdEpsilon(0.1))]),
    "z+ fast": ZPlusFast(),
    "alpha-beta with the whole bias": AlphaBetaWholeBias(epsilon=0.1),
}


def convolutional() -> zoo.Model:
    """Every kind of layer that keeps relevance: biases, dead units, padding, masks, ties."""
    kernel_, bias = zoo.normal(3, 3, 3, 4, seed=1), zoo.normal(4, seed=2)
    dead = jnp.asarray([1.0, 1.0, 0.0, 1.0])  # a unit that nothing reaches
    mask = jnp.asarray([True, False, True, True, True])
    w, b = zoo.normal(5, 3, seed=3), zoo.normal(3, seed=4)

    def f(x: Any) -> Any:
        x = lax.conv_general_dilated(
            x, kernel_ * dead, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + bias * dead)
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        x = x + x[:, ::-1]
        x = jnp.pad(x.mean((1, 2)), ((0, 0), (0, 1)), constant_values=0.7)
        x = jnp.where(mask, x, 0.3)
        return jnp.tanh(x) @ w + b

    return zoo.Model(f, (zoo.normal(2, 4, 4, 3, seed=5),))


@functools.cache
def ledgers(build: Callable[[], zoo.Model], rules: Sequence[str]) -> Together:
    model = build()
    asked = {r: partial(jxp.lrp(model.f, RULES[r]).ledger, target=everywhere) for r in rules}
    return together(asked, *model.args)


@pytest.mark.parametrize("rule", RULES)
def test_it_closes_under_every_rule(rule: str) -> None:
    closes(ledgers(convolutional, (*RULES,))[rule])


def test_it_closes_without_jit_around_it() -> None:
    model = convolutional()
    closes(jxp.lrp(model.f, AlphaBeta()).ledger(*model.args, target=everywhere))


@pytest.mark.parametrize("rule", ["alpha-beta", "gamma"])
@pytest.mark.parametrize("build", [zoo.dense_net_block, zoo.transformer_block])
def test_it_closes_for_whole_blocks(build: Callable[[], zoo.Model], rule: str) -> None:
    closes(ledgers(build, ("alpha-beta", "gamma"))[rule])


BLOCKS = ["llama", "highway", "film", "squeeze_excite", "lstm", "gru"]


@pytest.mark.parametrize("name", BLOCKS)
def test_it_closes_for_products_gates_and_attention(name: str) -> None:
    model = zoo.BLOCKS[name]()
    closes(jxp.lrp(model.f).ledger(*model.args, target=everywhere))


@pytest.mark.parametrize("name", zoo.SOFTMAXES)
def test_it_closes_for_softmax(name: str) -> None:
    model = zoo.between_dense(zoo.SOFTMAXES[name][0])
    ledger = jxp.lrp(model.f).ledger(*model.args, target=everywhere)
    closes(ledger)
    (softmax,) = [i for i, layer in enumerate(ledger.steps) if layer.kind == "Softmax"]
    assert ledger.remainder[softmax] != 0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_it_closes_in_lower_precision(dtype: Any) -> None:
    """Relevance between the layers is float32 in half precision models too."""
    w, b, v = (jnp.asarray(zoo.draw(*s), dtype) for s in ((5, 7), (7,), (7, 3)))

    def f(x: Any) -> Any:
        return (jax.nn.relu(x @ w + b) + (x @ w)[:, ::-1]) @ v

    x = jnp.asarray(zoo.draw(4, 5), dtype)
    for rule in (Epsilon(1e-2), AlphaBeta(), Gamma()):
        ledger = jxp.lrp(f, rule).ledger(x, target=everywhere)
        # the quotients that go through a half precision kernel are rounded to it
        closes(ledger, FLOAT32 if dtype == jnp.float32 else float(jnp.finfo(dtype).eps))
        assert "!" not in str(ledger)


def test_a_layer_that_rounds_inside_is_no_broken_rule() -> None:
    """Keras takes means in float32 in a float64 network: what that rounds is no gap."""
    w = zoo.normal(5, 3, seed=1)

    def f(x: Any) -> Any:
        return x.astype(jnp.float32).mean(1).astype(x.dtype) @ w

    ledger = jxp.lrp(f, Epsilon()).ledger(zoo.normal(4, 6, 5), target=everywhere)
    assert 1e-12 < ledger.error() < 1e-6
    assert "!" not in str(ledger)


# The terms, by hand


def test_bias_and_stabilizer_take_their_shares() -> None:
    """z = 2 - 1 + 3 = 4, epsilon = 1: shares are over 5."""
    w, b = jnp.array([[2.0], [-1.0]]), jnp.array([3.0])
    ledger = jxp.lrp(lambda x: x @ w + b, Epsilon(1.0)).ledger(jnp.ones((1, 2)))
    found = {key: float(getattr(ledger, key)[0]) for key in ("received", "sent", *TERMS)}
    assert found == pytest.approx(
        dict(received=4, sent=0.8, bias=2.4, stabilizer=0.8, dead=0, constants=0, remainder=0)
    )
    assert float(ledger.flow[0]) == pytest.approx(4 + 0.8 * 3)  # received and 4/5 (|2| + |-1|)


def test_alpha_beta_counts_each_sign_of_the_bias_once() -> None:
    """alpha = 2: 2 (3 + 1) / 4 of which the bias 1 takes 2; beta = 1: all of -2 is contributed."""
    w, b = jnp.array([[3.0], [-2.0]]), jnp.array([1.0])
    ledger = jxp.lrp(lambda x: x @ w + b, AlphaBeta(epsilon=0.0)).ledger(jnp.ones((1, 2)))
    assert (float(ledger.output), float(ledger.bias[0])) == (2, pytest.approx(2 * 2 / 4))
    closes(ledger)


def test_dead_units_are_booked_as_dead() -> None:
    w = jnp.array([[1.0, 0.0]])
    for epsilon in (0.0, 0.5):
        explain = jxp.lrp(lambda x: x @ w, Epsilon(epsilon))
        ledger = explain.ledger(jnp.array([[2.0]]), target=everywhere)
        assert float(ledger.dead[0]) == 1  # the second output's
        assert float(ledger.stabilizer[0]) == pytest.approx(epsilon / (2 + epsilon))


def test_padding_and_masked_values_are_constants() -> None:
    def padded(x: Any) -> Any:
        return jnp.pad(x * x, ((0, 0), (1, 2)))

    explain = jxp.lrp(padded)
    ledger = explain.ledger(jnp.ones((1, 2)), target=everywhere)
    assert (float(ledger.output), float(ledger.inputs), float(ledger.constants.sum())) == (5, 2, 3)

    def chosen(x: Any) -> Any:
        return jnp.where(x[:, :1] > 0, x * x, 1.0)

    ledger = jxp.lrp(chosen).ledger(jnp.array([[1.0, 2.0], [-1.0, 3.0]]), target=everywhere)
    assert float(ledger.constants.sum()) == 2  # the second example's


def test_the_remainder_of_a_softmax_is_its_taylor_constant() -> None:
    """f(x) = J x + remainder: z (1 - x + sum z x), at an output whose relevance is z."""
    x = jnp.array([[0.3, -1.2, 2.0]])
    ledger = jxp.lrp(lambda x: jax.nn.softmax(x) * jnp.ones(3)).ledger(x, target=lambda y: y)
    z = jax.nn.softmax(x)
    expected = (z * (1 - x + (z * x).sum())).sum()
    np.testing.assert_allclose(ledger.remainder.sum(), expected, rtol=1e-12)


def test_the_flow_is_that_of_the_connections() -> None:
    """Contributions of +1000 and -999: rounding is relative to 1999, not to their sum."""
    w = jnp.array([[1000.0], [-999.0]])
    ledger = jxp.lrp(lambda x: x @ w, Z()).ledger(jnp.ones((1, 2)))
    assert float(ledger.flow[0]) == pytest.approx(1 + 1999)


# As a function


def test_per_example_is_one_ledger_per_example() -> None:
    model = convolutional()
    explain, (x,) = jxp.lrp(model.f), model.args
    labels = jnp.asarray([2, 0])
    together = explain.ledger(x, target=labels)
    apart = explain.ledger(x, target=labels, per_example=True)
    assert apart.received.shape == (2, len(apart.steps))
    np.testing.assert_allclose(apart.bias.sum(0), together.bias, atol=1e-12)
    for i in range(2):
        alone = explain.ledger(x[i : i + 1], target=labels[i])
        np.testing.assert_allclose(apart.received[i], alone.received, atol=1e-12)
        np.testing.assert_allclose(apart.output[i], alone.output, atol=1e-12)
    assert apart.error() <= FLOAT64
    assert str(apart).splitlines()[2] == str(together).splitlines()[2]


def test_it_goes_through_jit_and_vmap() -> None:
    w, b = zoo.normal(4, 3), zoo.normal(3)
    explain = jxp.lrp(lambda x: jax.nn.relu(x @ w + b))
    x = zoo.normal(5, 4)
    mapped = jax.jit(jax.vmap(explain.ledger))(x)
    np.testing.assert_allclose(mapped.bias, explain.ledger(x, per_example=True).bias, rtol=1e-12)


def test_it_is_checked_for_what_is_not_finite() -> None:
    explain = jxp.lrp(lambda x: x @ zoo.normal(4, 3), check_finite=True)
    with pytest.raises(FloatingPointError, match=r"input .* is not finite"):
        explain.ledger(jnp.full((1, 4), jnp.nan))


def test_layers_differentiated_on_request_are_no_error_but_show_their_gap() -> None:
    w = zoo.normal(4, 4)
    explain = jxp.lrp(lambda x: jnp.cumprod(x @ w, -1) @ w, unknown="gradient")
    ledger = explain.ledger(zoo.normal(2, 4))
    assert ledger.error() <= FLOAT64
    assert "! no term accounts" in str(ledger)


def test_a_rope_spelled_with_split_is_the_same_as_with_slices() -> None:
    """The linear region took only the first output of `split`: the ledger did not close."""
    c, s = zoo.normal(4, seed=1), zoo.normal(4, seed=2)

    def with_split(x: Any) -> Any:
        first, second = jnp.split(x, 2, -1)
        return x * c + jnp.concatenate([-second, first], -1) * s

    def with_slices(x: Any) -> Any:
        return x * c + jnp.concatenate([-x[:, 2:], x[:, :2]], -1) * s

    x = zoo.normal(3, 4)
    maps = [jxp.lrp(f)(x, target=everywhere) for f in (with_split, with_slices)]
    np.testing.assert_allclose(*maps, rtol=1e-12)
    closes(jxp.lrp(with_split).ledger(x, target=everywhere))


# The table


def test_the_table_points_at_the_worst_layers() -> None:
    weights, bias = zoo.normal(4, 6, seed=1), zoo.normal(6, seed=2)
    head, heavy = zoo.normal(6, 3, seed=3), 50 * jnp.ones(3)

    def f(x: Any) -> Any:
        return jax.nn.relu(x @ weights + bias) @ head + heavy

    ledger = jxp.lrp(f).ledger(zoo.normal(5, 4))
    text = str(ledger)
    assert ledger.worst(1)[0].name == "dense@2"
    last = next(line for line in text.splitlines() if "dense@2" in line)
    assert last.endswith("*") and "Epsilon()" in last
    assert "kept most: dense@2 at test_ledger.py:" in text and "(bias)" in text
    html = ledger._repr_html_()
    assert html.count("<tr>") == 1 + 3 and "kept most" in html


@pytest.mark.parametrize("target", [None, lambda z: z - z.mean()], ids=["zero", "cancelling"])
def test_a_table_of_nothing_is_in_units_of_the_output(target: Any) -> None:
    w = jnp.asarray([[1.0, 2.0], [3.0, -1.0]])
    x = jnp.ones((1, 2)) if target else jnp.zeros((1, 2))
    text = str(jxp.lrp(lambda x: x @ w).ledger(x, target=target))
    assert "units of the output" in text and "nan" not in text and "e+" not in text


def test_the_page_is_generated_from_these_tests() -> None:
    import ledger_page

    assert ledger_page.PAGE.read_text() == ledger_page.markdown()


# Broken on purpose: each is a mistake that a peer has made


@dataclass(frozen=True)
class BiasTwice(Rule):
    """The bias counted twice: in z, and added once more."""

    def relevance(self, layer: Any, x: Any, z: Any, r: Any) -> Any:
        s = layer.divide(r, z + layer.bias, 1e-6)
        layer.record("bias", lambda: s * layer.bias)
        return times(x, layer.transpose(s))


@dataclass(frozen=True)
class ForgottenResidual(Rule):
    """A residual addition that sends everything to the branch, as if it were the only term."""

    kinds = frozenset({"Merge"})

    def relevance(self, layer: Any, x: Any, z: Any, r: Any) -> Any:
        return Norm().relevance(layer, (x[0], jnp.zeros_like(x[1])), z, r)


@dataclass(frozen=True)
class DoubledResidual(Rule):
    """A residual addition that hands all relevance to both terms."""

    kinds = frozenset({"Merge"})

    def relevance(self, layer: Any, x: Any, z: Any, r: Any) -> Any:
        return tuple(r for _ in x)


def residual(x: Any) -> Any:
    w, b = zoo.normal(6, 6, seed=1), zoo.normal(6, seed=2)
    return (x + jax.nn.relu(x @ w + b)) @ zoo.normal(6, 3, seed=3)


BROKEN = {
    "bias counted twice": Composite([(kernel, BiasTwice())]),
    "forgotten residual": Composite([(kind("Merge"), ForgottenResidual())]),
    "doubled residual": Composite([(kind("Merge"), DoubledResidual())]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_caught_by_the_ledger(name: str) -> None:
    broken = BROKEN[name]
    x = zoo.normal(4, 6, seed=4)
    closes(jxp.lrp(residual).ledger(x))
    ledger = jxp.lrp(residual, broken).ledger(x)
    assert ledger.error() > 1e-3
    assert ("(gap)" in str(ledger)) == ("residual" in name)  # else the bias kept still more
    assert "! no term accounts for this gap" in str(ledger)
    culprit = np.argmax(np.abs(np.asarray(ledger.gap)))
    assert ledger.plan.rows[ledger.steps[culprit].index].rule == broken.entries[0][1]


def shared(x: Any, copied: bool) -> Any:
    """One layer used twice, or two layers with the same weights."""
    first = zoo.normal(6, 6, seed=1)
    second = jnp.copy(first) if copied else first
    h = jax.nn.relu(x @ first)
    return jax.nn.relu(h @ second) @ zoo.normal(6, 3, seed=3)


def test_a_shared_layer_mixed_up_is_caught_by_spelling() -> None:
    """The ledger alone cannot see it: a rule that takes all it needs from the wrong input conserves
    relevance all the same. The same layer as two copies shows it."""

    def explain(mix: bool, copied: bool) -> Any:
        inputs: dict[int, Any] = {}

        @dataclass(frozen=True)
        class Remembering(Rule):
            """Keeps one input per array of weights, as hooks on modules do."""

            def relevance(self, layer: Any, x: Any, z: Any, r: Any) -> Any:
                (weights,) = layer._layer.main.inputs[1:]
                if mix and x[0].shape == z.shape:
                    x = inputs.setdefault(id(weights), x)
                return ZPlus().relevance(layer, x, z, r)

        explainer = jxp.lrp(lambda x: shared(x, copied), Composite([(kernel, Remembering())]))
        x = zoo.normal(4, 6, seed=4)
        relevance = np.asarray(explainer(x))
        inputs.clear()
        closes(explainer.ledger(x))
        return relevance

    right = explain(mix=False, copied=False)
    np.testing.assert_allclose(explain(mix=False, copied=True), right, rtol=1e-12)
    np.testing.assert_allclose(explain(mix=True, copied=True), right, rtol=1e-12)
    wrong = explain(mix=True, copied=False)
    assert np.abs(wrong - right).max() > 0.05 * np.abs(right).max()
