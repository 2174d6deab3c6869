"""Small cases worked out on paper: the numbers here come from no program.

``relevance(f, rule, r, *arguments)`` puts the relevance ``r`` on the output of ``f`` and returns
that of the arguments. Where a rule's stabiliser is set to 0 the numbers are exact; under the base
map's 1e-6 they hold to about 1e-6.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxplain as jxp
from jaxplain.composites import Composite, any_layer, kind
from jaxplain.rules import AlphaBeta, Epsilon, Flat, Gamma, Gradient, Norm, WSquare, Z, ZBox, ZPlus

STABILISED = 1e-5


pytestmark = pytest.mark.usefixtures("float64")


def relevance(f: Callable[..., Any], rule: Any, r: Any, *arguments: Any, explained: int = 1) -> Any:
    arrays = [jnp.asarray(argument, jnp.float64) for argument in arguments]
    argnums = 0 if explained == 1 else tuple(range(explained))
    explain = jxp.lrp(f, rule, argnums=argnums)
    return explain(*arrays, target=lambda output: jnp.asarray(r, output.dtype))


def check(found: Any, expected: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def dense(x: Any, w: Any, b: Any = 0.0) -> Any:
    return x @ w + b


# One dense layer.


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # Activator: x W+ + b+ = 1 + 0. Inhibitor: x W- + b- = -1 - 1 = -2.
        (AlphaBeta(1, 0, epsilon=0), (-1, 0)),  # 1 (1 · -1/1, 0)
        (AlphaBeta(2, 1, epsilon=0), (-2, 0.5)),  # 2 (-1, 0) - (0, -1 · -1/-2)
        (AlphaBeta(1, 0), (-1 / (1 + 1e-6), 0)),
        (AlphaBeta(2, 1), (-2 / (1 + 1e-6), 1 / (2 + 1e-6))),
        (ZPlus(), (-1 / (1 + 1e-6), 0)),
        (AlphaBeta(2, 1, epsilon=0, bias=False), (-2, 1)),  # the inhibitor is -1 now
        (Z(), (1, -1)),  # z = -1: x W R/z
        (Epsilon(1.0), (0.5, -0.5)),  # the stabiliser moves z away from zero, to -2
        # W+g W- on the side of z: (1, -2), b = -2; z' = 1 - 2 - 2 = -3.
        (Gamma(1.0, epsilon=0), (1 / 3, -2 / 3)),
        # The gate still sees z = -1; z' = 1 - 2 = -1.
        (Gamma(1.0, epsilon=0, bias=False), (1, -2)),
        (Flat(0), (-0.5, -0.5)),
        (WSquare(0), (-0.5, -0.5)),
        (WSquare(0, bias=True), (-1 / 3, -1 / 3)),  # W² = (1, 1), b² = 1
        (Gradient(), (-1, 1)),
    ],
    ids=repr,
)
def test_one_neuron_with_a_negative_bias(rule: Any, expected: Any) -> None:
    """The neuron of Bach et al. (2015), eq. 60: W = (1, -1), b = -1, x = (1, 1), R = -1."""
    found = relevance(dense, rule, [-1], [1, 1], [[1], [-1]], [-1])
    check(found, expected)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Z(), (0, 0)),
        (Epsilon(0), (0, 0)),
        (Epsilon(0.5), (4, -4)),  # sgn(0) = +1: x W R / 0.5
        (Gamma(1.0), (0, 0)),  # neither z > 0 nor z < 0
        (AlphaBeta(2, 1, epsilon=0), (4, -2)),  # 2 (2, 0) - (0, -1 · 2/-1)
    ],
    ids=repr,
)
def test_an_output_of_exactly_zero(rule: Any, expected: Any) -> None:
    """W = (1, -1), no bias, x = (1, 1): z = 0. R = 2."""
    check(relevance(jnp.matmul, rule, [2], [1, 1], [[1], [-1]]), expected)


def test_dead_halves_of_alpha_beta_drop_their_relevance() -> None:
    """No negative contribution: the inhibitor's denominator is exactly zero, and gives nothing."""
    found = relevance(jnp.matmul, AlphaBeta(2, 1, epsilon=0), [3], [1, 2], [[1], [1]])
    check(found, (2, 4))


def test_negative_inputs_count_with_negative_weights() -> None:
    """x = (-2, 1, -1), W = (-1, 1, 3): products (2, 1, -3); activator 3, inhibitor -3; R = 3."""
    arguments = ([3], [-2, 1, -1], [[-1], [1], [3]])
    check(relevance(jnp.matmul, ZPlus(0), *arguments), (2, 1, 0))
    check(relevance(jnp.matmul, AlphaBeta(2, 1, epsilon=0), *arguments), (4, 2, -3))


def test_generalised_gamma_on_a_negative_output() -> None:
    """x = (2, -1), W = (-2, -1): z = -4 + 1 = -3, R = -3, gamma = 1.

    Negative contributions count double: 2 · -4 + 1 = -7, so the shares are 8/7 and -1/7 of R.
    """
    check(
        relevance(jnp.matmul, Gamma(1.0, epsilon=0), [-3], [2, -1], [[-2], [-1]]),
        (-24 / 7, 3 / 7),
    )


def test_flat_counts_zero_weights_and_zero_inputs() -> None:
    found = relevance(jnp.matmul, Flat(0), [6], [0, 5, 1], [[1], [0], [-2]])
    check(found, (2, 2, 2))


def test_w_square_ignores_the_input() -> None:
    """W² = (1, 0, 4), R = 10: without the bias shares of 1/5, 0, 4/5; b² = 5 takes one half."""
    arguments = ([10], [0, 5, 1], [[1], [0], [-2]], [np.sqrt(5)])
    check(relevance(dense, WSquare(0), *arguments), (2, 0, 8))
    check(relevance(dense, WSquare(0, bias=True), *arguments), (1, 0, 4))


def test_box() -> None:
    """x = (1/2, 1/2) in [-1, 1]², W = (1, -1): z = 0 + 1 + 1 = 2, R = 2; any bias cancels."""
    found = relevance(dense, ZBox(-1, 1, epsilon=0), [2], [0.5, 0.5], [[1], [-1]], [7])
    check(found, (1.5, 0.5))


def test_stabiliser_as_a_function_of_z() -> None:
    """z = (2, -4), stabilised by half its own size: (3, -6); R = (3, 6), so s = (1, -1)."""
    rule = Epsilon(lambda z: abs(z) / 2)
    check(relevance(jnp.matmul, rule, [3, 6], [1, 1], [[1, -1], [1, -3]]), (2, 4))


def test_default_is_epsilon() -> None:
    """x W + b = 3, selected and seeded with its value: shares of 3 · (1, 3)/(3 + 1e-6)."""
    explain = jxp.lrp(lambda x: x @ jnp.array([[1.0], [3.0]]) + jnp.array([-1.0]))
    check(explain(jnp.array([1.0, 1.0])), np.array([1, 3]) * 3 / (3 + 1e-6))


# Networks.


def test_two_layers() -> None:
    """x = (1, 2); h = (1+2-1, -1+2) = (2, 1); z = 2·1 + 1·2 + 1 = 5 = R.

    R_h = h w R/z = (2, 2). s = R_h/h = (1, 2). R_x = (1(1 - 2), 2(1 + 2)) = (-1, 6).
    """
    w1, b1 = jnp.array([[1.0, -1.0], [1.0, 1.0]]), jnp.array([-1.0, 0.0])
    w2, b2 = jnp.array([[1.0], [2.0]]), jnp.array([1.0])

    def f(x: Any) -> Any:
        return jax.nn.relu(x @ w1 + b1) @ w2 + b2

    check(jxp.lrp(f, Z())(jnp.array([1.0, 2.0])), (-1, 6))
    # z+ without biases: R_h = (2, 2) 5/4; h1 gives shares of (1, 2)/3, h2 all of its own to x2.
    rule = ZPlus(0, bias=False)
    check(jxp.lrp(f, rule)(jnp.array([1.0, 2.0])), np.array([1 / 3, 2 / 3 + 1]) * 2.5)


def test_a_layer_used_twice() -> None:
    """x = (1, 1), W = ((1, 1), (0, 1)): h = (1, 2), z = (1, 3); R = (0, 3).

    s = (0, 1): R_h = (1, 2); s = (1, 1): R_x = (1(1 + 1), 1 · 1) = (2, 1).
    """
    found = relevance(lambda x, w: (x @ w) @ w, Z(), [0, 3], [1, 1], [[1, 1], [0, 1]])
    check(found, (2, 1))


def test_residual_sum_is_shared_in_proportion() -> None:
    """x = (1, 2), x W = (3, 1), z = (4, 3), R = (8, 3): (2, 2) stay on the shortcut, (6, 1) go on.

    Dense by z: s = (2, 1), R_x = (1(2 + 1), 2 · 2) = (3, 4). Flat: (6 + 1)/2 to each.
    """

    def f(x: Any, w: Any) -> Any:
        return x + x @ w

    arguments = ([8, 3], [1, 2], [[1, 1], [1, 0]])
    for rule, branch in ((Z(), (3, 4)), (Flat(0), (3.5, 3.5))):
        expected = np.add((2, 2), branch)
        check(relevance(f, rule, *arguments), expected, STABILISED)
        exact = Composite([(kind("Merge"), Norm(0)), (any_layer, rule)])
        check(relevance(f, exact, *arguments), expected)


def test_sum_difference_and_bias_of_a_sum() -> None:
    x, h, r = [3.0, 2.0], [1.0, -4.0], [8.0, 6.0]
    # 3 + 1 = 4; 2 - 4 = -2.
    total = relevance(lambda x, h: x + h, Z(), r, x, h, explained=2)
    check(total, [(6, -6), (2, 12)], STABILISED)
    # 3 - 1 = 2; 2 + 4 = 6.
    difference = relevance(lambda x, h: x - h, Z(), r, x, h, explained=2)
    check(difference, [(12, 2), (-4, 4)], STABILISED)
    # With a constant of (4, -1): 8 and -3; the constant keeps its 4/8 and -1/-3.
    biased = relevance(lambda x, h, c: x + h + c, Z(), r, x, h, [4.0, -1.0], explained=2)
    check(biased, [(3, -4), (1, 8)], STABILISED)


def test_fan_out_adds_up() -> None:
    """Both halves read x: (1, 2)·s with s = R/z, z = (3, 5); R = (3, 10): s = (1, 2)."""
    found = relevance(
        lambda x, w, u: jnp.concatenate([x @ w, x @ u]),
        Z(),
        [3, 10],
        [1, 2],
        [[1], [1]],
        [[1], [2]],
    )
    check(found, (1 * (1 + 2), 2 * (1 + 4)))


def test_structure_moves_relevance_without_changing_it() -> None:
    x, y = np.arange(3.0), np.arange(2.0)
    found = relevance(
        lambda x, y: jnp.concatenate([y, x, y])[::-1], Z(), np.arange(7.0), x, y, explained=2
    )
    check(found[0], (4, 3, 2))
    check(found[1], (6 + 1, 5 + 0))
    gathered = relevance(lambda x: x[jnp.array([2, 0, 2])], Z(), [1, 2, 4], x)
    check(gathered, (2, 0, 5))


# Sums and selections.


def test_mean_and_sum_share_in_proportion() -> None:
    for f in (lambda x: x.mean(keepdims=True), lambda x: x.sum(keepdims=True)):
        check(relevance(f, Flat(), [16], [1, 2, 5]), (2, 4, 10), STABILISED)
        check(relevance(f, Z(), [4], [1, -2, 5]), (1, -2, 5), STABILISED)


def test_average_pool_does_not_count_the_padding() -> None:
    """x = (1, 2, 6), windows of two, padded at the end: means 1.5 and 6; R = (3, 5)."""

    def f(x: Any) -> Any:
        def total(v: Any) -> Any:
            return lax.reduce_window(v, 0.0, lax.add, (2,), (2,), "SAME")

        return total(x) / total(jnp.ones_like(x))

    check(relevance(f, Z(), [3, 5], [1, 2, 6]), (1, 2, 5), STABILISED)


def test_cumulative_sum_shares_in_proportion() -> None:
    """Sums (1, 3, 4), R = (1, 6, 4): s = (1, 2, 1), R_x = x (4, 3, 1)."""
    check(relevance(jnp.cumsum, Z(), [1, 6, 4], [1, 2, 1]), (4, 6, 1), STABILISED)


def test_max_pool_takes_the_first_winner() -> None:
    def pool(x: Any, window: int, stride: int) -> Any:
        return lax.reduce_window(x, -jnp.inf, lax.max, (window,), (stride,), "VALID")

    for rule in (Z(), Flat()):
        check(relevance(lambda x: pool(x, 2, 2), rule, [1, 2], [3, 3, 2, 5]), (1, 0, 0, 2))
        # Windows (1, 4, 2), (4, 2, 3), (2, 3, 3): the 4 wins twice, then the first 3.
        overlap = relevance(lambda x: pool(x, 3, 1), rule, [1, 2, 4], [1, 4, 2, 3, 3])
        check(overlap, (0, 3, 0, 4, 0))


def test_max_takes_the_first_winner() -> None:
    x = [[2.0, 5.0, 5.0], [1.0, 1.0, 0.0]]
    for f in (lambda x: x.max(-1), lambda x: lax.reduce(x, -jnp.inf, lax.max, (1,))):
        check(relevance(f, Z(), [3, 4], x), [(0, 3, 0), (4, 0, 0)])
    first, second = relevance(
        jnp.maximum, Z(), [1, 2, 4], [1.0, 7.0, 3.0], [2.0, 7.0, 0.0], explained=2
    )
    check(first, (0, 2, 4))
    check(second, (1, 0, 0))


def test_min_takes_the_first_winner() -> None:
    check(relevance(lambda x: x.min(-1), Z(), [3], [[2.0, 1.0, 1.0]]), [(0, 3, 0)])


def test_sort_and_top_k_follow_their_elements() -> None:
    x = [3.0, 1.0, 2.0]
    check(relevance(jnp.sort, Z(), [10, 20, 30], x), (30, 10, 20))
    check(relevance(lambda x: lax.top_k(x, 2)[0], Z(), [10, 20], x), (10, 0, 20))


# Nonlinear layers.


@pytest.mark.parametrize(
    "f",
    [
        jax.nn.relu,
        jnp.tanh,
        jax.nn.gelu,
        jax.nn.silu,
        lambda x: x * jax.nn.sigmoid(1.7 * x),
        lambda x: jnp.where(x > 0, x, 0.1 * x),
        lambda x: x**2,
    ],
)
def test_activations_pass_relevance_on(f: Callable[..., Any]) -> None:
    check(relevance(f, Z(), [3, 4, 5], [-1, 2, 0]), (3, 4, 5))


def test_lone_scale_passes_relevance_on() -> None:
    found = relevance(
        lambda x, m, s: jax.nn.relu((x - m) * s), Epsilon(), [3, 4], [-1, 2], [2, 1], [-3, 0.5]
    )
    check(found, (3, 4))


def test_product_is_shared_evenly() -> None:
    r = np.array([2.0, -4.0])
    found = relevance(
        lambda x, y: x * jax.nn.sigmoid(y), Z(), r, [0.0, 2.0], [5.0, -1.0], explained=2
    )
    check(found, [r / 2, r / 2])


def test_product_of_an_input_and_a_layer_of_it() -> None:
    """x = (1, 2), x W = (3, 1), R = (6, 2): (3, 1) to either side; s = (1, 1), R_x = (2, 2)."""
    found = relevance(lambda x, w: x * (x @ w), Z(), [6, 2], [1, 2], [[1, 1], [1, 0]])
    check(found, (3 + 2, 1 + 2))


def test_matmul_is_shared_evenly() -> None:
    """A B = ((5, 1), (3, 3)), R = ((10, 2), (6, 12)): s = R/2AB = ((1, 1), (1, 2)).

    s Bᵀ = ((2, 2), (3, 2)), Aᵀ s = ((4, 7), (2, 2)).
    """
    a, b = [[1.0, 2.0], [3.0, 0.0]], [[1.0, 1.0], [2.0, 0.0]]
    r = [[10.0, 2.0], [6.0, 12.0]]
    for f in (jnp.matmul, lambda a, b: jnp.einsum("ij,jk->ik", a, b)):
        found = relevance(f, Z(), r, a, b, explained=2)
        check(found[0], [(2, 4), (9, 0)], STABILISED)
        check(found[1], [(4, 7), (4, 0)], STABILISED)


def test_softmax_by_its_taylor_expansion() -> None:
    """x = (0, ln 2, ln 5): s = (1, 2, 5)/8. The sum of the first two is 3/8 = R.

    R_s = (1/8, 2/8, 0), its sum 3/8; R_x = x (R_s - 3/8 s) = x (5, 10, -15)/64.
    """
    x = np.log([1.0, 2.0, 5.0])
    w = [[1.0], [1.0], [0.0]]
    expected = x * np.array([5, 10, -15]) / 64
    check(relevance(lambda x, w: jax.nn.softmax(x) @ w, Z(), [3 / 8], x, w), expected)

    def by_hand(x: Any, w: Any) -> Any:
        e = jnp.exp(x)
        return (e / e.sum(-1, keepdims=True)) @ w

    check(relevance(by_hand, Z(), [3 / 8], x, w), expected)


def test_trailing_softmax_is_left_out() -> None:
    """Logits (1, 6): the second is explained, with its value."""
    w = jnp.array([[1.0, 0.0], [0.0, 3.0]])
    for last in (jax.nn.softmax, jax.nn.log_softmax):
        check(jxp.lrp(lambda x, g=last: g(x @ w), Z())(jnp.array([1.0, 2.0])), (0, 6))


def standardised(x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def standardised_fast(x: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / jnp.sqrt((x**2).mean(-1, keepdims=True) - mean**2 + 1e-5)


@pytest.mark.parametrize("scale", [None, (2.0, -3.0, 0.5)], ids=["plain", "scaled"])
@pytest.mark.parametrize("norm", [standardised, standardised_fast])
def test_layer_norm_freezes_its_deviation(norm: Callable[..., Any], scale: Any) -> None:
    """x = (1, 2, 6) less its mean is (-2, -1, 3); R = (-2, 1, 6), so t = R/(x - mean) = (1, -1, 2).

    With the deviation constant, R_x = x (t - mean t) = (1, 2, 6)·(1/3, -5/3, 4/3); a scale of
    every output cancels.
    """

    def f(x: Any, *scale: Any) -> Any:
        return norm(x) * scale[0] if scale else norm(x)

    found = relevance(f, Z(), [-2, 1, 6], [1, 2, 6], *([] if scale is None else [scale]))
    check(found, (1 / 3, -10 / 3, 8), 10 * STABILISED)


def test_rms_norm_passes_relevance_on() -> None:
    def f(x: Any) -> Any:
        return x * lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-5)

    check(relevance(f, Z(), [-2, 1, 6], [1, 2, 6]), (-2, 1, 6), 10 * STABILISED)


# Gradient methods.


def test_what_a_relu_lets_through() -> None:
    """x = (-1, 2, 3, -4), cotangent (1, -1, 5, -2): by input, by cotangent, by both."""
    x, g = jnp.array([-1.0, 2.0, 3.0, -4.0]), jnp.array([1.0, -1.0, 5.0, -2.0])

    def explain(method: Any) -> Any:
        return method(jax.nn.relu)(x, target=lambda output: g.astype(output.dtype))

    check(explain(jxp.gradient), (0, -1, 5, 0))
    check(explain(jxp.deconvnet), (1, 0, 5, 0))
    check(explain(jxp.guided_backprop), (0, 0, 5, 0))
    check(explain(jxp.input_times_gradient), (0, -2, 15, 0))


def test_seeds_of_relevance_and_gradient() -> None:
    """Three logits 3x: relevance starts from the value of the selected one, a gradient from 1."""

    def f(x: Any) -> Any:
        return 3 * (x @ np.eye(3, dtype=x.dtype))

    x = jnp.array([[1.0, -2.0, 0.5], [0.0, 1.0, 4.0]])
    z = 3 * x
    for target, columns in ((None, (0, 2)), (1, (1, 1)), (jnp.array([2, 1]), (2, 1))):
        selected = jax.nn.one_hot(jnp.array(columns), 3)
        check(jxp.lrp(f, Z())(x, target=target), selected * z)
        check(jxp.gradient(f)(x, target=target), 3 * selected)
        check(jxp.input_times_gradient(f)(x, target=target), selected * z)
    every = jnp.eye(3)[:, None] * z
    check(jxp.lrp(f, Z())(x, target="all"), every)


def test_a_matrix_product_of_a_value_with_itself_conserves() -> None:
    """z = x . x = 5: each factor gets half of its terms' shares, 1/2 and 2, and both are x."""
    received = relevance(lambda x: x @ x.T, Z(), [[5.0]], [[1.0, 2.0]])
    np.testing.assert_allclose(received, [[1.0, 4.0]], rtol=1e-6)
