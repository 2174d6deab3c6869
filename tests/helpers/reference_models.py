"""The models behind ``references/``, as plain JAX functions of their input and parameters."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

FOLDER = Path(__file__).parents[1] / "references"
MODELS = ("mlp", "cnn", "cnn_bn", "dilated")

Params = dict[str, dict[str, Any]]


def load(model: str, kind: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{model}.{kind}.npz") as archive:
        return dict(archive)


def spec(model: str) -> list[dict[str, Any]]:
    """The model's operations in topological order."""
    return json.loads(str(load(model, "model")["spec"]))


def params(model: str, dtype: Any = np.float64) -> Params:
    """The model's weights, ``{node: {parameter: array}}``."""
    weights: Params = {}
    for key, value in load(model, "model").items():
        if key.startswith("w/"):
            _, node, name = key.split("/")
            weights.setdefault(node, {})[name] = value.astype(dtype)
    return weights


def _convolution(x: Any, kernel: Any, node: dict[str, Any], groups: int = 1) -> Any:
    return lax.conv_general_dilated(
        x,
        kernel,
        (node["stride"],) * 2,
        node["padding"],
        rhs_dilation=(node.get("dilation", 1),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def apply(node: dict[str, Any], inputs: list[Any], weights: dict[str, Any]) -> Any:
    """One operation of a spec on a batch."""
    x = inputs[0]
    window = (1, node.get("size", 1), node.get("size", 1), 1)
    strides = (1, node.get("stride", 1), node.get("stride", 1), 1)
    match node["op"]:
        case "dense":
            return x @ weights["kernel"] + weights["bias"]
        case "conv":
            return _convolution(x, weights["kernel"], node) + weights["bias"]
        case "dwconv":
            height, width, channels, multiplier = weights["kernel"].shape
            kernel = weights["kernel"].reshape(height, width, 1, channels * multiplier)
            return _convolution(x, kernel, node, groups=channels) + weights["bias"]
        case "bn":
            scaled = weights["gamma"] * (x - weights["mean"])
            return scaled / jnp.sqrt(weights["var"] + node["eps"]) + weights["beta"]
        case "relu":
            return jax.nn.relu(x)
        case "maxpool":
            return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, node["padding"])
        case "avgpool":
            total = lax.reduce_window(x, 0.0, lax.add, window, strides, node["padding"])
            ones = jnp.ones_like(x)
            return total / lax.reduce_window(ones, 0.0, lax.add, window, strides, node["padding"])
        case "flatten":
            return x.reshape(x.shape[0], math.prod(x.shape[1:]))
    raise ValueError(f"no such operation: {node['op']}")


def build(model: str) -> Callable[[Any, Params], Any]:
    """``f(x, params) -> logits`` for the model's spec."""
    nodes = spec(model)

    def f(x: Any, params: Params) -> Any:
        values = {nodes[0]["name"]: x}
        for node in nodes[1:]:
            inputs = [values[name] for name in node["inputs"]]
            values[node["name"]] = apply(node, inputs, params.get(node["name"], {}))
        return values[nodes[-1]["name"]]

    return f
