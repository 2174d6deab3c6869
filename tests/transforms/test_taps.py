"""Relevance inside the network: of layers, channels, parameters and pairs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxplain as jxp
from jaxplain.composites import EpsilonPlusFlat, kernel, op
from jaxplain.rules import AlphaBeta, Epsilon, Z, ZPlus


def normal(*shape: int, seed: int = 0) -> Any:
    return jnp.asarray(np.random.default_rng((seed, *shape)).normal(size=shape), jnp.float32)


K1, K2 = normal(3, 3, 3, 4, seed=1) / 3, normal(3, 3, 4, 5, seed=2) / 3
B1, B2 = normal(4, seed=3) / 4, normal(5, seed=4) / 4
W = normal(5, 6, seed=5)
X = normal(2, 6, 6, 3, seed=6)


def conv(x: Any, kernel: Any) -> Any:
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


def lower(x: Any) -> Any:
    with jax.named_scope("conv1"):
        return conv(x, K1) + B1


def upper(h: Any) -> Any:
    with jax.named_scope("conv2"):
        h = conv(jax.nn.relu(h), K2) + B2
    with jax.named_scope("head"):
        return jax.nn.relu(h).mean((1, 2)) @ W


def f(x: Any) -> Any:
    return upper(lower(x))


def close(a: Any, b: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * float(np.abs(b).max()))


# capture, start, stop

RULES = [Epsilon(1e-3), AlphaBeta(epsilon=1e-3), EpsilonPlusFlat()]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_captured_relevance_is_that_of_the_network_above(rule: Any) -> None:
    relevance, captured = jxp.lrp(f, rule, capture="^conv1$")(X, target=2)
    assert list(captured) == ["conv1"]
    if not isinstance(
        rule, jxp.Composite
    ):  # Flat is for the first layer of f, not of its upper part
        close(captured["conv1"], jxp.lrp(upper, rule)(lower(X), target=2))
    close(relevance, jxp.lrp(f, rule)(X, target=2), 1e-6)


def test_capture_by_match_gives_every_layer_by_name() -> None:
    _, captured = jxp.lrp(f, capture=kernel)(X)
    assert {name: v.shape for name, v in captured.items()} == {
        "conv1": (2, 6, 6, 4),
        "conv2": (2, 6, 6, 5),
        "head": (2, 6),
    }
    output, _, again = jxp.lrp(f, capture=op("convolution"), with_output=True)(X)
    assert list(again) == ["conv1", "conv2"] and output.shape == (2, 6)
    hot = jax.nn.one_hot(f(X).argmax(-1), 6)
    close(captured["head"], f(X) * hot)


def test_capture_of_a_shared_value_is_the_sum_over_its_readers() -> None:
    def g(x: Any) -> Any:
        h = jnp.tanh(x @ W[:, :5])
        return h @ W + jax.nn.relu(h) @ W

    x = normal(3, 5)
    _, captured = jxp.lrp(g, Z(), capture="tanh|elementwise")(x, target=1)
    whole = jxp.lrp(lambda h: h @ W + jax.nn.relu(h) @ W, Z())(jnp.tanh(x @ W[:, :5]), target=1)
    assert any(np.allclose(v, whole, atol=1e-4) for v in captured.values())


def test_every_class_captures_every_class() -> None:
    every, captured = jxp.lrp(f, capture="^conv2$")(X, target="all")
    assert every.shape == (6, *X.shape) and captured["conv2"].shape == (6, 2, 6, 6, 5)
    close(captured["conv2"][3], jxp.lrp(f, capture="^conv2$")(X, target=3)[1]["conv2"])


def test_the_gradient_of_a_layer_is_captured_too() -> None:
    _, captured = jxp.gradient(f, capture="^conv1$")(X, target=0)
    close(captured["conv1"], jax.grad(lambda h: upper(h)[:, 0].sum())(lower(X)))
    _, times = jxp.input_times_gradient(f, capture="^conv1$")(X, target=0)
    close(times["conv1"], lower(X) * captured["conv1"])


def test_start_explains_a_neuron_of_a_layer() -> None:
    close(jxp.lrp(f, start="conv1")(X, target=3), jxp.lrp(lower)(X, target=3))
    seed = jnp.zeros((2, 6, 6, 4)).at[0, 2, 3, 1].set(1.0)
    one = jxp.lrp(f, start="conv1")(X, target=lambda h: seed * h)
    reached = np.argwhere(np.abs(one).sum((0, 3)) > 0)
    assert (reached.min(0) == (1, 2)).all() and (reached.max(0) == (3, 4)).all()


def test_stop_returns_what_comes_through_a_layer() -> None:
    explain = jxp.lrp(f, capture="^conv1$")
    close(jxp.lrp(f, stop="conv1")(X, target=2), explain(X, target=2)[1]["conv1"])
    assert jxp.lrp(f, start="conv2", stop="conv1")(X, target=0).shape == (2, 6, 6, 4)


def test_stopping_early_costs_less() -> None:
    def flops(**options: Any) -> float:
        explain = jxp.lrp(f, **options)
        compiled = jax.jit(lambda x: explain(x, target=0)).lower(X).compile()
        return compiled.cost_analysis()["flops"]

    assert flops(stop="conv2") < 0.75 * flops()
    assert flops(capture="^conv1$") <= 1.01 * flops()


def test_activations() -> None:
    found = jxp.lrp(f).activations(X, layers="^conv")
    close(found["conv1"], lower(X))
    assert found["conv2"].shape == (2, 6, 6, 5)


# masks and concepts


def test_a_mask_conditions_relevance_on_channels() -> None:
    mask = jnp.asarray([0.0, 1.0, 0.0, 0.0])
    found = jxp.lrp(f)(X, target=2, masks={"conv1": mask})
    above = jxp.lrp(f, stop="conv1")(X, target=2)
    close(found, jxp.lrp(lower)(X, target=lambda h: above * mask[None, None, None]))


def test_concepts_add_up_to_the_attribution() -> None:
    explain = jxp.lrp(f, Epsilon(1e-3))
    concepts = jxp.concept_relevance(explain, X, layer="conv1", target=2)
    assert concepts.shape == (4, *X.shape)
    close(concepts.sum(0), explain(X, target=2))
    some = jxp.concept_relevance(
        explain, X, layer="conv1", channels=[3, -3], target=2, batch_size=1
    )
    close(some, concepts[jnp.asarray([3, 1])])
    with pytest.raises(ValueError, match="has 4 channels"):
        jxp.concept_relevance(explain, X, layer="conv1", channels=[4])


def test_concepts_are_checked_once_for_all_channels() -> None:
    explain = jxp.lrp(f, check_finite=True)
    checked = jxp.concept_relevance(explain, X, layer="conv1", target=2, batch_size=2)
    close(checked, jxp.concept_relevance(jxp.lrp(f), X, layer="conv1", target=2))
    with pytest.raises(FloatingPointError, match=r"input .* is not finite"):
        jxp.concept_relevance(explain, X.at[0].set(jnp.nan), layer="conv1", target=2)


def test_many_conditions_share_the_forward_pass() -> None:
    """Ten conditions cost the forward pass once, and the backward pass only below the mask."""
    explain = jxp.lrp(f)

    def flops(conditions: int) -> float:
        masks = jnp.ones((conditions, 4))
        run = jax.vmap(lambda m: explain(X, target=0, masks={"conv1": m}))
        return jax.jit(run).lower(masks).compile().cost_analysis()["flops"]

    below = jax.jit(lambda x: jxp.lrp(lower)(x, target=0)).lower(X).compile()
    once, ten = flops(1), flops(10)
    assert ten - once <= 9.5 * below.cost_analysis()["flops"]
    assert ten < 5 * once


def test_reference_samples_by_activation_and_relevance() -> None:
    data = normal(12, 6, 6, 3, seed=7)
    explain = jxp.lrp(f)
    for by in ("activation", "relevance"):
        found = jxp.reference_samples(
            explain, (data[i : i + 5] for i in (0, 5, 10)), layer="conv1", by=by, top=3, target=1
        )
        if by == "activation":
            scores = np.asarray(lower(data)).sum((1, 2))
        else:
            scores = np.asarray(jxp.lrp(f, stop="conv1")(data, target=1)).sum((1, 2))
        order = np.argsort(-scores, axis=0)[:3].T
        np.testing.assert_array_equal(found.indices, order)
        np.testing.assert_allclose(
            found.scores, np.take_along_axis(scores.T, order, 1), rtol=1e-3, atol=1e-5
        )
    with pytest.raises(ValueError, match="no batches"):
        jxp.reference_samples(explain, [], layer="conv1")


# parameters and pairs


def test_the_relevance_of_weights_is_that_of_the_messages_through_them() -> None:
    """R_ij = sum over examples of x_i w_ij R_j / z_j, by hand for both layers of an MLP."""
    x = normal(5, 4, seed=1)
    params = {
        "w": normal(4, 6, seed=2),
        "b": normal(6, seed=3),
        "v": normal(6, 3, seed=4),
        "c": normal(3, seed=5),
    }

    def mlp(x: Any, p: Any) -> Any:
        return jax.nn.relu(x @ p["w"] + p["b"]) @ p["v"] + p["c"]

    found = jxp.parameter_relevance(mlp, Z())(x, params, target=1)
    z1 = x @ params["w"] + params["b"]
    h = jax.nn.relu(z1)
    z2 = h @ params["v"] + params["c"]
    s2 = jnp.ones_like(z2).at[:, jnp.asarray([0, 2])].set(0.0)  # R / z: the seed is z itself
    close(found["v"], params["v"] * (h.T @ s2))
    close(found["c"], params["c"] * s2.sum(0))
    s1 = jnp.where(z1 == 0, 0, h * (s2 @ params["v"].T) / z1)
    close(found["w"], params["w"] * (x.T @ s1))
    close(found["b"], params["b"] * s1.sum(0))
    # the weights of a layer hand on what the layer's inputs receive
    assert float(found["w"].sum()) == pytest.approx(
        float(jxp.lrp(mlp, Z())(x, params, target=1).sum()), rel=1e-4
    )


def test_the_relevance_of_convolution_kernels() -> None:
    def network(x: Any, p: Any) -> Any:
        return conv(jax.nn.relu(conv(x, p[0]) + B1), p[1]).mean((1, 2))

    found = jxp.parameter_relevance(network, ZPlus())(X, [K1, K2], target=0)
    assert [v.shape for v in found] == [K1.shape, K2.shape]
    total = jxp.lrp(network, ZPlus())(X, [K1, K2], target=0).sum()
    assert float(found[0].sum()) == pytest.approx(float(total), rel=1e-3)


def test_bilrp_of_a_linear_map_is_its_outer_product() -> None:
    w, x, y = normal(4, 3), normal(4, seed=1), normal(4, seed=2)
    found = jxp.bilrp(lambda x: x @ w, Z())(x, y)
    close(found, x[:, None] * (w @ w.T) * y[None, :])
    assert float(found.sum()) == pytest.approx(float((x @ w) @ (y @ w)), rel=1e-5)


def test_bilrp_pools_and_adds_up_to_the_similarity() -> None:
    def embed(x: Any) -> Any:
        return jax.nn.relu(conv(jax.nn.relu(conv(x[None], K1)), K2)).mean((1, 2))[0]

    joint = jxp.bilrp(embed, Z(), pool=lambda r: r.sum(-1))(X[0], X[1])
    assert joint.shape == (6, 6, 6, 6)
    assert float(joint.sum()) == pytest.approx(float(embed(X[0]) @ embed(X[1])), rel=1e-4)
    with pytest.raises(ValueError, match="one vector"):
        jxp.bilrp(f)(X, X)
