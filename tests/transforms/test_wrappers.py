"""Methods made of other methods: noise, paths, windows, Grad-CAM."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxplain as jxp
from benchmarks.networks import vgg16, vgg16_parameters

KEY = jax.random.key(0)
A = np.random.default_rng(0).normal(size=(4, 3))
Q = np.random.default_rng(1).normal(size=(3, 4, 4))
X = np.random.default_rng(2).normal(size=(5, 4))


@pytest.fixture(autouse=True)
def _float64(request: pytest.FixtureRequest) -> Any:
    with jax.enable_x64("memory" not in request.node.name):
        yield


def linear(x: Any) -> Any:
    return x @ A


def quadratic(x: Any) -> Any:
    """f_k(x) = x Q_k x, whose gradient is x (Q_k + Q_k^T)."""
    return jnp.einsum("bi,kij,bj->bk", x, Q, x)


def curved(x: Any) -> Any:
    return jnp.tanh(x @ A) @ A.T @ A


def slope(x: np.ndarray, k: int) -> np.ndarray:
    return x @ (Q[k] + Q[k].T)


# Noise


def test_smoothgrad_of_a_linear_function_is_its_gradient() -> None:
    found = jxp.smoothgrad(linear, samples=5, batch_size=2)(X, target=1, key=KEY)
    assert_allclose(found, np.broadcast_to(A[:, 1], X.shape), rtol=1e-12)


def test_noise_of_zero_leaves_any_base_as_it_is() -> None:
    base = jxp.lrp(curved)
    found = jxp.smoothgrad(base, samples=3, noise_scale=0)(X, key=KEY)
    assert_allclose(found, base(X), rtol=1e-12)


@pytest.mark.parametrize("absolute", [True, False])
def test_the_statistics_of_smoothgrad_are_those_of_its_noise(absolute: bool) -> None:
    """The gradient of a quadratic is linear in the noise: mean and variance are known."""
    method = dict(samples=4000, batch_size=500, noise_scale=0.5, absolute=absolute)
    scale = 0.5 * np.ones(5) if absolute else 0.5 * (X.max(1) - X.min(1))
    matrix = Q[2] + Q[2].T
    variance = scale[:, None] ** 2 * np.square(matrix).sum(0)
    mean = jxp.smoothgrad(quadratic, **method)(X, target=2, key=KEY)
    squares = jxp.smoothgrad_squared(quadratic, **method)(X, target=2, key=KEY)
    spread = jxp.vargrad(quadratic, **method)(X, target=2, key=KEY)
    error = 4 * np.sqrt(variance / 4000)
    assert (abs(mean - slope(X, 2)) < error).all()
    assert_allclose(spread, variance, rtol=0.15)
    assert_allclose(squares, spread + mean**2, rtol=1e-9)  # the same noise


@pytest.mark.parametrize("method", [jxp.smoothgrad, jxp.smoothgrad_squared, jxp.vargrad])
def test_batches_do_not_change_the_result(method: Any) -> None:
    found = [
        method(curved, samples=7, batch_size=size)(X, target=0, key=KEY) for size in (1, 3, 7, 100)
    ]
    for other in found[1:]:
        assert_allclose(found[0], other, rtol=1e-9, atol=1e-15)


def test_vargrad_does_not_cancel() -> None:
    """Gradients of 1e4 with a spread of 1e-3: squares minus squares would lose it in float32."""
    with jax.enable_x64(False):
        f = lambda x: 1e4 * x + 0.5e-3 * x**2  # noqa: E731
        explain = jxp.vargrad(f, samples=200, noise_scale=1.0, absolute=True)
        found = explain(jnp.ones((1, 1), jnp.float32), key=KEY)
    assert 0.3e-6 < found[0, 0] < 3e-6


def test_noise_is_per_example_and_the_key_matters() -> None:
    explain = jxp.smoothgrad(curved, samples=4, noise_scale=1.0)
    twice = np.concatenate([X[:1], X[:1]])
    found = explain(twice, target=0, key=KEY)
    assert not np.allclose(found[0], found[1])
    assert not np.allclose(found, explain(twice, target=0, key=jax.random.key(1)))
    assert_allclose(found, explain(twice, target=0, key=KEY))


def test_the_target_is_that_of_the_clean_input() -> None:
    """Noise flips the largest output half of the time; the explained class stays."""
    f = lambda x: x @ jnp.eye(2)  # noqa: E731
    x = jnp.array([[1.0, 0.9]])
    found = jxp.smoothgrad(f, samples=50, noise_scale=10.0, absolute=True)(x, key=KEY)
    assert_allclose(found, [[1.0, 0.0]])
    along = jxp.integrated_gradients(f, jnp.array([0.0, 5.0]))(x)
    assert_allclose(along, [[1.0, 0.0]])


def test_wrappers_nest() -> None:
    inner = jxp.integrated_gradients(jxp.gradient(quadratic), steps=2)
    explain = jxp.smoothgrad(inner, samples=3, noise_scale=0.0)
    assert_allclose(explain(X, target=1, key=KEY), inner(X, target=1), rtol=1e-12)


def test_a_path_through_noise_gets_the_key() -> None:
    explain = jxp.path_average(jxp.smoothgrad(linear, samples=2), steps=3)
    assert_allclose(explain(X, target=0, key=KEY), np.broadcast_to(A[:, 0], X.shape), rtol=1e-12)


def test_several_inputs() -> None:
    f = lambda x, y: x @ A + 2 * y["y"] @ A  # noqa: E731
    for explain in (
        jxp.smoothgrad(jxp.gradient(f, argnums=(0, 1)), samples=2),
        jxp.path_average(jxp.gradient(f, argnums=(0, 1)), steps=2),
    ):
        key = {"key": KEY} if explain.needs_key else {}
        dx, dy = explain(X, {"y": X}, target=1, **key)
        assert_allclose(dx, np.broadcast_to(A[:, 1], X.shape), rtol=1e-12)
        assert_allclose(dy["y"], 2 * np.broadcast_to(A[:, 1], X.shape), rtol=1e-12)


def test_every_class_at_once() -> None:
    ig = jxp.integrated_gradients(curved, steps=4)
    everything = ig(X, target="all")
    assert everything.shape == (3, *X.shape)
    for k in range(3):
        assert_allclose(everything[k], ig(X, target=k), rtol=1e-9)


@pytest.mark.parametrize(
    "explain",
    [jxp.smoothgrad(curved, samples=3), jxp.vargrad(curved, samples=3), jxp.random(curved)],
    ids=["smoothgrad", "vargrad", "random"],
)
def test_jit_and_vmap(explain: Any) -> None:
    wanted = explain(X, target=1, key=KEY)
    assert_allclose(jax.jit(lambda x: explain(x, target=1, key=KEY))(X), wanted, rtol=1e-9)
    keys = jax.random.split(KEY, 2)
    found = jax.vmap(lambda k: explain(X, target=1, key=k))(keys)
    for row, k in zip(found, keys, strict=True):
        assert_allclose(row, explain(X, target=1, key=k), rtol=1e-9)


def test_an_updated_model_is_not_explained_with_old_weights() -> None:
    def model(w: Any) -> Any:
        return jax.tree_util.Partial(lambda w, x: x @ w, jnp.asarray(w))

    explain = jxp.smoothgrad(jxp.gradient(model(A)), samples=2)
    explain(X, target=0, key=KEY)
    newer = explain.combine(jxp.smoothgrad(jxp.gradient(model(3 * A))).dynamic)
    assert_allclose(newer(X, target=0, key=KEY)[0], 3 * A[:, 0], rtol=1e-9)


def test_a_model_whose_static_part_has_no_hash() -> None:
    @jax.tree_util.register_pytree_node_class
    class Model:
        def __init__(self, w: Any, options: dict[str, int]):
            self.w, self.options = w, options

        def __call__(self, x: Any) -> Any:
            return x @ self.w * self.options["factor"]

        def tree_flatten(self) -> Any:
            return (self.w,), self.options

        @classmethod
        def tree_unflatten(cls, options: Any, children: Any) -> "Model":
            return cls(*children, options)

    found = jxp.smoothgrad(Model(jnp.asarray(A), {"factor": 2}), samples=2)(X, target=0, key=KEY)
    assert_allclose(found[0], 2 * A[:, 0], rtol=1e-12)


# Paths


@pytest.mark.parametrize("quadrature", ["midpoint", "gauss_legendre"])
def test_one_step_is_exact_for_a_quadratic(quadrature: Any) -> None:
    for steps in (1, 2, 5):
        explain = jxp.integrated_gradients(
            quadratic, steps=steps, quadrature=quadrature, with_gap=True
        )
        found, gap = explain(X, target=2)
        assert_allclose(found, X * slope(X, 2) / 2, rtol=1e-10)
        assert gap.shape == (5,)
        assert gap.max() < 1e-12


@pytest.mark.parametrize(
    ("quadrature", "order"), [("left", 1), ("right", 1), ("midpoint", 2), ("trapezoid", 2)]
)
def test_the_gap_shrinks_as_the_rule_promises(quadrature: Any, order: int) -> None:
    gaps = [
        jxp.integrated_gradients(curved, steps=n, quadrature=quadrature, with_gap=True)(
            X, target=0
        )[1].sum()
        for n in (32, 64)
    ]
    assert 0.8 * 2**order < gaps[0] / gaps[1] < 1.25 * 2**order


def test_gauss_legendre_converges_at_once() -> None:
    gap = [
        jxp.integrated_gradients(curved, steps=n, quadrature="gauss_legendre", with_gap=True)(
            X, target=0
        )[1].max()
        for n in (2, 24)
    ]
    assert gap[1] < 1e-7 * gap[0]


def test_the_gap_is_what_it_says() -> None:
    baseline = np.full(4, 0.5)
    found, gap = jxp.integrated_gradients(
        curved, baseline, steps=3, quadrature="left", with_gap=True
    )(X, target="all")
    rest = curved(X) - curved(baseline[None])
    assert_allclose(gap, abs(found.sum(-1) - rest.T), rtol=1e-9)


@pytest.mark.parametrize(
    "baseline",
    [0.5, np.full(4, 0.5), np.full((5, 4), 0.5), lambda x: jnp.full(4, 0.5)],
    ids=["number", "one", "one each", "function"],
)
def test_baselines(baseline: Any) -> None:
    found = jxp.integrated_gradients(quadratic, baseline, steps=1)(X, target=0)
    assert_allclose(found, (X - 0.5) * slope((X + 0.5) / 2, 0), rtol=1e-10)


def test_a_baseline_for_each_example() -> None:
    baseline = X[::-1].copy()
    found = jxp.integrated_gradients(quadratic, baseline, steps=1)(X, target=0)
    assert_allclose(found, (X - baseline) * slope((X + baseline) / 2, 0), rtol=1e-10)


def test_expected_gradients_with_one_reference_are_integrated_gradients_on_average() -> None:
    reference = np.full((1, 4), 0.5)
    explain = jxp.expected_gradients(quadratic, reference, samples=4000, batch_size=1000)
    wanted = (X - 0.5) * slope((X + 0.5) / 2, 0)
    assert abs(explain(X, target=0, key=KEY) - wanted).max() < 0.05 * abs(wanted).max()


def test_expected_gradients_draw_from_all_references() -> None:
    references = np.stack([np.zeros(4), np.ones(4)])
    explain = jxp.expected_gradients(linear, references, samples=2000, batch_size=500)
    found = explain(X, target=0, key=KEY)
    assert abs(found - (X - 0.5) * A[:, 0]).max() < 0.05


# Memory


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize("count", [64, 61])
@pytest.mark.parametrize("method", ["integrated_gradients", "smoothgrad"])
def test_memory_is_that_of_one_batch_of_gradients(method: str, count: int) -> None:
    params = jax.eval_shape(lambda k: vgg16_parameters(k, 0.25, 32, 10), jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    images = jax.ShapeDtypeStruct((8, 32, 32, 3), jnp.float32)

    def temporaries(f: Any, *args: Any) -> int:
        return jax.jit(f).lower(*args).compile().memory_analysis().temp_size_in_bytes

    plain = temporaries(lambda x, p: jax.grad(lambda x: vgg16(x, p)[:, 3].sum())(x), images, params)
    option = {"integrated_gradients": {"steps": count}, "smoothgrad": {"samples": count}}[method]
    explain = getattr(jxp, method)(vgg16, batch_size=8, **option)
    key = {"key": jax.random.key(0)} if method == "smoothgrad" else {}
    found = temporaries(lambda x, p: explain(x, p, target=3, **key), image, params)
    assert plain > 5e6
    assert found <= 1.3 * plain


# Occlusion


def test_occlusion_of_a_linear_function() -> None:
    """Hiding i and i + 1 takes x_i a_i + x_i+1 a_i+1; inputs average over their windows."""
    share = X * A[:, 0]
    pairs = share[:, :-1] + share[:, 1:]
    wanted = np.stack(
        [pairs[:, 0], *(pairs[:, [i - 1, i]].mean(1) for i in (1, 2)), pairs[:, 2]], 1
    )
    for batch_size in (1, 2, 8):
        found = jxp.occlusion(linear, 2, 1, batch_size=batch_size)(X, target=0)
        assert_allclose(found, wanted, rtol=1e-10)


def test_occlusion_tiles_by_default_and_the_last_window_may_reach_over_the_edge() -> None:
    share = X * A[:, 1]
    found = jxp.occlusion(linear, 3)(X, target=1)
    wanted = np.stack([share[:, :3].sum(1)] * 3 + [share[:, 3]], 1)
    assert_allclose(found, wanted, rtol=1e-10)


def test_what_no_window_holds_gets_nothing() -> None:
    found = jxp.occlusion(linear, 1, 3)(X, target=0)
    assert_allclose(found[:, 1:3], 0)
    assert (found[:, [0, 3]] != 0).all()


def test_occlusion_of_every_class_and_of_one_example() -> None:
    everything = jxp.occlusion(curved, 2)(X, target="all")
    for k in range(3):
        assert_allclose(everything[k], jxp.occlusion(curved, 2)(X, target=k), rtol=1e-9)
    single = jxp.occlusion(lambda x: curved(x[None])[0], 2)(X[0], target=1)
    assert_allclose(single, everything[1, 0], rtol=1e-9)


# Grad-CAM


def network(x: Any) -> Any:
    kernel = np.random.default_rng(5).normal(size=(3, 3, 2, 4))
    head = np.random.default_rng(6).normal(size=(4, 3))
    h = jax.lax.conv_general_dilated(
        x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(h).mean((1, 2)) @ head


def merging(x: Any) -> Any:
    return jax.nn.relu(network_layer(x).reshape(2, 16, 2, 2)).sum((1, 2))


def network_layer(x: Any) -> Any:
    kernel = np.random.default_rng(5).normal(size=(3, 3, 2, 4))
    return jax.lax.conv_general_dilated(
        x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


IMAGES = np.random.default_rng(7).normal(size=(2, 8, 8, 2))


def test_grad_cam_by_its_formula() -> None:
    activation = jxp.lrp(network).activations(IMAGES, layers="rectifier|max|relu")
    ((_, a),) = activation.items()
    head = np.random.default_rng(6).normal(size=(4, 3))
    wanted = np.maximum((a * head[:, 1] / 16).sum(-1, keepdims=True), 0)  # dy/dA = head / 16
    assert_allclose(jxp.grad_cam(network)(IMAGES, target=1), wanted, rtol=1e-9)
    signed = jxp.grad_cam(network, relu=False)(IMAGES, target="all")
    assert_allclose(np.maximum(signed[1], 0), wanted, rtol=1e-9, atol=1e-12)
    large = jxp.grad_cam(network, resize="nearest")(IMAGES, target=1)
    assert_allclose(large, wanted.repeat(2, 1).repeat(2, 2), rtol=1e-9)
    guided = jxp.guided_backprop(network)(IMAGES, target=1)
    assert_allclose(jxp.guided_grad_cam(network)(IMAGES, target=1), guided * large, rtol=1e-9)


def in_other_layouts() -> dict[str, tuple[Any, tuple[int, ...]]]:
    """The network for images in another layout, and the axes of that in (B, H, W, C)."""

    def channels_first(x: Any) -> Any:
        return network(x.transpose(0, 2, 3, 1))

    def all_the_way(x: Any) -> Any:
        kernel = np.random.default_rng(5).normal(size=(3, 3, 2, 4))
        h = jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NCHW", "HWIO", "NCHW")
        )
        return jax.nn.relu(h).mean((2, 3)) @ np.random.default_rng(6).normal(size=(4, 3))

    return {
        "moved": (channels_first, (0, 3, 1, 2)),
        "channels first": (all_the_way, (0, 3, 1, 2)),
    }


@pytest.mark.parametrize("layout", in_other_layouts())
@pytest.mark.parametrize("method", [jxp.grad_cam, jxp.guided_grad_cam])
def test_grad_cam_in_any_layout(method: Any, layout: str) -> None:
    f, axes = in_other_layouts()[layout]
    wanted = method(network, resize="linear")(IMAGES, target=1)
    found = method(f, resize="linear")(IMAGES.transpose(axes), target=1)
    assert_allclose(found, wanted.transpose(axes), rtol=1e-9)
    every = method(f, resize="linear")(IMAGES.transpose(axes), target="all")[1]
    assert_allclose(every, found, rtol=1e-9)


def test_grad_cam_keeps_examples_apart() -> None:
    wanted = jxp.grad_cam(network)(IMAGES, target=1)
    scores = jxp.grad_cam(lambda x: network(x)[:, 1])(IMAGES, target=jnp.ones_like)
    assert_allclose(scores, wanted, rtol=1e-9)
    single = jxp.grad_cam(lambda x: network(x[None])[0], resize="linear")(IMAGES[1], target=1)
    large = jxp.grad_cam(network, resize="linear")(IMAGES, target=1)
    assert_allclose(single, large[1], rtol=1e-9)
    under_vmap = jax.vmap(jxp.grad_cam(lambda x: network(x[None])[0]))(IMAGES)
    assert_allclose(under_vmap[:, 0], jxp.grad_cam(network)(IMAGES), rtol=1e-9)


# Half precision: sums are in float32


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sums_in_half_precision(dtype: Any) -> None:
    x = jnp.ones((1, 2), dtype)
    f = lambda x: 2000 * x  # noqa: E731
    call: dict[str, Any] = {"target": 0, "key": KEY}
    for samples, size in ((1000, 1), (64, 8)):
        options = {"samples": samples, "batch_size": size}
        assert_allclose(jxp.smoothgrad(f, **options)(x, **call), [[2000, 0]])
        assert_allclose(jxp.vargrad(f, **options)(x, **call), 0)
        path = jxp.integrated_gradients(f, steps=samples, batch_size=size)(x, target=0)
        assert_allclose(path, [[2000, 0]])
        drawn = jxp.expected_gradients(f, jnp.zeros((1, 2), dtype), **options)(x, **call)
        assert_allclose(drawn, [[2000, 0]])
        assert path.dtype == drawn.dtype == dtype
    hidden = jxp.occlusion(lambda x: x.sum(-1, keepdims=True), 300, 1)(jnp.ones((1, 900), dtype))
    assert_allclose(hidden, 300, rtol=0.01)


# Plans


def test_the_plan_is_that_of_the_base() -> None:
    base = jxp.lrp(curved)
    assert str(jxp.smoothgrad(base).plan(X)) == str(base.plan(X))
    assert "Rescale" in str(jxp.deep_lift(curved).plan(X))


# Wrong calls


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: jxp.smoothgrad(linear)(X), TypeError, "give key="),
        (lambda: jxp.integrated_gradients(linear)(X, key=KEY), TypeError, "leave key= out"),
        (lambda: jxp.smoothgrad(linear)("x", key=KEY), TypeError, "no array to JAX"),
        (lambda: jxp.smoothgrad(linear, samples=0), ValueError, "samples must be an int >= 1"),
        (lambda: jxp.smoothgrad(linear, batch_size=2.0), ValueError, "batch_size must be an int"),
        (lambda: jxp.smoothgrad(linear, noise_scale=-1), ValueError, "noise_scale"),
        (lambda: jxp.smoothgrad(jxp.lrp(linear, with_output=True)), ValueError, "with_output"),
        (lambda: jxp.smoothgrad(linear)(X, target=7, key=KEY), IndexError, "out of range"),
        (lambda: jxp.integrated_gradients(linear, steps=True), ValueError, "steps must be"),
        (lambda: jxp.integrated_gradients(linear, quadrature="simpson"), ValueError, "quadrature"),
        (
            lambda: jxp.integrated_gradients(linear, quadrature="trapezoid", steps=1),
            ValueError,
            "steps >= 2",
        ),
        (lambda: jxp.integrated_gradients(linear, np.zeros(3))(X), ValueError, "broadcasts"),
        (
            lambda: jxp.integrated_gradients(linear, with_gap=True)(X, target=lambda y: y),
            TypeError,
            "with_gap",
        ),
        (
            lambda: jxp.expected_gradients(linear, np.zeros((2, 3)))(X, key=KEY),
            ValueError,
            r"examples of shape \(4,\)",
        ),
        (lambda: jxp.occlusion(linear, 9)(X), ValueError, "does not fit"),
        (lambda: jxp.occlusion(linear, (2, 2), 1), ValueError, "one length"),
        (lambda: jxp.occlusion(linear, 0), ValueError, "int >= 1"),
        (lambda: jxp.occlusion(linear, 2)(X, target=lambda y: y), TypeError, "compares outputs"),
        (lambda: jxp.occlusion(lambda x: x.sum(0), 2)(X, target=0), ValueError, "leading axes"),
        (lambda: jxp.grad_cam(linear)(X), ValueError, "no convolution"),
        (lambda: jxp.grad_cam(linear, "dense")(X), ValueError, "axes of space"),
        (lambda: jxp.grad_cam(network, "nowhere")(IMAGES), ValueError, "no layer matches"),
        (lambda: jxp.grad_cam(network, argnums=(0,)), TypeError, "argnums is an int"),
        (lambda: jxp.grad_cam(network, resize="cubic"), ValueError, "resize must be"),
        (lambda: jxp.grad_cam(network, channel_axis=4)(IMAGES), ValueError, "has no axis 4"),
        (lambda: jxp.grad_cam(merging, "rectifier")(IMAGES), ValueError, "Give channel_axis"),
        (
            lambda: jxp.grad_cam(merging, "rectifier", channel_axis=-1, resize="linear")(IMAGES),
            ValueError,
            "resize cannot tell",
        ),
        (
            lambda: jxp.integrated_gradients(jxp.grad_cam(network))(IMAGES),
            ValueError,
            "take a base whose attribution is shaped as the input",
        ),
        (
            lambda: jxp.integrated_gradients(jxp.gradient(network, stop="conv_general_dilated")),
            ValueError,
            "take path_average",
        ),
        (
            lambda: jxp.smoothgrad(jxp.integrated_gradients(linear, with_gap=True)),
            ValueError,
            "give it no with_gap",
        ),
        (lambda: jxp.smoothgrad(linear)(X, key=0), TypeError, "key must be a jax.random.key"),
        (lambda: jxp.occlusion(linear, 2.0), ValueError, "every entry of window"),
        (lambda: jxp.occlusion(linear, 2, argnums=(0,)), TypeError, "hides one argument"),
        (lambda: jxp.occlusion(lambda x: (x, x), 2)(X), TypeError, "returns 2 arrays"),
        (lambda: jxp.random(linear, stddev=-1), ValueError, "stddev"),
        (lambda: jxp.deep_taylor(linear, low=0.0), ValueError, "both low and high"),
        (lambda: jxp.gradient(linear, postprocess="root"), ValueError, "postprocess"),
    ],
)
def test_wrong_calls(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
