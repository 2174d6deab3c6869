"""Maps are finite in every dtype, and near those of float64.

`python tests/rules/test_numerics.py` writes docs/numerics.md.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import jaxplain as jxp
from jaxplain import composites
from jaxplain.rules import (
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Gradient,
    Norm,
    Rule,
    WSquare,
    Z,
    ZBox,
    ZPlus,
)

PAGE = Path(__file__).parents[2] / "docs" / "numerics.md"
HALF = ("bfloat16", "float16")
DTYPES = (*HALF, "float32", "float64")
SCALES = (1e-4, 1e-2, 1.0, 1e2, 1e4)

# Models: functions of an input and a tree of parameters


def _weights(*shape: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=shape)
    return values * np.sqrt(2 / max(np.prod(shape[:-1]), 1))


def _vector(size: int, seed: int) -> np.ndarray:
    return 0.3 * np.random.default_rng(seed).normal(size=size)


def mlp(x: Any, p: Any) -> Any:
    h = jax.nn.relu(x @ p["a"] + p["a_bias"])
    h = jax.nn.relu(h @ p["b"] + p["b_bias"])
    return h @ p["c"] + p["c_bias"]


MLP = {
    "a": _weights(6, 8, seed=0),
    "a_bias": np.r_[_vector(7, 1), -6e4],  # the last unit is dead
    "b": _weights(8, 8, seed=2),
    "b_bias": _vector(8, 3),
    "c": _weights(8, 3, seed=4),
    "c_bias": _vector(3, 5),
}


def _conv(x: Any, kernel: Any) -> Any:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _batch_norm(x: Any, p: Any) -> Any:
    scale = p["scale"] * jax.lax.rsqrt(p["variance"] + jnp.asarray(1e-3, x.dtype))
    return (x - p["mean"]) * scale + p["bias"]


def cnn(x: Any, p: Any) -> Any:
    h = jax.nn.relu(_batch_norm(_conv(x, p["a"]), p["a_norm"]))
    h = jax.lax.reduce_window(
        h, np.array(-np.inf, h.dtype), jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
    )
    h = jax.nn.relu(h + _batch_norm(_conv(h, p["b"]), p["b_norm"]))
    return h.mean((1, 2)) @ p["c"] + p["c_bias"]


def _statistics(seed: int) -> dict[str, np.ndarray]:
    return {
        "mean": _vector(4, seed),
        "variance": 1 + np.abs(_vector(4, seed + 1)),
        "scale": 1 + _vector(4, seed + 2),
        "bias": _vector(4, seed + 3),
    }


CNN = {
    "a": _weights(3, 3, 2, 4, seed=10),
    "a_norm": _statistics(11),
    "b": _weights(3, 3, 4, 4, seed=15),
    "b_norm": _statistics(16),
    "c": _weights(4, 3, seed=20),
    "c_bias": _vector(3, 21),
}


def _layer_norm(x: Any, scale: Any, bias: Any) -> Any:
    """In at least float32, as libraries do."""
    dtype = np.promote_types(x.dtype, np.float32)
    x, scale, bias, result = x.astype(dtype), scale.astype(dtype), bias.astype(dtype), x.dtype
    mean = x.mean(-1, keepdims=True)
    deviation = jax.lax.rsqrt(jnp.square(x - mean).mean(-1, keepdims=True) + 1e-6)
    return ((x - mean) * deviation * scale + bias).astype(result)


def attention(x: Any, p: Any) -> Any:
    h = _layer_norm(x, p["one"], p["one_bias"])
    scores = (h @ p["q"]) @ (h @ p["k"]).swapaxes(-1, -2) / np.asarray(np.sqrt(8), x.dtype)
    scores = scores + p["mask"]
    x = x + jax.nn.softmax(scores) @ (h @ p["v"]) @ p["o"]
    h = _layer_norm(x, p["two"], p["two_bias"])
    x = x + jax.nn.gelu(h @ p["up"] + p["up_bias"]) @ p["down"]
    return x.mean(1) @ p["c"] + p["c_bias"]


CAUSAL = np.where(np.tri(5), 0.0, -np.inf)
CAUSAL[:, 3] = [0, 0, 0, 0, -np.inf]

ATTENTION = {
    **{name: _weights(8, 8, seed=30 + i) for i, name in enumerate("qkvo")},
    "mask": CAUSAL,
    "one": 1 + _vector(8, 40),
    "one_bias": _vector(8, 41),
    "two": 1 + _vector(8, 42),
    "two_bias": _vector(8, 43),
    "up": _weights(8, 16, seed=44),
    "up_bias": _vector(16, 45),
    "down": _weights(16, 8, seed=46),
    "c": _weights(8, 3, seed=47),
    "c_bias": _vector(3, 48),
}

MODELS: dict[str, tuple[Callable[..., Any], Any, tuple[int, ...]]] = {
    "mlp": (mlp, MLP, (5, 6)),
    "cnn": (cnn, CNN, (2, 8, 8, 2)),
    "attention": (attention, ATTENTION, (2, 5, 8)),
}

RULES: dict[str, Rule] = {
    "Z": Z(),
    "Epsilon": Epsilon(),
    "Epsilon(0.25)": Epsilon(0.25),
    "Gamma": Gamma(),
    "AlphaBeta": AlphaBeta(),
    "ZPlus": ZPlus(),
    "ZBox": ZBox(-3.0, 3.0),
    "WSquare": WSquare(),
    "WSquare(bias)": WSquare(bias=True),
    "Flat": Flat(),
    "Norm": Norm(),
    "Gradient": Gradient(),
}
PRESETS: dict[str, composites.Composite] = {
    "EpsilonPlus": composites.EpsilonPlus(),
    "EpsilonPlusFlat": composites.EpsilonPlusFlat(),
    "EpsilonAlpha2Beta1": composites.EpsilonAlpha2Beta1(),
    "EpsilonAlpha2Beta1Flat": composites.EpsilonAlpha2Beta1Flat(),
    "EpsilonGammaBox": composites.EpsilonGammaBox(-3.0, 3.0),
    "ExcitationBackprop": composites.ExcitationBackprop(),
    "SequentialPresetA": composites.SequentialPresetA(),
    "SequentialPresetB": composites.SequentialPresetB(),
    "SequentialPresetAFlat": composites.SequentialPresetAFlat(),
    "SequentialPresetBFlat": composites.SequentialPresetBFlat(),
}
GRADIENTS: dict[str, Callable[..., Any]] = {
    "gradient": jxp.gradient,
    "input_times_gradient": jxp.input_times_gradient,
    "deconvnet": jxp.deconvnet,
    "guided_backprop": jxp.guided_backprop,
}


def explainer(method: str, f: Callable[..., Any], **options: Any) -> Any:
    if method in GRADIENTS:
        return GRADIENTS[method](f, **options)
    return jxp.lrp(f, RULES.get(method) or PRESETS[method], **options)


@cache
def _explainer(model: str, method: str) -> Any:
    return explainer(method, MODELS[model][0])


@cache
def _measured(model: str) -> Any:
    """The maps by all methods that are measured, from one compilation."""

    def maps(x: Any, parameters: Any) -> dict[str, Any]:
        methods = MEASURED[model]
        return {m: _explainer(model, m)(x, parameters, target=1) for m in methods}

    return jax.jit(maps)


def example(model: str) -> np.ndarray:
    return np.random.default_rng(50).normal(size=MODELS[model][2])


def explained(
    model: str, method: str, dtype: str, x: np.ndarray, at: str = "", **changes: Any
) -> np.ndarray:
    """A map in `dtype`, of inputs and parameters that were rounded to `at`."""
    with jax.enable_x64(dtype == "float64"):

        def rounded(value: Any) -> Any:
            return jnp.asarray(jnp.asarray(value).astype(at or dtype), dtype)

        parameters = jax.tree.map(rounded, {**MODELS[model][1], **changes})
        if method in MEASURED[model]:
            found = _measured(model)(rounded(x), parameters)[method]
        else:
            found = _explainer(model, method)(rounded(x), parameters, target=1)
    assert found.dtype == dtype
    return np.asarray(found).astype(np.float64)


def error(model: str, method: str, dtype: str, scale: float) -> float:
    """How far a map is from float64's, relative in the 2-norm; inf where it is not finite."""
    x = scale * example(model)
    found = explained(model, method, dtype, x)
    truth = explained(model, method, "float64", x, at=dtype)
    distance = np.linalg.norm(found - truth) / np.linalg.norm(truth)
    return float(distance) if np.isfinite(found).all() else np.inf


# Near float64

#: Which methods are measured on which model: every rule on the MLP, every preset on the CNN.
MEASURED = {
    "mlp": (*RULES, *GRADIENTS),
    "cnn": (*PRESETS, "Z", "input_times_gradient"),
    "attention": ("Epsilon", "ZPlus", "Gamma", "EpsilonPlus", "input_times_gradient"),
}
#: The error that no method exceeds, by model, dtype and scale of the input; inf: finite is enough.
BOUNDS: dict[str, dict[str, tuple[float, ...]]] = {
    "mlp": {
        "bfloat16": (1e-1, 1e-1, 1e-1, 1e-1, 1e-1),
        "float16": (1e-1, 1e-1, 1e-2, 1e-2, 1e-2),
        "float32": (1e-5, 1e-5, 1e-5, 1e-5, 1e-5),
    },
    "cnn": {
        "bfloat16": (np.inf, 1e0, 1e0, 1e0, 1e0),
        "float16": (1e0, 1e-2, 1e-2, 1e-1, 1e-2),
        "float32": (1e-5, 1e-5, 1e-5, 1e-5, 1e-4),
    },
    "attention": {
        "bfloat16": (np.inf, np.inf, np.inf, 1e-1, 1e-1),
        "float16": (1e0, 1e0, 1e0, 1e-2, 1e-2),
        "float32": (1e-4, 1e-4, 1e-4, 1e-5, 1e-5),
    },
}
#: Relevance that float16 cannot hold: alpha-beta doubles that of the output in every layer.
TOO_LARGE = {("mlp", "AlphaBeta", "float16", 1e4)}

CASES = [(model, method) for model, methods in MEASURED.items() for method in methods]
every_case = pytest.mark.parametrize(
    ("model", "method"),
    [pytest.param(*case, marks=[pytest.mark.slow] * (case[0] != "mlp")) for case in CASES],
)


@every_case
def test_maps_are_near_those_of_float64(model: str, method: str) -> None:
    for dtype, bounds in BOUNDS[model].items():
        for scale, bound in zip(SCALES, bounds, strict=True):
            if (model, method, dtype, scale) not in TOO_LARGE:
                found = error(model, method, dtype, scale)
                assert np.isfinite(found) and found <= bound, (dtype, scale, found)


# Where denominators vanish


def _opposite(model: str) -> dict[str, Any]:
    """Parameters for which every first pre-activation of an alternating input is exactly zero."""
    if model != "mlp":
        return {}
    rows = np.repeat(MLP["a"][:1], 6, axis=0)
    return {"a": rows, "a_bias": 0 * MLP["a_bias"], "b_bias": 0 * MLP["b_bias"]}


@every_case
def test_zero_inputs_and_zero_denominators_give_finite_maps(model: str, method: str) -> None:
    shape = MODELS[model][2]
    alternating = np.broadcast_to((-1.0) ** np.arange(shape[-1]), shape)
    for dtype in DTYPES:
        for x in (np.zeros(shape), np.ones(shape), alternating):
            found = explained(model, method, dtype, x, **_opposite(model))
            assert np.isfinite(found).all(), (dtype, x.flat[:2])


def test_zero_inputs_have_no_relevance_but_by_rules_that_ignore_inputs() -> None:
    for method in ("Z", "Epsilon", "Gamma", "AlphaBeta", "ZPlus"):
        np.testing.assert_array_equal(explained("mlp", method, "float32", np.zeros((5, 6))), 0)
    assert np.abs(explained("mlp", "Flat", "float32", np.zeros((5, 6)))).min() > 0


DIFFERENTIATED = [
    *((m, k) for m, k in CASES if m == "mlp" or k in ("EpsilonGammaBox", "EpsilonAlpha2Beta1")),
    ("attention", "ZPlus"),
    ("cnn", "EpsilonPlusFlat"),
]


@cache
def _slopes(model: str) -> Any:
    """By method, the derivative of a sum of squared relevance by the parameters."""

    def slope(method: str) -> Any:
        explain = _explainer(model, method)
        return jax.grad(lambda p, x: jnp.square(explain(x, p, target=1)).sum())

    slopes = {k: slope(k) for m, k in DIFFERENTIATED if m == model}
    return jax.jit(lambda p, x: {method: of(p, x) for method, of in slopes.items()})


@pytest.mark.slow
@pytest.mark.parametrize(("model", "method"), DIFFERENTIATED)
def test_second_derivatives_are_finite_where_denominators_vanish(model: str, method: str) -> None:
    shape = MODELS[model][2]
    alternating = np.broadcast_to((-1.0) ** np.arange(shape[-1]), shape)
    for x in (np.zeros(shape), alternating, example(model)):
        p = {**MODELS[model][1], **_opposite(model)}
        found = _slopes(model)(jax.tree.map(_float32, p), _float32(x[:1]))[method]
        for path, leaf in jax.tree_util.tree_leaves_with_path(found):
            assert np.isfinite(leaf).all(), (path, x.flat[:2])


def _float32(value: Any) -> jax.Array:
    return jnp.asarray(value, jnp.float32)


# Masks, large values, saturation


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", MEASURED["attention"])
def test_masks_of_minus_infinity_hide_tokens(method: str, dtype: str) -> None:
    """The third token is masked in all rows but its own: nobody but itself can see it."""
    x = example("attention")
    for mask in (CAUSAL, np.where(np.eye(5), 0.0, -np.inf)):
        found = explained("attention", method, dtype, x, mask=mask)
        assert np.isfinite(found).all()
    moved = np.array(x)
    moved[:, 1] += 1  # the diagonal mask lets no token see another
    other = explained("attention", method, dtype, moved, mask=np.where(np.eye(5), 0.0, -np.inf))
    np.testing.assert_array_equal(other[:, [0, 2, 3, 4]] == 0, found[:, [0, 2, 3, 4]] == 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["Epsilon", "AlphaBeta", "Gamma", "ZPlus", "EpsilonPlus"])
def test_large_logits(method: str, dtype: str) -> None:
    """Near float16's maximum; relevance is linear in the output."""
    x = example("mlp")
    largest = (1e4 if method == "AlphaBeta" else 5e4) / float(np.abs(mlp(x, MLP)).max())
    changes = {"c": largest * MLP["c"], "c_bias": largest * MLP["c_bias"]}
    found = explained("mlp", method, dtype, x, **changes)
    assert np.isfinite(found).all()
    if dtype in ("float32", "float64"):
        expected = largest * explained("mlp", method, dtype, x)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


SATURATING = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
    "softmax": jax.nn.softmax,
    "log_softmax": jax.nn.log_softmax,
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("name", SATURATING)
def test_saturated_activations(name: str, dtype: str) -> None:
    x = jnp.asarray([[-3e4, -1e2, -1e-4, 0.0, 1e2, 3e4]], dtype)
    w = jnp.asarray(_weights(6, 3, seed=70), dtype)

    def f(x: Any) -> Any:
        return SATURATING[name](x) @ w

    explainers = (jxp.lrp(f), jxp.lrp(f, ZPlus()), jxp.input_times_gradient(f))
    maps = jax.jit(lambda x: [explain(x) for explain in explainers])(x)
    for explain, found in zip(explainers, maps, strict=True):
        assert found.dtype == dtype
        infinite = name == "gelu" and dtype == "float16"  # jax.grad of x**3: 0 * inf
        if not infinite or explain.method.ledger:
            assert np.isfinite(found.astype(jnp.float32)).all()


def test_a_float32_input_gets_a_float32_map_of_a_half_precision_network() -> None:
    """Relevance below float16's range is kept."""
    w = jnp.full((100, 1), 1e-3, jnp.float16)
    x = jnp.full((1, 100), 1e-4)
    f = lambda x: x.astype(jnp.float16) @ w  # noqa: E731
    half = jxp.lrp(f, Z())(x.astype(jnp.float16))
    full = jxp.lrp(f, Z())(x)
    assert full.dtype == jnp.float32
    np.testing.assert_allclose(full.sum(), 1e-5, rtol=0.01)
    assert abs(float(half.astype(jnp.float32).sum()) / 1e-5 - 1) > 0.01


def test_gradients_that_join_in_two_dtypes() -> None:
    """A half precision value is read by an operation of several outputs and by a float32 layer."""
    w = jnp.asarray(_weights(6, 3, seed=80), jnp.float32)

    def f(x: Any) -> Any:
        best, _ = jax.lax.top_k(x, 3)
        return x.astype(jnp.float32) @ w + best.astype(jnp.float32)

    x = jnp.asarray(_weights(2, 6, seed=81), jnp.bfloat16)
    expected = jxp.lrp(f, Z())(x.astype(jnp.float32))
    found = jxp.lrp(f, Z())(x)
    np.testing.assert_allclose(found.astype(jnp.float32), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("model", MODELS)
def test_half_precision_networks_have_the_layers_of_float32(model: str, dtype: str) -> None:
    def kinds(dtype: str) -> list[tuple[str, str]]:
        p = jax.tree.map(lambda v: jnp.asarray(v, dtype), MODELS[model][1])
        plan = _explainer(model, "Epsilon").plan(jnp.asarray(example(model), dtype), p)
        return [(row.layer.kind, row.layer.op) for row in plan]

    assert kinds(dtype) == kinds("float32")


@pytest.mark.parametrize("dtype", HALF)
def test_a_gain_behind_a_cast_belongs_to_its_normalization(dtype: str) -> None:
    """As T5 and Llama write their RMSNorm: normalised in float32, scaled in half precision."""
    gain, w = jnp.asarray(1 + _vector(6, 60), dtype), jnp.asarray(_weights(6, 3, seed=61), dtype)

    def f(x: Any) -> Any:
        wide = x.astype(jnp.float32)
        normed = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + 1e-6)
        return (normed.astype(x.dtype) * gain) @ w

    plan = jxp.lrp(f).plan(jnp.asarray(_weights(2, 6, seed=62), dtype))
    norm, dense = (row.layer for row in plan)
    assert norm.kind == "Normalization" and [n.primitive for n in dense.nodes] == ["dot_general"]


# check_finite


def network(x: Any, p: Any) -> Any:
    h = jnp.exp(x @ p["inner"])
    return h @ p["outer"]


NETWORK = {"inner": jnp.eye(3), "outer": jnp.ones((3, 2))}
INPUT = jnp.ones((1, 3))
BAD: dict[str, tuple[Any, Any, str]] = {
    "weights": (
        INPUT,
        {**NETWORK, "outer": NETWORK["outer"].at[0].set(jnp.nan)},
        "the input outer",
    ),
    "infinite weights": (
        INPUT,
        {**NETWORK, "inner": NETWORK["inner"] * jnp.inf},
        "the input inner",
    ),
    "inputs": (INPUT.at[0, 1].set(jnp.inf), NETWORK, "the input 0"),
    "-inf inputs": (INPUT.at[0, 1].set(-jnp.inf), NETWORK, "the input 0"),
    "a layer": (100 * INPUT, NETWORK, r"the output of layer 1 \(exp\) at test_numerics.py:\d+"),
    "the first of two": (INPUT.at[0, 0].set(jnp.nan), jax.tree.map(jnp.log, NETWORK), "input 0"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("make", [jxp.lrp, jxp.gradient])
def test_check_finite_names_the_first_place(case: str, make: Any) -> None:
    x, p, place = BAD[case]
    explain = make(network, check_finite=True)
    with pytest.raises(FloatingPointError, match=f"{place}.* is not finite"):
        explain(x, p)
    checked = checkify.checkify(jax.jit(explain))
    with pytest.raises(checkify.JaxRuntimeError, match=f"{place}.* is not finite"):
        checked(x, p)[0].throw()
    checked(INPUT, NETWORK)[0].throw()


def test_check_finite_changes_nothing_where_all_is_finite() -> None:
    for method, model in (("Epsilon", "mlp"), ("ZPlus", "attention")):
        f, parameters, _ = MODELS[model]
        x, p = _float32(example(model)), jax.tree.map(_float32, parameters)
        plain, checked = explainer(method, f), explainer(method, f, check_finite=True)
        np.testing.assert_array_equal(checked(x, p), plain(x, p))  # -inf masks included


def test_check_finite_finds_a_fully_masked_row() -> None:
    mask = CAUSAL.copy()
    mask[2] = -np.inf
    x = _float32(example("attention"))
    p = jax.tree.map(_float32, {**ATTENTION, "mask": mask})
    with pytest.raises(FloatingPointError, match=r"layer 4 \(softmax\) at test_numerics.py"):
        jxp.lrp(attention, check_finite=True)(x, p)


def test_check_finite_lets_masks_pass_until_they_are_explained() -> None:
    w = _float32(_weights(3, 3, seed=90))

    def masked(x: Any) -> Any:
        return jnp.where(jnp.arange(3) == 0, -jnp.inf, x @ w)

    explain = jxp.lrp(masked, check_finite=True)
    assert np.isfinite(explain(INPUT, target=1)).all()
    np.testing.assert_array_equal(explain(INPUT, target=0), 0)  # a constant: no input made it

    def positioned(x: Any) -> Any:  # the mask comes before a sum of two layers, and a scale
        return jax.nn.softmax(2 * (masked(x) + jnp.tanh(x) @ w)) @ w

    assert np.isfinite(jxp.lrp(positioned, check_finite=True)(INPUT)).all()
    with pytest.raises(FloatingPointError, match=r"layer 0 .* is not finite"):
        jxp.lrp(lambda x: x @ (jnp.full((3, 3), -2e38)), check_finite=True)(INPUT)


def test_check_finite_traces_and_compiles_once() -> None:
    traces = []

    def f(x: Any) -> Any:
        traces.append(1)
        return x @ NETWORK["outer"]

    explain = jxp.lrp(f, check_finite=True)
    for scale in (1, 2, 3):
        explain(scale * INPUT)
    assert len(traces) == 1


# The page


def markdown() -> str:
    """docs/numerics.md."""
    dtypes = ("float32", "float16", "bfloat16")
    rows = [
        [model, f"{scale:g}", *(_bound(BOUNDS[model][dtype][i]) for dtype in dtypes)]
        for model in MODELS
        for i, scale in enumerate(SCALES)
    ]
    lines = [("model", "scale of the input", *dtypes), ("---",) * 5, *rows]
    table = "\n".join(f"| {' | '.join(row)} |" for row in lines)
    methods = "\n".join(f"- {model}: {', '.join(names)}" for model, names in MEASURED.items())
    return _PAGE.format(table=table, methods=methods)


def _bound(value: float) -> str:
    return "finite" if np.isinf(value) else f"{value:.0e}"


_PAGE = """\
# Numerics

This page is written by `tests/rules/test_numerics.py`, which also checks it.

Maps have the dtype of the explained input. Inside, rules see at least float32: relevance stays
float32 between half precision layers, sums of contributions (z, z+, z-) are accumulated in float32,
and the quotients R / z never enter float16. The forward pass is the network's own, in its own
dtypes. float64 needs `jax.enable_x64`.

## How near to float64

The bound that no method exceeded: the distance of the map from that of float64 at the same rounded
inputs and weights, relative in the 2-norm, for inputs drawn from a normal distribution times the
scale.

{table}

- mlp: three dense layers with biases and a dead unit; cnn: convolutions, BatchNorm, a max pool, a
  residual connection; attention: LayerNorm, causal attention with a mask of -inf, a GELU block.
- Where float32 is near and half precision is not, it is the forward pass that differs: small inputs
  beside large offsets are rounded away, winners of a max pool tie, and a pre-activation near zero
  changes sign. The plain gradient is off as well. Rules that divide by small z amplify it; a larger
  epsilon damps it.

Methods:

{methods}

## What is finite

- All-zero inputs, dead units, denominators of exactly zero: where z + epsilon sgn(z) is 0,
  relevance is 0. Derivatives of maps (losses on explanations) stay finite there as well.
- Masks of -inf before a softmax. A row that is masked completely is NaN in the network itself:
  `check_finite=True` names the softmax.
- Logits near the dtype's maximum, saturated activations.

## What is not

- What overflows in the network's own forward pass; `check_finite=True` names the first layer.
- Relevance that the input's dtype cannot hold: with alpha-beta it can exceed the output many times.
  A float16 network whose input is given in float32, and cast inside, has a float32 map; relevance
  below float16's range is then kept as well.
- |output| / epsilon beyond the range of float32 (3e38): scale the seed,
  `target=lambda y: 1e-6 * y`; relevance is linear in it.
"""


def test_the_page_is_what_is_generated() -> None:
    assert PAGE.read_text() == markdown()


if __name__ == "__main__":
    PAGE.write_text(markdown())
