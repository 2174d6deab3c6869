"""PatternNet and PatternAttribution: fitting and maps, against iNNvestigate 1 and brute force."""

import functools
import io
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxplain as jxp
import reference_models
from comparing import together
from jaxplain.composites import Composite, kernel
from jaxplain.graph import trace
from jaxplain.graph.bottlenecks import bottlenecks
from jaxplain.transforms.explainer import Explainer
from jaxplain.transforms.method import gradient_method
from reference_models import load

KINDS = ("linear", "relu.positive")
METHODS = {"pattern.net": jxp.pattern_net, "pattern.attribution": jxp.pattern_attribution}
TOLERANCE = 2e-5  # of the largest entry: the references are float32, what runs here is not


pytestmark = pytest.mark.usefixtures("float64")


def assert_close(found: Any, expected: Any, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def assert_alike(a: dict[str, Any], b: dict[str, Any], tolerance: float = 1e-9) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert_close(a[name], b[name], tolerance)


# iNNvestigate 1


@functools.cache
def reference(name: str) -> tuple[Callable[..., Any], Any, Any, jxp.PatternStatistics]:
    """The model, its parameters, its inputs, and what was fitted."""
    f, params = reference_models.build(name), reference_models.params(name)
    data = load(name, "fit256")["x"].astype(np.float64)
    statistics = jxp.pattern_statistics(f, data, params, batch_size=64)
    return f, params, load(name, "model")["x"].astype(np.float64), statistics


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_patterns_are_those_of_innvestigate(name: str, kind: str) -> None:
    prefix = f"pattern/{kind}/"
    stored = {k.removeprefix(prefix): v for k, v in load(name, "inn1").items() if prefix in k}
    assert_alike(reference(name)[-1].patterns(kind), stored, TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_maps_are_those_of_innvestigate(name: str, method: str, kind: str) -> None:
    f, params, x, statistics = reference(name)
    stored, patterns = load(name, "inn1"), statistics.patterns(kind)
    key, largest = f"{method}@{kind}", f(x, params).argmax(-1)
    found = METHODS[method](f, patterns)(
        np.concatenate([x, x]), params, target=jnp.concatenate([largest, jnp.ones_like(largest)])
    )
    expected = [stored[f"{key}@noproject/{target}"] for target in ("max", "idx1")]
    for a, b in zip(found, np.concatenate(expected), strict=True):
        assert_close(a, b, TOLERANCE)
    found = METHODS[method](f, patterns, project=True)(x, params)
    for a, b in zip(found, stored[f"{key}/max"], strict=True):
        assert_close(a, b, TOLERANCE)
    # Its number of the neuron is an input that stays open, so that there are no bottlenecks.
    assert_close(stored[f"{key}/idx1"], expected[1], TOLERANCE)


def test_no_stored_array_is_left_out() -> None:
    for name in ("mlp", "cnn"):
        fitted = {f"pattern/{kind}" for kind in KINDS}
        maps = {f"{m}@{kind}{end}" for m in METHODS for kind in KINDS for end in ("", "@noproject")}
        stored = {key.rpartition("/")[0] for key in load(name, "inn1") if "pattern" in key}
        assert stored == fitted | maps


# Statistics


def test_signal_and_distractor() -> None:
    """x = y (1, 0) + e (1, 1): w ~ (1, -1) cancels the distractor, the pattern is the signal."""
    rng = np.random.default_rng(0)
    y, e = rng.normal(size=(2, 5000, 1))
    x = y * np.array([1.0, 0.0]) + e * np.array([1.0, 1.0])
    w = jnp.array([[1.0], [-1.0]])
    (pattern,) = jxp.pattern_statistics(lambda x: x @ w, x).patterns("linear").values()
    np.testing.assert_allclose(pattern[:, 0], [1, 0], atol=0.05)


def test_kinds_by_hand() -> None:
    """y = (0, 1, 2, -3) in one dimension beside a copy of |y|."""
    y = np.array([0.0, 1.0, 2.0, -3.0])
    x, w = np.stack([y, abs(y)], 1), jnp.array([[1.0], [0.0]])
    statistics = jxp.pattern_statistics(lambda x: x @ w, x)
    # cov(|y|, y) / cov(y, y), with means 1.5 and 0
    expected = {"linear": (1 + 4 - 9) / 14, "relu.positive": 1.0, "relu.negative": -1.0}
    for kind, slope in expected.items():
        (pattern,) = statistics.patterns(kind).values()
        np.testing.assert_allclose(pattern[:, 0], [1, slope], atol=1e-12)
    assert_alike(statistics.patterns("relu"), statistics.patterns("relu.positive"), 0)


def test_a_neuron_that_is_never_positive_has_no_positive_pattern() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))

    def f(x):
        return x @ np.eye(3) + jnp.array([0.0, -100.0, 0.0])

    (pattern,) = jxp.pattern_statistics(f, x).patterns("relu.positive").values()
    assert np.all(pattern[:, 1] == 0) and np.isfinite(pattern).all() and np.any(pattern[:, 0])


@functools.cache
def small() -> tuple[Callable[..., Any], np.ndarray, jxp.PatternStatistics]:
    """A function, its inputs, and what was fitted to them."""
    rng = np.random.default_rng(3)
    first, second = (
        jnp.asarray(rng.normal(size=(3, 3, 2, 4))),
        jnp.asarray(rng.normal(size=(64, 3))),
    )

    def f(x: Any) -> Any:
        dims = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(x, first, (1, 1), "SAME", dimension_numbers=dims)
        return jax.nn.relu(y - 0.3).reshape(x.shape[0], -1) @ second + 0.1

    x = rng.normal(size=(40, 4, 4, 2)) + 0.5
    return f, x, jxp.pattern_statistics(f, x, batch_size=40)


def test_statistics_do_not_depend_on_the_partition() -> None:
    f, x, whole = small()
    order = np.random.default_rng(0).permutation(40)
    parts = [jxp.pattern_statistics(f, x[part]) for part in (slice(15), slice(15, 40))]
    shared_out = (
        jxp.pattern_statistics(f, x[order], batch_size=7),
        jxp.pattern_statistics(f, iter([x[:1], x[1:30], x[30:]])),
        parts[0] + parts[1],
        parts[1] + parts[0],
    )
    for kind in ("linear", "relu.positive", "relu.negative"):
        for statistics in shared_out:
            assert_alike(statistics.patterns(kind), whole.patterns(kind))


def test_statistics_merge_over_devices() -> None:
    f, data, whole = small()
    parts = data.reshape(4, -1, *data.shape[1:])

    def fit(x: Any) -> jxp.PatternStatistics:
        return jxp.pattern_statistics(f, x).psum("device")

    merged = jax.vmap(fit, axis_name="device")(parts)
    found = jax.tree.map(lambda v: v[0], merged)
    assert_alike(found.patterns(), whole.patterns())
    assert_alike(jax.jit(lambda x: jxp.pattern_statistics(f, x))(data).patterns(), whole.patterns())


def test_arrays_that_were_added_up_one_by_one_are_refused() -> None:
    """That is how psum adds, and how means do not merge."""
    f, data, whole = small()
    parts = [jxp.pattern_statistics(f, data[:10]), jxp.pattern_statistics(f, data[10:])]
    assert_alike(sum(parts).patterns(), whole.patterns())
    wrong = jax.tree.map(lambda a, b: a + b, *parts)
    for use in (wrong.patterns, lambda: wrong + parts[0]):
        with pytest.raises(ValueError, match="added up array by array"):
            use()


PROCESS = """
import sys
import jax, numpy as np, jaxplain as jxp
from tests.helpers import reference_models

part = slice(*map(int, sys.argv[2:]))
data = reference_models.load("mlp", "fit256")["x"][part]
f, params = reference_models.build("mlp"), reference_models.params("mlp")
found = jxp.pattern_statistics(f, data, params)
np.savez(sys.argv[1], *jax.tree.leaves(found))
"""


@pytest.mark.slow
def test_two_processes_share_the_data_out(tmp_path: Path) -> None:
    with jax.enable_x64(False):
        f, params = reference_models.build("mlp"), reference_models.params("mlp")
        params = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), params)
        data = load("mlp", "fit256")["x"].astype(np.float32)
        whole = jxp.pattern_statistics(f, data, params)
        bounds, running = [("0", "100"), ("100", "256")], []
        for start, stop in bounds:
            command = [sys.executable, "-c", PROCESS, str(tmp_path / f"{start}.npz"), start, stop]
            running.append(subprocess.Popen(command, cwd=Path(__file__).parents[2]))
        assert [process.wait() for process in running] == [0, 0]
        parts = []
        for start, _ in bounds:
            with np.load(tmp_path / f"{start}.npz") as archive:
                leaves = [archive[f"arr_{i}"].astype(np.float32) for i in range(len(archive))]
            parts.append(jax.tree.unflatten(jax.tree.structure(whole), leaves))
        merged = parts[0] + parts[1]
        for found, wanted in zip(*map(jax.tree.leaves, (merged, whole)), strict=True):
            assert_close(found, wanted, 1e-6)


@pytest.mark.parametrize("spelling", ["number", "filled", "reversed", "sigmoid"])
def test_a_bias_is_a_bias_however_it_is_spelled(spelling: str) -> None:
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(5, 4)), rng.normal(size=(50, 5))
    same = np.full(4, -0.5)
    spellings: dict[str, Callable[[Any], Any]] = {
        "number": lambda x: jax.nn.relu(x @ w - 0.5),
        "filled": lambda x: jax.nn.relu(x @ w + jnp.full(4, -0.5)),
        "reversed": lambda x: jax.nn.relu(-0.5 + x @ w),
        "sigmoid": lambda x: jax.nn.sigmoid(x @ w - 0.5),
    }
    wanted = jxp.pattern_statistics(lambda x: jax.nn.relu(x @ w + same), x)
    found = jxp.pattern_statistics(spellings[spelling], x)
    for kind in ("relu.positive", "relu.negative"):
        assert_alike(found.patterns(kind), wanted.patterns(kind))
    np.testing.assert_array_equal(wanted.positive["dense"].count.ravel(), (x @ w - 0.5 > 0).sum(0))


@pytest.mark.parametrize("size", [50, 7])
def test_constant_data_have_no_pattern(size: int) -> None:
    with jax.enable_x64(False):
        w = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
        data = np.full((50, 6), 3.3, np.float32)
        found = jxp.pattern_statistics(lambda x: x @ w, data, batch_size=size).patterns("linear")
    np.testing.assert_array_equal(found["dense"], 0)


def test_single_precision_survives_a_large_mean() -> None:
    """Raw sums would lose E[xy] - E[x] E[y] to rounding here: 1e6 * 6e-8 is 6 % of a variance."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(2000, 4)) @ rng.normal(size=(4, 4))
    x, w = (1000 + mixed).astype(np.float32), rng.normal(size=(4, 2)).astype(np.float32)
    with jax.enable_x64(False):
        statistics = jxp.pattern_statistics(lambda x: x @ w, x, batch_size=50)
        found = next(iter(statistics.patterns("linear").values()))
    assert found.dtype == np.float32
    exact = next(
        iter(jxp.pattern_statistics(lambda x: x @ w, x.astype(float)).patterns("linear").values())
    )
    assert_close(found, exact, 2e-3)


def test_statistics_are_a_pytree() -> None:
    f, x, _ = small()
    a, b = (jxp.pattern_statistics(f, x[part]) for part in (slice(20), slice(20, 40)))
    leaves, tree = jax.tree.flatten(a)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    restored = jax.tree.unflatten(tree, [np.asarray(leaf) for leaf in leaves])
    assert_alike((restored + b).patterns(), (a + b).patterns(), 0)
    assert_alike(jax.jit(lambda a, b: (a + b).patterns("linear"))(a, b), (a + b).patterns("linear"))


def test_statistics_of_other_weights_do_not_add_up() -> None:
    x = np.ones((3, 2))
    fitted = [jxp.pattern_statistics(jax.tree_util.Partial(jnp.matmul, b=w), x) for w in WEIGHTS]
    with pytest.raises(ValueError, match="other weights"):
        fitted[0] + fitted[1]


WEIGHTS = [np.eye(2), 2 * np.eye(2)]


# Every layout against the patches, one by one


def convolution(dimensions: tuple[str, str, str], **options: Any) -> Callable[..., Any]:
    settings = {"window_strides": (1, 1), "padding": "SAME"} | options
    return lambda x, w: lax.conv_general_dilated(x, w, dimension_numbers=dimensions, **settings)


NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")

# kernel, input shape, weight shape, the features' axes of the output, and of the weights
LAYOUTS: dict[str, tuple[Callable[..., Any], Any, Any, Any, Any]] = {
    "dense": (jnp.matmul, (9, 4), (4, 3), [1], [1]),
    "vector": (jnp.matmul, (9, 4), (4,), [], []),
    "dense of positions": (jnp.matmul, (5, 3, 4), (4, 3), [2], [1]),
    "weights (out, in)": (lambda x, w: jnp.einsum("bi,oi->bo", x, w), (9, 4), (3, 4), [1], [0]),
    "weights first": (lambda x, w: w @ x.T, (9, 4), (3, 4), [0], [0]),
    "heads": (lambda x, w: jnp.einsum("bi,hid->bhd", x, w), (9, 4), (2, 4, 3), [1, 2], [0, 2]),
    "head by head": (
        lambda x, w: jnp.einsum("bhi,dhi->bdh", x, w),
        (9, 2, 4),
        (3, 2, 4),
        [1, 2],
        [0, 1],
    ),
    "two axes in": (lambda x, w: jnp.einsum("bhd,hdo->bo", x, w), (9, 2, 3), (2, 3, 4), [1], [2]),
    "NHWC": (convolution(NHWC), (3, 5, 4, 2), (3, 3, 2, 4), [3], [3]),
    "NCHW": (convolution(NCHW), (3, 2, 5, 4), (4, 2, 3, 3), [1], [0]),
    "CHWN": (convolution(("CHWN", "IHWO", "CHWN")), (2, 5, 4, 3), (2, 3, 3, 4), [0], [3]),
    "strides, even window": (
        convolution(NHWC, window_strides=(2, 1)),
        (3, 6, 5, 2),
        (2, 4, 2, 3),
        [3],
        [3],
    ),
    "dilation": (convolution(NHWC, rhs_dilation=(2, 1)), (3, 6, 4, 2), (3, 2, 2, 3), [3], [3]),
    "transposed convolution": (
        convolution(NHWC, lhs_dilation=(2, 2), padding=((1, 2), (0, 0))),
        (2, 3, 3, 2),
        (3, 3, 2, 3),
        [3],
        [3],
    ),
    "groups": (
        convolution(NHWC, feature_group_count=2, padding="VALID"),
        (3, 4, 4, 4),
        (3, 2, 2, 6),
        [3],
        [3],
    ),
    "depthwise": (
        convolution(NHWC, feature_group_count=3),
        (3, 4, 4, 3),
        (3, 3, 1, 6),
        [3],
        [3],
    ),
}


def brute_force(
    y: np.ndarray, z: np.ndarray, patches: np.ndarray, w: np.ndarray, axes: Any, kind: str
) -> np.ndarray:
    """The definition, neuron by neuron.

    Args:
        y, z: the kernel's and the layer's outputs.
        patches: dy/dw, of shape (*y.shape, *w.shape): what each y was computed from.
        w: the weights.
        axes: the features' axes of y, and of w.
        kind: which samples count.
    """
    count = len(axes[0])
    y, z, patches = (np.moveaxis(v, axes[0], range(count)) for v in (y, z, patches))
    pattern = np.zeros(w.shape)
    found, weights = (np.moveaxis(v, axes[1], range(count)) for v in (pattern, w))
    for j in np.ndindex(found.shape[:count]):
        own = np.moveaxis(patches[j], [i - w.ndim for i in axes[1]], range(count))[j]
        xs, ys, zs = own.reshape(y[j].size, -1), y[j].ravel(), z[j].ravel()
        kept = {"linear": zs == zs, "relu.positive": zs > 0, "relu.negative": zs <= 0}[kind]
        if kept.any():
            c = (xs * ys[:, None])[kept].mean(0) - xs[kept].mean(0) * ys.mean()
            found[j] = (c / (weights[j].ravel() @ c)).reshape(found[j].shape)
    return pattern


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout(layout: str) -> None:
    operation, x_shape, w_shape, *axes = LAYOUTS[layout]
    rng = np.random.default_rng(len(layout))
    x, w = rng.normal(size=x_shape) + 0.3, rng.normal(size=w_shape)
    shape = np.ones(operation(x, w).ndim, int)
    for y_axis, w_axis in zip(*axes, strict=True):
        shape[y_axis] = w_shape[w_axis]
    scale, offset = rng.normal(size=shape), 0.3 * rng.normal(size=shape)  # of either sign

    def f(x: Any) -> Any:
        return operation(x, w) * scale + offset

    statistics = jxp.pattern_statistics(f, [x])
    y, patches, z = jax.jit(
        lambda x, w: (operation(x, w), jax.jacobian(lambda w: operation(x, w))(w), f(x))
    )(x, w)
    for kind in ("linear", "relu.positive", "relu.negative"):
        ((name, found),) = statistics.patterns(kind).items()
        expected = brute_force(*map(np.asarray, (y, z, patches)), w, axes, kind)
        assert_close(found, expected, 1e-8)

    r = jnp.asarray(rng.normal(size=z.shape))
    asked: dict[Any, Any] = {}
    for method, q, s in (
        (jxp.pattern_net, found, 1 / scale),
        (jxp.pattern_attribution, w * found, np.ones_like(scale)),
    ):
        asked[method, "expected"] = lambda x, q=q, s=s: jax.vjp(lambda x: operation(x, q) * s, x)[
            1
        ](r)[0]
        asked[method, "found"] = partial(method(f, {name: found}), target=lambda z: r)
    maps = together(asked, x)
    for method in (jxp.pattern_net, jxp.pattern_attribution):
        assert_close(maps[method, "found"], maps[method, "expected"])


def test_patches_written_out() -> None:
    """SAME padding with strides and dilation, with no derivative in the oracle."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 6, 5, 2)), rng.normal(size=(3, 2, 2, 3))
    operation = convolution(NHWC, window_strides=(2, 2), rhs_dilation=(2, 1))
    padded = np.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)))  # 5 rows in steps of 2 over 6, 2 over 5
    patches = [
        padded[n, i : i + 5 : 2, j : j + 2].ravel()
        for n in range(2)
        for i in range(0, 6, 2)
        for j in range(0, 5, 2)
    ]
    xs, ys = np.array(patches), np.asarray(operation(x, w)).reshape(-1, 3)
    np.testing.assert_allclose(xs @ w.reshape(-1, 3), ys, atol=1e-12)
    c = np.cov(xs, ys, rowvar=False, bias=True)[: xs.shape[1], xs.shape[1] :]
    expected = (c / (w.reshape(-1, 3) * c).sum(0)).reshape(w.shape)
    (found,) = jxp.pattern_statistics(lambda x: operation(x, w), [x]).patterns("linear").values()
    assert_close(found, expected)


# One model, two spellings


def assert_same_maps(f: Any, g: Any, x: Any, kinds: Any, to_g: Any = np.asarray) -> None:
    """Fits both functions; their maps must be the same, `to_g` what brings x into the form of g."""
    fitted_f, fitted_g = jxp.pattern_statistics(f, x), jxp.pattern_statistics(g, to_g(x))
    for method in METHODS.values():
        explain_f = jax.jit(lambda x, p, method=method: method(f, p)(x, target=0))
        explain_g = jax.jit(lambda x, p, method=method: method(g, p)(x, target=0))
        for kind in kinds:
            expected = to_g(explain_f(x, fitted_f.patterns(kind)))
            assert_close(explain_g(to_g(x), fitted_g.patterns(kind)), expected)


def test_batchnorm_folded_or_not() -> None:
    rng = np.random.default_rng(1)
    x, scale = rng.normal(size=(30, 5)) + 0.2, rng.normal(size=5)
    w, v = jnp.asarray(rng.normal(size=(5, 6))), jnp.asarray(rng.normal(size=(6, 2)))
    mean, gamma, beta = rng.normal(size=(3, 6))  # gammas of either sign

    def apart(x: Any) -> Any:
        y = (x * scale) @ w + 0.5
        return jax.nn.relu(-(gamma * (y - mean) + beta)) @ v / 3

    folded = scale[:, None] * w * -gamma

    def together(x: Any) -> Any:
        return jax.nn.relu(x @ folded - gamma * (0.5 - mean) - beta) @ (v / 3)

    np.testing.assert_allclose(apart(x), together(x), atol=1e-12)
    assert_same_maps(apart, together, x, (*KINDS, "relu.negative"))


def test_inputs_normalised_or_not() -> None:
    """An offset of the inputs moves E[x]: only the linear pattern does not see it."""
    rng = np.random.default_rng(1)
    x, mean, deviation = rng.normal(size=(30, 4)), rng.normal(size=4), rng.uniform(0.5, 2, size=4)
    w = jnp.asarray(rng.normal(size=(4, 3)))
    folded = w / deviation[:, None]
    assert_same_maps(
        lambda x: jax.nn.relu(((x - mean) / deviation) @ w),
        lambda x: jax.nn.relu(x @ folded - mean @ folded),
        x,
        ["linear"],
    )


def test_image_layouts() -> None:
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=(6, 5, 5, 2)), rng.normal(size=(3, 3, 2, 4))
    v = jnp.asarray(rng.normal(size=(4, 3)))

    def last(x: Any) -> Any:
        return jax.nn.relu(convolution(NHWC)(x, w)).max((1, 2)) @ v

    def first(x: Any) -> Any:
        y = convolution(NCHW, padding=((0, 0), (0, 0)))(
            jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), w.transpose(3, 2, 0, 1)
        )
        return (v.T @ jax.nn.relu(y).max((2, 3)).T).T

    assert_same_maps(last, first, x, KINDS, lambda v: np.asarray(v).transpose(0, 3, 1, 2))


def test_a_model_of_one_example_under_vmap() -> None:
    f, x, statistics = small()
    one = jax.vmap(lambda x: f(x[None])[0])
    fitted = jxp.pattern_statistics(one, x).patterns()
    patterns = statistics.patterns()
    for project in (False, True):
        found = jxp.pattern_attribution(one, fitted, project=project)(x)
        assert_close(found, jxp.pattern_attribution(f, patterns, project=project)(x))


# Explaining


def test_a_scale_that_stands_alone_has_a_pattern_of_its_own() -> None:
    """A rectifier between a BatchNorm and a kernel: the signal of s x is r / s."""
    w = jnp.ones((3, 1))
    s = jnp.array([2.0, -4.0, 0.0])

    def f(x):
        return jnp.maximum(x * s, -9.0) @ w

    patterns = {"dense": w / 3}
    x = jnp.array([[1.0, 1.0, 1.0]])
    r = f(x).ravel() / 3
    np.testing.assert_allclose(jxp.pattern_net(f, patterns)(x)[0], r * jnp.array([0.5, -0.25, 0]))
    np.testing.assert_allclose(jxp.pattern_attribution(f, patterns)(x)[0], r * jnp.array([1, 1, 0]))


def test_attribution_hands_on_what_it_gets() -> None:
    rng = np.random.default_rng(0)
    w, x = jnp.asarray(rng.normal(size=(6, 3))), rng.normal(size=(40, 6))

    def f(x):
        return (x @ w) * 3 + 2

    found = jxp.pattern_attribution(f, jxp.pattern_statistics(f, x).patterns())(x)
    assert_close(found.sum(-1), f(x).max(-1))


def test_shared_weights_are_two_layers() -> None:
    w, x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4))), np.eye(4)[[0, 1, 2, 3, 0]]

    def f(params, x):
        return jax.nn.relu(x @ params["w"]) @ params["w"]

    statistics = jxp.pattern_statistics(f, x, {"w": w}, argnums=1)
    assert list(statistics.weights) == ["w", "w@2"]
    a, b = statistics.patterns().values()
    assert np.abs(a - b).max() > 0.1
    assert jxp.pattern_net(f, statistics.patterns(), argnums=1)({"w": w}, x).shape == x.shape


def test_two_inputs() -> None:
    rng = np.random.default_rng(0)
    w, v = (jnp.asarray(rng.normal(size=(3, 3))) for _ in range(2))

    def f(a, scale, b):
        return jax.nn.relu(a @ w) * scale + jax.nn.relu(b @ v)

    a, b = rng.normal(size=(2, 10, 3))
    statistics = jxp.pattern_statistics(f, [(a, b)], 2.0, argnums=(0, 2))
    explain = jxp.pattern_net(f, statistics.patterns(), argnums=(0, 2))
    assert [v.shape for v in explain(a, 2.0, b)] == [a.shape, b.shape]


def test_jit_and_patterns_as_arguments() -> None:
    f, x, statistics = small()
    patterns = statistics.patterns()

    def explain(x, patterns):
        return jxp.pattern_attribution(f, patterns, project=True)(x)

    assert_close(jax.jit(explain)(x, patterns), explain(x, patterns))
    jaxpr = jax.make_jaxpr(explain)(x, patterns)
    sizes = [np.size(c) for c in jaxpr.consts]
    weights = [np.size(p) for p in patterns.values()]
    assert sorted(s for s in sizes if s > 3) == sorted(weights)  # those of f, not the patterns
    assert_close(explain(x, jax.tree.map(lambda p: 2 * p, patterns)), explain(x, patterns))


def test_all_targets_start_stop_capture() -> None:
    f, x, statistics = small()
    patterns = statistics.patterns()
    explain = jxp.pattern_net(f, patterns)
    every = explain(x, target="all")
    for k in range(3):
        assert_close(every[k], explain(x, target=k))
    signal, captured = jxp.pattern_net(f, patterns, capture=kernel)(x, target=1)
    assert_close(signal, every[1])
    (first, last) = captured.values()
    assert_close(last, np.asarray(f(x)) * np.eye(3)[1])
    stopped = jxp.pattern_net(f, patterns, stop=next(iter(patterns)))(x, target=1)
    assert_close(stopped, first)


def test_half_precision() -> None:
    x = np.random.default_rng(0).normal(size=(64, 4)) + 0.5
    with jax.enable_x64(False):
        w, v = (jnp.asarray(np.eye(4), jnp.bfloat16) for _ in range(2))

        def g(x):
            return jax.nn.relu(x @ w * 3) @ v

        data = jnp.asarray(x, jnp.bfloat16)
        patterns = jxp.pattern_statistics(g, data).patterns("linear")
        assert all(p.dtype == jnp.float32 for p in patterns.values())
        found = jxp.pattern_attribution(g, patterns)(data)
    assert found.dtype == jnp.bfloat16 and np.isfinite(np.asarray(found, float)).all()

    def exact(x):
        return jax.nn.relu(x @ np.eye(4) * 3) @ np.eye(4)

    wide = jxp.pattern_statistics(exact, np.asarray(data, float)).patterns("linear")
    assert_alike(patterns, wide, 0.02)


# Projection


def test_bottlenecks_are_what_everything_passes_through() -> None:
    w = jnp.ones((3, 3))

    def f(x: Any) -> Any:
        y = jax.nn.relu(x @ w)
        z = y + jnp.tanh(y @ w)  # nothing inside the block
        return jnp.sin(z) @ w

    graph = trace(f, jnp.ones((2, 3)))
    steps = {layer.output: str(layer.kind) for layer in graph.steps}
    found = [steps.get(v, "input") for v in bottlenecks(graph)]
    assert found == ["input", "Affine", "Activation", "Merge", "Activation", "Affine"]
    two = trace(
        lambda a, b: a @ w + jnp.tanh(b), jnp.ones((2, 3)), jnp.ones((2, 3)), argnums=(0, 1)
    )
    assert bottlenecks(two) == two.explained_outputs


def test_projection_is_per_example_and_leaves_vectors_alone() -> None:
    f, x, statistics = small()
    patterns = statistics.patterns()
    plain = jxp.pattern_net(f, patterns)(x, target=0)
    projected = jxp.pattern_net(f, patterns, project=True)(x, target=0)
    sign = np.sign(np.asarray(f(x))[:, 0])[:, None, None, None]
    largest = np.abs(plain).max((1, 2, 3), keepdims=True)
    assert_close(projected, plain / largest)
    alone = jxp.pattern_net(f, patterns, project=True)(x[3:4], target=0)
    assert_close(alone, projected[3:4])
    assert set(np.unique(sign)) == {-1, 1}

    w = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)))
    dense = {"dense": w / 7}
    vectors = jxp.pattern_net(lambda x: x @ w, dense, project=True)(jnp.eye(4), target=1)
    assert_close(vectors, np.sign(w[:, 1:]) * w[:, 1] / 7)


def test_a_signal_of_zero_stays_zero() -> None:
    f, x, statistics = small()
    zeros = {k: 0 * v for k, v in statistics.patterns().items()}
    assert not np.any(jxp.pattern_net(f, zeros, project=True)(x))


def test_other_changes_on_the_way_down() -> None:
    """Clipping what arrives at each value."""

    def clipped(graph: Any) -> Any:
        values = (*graph.explained, *(v for step in graph.steps for v in step.outputs))
        return {v: lambda r: jnp.clip(r, -0.5, 0.5) for v in values}

    w = jnp.array([[3.0, 0.1]])
    method = gradient_method(
        Composite([], base=jxp.composites.GRADIENT.base), transform_relevance=clipped
    )
    explain = Explainer(lambda x: jax.nn.relu(x @ w), method=method)
    x = jnp.ones((1, 1))
    np.testing.assert_allclose(explain(x, target=0), [[0.5]])
    np.testing.assert_allclose(explain(x, target=1), [[0.05]])
    with pytest.raises(ValueError, match="no transform_relevance"):
        explain.with_method(ledger=True).ledger(x, target=0)


# Files


def test_saved_and_loaded(tmp_path: Path) -> None:
    patterns = {"a/b@2": jnp.eye(3), "file": jnp.ones(2), "half": jnp.ones(2, jnp.bfloat16)}
    jxp.save_patterns(tmp_path / "p.npz", patterns)
    loaded = jxp.load_patterns(tmp_path / "p.npz")
    assert_alike(loaded, patterns, 0)
    assert [v.dtype.name for v in loaded.values()] == ["float64", "float64", "float32"]


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    jxp.save_patterns(
        tmp_path / "p.npz", {"a": jnp.asarray(np.random.default_rng(0).normal(size=999))}
    )
    whole = (tmp_path / "p.npz").read_bytes()
    foreign, single = io.BytesIO(), io.BytesIO()
    np.savez(foreign, weights=np.ones(3))
    np.save(single, np.ones(3))
    pickled = io.BytesIO()
    np.savez(pickled, format=np.array([{}], object))
    corrupt = whole[:400] + bytes(64) + whole[464:]
    contents = [whole[:n] for n in range(0, len(whole), 97)]
    contents += [corrupt, b"text", foreign.getvalue(), single.getvalue(), pickled.getvalue()]
    for content in contents:
        (tmp_path / "q.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"q\.npz (is damaged|was not written)"):
            jxp.load_patterns(tmp_path / "q.npz")
    with pytest.raises(FileNotFoundError):
        jxp.load_patterns(tmp_path / "none.npz")


# Wrong arguments: a clear error, before any compute

W = np.eye(3)
X = np.ones((4, 3))


def net(x: Any) -> Any:
    return jax.nn.relu(x @ W) @ W


def scanned(x: Any) -> Any:
    return lax.scan(lambda x, _: (jnp.tanh(x @ W), None), x, length=2)[0]


WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "missing": (
        lambda: jxp.pattern_net(net, {"dense": W})(X),
        ValueError,
        r"no pattern for the kernel layers dense@2; there are patterns for: dense\.",
    ),
    "foreign": (
        lambda: jxp.pattern_net(net, {"dense": W, "dense@2": W, "conv": W})(X),
        ValueError,
        "patterns for conv, but the function's kernel layers are: dense, dense@2",
    ),
    "shape": (
        lambda: jxp.pattern_net(net, {"dense": W, "dense@2": W[:2]})(X),
        ValueError,
        r"pattern of layer 'dense@2' must have the shape of its weights, \(3, 3\), got \(2, 3\)",
    ),
    "integers": (
        lambda: jxp.pattern_net(net, {"dense": np.eye(3, dtype=int)}),
        TypeError,
        "pattern of layer 'dense' must be an array of real floating numbers",
    ),
    "no dictionary": (lambda: jxp.pattern_attribution(net, [W, W]), TypeError, "got list"),
    "no state": (
        lambda: jxp.lrp(net, jxp.rules.PatternNet())(X),
        ValueError,
        r"no pattern for layer 'dense@2': use jaxplain\.pattern_net",
    ),
    "kind": (
        lambda: jxp.pattern_statistics(net, X).patterns("positive"),
        ValueError,
        "'positive'; there are: linear, relu.positive",
    ),
    "no data": (lambda: jxp.pattern_statistics(net, iter([])), ValueError, "no batches"),
    "no examples": (lambda: jxp.pattern_statistics(net, X[:0]), ValueError, "no batches"),
    "a batch of none": (
        lambda: jxp.pattern_statistics(net, [X, X[:0]]),
        ValueError,
        "batch 1 of the data holds no examples",
    ),
    "not finite": (
        lambda: jxp.pattern_statistics(net, np.where(X == 1, np.nan, X)),
        FloatingPointError,
        "layers dense, dense@2 are not finite",
    ),
    "text": (lambda: jxp.pattern_statistics(net, "x.npy"), TypeError, "got a str"),
    "integer data": (
        lambda: jxp.pattern_statistics(net, X.astype(int)),
        TypeError,
        "or cast integers to floats",
    ),
    "batch_size": (lambda: jxp.pattern_statistics(net, X, batch_size=0), ValueError, "int >= 1"),
    "batch_size of batches": (
        lambda: jxp.pattern_statistics(net, [X], batch_size=2),
        TypeError,
        "in batches already",
    ),
    "argnums": (
        lambda: jxp.pattern_statistics(lambda a, b: a @ W + b, [(X,)], argnums=(0, 1)),
        TypeError,
        "needs batches that are tuples of 2 arrays, got 1",
    ),
    "no kernel": (lambda: jxp.pattern_statistics(jnp.tanh, X), ValueError, "no kernel layer"),
    "sum of kernels": (
        lambda: jxp.pattern_statistics(lambda x: x @ W + jnp.tanh(x) @ W, X),
        ValueError,
        "sum of 2 kernels",
    ),
    "spelled out": (
        lambda: jxp.pattern_net(lambda x: (x[:, :, None] * W).sum(1), {})(X),
        ValueError,
        "write it as x @ w",
    ),
    "weights of the input": (
        lambda: jxp.pattern_statistics(lambda x: x @ lax.stop_gradient(x.T @ x), X),
        ValueError,
        "depend on the explained input",
    ),
    "added to itself": (
        lambda: jxp.pattern_statistics(lambda x: (lambda y: y + y)(x @ W), X),
        ValueError,
        "write that as a product",
    ),
    "control flow": (
        lambda: jxp.pattern_net(scanned, {})(X),
        ValueError,
        "inside of a scan",
    ),
    "ledger": (
        lambda: jxp.pattern_net(net, {"dense": W, "dense@2": W}).ledger(X),
        TypeError,
        "no relevance",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case: str) -> None:
    call, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        call()


def test_progress(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    jxp.pattern_statistics(net, X, progress=True)
    assert "1/1" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match="pip install tqdm"):
        jxp.pattern_statistics(net, X, progress=True)
