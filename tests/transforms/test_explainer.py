"""Explainers as a user meets them: targets, trees, dtypes, models as pytrees."""

import re
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from jaxplain import composites
from jaxplain.composites import Composite, any_layer, index, kind, last, name, op
from jaxplain.rules import AlphaBeta, Flat, Norm, Pass, Rule, Z, ZPlus

W = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)
V = jnp.asarray(np.random.default_rng(1).normal(size=(6, 3)), jnp.float32)
X = jnp.asarray(np.random.default_rng(2).normal(size=(5, 4)), jnp.float32)


def f(x: Any) -> Any:
    return jax.nn.relu(x @ W) @ V


def by_hand(x: Any, weights: Any) -> Any:
    """Input times gradient of a weighted sum of the outputs: LRP-0 of a ReLU net without bias."""
    return x * jax.grad(lambda x: (f(x) * weights).sum())(x)


def close(a: Any, b: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * float(np.abs(b).max()))


# Targets


def test_no_target_is_the_largest_output_of_each_example() -> None:
    hot = jax.nn.one_hot(f(X).argmax(-1), 3)
    close(jxp.lrp(f, Z())(X), by_hand(X, hot))
    close(jxp.gradient(f)(X), jax.grad(lambda x: (f(x) * hot).sum())(X))


@pytest.mark.parametrize("target", [1, np.int32(1), jnp.asarray(1), -2, np.full(5, 1)])
def test_a_class_by_number(target: Any) -> None:
    close(jxp.lrp(f, Z())(X, target=target), by_hand(X, jax.nn.one_hot(1, 3)))


def test_a_class_per_example() -> None:
    labels = jnp.asarray([0, 2, 1, 1, 0])
    close(jxp.lrp(f, Z())(X, target=labels), by_hand(X, jax.nn.one_hot(labels, 3)))


def test_all_classes_add_a_leading_axis() -> None:
    every = jxp.lrp(f, Z())(X, target="all")
    assert every.shape == (3, 5, 4)
    for k in range(3):
        close(every[k], jxp.lrp(f, Z())(X, target=k))


def test_a_callable_returns_the_whole_cotangent() -> None:
    contrast = jxp.gradient(f)(
        X, target=lambda y: jnp.zeros_like(y).at[:, 0].set(1).at[:, 2].set(-1)
    )
    close(contrast, jxp.gradient(f)(X, target=0) - jxp.gradient(f)(X, target=2))


def test_leading_positions_of_any_rank() -> None:
    x = jnp.stack([X, 2 * X])  # a segmentation-like output (2, 5, 3)
    labels = jnp.asarray([0, 2])
    found = jxp.lrp(f, Z())(x, target=labels)
    for i, label in enumerate([0, 2]):
        close(found[i], jxp.lrp(f, Z())(x[i], target=label))
    positions = jnp.asarray(np.random.default_rng(0).integers(0, 3, (2, 5)))
    close(jxp.lrp(f, Z())(x, target=positions)[1], jxp.lrp(f, Z())(x[1], target=positions[1]))


def test_single_examples_and_scalars() -> None:
    close(jxp.lrp(f, Z())(X[0], target=1), jxp.lrp(f, Z())(X, target=1)[0])
    scalar = jxp.gradient(lambda x: f(x)[0])(X[0])
    close(scalar, jax.grad(lambda x: f(x)[0])(X[0]))


def test_a_traced_target_out_of_range_is_nan_not_zero() -> None:
    explain = jax.jit(lambda x, k: jxp.lrp(f)(x, target=k))
    assert np.isnan(explain(X, 3)).any(-1).all()
    assert np.isfinite(explain(X, 2)).all()


def test_an_infinite_logit_elsewhere_leaves_the_map_finite() -> None:
    def masked(x: Any) -> Any:
        return jnp.where(jnp.arange(3) == 0, -jnp.inf, f(x))

    close(jxp.lrp(masked, Z())(X, target=1), jxp.lrp(f, Z())(X, target=1))


# Outputs, arguments, trees


def test_a_trailing_softmax_is_left_out_and_the_plan_says_so() -> None:
    def probabilities(x: Any) -> Any:
        return jax.nn.softmax(f(x))

    explain = jxp.lrp(probabilities, with_output=True)
    output, relevance = explain(X)
    np.testing.assert_array_equal(output, jax.jit(probabilities)(X))
    np.testing.assert_array_equal(relevance, jxp.lrp(f)(X))
    assert "softmax is left out" in str(explain.plan(X))
    close(
        jxp.gradient(probabilities)(X, target=0),
        jax.grad(lambda x: probabilities(x)[:, 0].sum())(X),
    )
    close(jxp.gradient(probabilities, logits=True)(X, target=0), jxp.gradient(f)(X, target=0))


def test_several_inputs_and_trees() -> None:
    def g(inputs: Any, scale: Any, h: Any) -> Any:
        return f(inputs["a"]) * scale + h[0] @ W[:, :3]

    inputs, scale, h = {"a": X}, jnp.float32(2.0), (X + 1,)
    only = jxp.lrp(g, argnums=2)(inputs, scale, h, target=1)
    assert isinstance(only, tuple) and only[0].shape == X.shape
    both = jxp.lrp(g, argnums=(2, 0))(inputs, scale, h, target=1)
    assert both[1]["a"].shape == X.shape
    total = jxp.lrp(g, argnums=(0, 2), with_output=True)(inputs, scale, h, target=1)
    np.testing.assert_allclose(
        sum(leaf.sum() for leaf in jax.tree.leaves(total[1])), total[0][:, 1].sum(), rtol=1e-3
    )


def test_input_times_gradient_multiplies() -> None:
    close(jxp.input_times_gradient(f)(X, target=0), X * jxp.gradient(f)(X, target=0))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_keeps_its_dtype_and_stays_near(dtype: Any) -> None:
    def half(x: Any) -> Any:
        return jax.nn.relu(x @ W.astype(dtype)) @ V.astype(dtype)

    found = jxp.lrp(half, ZPlus())(X.astype(dtype), target=1)
    assert found.dtype == dtype
    close(found.astype(jnp.float32), jxp.lrp(f, ZPlus())(X, target=1), 0.05)


def test_numpy_inputs_and_shape_structs() -> None:
    explain = jxp.lrp(f)
    np.testing.assert_array_equal(explain(np.asarray(X)), explain(X))
    plan = explain.plan(jax.ShapeDtypeStruct((7, 4), jnp.float32))
    assert [row.layer.output.shape for row in plan] == [(7, 6), (7, 6), (7, 3)]


def test_the_output_keeps_its_own_gradient() -> None:
    """A loss of output and explanation trains on both."""

    def g(x: Any, w: Any) -> Any:
        return jax.nn.softmax(jax.nn.relu(x @ w) @ V)

    def loss(w: Any) -> Any:
        output, _ = jxp.lrp(g, ZPlus(), with_output=True)(X, w, target=0)
        return output[:, 0].sum()

    close(jax.grad(loss)(W), jax.grad(lambda w: g(X, w)[:, 0].sum())(W))


def test_the_output_comes_for_free() -> None:
    def flops(with_output: bool) -> float:
        explain = jxp.lrp(lambda x, w: jax.nn.relu(x @ w) @ V, with_output=with_output)
        compiled = jax.jit(lambda x, w: explain(x, w, target=0)).lower(X, W).compile()
        return compiled.cost_analysis()["flops"]

    assert flops(True) <= 1.01 * flops(False)


# Models as pytrees


class Network(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        x = nn.relu(nn.Dense(6, name="hidden")(x))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(3, name="head")(x)


def test_from_linen_is_its_module_and_a_pytree() -> None:
    module = Network()
    variables = module.init(jax.random.key(0), X)
    model = jxp.from_linen(module, variables, train=False)
    np.testing.assert_array_equal(model(X), module.apply(variables, X))
    explain = jxp.lrp(model)
    before = explain(X, target=1)
    plain = jxp.lrp(lambda x, v: module.apply(v, x))(X, variables, target=1)
    np.testing.assert_array_equal(before, plain)
    other = model.replace(jax.tree.map(lambda v: 2 * v, variables))
    assert np.abs(jxp.lrp(other)(X, target=1) - before).max() > 0
    doubled = jax.tree.map(lambda v: 2 * v, model)
    np.testing.assert_array_equal(jxp.lrp(doubled)(X, target=1), jxp.lrp(other)(X, target=1))
    names = [row.layer.name for row in explain.plan(X)]
    assert names == ["Network/hidden", "Network/rectifier", "Network/head"]


def test_an_updated_model_is_not_explained_with_its_old_weights() -> None:
    @jax.tree_util.register_pytree_node_class
    class Mutable:
        def __init__(self, w: Any):
            self.w = w

        def __call__(self, x: Any) -> Any:
            return x @ self.w

        def tree_flatten(self) -> Any:
            return (self.w,), None

        @classmethod
        def tree_unflatten(cls, _: Any, children: Any) -> Any:
            return cls(*children)

    model = Mutable(W)
    explain = jxp.lrp(model, Z())
    close(explain(X, target=2), X * W[:, 2])
    model.w = -3 * W
    close(explain(X, target=2), -3 * X * W[:, 2])


def test_each_shape_compiles_once() -> None:
    traces = []

    def g(x: Any) -> Any:
        traces.append(x.shape)
        return f(x)

    explain = jxp.lrp(g)
    for target in (None, 1, 2):
        explain(X, target=target)
        explain(X + 1, target=target)
    assert traces == [(5, 4)]
    explain(X[:2])
    assert traces == [(5, 4), (2, 4)]


# Composites and plans


def test_the_plan_says_which_rule_and_why() -> None:
    chosen = Composite([(last, AlphaBeta(1, 0)), (name("head|dense"), Flat())], name="Mine")
    plan = jxp.lrp(f, chosen).plan(X)
    rows = [(row.layer.kind, row.rule, row.reason) for row in plan]
    assert rows == [
        ("Affine", Flat(), "name('head|dense')"),
        ("Activation", Pass(), "base"),
        ("Affine", AlphaBeta(1, 0), "last"),
    ]
    text = str(plan)
    assert text.startswith("Mine\n")
    assert "AlphaBeta(alpha=1, beta=0)" in text
    assert re.search(r"0 +dense \* +Affine \(dense\) +5x6 +Flat\(\) .*test_explainer.py:\d+", text)
    html = plan._repr_html_()
    assert html.count("<tr>") == 4 and "AlphaBeta(alpha=1, beta=0)" in html
    assert "1 x dense          Flat()" in plan.summary()


def test_matches_combine() -> None:
    layers = [row.layer for row in jxp.lrp(f).plan(X)]

    def chosen(match: Any) -> list[int]:
        return [layer.index for layer in layers if match(layer)]

    assert chosen(any_layer) == [0, 1, 2]
    assert chosen(composites.first) == [0]
    assert chosen(last) == [2]
    assert chosen(kind("Activation") | index(2)) == [1, 2]
    assert chosen(~op("dense")) == [1]
    assert chosen(op("dense") & ~composites.first) == [2]


def test_a_bare_rule_replaces_the_kernels_only() -> None:
    def pooled(x: Any) -> Any:
        return (x @ W).reshape(-1, 2, 3).mean(1) @ W[:3]

    rules = [row.rule for row in jxp.lrp(pooled, ZPlus()).plan(X)]
    assert rules == [ZPlus(), Norm(), ZPlus()]


def test_a_rule_of_ones_own_sees_the_layer() -> None:
    @dataclass(frozen=True)
    class Absolute(Rule):
        """Contributions by magnitude."""

        def relevance(self, layer: Any, x: Any, z: Any, r: Any) -> Any:
            sizes = tuple(map(jnp.abs, x))
            shares = layer.abs().transpose(r / layer.abs()(sizes))
            return jxp.rules.times(sizes, shares)

    found = jxp.lrp(lambda x: x @ W, Absolute())(X, target=2)
    sizes = np.abs(X * W[:, 2])
    expected = sizes / sizes.sum(-1, keepdims=True) * (X @ W)[:, 2:3]
    close(found, expected)


# Errors


def test_a_rule_must_return_the_inputs_shapes() -> None:
    @dataclass(frozen=True)
    class Careless(Rule):
        def relevance(self, layer: Any, x: Any, z: Any, r: Any) -> Any:
            return r

    with pytest.raises(TypeError, match="must return a tuple of arrays of shapes"):
        jxp.lrp(f, Careless())(X)


def test_unknown_operations_are_refused_or_differentiated_on_request() -> None:
    def g(x: Any) -> Any:
        return jnp.cumprod(x @ W, axis=-1) @ V

    with pytest.raises(jxp.NotAnalyzableError, match=r"`cumprod` at test_explainer.py:\d+"):
        jxp.lrp(g)(X)
    explain = jxp.lrp(g, unknown="gradient")
    assert np.isfinite(explain(X)).all()
    assert "1 layers without a rule are differentiated" in str(explain.plan(X))


def test_an_explainer_says_in_one_line_what_it_is() -> None:
    assert repr(jxp.lrp(f, composites.EpsilonPlus())) == "Explainer(f, EpsilonPlus)"
    model = nn.Dense(3)
    bound = jxp.from_linen(model, model.init(jax.random.key(0), X))
    assert repr(jxp.gradient(bound, stop="dense")) == (
        "Explainer(LinenModel, Gradient, logits=False, unknown='gradient', stop='dense')"
    )
