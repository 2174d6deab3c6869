"""What the names compute under compat, against all arrays of iNNvestigate 2.1.2 and 1.0.9."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import jaxplain as jxp
import reference_models
from comparing import Together, together
from jaxplain import pattern_statistics
from reference_models import MODELS, load

TOLERANCE = 1e-4
# Denominators near zero: without biases, and alpha-beta on the model "dilated".
ILL_CONDITIONED = {"lrp.epsilon@nobias", "lrp.epsilon_IB", "lrp.z_IB"}
ILL_CONDITIONED |= {"lrp.alpha_beta@3_2", "lrp.alpha_2_beta_1", "lrp@Alpha2Beta1_bnNone"}
ILL_CONDITIONED |= {"lrp.alpha_2_beta_1@inputBounded"}
ILL_CONDITIONED |= {f"lrp.sequential_preset_b{end}" for end in ("", "_flat", "_flat_until_idx@3")}

# What the references' keys say behind the name. iNNvestigate counts the input as layer 0.
OPTIONS: dict[str, dict[str, Any]] = {
    "lrp.epsilon@0.25": {"epsilon": 0.25},
    "lrp.epsilon@inputWSquare": {"input_layer_rule": "WSquare"},
    "lrp.epsilon@nobias": {"bias": False},
    "lrp.alpha_beta@3_2": {"alpha": 3},
    "lrp.alpha_2_beta_1@inputBounded": {"input_layer_rule": (-3.0, 3.0)},
    "integrated_gradients@16": {"steps": 16},
    "lrp@Z_bnNone": {"rule": "Z"},
    "lrp@Epsilon_bnNone": {"rule": "Epsilon"},
    "lrp@Alpha2Beta1_bnNone": {"rule": "Alpha2Beta1"},
    "lrp.sequential_preset_b_flat_until_idx@3": {"until_layer_idx": 2},
    "deep_taylor.bounded": {"low": -3.0, "high": 3.0},
}


def model(name: str, params: Any = None) -> Callable[..., Any]:
    f = reference_models.build(name)
    params = reference_models.params(name) if params is None else params
    return jax.tree_util.Partial(lambda params, x: f(x, params), params)


@functools.cache
def fitted(name: str, kind: str) -> dict[str, Any]:
    data = load(name, "fit256")["x"].astype(float)
    return pattern_statistics(model(name), data, batch_size=64).patterns(kind)


def options_of(name: str, key: str) -> dict[str, Any]:
    if not key.startswith("pattern."):
        return OPTIONS.get(key, {})
    _, kind, *rest = key.split("@")
    project = {"reverse_project_bottleneck_layers": False} if rest else {}
    return {"patterns": fitted(name, kind), **project}


def keys(name: str, peer: str) -> list[str]:
    stored = {key.rpartition("/")[0] for key in load(name, peer)}
    return sorted(key for key in stored if key and not key.startswith("pattern/"))


ALL = [(n, peer, key) for n in MODELS for peer in ("inn2", "inn1") for key in keys(n, peer)]


def bound(key: str) -> float:
    return 1e-3 if key in ILL_CONDITIONED else TOLERANCE


@functools.cache
def computed(name: str, peer: str) -> Together:
    """By all keys, for the largest output of every input, then for the first."""

    def analyze(x: Any, params: Any, outputs: Any, key: str) -> Any:
        return jxp.create_analyzer(
            key.partition("@")[0],
            model(name, params),
            compat="innvestigate",
            neuron_selection_mode="index",
            **options_of(name, key),
        ).analyze(x, outputs)

    stored = load(name, "model")
    x = stored["x"].astype(float)
    outputs = np.concatenate([stored["logits"].argmax(1), np.ones(len(x), int)])
    asked = {key: functools.partial(analyze, key=key) for key in keys(name, peer)}
    for key in asked:
        options_of(name, key)  # fits the patterns
    return together(asked, np.concatenate([x, x]), reference_models.params(name), outputs)


def error(name: str, peer: str, key: str) -> float:
    """The largest distance for the largest output and for the first, by each map's maximum."""
    x, maps = load(name, "model")["x"], load(name, peer)
    found = computed(name, peer)[key]
    expected = np.concatenate([maps[f"{key}/max"], maps[f"{key}/idx1"]])
    if key.startswith("pattern.") and not key.endswith("@noproject"):
        # In mode index it does not project (see the references' README), in mode max it does.
        found, expected = found[len(x) :], expected[len(x) :]
    axes = tuple(range(1, expected.ndim))
    distance = np.abs(found - expected).max(axes)
    return float((distance / np.maximum(np.abs(expected).max(axes), 1e-30)).max())
