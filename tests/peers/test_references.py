"""The maps of zennit, captum and iNNvestigate, reproduced: no difference but the listed ones.

`references/README.md` says how the arrays were made. They are float32, jaxplain runs in float64
here, so that what differs is their rounding. The bounds are relative to the largest entry of each
example's map.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import jaxplain as jxp
import oracle
import reference_models
import test_captum as test_captum_
import test_deep_lift
from jaxplain import composites
from jaxplain.composites import Composite, first, op
from jaxplain.rules import AlphaBeta, Epsilon, Flat, Gamma, WSquare, Z, ZBox, ZPlus
from reference_models import FOLDER, MODELS, load

TOLERANCE = 2e-5

# Without biases some denominators come close to zero, where the references' own rounding shows:
# float32 rounding of the weights alone moves these maps by 1e-4 to 3e-4 (measured in float64).
ILL_CONDITIONED = {
    ("cnn", "Epsilon@zero_bias"): 1e-3,
    ("cnn_bn", "Epsilon@zero_bias"): 1e-3,
    ("dilated", "Epsilon@zero_bias"): 1e-3,
    ("dilated", "Gamma_0.25@zero_bias"): 1e-3,
}

LOW, HIGH = -3.0, 3.0  # the references' input bounds


def first_then(rule: Any, rest: Any) -> Composite:
    return Composite([(first, rule), (op("dense", "convolution"), rest)])


# zennit keeps b² in WSquare; AvgPool gets Norm and activations Pass whatever the rule.
ZENNIT: dict[str, Any] = {
    "Epsilon": Epsilon(),
    "Epsilon@0.25": Epsilon(0.25),
    "Epsilon@zero_bias": Epsilon(bias=False),
    "ZPlus": ZPlus(),
    "ZPlus@zero_bias": ZPlus(bias=False),
    "AlphaBeta_1_0": AlphaBeta(1, 0),
    "AlphaBeta_2_1": AlphaBeta(2, 1),
    "AlphaBeta_2_1@zero_bias": AlphaBeta(2, 1, bias=False),
    "Gamma_0.25": Gamma(0.25),
    "Gamma_0.25@zero_bias": Gamma(0.25, bias=False),
    "WSquare": WSquare(bias=True),
    "WSquare@zero_bias": WSquare(),
    "Flat": Flat(),
    "Flat_first_then_Epsilon": first_then(Flat(), Epsilon()),
    "WSquare_first_then_ZPlus": first_then(WSquare(bias=True), ZPlus()),
    "ZBox_first_then_Epsilon": first_then(ZBox(LOW, HIGH), Epsilon()),
    "ZBox_first_then_ZPlus": first_then(ZBox(LOW, HIGH), ZPlus()),
    "ZBox@zero_bias_first_then_ZPlus@zero_bias": first_then(ZBox(LOW, HIGH), ZPlus(bias=False)),
    "comp.EpsilonPlus": composites.EpsilonPlus(),
    "comp.EpsilonPlusFlat": composites.EpsilonPlusFlat(),
    "comp.EpsilonAlpha2Beta1": composites.EpsilonAlpha2Beta1(),
    "comp.EpsilonAlpha2Beta1Flat": composites.EpsilonAlpha2Beta1Flat(),
    "comp.EpsilonGammaBox": composites.EpsilonGammaBox(LOW, HIGH),
    "comp.ExcitationBackprop": composites.ExcitationBackprop(),
}
ZENNIT_GRADIENTS: dict[str, Any] = {
    "comp.DeconvNet": jxp.deconvnet,
    "comp.GuidedBackprop": jxp.guided_backprop,
}
CAPTUM: dict[str, Any] = {
    "Saliency": lambda f: lambda *args, **kw: abs(jxp.gradient(f)(*args, **kw)),
    "Saliency@abs=False": jxp.gradient,
    "InputXGradient": jxp.input_times_gradient,
    "Deconvolution": jxp.deconvnet,
    "GuidedBackprop": jxp.guided_backprop,
}
# Only the rules that mean the same in iNNvestigate 2: its alpha-beta counts the bias twice. Besides
# epsilon it has no stabiliser.
INNVESTIGATE: dict[str, Any] = {
    "lrp.sequential_preset_a": composites.SequentialPresetA(),
    "lrp.sequential_preset_b": composites.SequentialPresetB(),
    "lrp.sequential_preset_a_flat": composites.SequentialPresetAFlat(),
    "lrp.sequential_preset_b_flat": composites.SequentialPresetBFlat(),
    "lrp.z": Z(),
    "lrp.epsilon@0.25": Epsilon(0.25),
    "lrp.z_plus": ZPlus(0, bias=False),
    "lrp.alpha_2_beta_1_IB": AlphaBeta(2, 1, epsilon=0, bias=False),
    "lrp.w_square": WSquare(0),
    "lrp.flat": Flat(0),
}


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("float64")]


@functools.cache
def model(name: str) -> tuple[Callable[..., Any], Any, np.ndarray, np.ndarray]:
    """The function, its parameters, its inputs twice over, and the output to explain for each.

    The inputs stand twice so that both targets of the references are one call: first the largest
    logit of every input, then logit 1.
    """
    stored = load(name, "model")
    x = stored["x"].astype(np.float64)
    targets = np.concatenate([stored["logits"].argmax(1), np.ones(len(x), int)])
    return (
        reference_models.build(name),
        reference_models.params(name),
        np.concatenate([x, x]),
        targets,
    )


def assert_reproduced(name: str, peer: str, key: str, method: Callable[..., Any]) -> None:
    f, params, x, targets = model(name)
    explain = jax.jit(lambda x, params, target: method(f)(x, params, target=target))
    found = explain(x, params, targets)
    stored = load(name, peer)
    expected = np.concatenate([stored[f"{key}/max"], stored[f"{key}/idx1"]])
    axes = tuple(range(1, expected.ndim))
    error = np.abs(found - expected).max(axes) / np.abs(expected).max(axes)
    np.testing.assert_array_less(error, ILL_CONDITIONED.get((name, key), TOLERANCE))


@pytest.mark.parametrize("name", MODELS)
def test_models_are_the_references(name: str) -> None:
    f, params, x, _ = model(name)
    logits = load(name, "model")["logits"]
    np.testing.assert_allclose(f(x[: len(logits)], params), logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("key", ZENNIT)
@pytest.mark.parametrize("name", MODELS)
def test_zennit(name: str, key: str) -> None:
    assert_reproduced(name, "zennit", key, lambda f: jxp.lrp(f, ZENNIT[key]))


@pytest.mark.parametrize("key", ZENNIT_GRADIENTS)
@pytest.mark.parametrize("name", MODELS)
def test_zennit_gradients(name: str, key: str) -> None:
    assert_reproduced(name, "zennit", key, ZENNIT_GRADIENTS[key])


@pytest.mark.parametrize("key", CAPTUM)
@pytest.mark.parametrize("name", MODELS)
def test_captum(name: str, key: str) -> None:
    assert_reproduced(name, "captum", key, CAPTUM[key])


@pytest.mark.parametrize("key", INNVESTIGATE)
def test_innvestigate(key: str) -> None:
    assert_reproduced("mlp", "inn2", key, lambda f: jxp.lrp(f, INNVESTIGATE[key]))


@pytest.mark.parametrize("name", MODELS)
def test_no_stored_map_is_left_out(name: str) -> None:
    deep_lift = {
        key for peer, key, model in test_deep_lift.PEERS if (peer, model) == ("captum", name)
    }
    tables = {
        "zennit": {*ZENNIT, *ZENNIT_GRADIENTS},
        "captum": {*CAPTUM, *test_captum_.methods(name)} | deep_lift,
    }
    for peer, keys in tables.items():
        maps = {key for key in load(name, peer) if key != "baselines"}
        assert {key.rpartition("/")[0] for key in maps} == keys
    # test_analyzer reproduces whatever there is of iNNvestigate
    peers = {path.name.split(".")[1] for path in FOLDER.glob(f"{name}.*.npz")}
    assert peers - {"fit256"} == {*tables, "inn1", "inn2", "model"}


# The oracle of the other tests against the same arrays, with none of the library between them.


def affine(rule: Callable[..., np.ndarray], **options: Any) -> Callable[..., np.ndarray]:
    return lambda a, b, x, r: rule(a, b, x, r, **options)


def flat(a: np.ndarray, b: np.ndarray, x: np.ndarray, r: np.ndarray) -> np.ndarray:
    return oracle.flat(np.ones_like(a), r)


EPSILON, Z_PLUS = affine(oracle.epsilon), affine(oracle.z_plus)
BOX = affine(oracle.z_box, low=LOW, high=HIGH)

# (the first layer's rule, the other layers' rule)
ORACLE: dict[str, tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]] = {
    "Epsilon": (EPSILON, EPSILON),
    "Epsilon@0.25": (affine(oracle.epsilon, eps=0.25),) * 2,
    "Epsilon@zero_bias": (affine(oracle.epsilon, bias=False),) * 2,
    "ZPlus": (Z_PLUS, Z_PLUS),
    "ZPlus@zero_bias": (affine(oracle.z_plus, bias=False),) * 2,
    "AlphaBeta_1_0": (affine(oracle.alpha_beta, alpha=1.0, beta=0.0),) * 2,
    "AlphaBeta_2_1": (affine(oracle.alpha_beta),) * 2,
    "AlphaBeta_2_1@zero_bias": (affine(oracle.alpha_beta, bias=False),) * 2,
    "Gamma_0.25": (affine(oracle.gamma),) * 2,
    "Gamma_0.25@zero_bias": (affine(oracle.gamma, bias=False),) * 2,
    "WSquare": (affine(oracle.w_square, bias=True),) * 2,
    "WSquare@zero_bias": (affine(oracle.w_square),) * 2,
    "Flat": (flat, flat),
    "Flat_first_then_Epsilon": (flat, EPSILON),
    "WSquare_first_then_ZPlus": (affine(oracle.w_square, bias=True), Z_PLUS),
    "ZBox_first_then_Epsilon": (BOX, EPSILON),
    "ZBox_first_then_ZPlus": (BOX, Z_PLUS),
    "ZBox@zero_bias_first_then_ZPlus@zero_bias": (BOX, affine(oracle.z_plus, bias=False)),
}


@pytest.mark.parametrize("key", ORACLE)
def test_oracle_reproduces_zennit_mlp(key: str) -> None:
    stored = load("mlp", "zennit")
    weights = reference_models.params("mlp")
    layers = [(weights[name]["kernel"].T, weights[name]["bias"]) for name in sorted(weights)]
    first_rule, rest = ORACLE[key]
    for example, x in enumerate(load("mlp", "model")["x"].astype(np.float64)):
        inputs = [x]
        for a, b in layers:
            logits = a @ inputs[-1] + b
            inputs.append(np.maximum(logits, 0))
        for target, name in ((logits.argmax(), "max"), (1, "idx1")):
            r = np.where(np.arange(len(logits)) == target, logits, 0)
            for depth, (a, b) in reversed(list(enumerate(layers))):
                r = (rest if depth else first_rule)(a, b, inputs[depth], r)
            expected = stored[f"{key}/{name}"][example]
            np.testing.assert_allclose(r, expected, rtol=0, atol=TOLERANCE * abs(expected).max())
