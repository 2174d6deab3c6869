"""The same models in every framework: the same maps, under names that its user recognises."""

import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import lax
from numpy.testing import assert_allclose, assert_array_equal

import jaxplain as jxp
import zoo
from comparing import together
from jaxplain import composites
from jaxplain.composites import Composite, kind
from jaxplain.rules import AlphaBeta, Epsilon, Norm, Z
from zoo import draw

keras = zoo._keras()

Weights = dict[str, Any]
BN_EPSILON = 1e-3


pytestmark = pytest.mark.usefixtures("keras_float64")


class Written(NamedTuple):
    """A model as written in a framework.

    Attributes:
        own: the user's object, in training mode where it has modes, and what belongs to it.
        adapt: makes it a function.
        holds: what must not change when it is explained.
        halve: the same model with half of the head's kernel, in place where the framework does so.
        layout: from an input (N..C) to the framework's own; None: the same.
        arguments: what the function takes besides the input.
    """

    own: tuple[Any, ...]
    adapt: Callable[..., Any]
    holds: Callable[..., Any]
    halve: Callable[..., tuple[Any, ...]]
    layout: tuple[int, ...] | None = None
    arguments: tuple[Any, ...] = ()


def close(found: Any, wanted: Any, tolerance: float = 1e-10) -> None:
    assert np.abs(wanted).max() > 0
    assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


# --------------------------------------------------------------------------------------------------
# What is written: weights by module, and the layers they are read as.


def mlp_weights() -> Weights:
    return {
        "hidden": {"kernel": draw(4, 6), "bias": draw(6)},
        "middle": {"kernel": draw(6, 5), "bias": draw(5)},
        "head": {"kernel": draw(5, 3), "bias": draw(3)},
    }


def cnn_weights() -> Weights:
    """The statistics are far from trivial, the scales of either sign."""
    return {
        "block": {
            "conv": {"kernel": draw(3, 3, 3, 4), "bias": draw(4)},
            "bn": {
                "scale": draw(4, seed=1),
                "bias": draw(4, seed=2),
                "mean": draw(4, seed=3),
                "var": np.exp(draw(4, seed=4)),
            },
        },
        "head": {"kernel": draw(4, 3), "bias": draw(3)},
    }


def lstm_weights() -> Weights:
    """Of the gates i, f, g and o side by side, as Keras has them."""
    return {
        "lstm": {"kernel": draw(3, 16), "recurrent": draw(4, 16), "bias": draw(16)},
        "head": {"kernel": draw(4, 3), "bias": draw(3)},
    }


def by_gate(weights: Weights, forget: str = "if") -> Weights:
    """As Flax has them: a dense layer for each gate of the input and of the state."""
    lstm, cell = weights["lstm"], {}
    gates = zip(("ii", forget, "ig", "io"), ("hi", "hf", "hg", "ho"), strict=True)
    columns = zip(*(np.split(lstm[key], 4, axis=-1) for key in lstm), strict=True)
    for (inputs, state), (kernel, recurrent, bias) in zip(gates, columns, strict=True):
        cell[inputs] = {"kernel": kernel}
        cell[state] = {"kernel": recurrent, "bias": bias}
    return weights | {"lstm": cell}


INPUTS = {"mlp": (2, 4), "cnn": (2, 6, 6, 3), "lstm": (2, 5, 3)}
WEIGHTS = {"mlp": mlp_weights, "cnn": cnn_weights, "lstm": lstm_weights}


# --------------------------------------------------------------------------------------------------
# Plain JAX.


def plain_mlp(x: Any, weights: Weights) -> Any:
    for name in ("hidden", "middle"):
        x = jax.nn.relu(x @ weights[name]["kernel"] + weights[name]["bias"])
    return x @ weights["head"]["kernel"] + weights["head"]["bias"]


def plain_cnn(x: Any, weights: Weights) -> Any:
    conv, bn, head = weights["block"]["conv"], weights["block"]["bn"], weights["head"]
    layout = ("NHWC", "HWIO", "NHWC")
    x = lax.conv_general_dilated(x, conv["kernel"], (1, 1), "SAME", dimension_numbers=layout)
    x = (x + conv["bias"] - bn["mean"]) / jnp.sqrt(bn["var"] + BN_EPSILON)
    x = jax.nn.relu(x * bn["scale"] + bn["bias"])
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.mean((1, 2)) @ head["kernel"] + head["bias"]


def plain_lstm(x: Any, weights: Weights, unrolled: bool = False) -> Any:
    lstm, head = weights["lstm"], weights["head"]

    def cell(carry: Any, x: Any) -> Any:
        h, c = carry
        z = x @ lstm["kernel"] + h @ lstm["recurrent"] + lstm["bias"]
        i, f, g, o = jnp.split(z, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    carry, x = (jnp.zeros((len(x), 4)),) * 2, x.swapaxes(0, 1)
    if unrolled:
        for row in x:
            carry, _ = cell(carry, row)
    else:
        carry, _ = lax.scan(cell, carry, x)
    return carry[0] @ head["kernel"] + head["bias"]


PLAIN = {"mlp": plain_mlp, "cnn": plain_cnn, "lstm": plain_lstm}


def plain(name: str) -> Written:
    weights = jax.tree.map(jnp.asarray, WEIGHTS[name]())
    return Written((PLAIN[name],), lambda f: f, lambda f: f, lambda f: (f,), arguments=(weights,))


# --------------------------------------------------------------------------------------------------
# Flax linen.


class LinenMLP(linen.Module):
    @linen.compact
    def __call__(self, x: Any, train: bool = True) -> Any:
        x = linen.relu(linen.Dense(6, name="hidden")(x))
        x = linen.Dropout(0.5, deterministic=not train)(x)
        x = linen.relu(linen.Dense(5, name="middle")(x))
        return linen.Dense(3, name="head")(x)


class LinenBlock(linen.Module):
    @linen.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = linen.Conv(4, (3, 3), name="conv")(x)
        bn = linen.BatchNorm(use_running_average=not train, epsilon=BN_EPSILON, name="bn")
        return linen.relu(bn(x))


class LinenCNN(linen.Module):
    @linen.compact
    def __call__(self, x: Any, train: bool = True) -> Any:
        x = linen.max_pool(LinenBlock(name="block")(x, train), (2, 2), (2, 2))
        x = linen.Dropout(0.5, deterministic=not train)(x)
        return linen.Dense(3, name="head")(x.mean((1, 2)))


class LinenLSTM(linen.Module):
    @linen.compact
    def __call__(self, x: Any, train: bool = True) -> Any:
        x = linen.RNN(linen.LSTMCell(4, param_dtype=float, name="lstm"))(x)[:, -1]
        x = linen.Dropout(0.5, deterministic=not train)(x)
        return linen.Dense(3, name="head")(x)


def in_linen(name: str) -> Written:
    weights = WEIGHTS[name]()
    weights = jax.tree.map(jnp.asarray, by_gate(weights) if name == "lstm" else weights)
    variables = {"params": weights}
    if name == "cnn":
        bn = weights["block"]["bn"]
        variables["batch_stats"] = {"block": {"bn": {key: bn.pop(key) for key in ("mean", "var")}}}
    module = {"mlp": LinenMLP, "cnn": LinenCNN, "lstm": LinenLSTM}[name]()

    def halve(module: Any, variables: Any) -> Any:
        params = variables["params"]
        head = params["head"] | {"kernel": params["head"]["kernel"] / 2}
        return module, variables | {"params": params | {"head": head}}

    return Written(
        (module, variables),
        partial(jxp.from_linen, train=False),
        lambda module, variables: variables,
        halve,
    )


# --------------------------------------------------------------------------------------------------
# Flax nnx.


class NnxMLP(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(4, 6, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.middle = nnx.Linear(6, 5, rngs=rngs)
        self.head = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.dropout(nnx.relu(self.hidden(x)))
        return self.head(nnx.relu(self.middle(x)))


class NnxBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.bn = nnx.BatchNorm(4, epsilon=BN_EPSILON, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return nnx.relu(self.bn(self.conv(x)))


class NnxCNN(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.block = NnxBlock(rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.dropout(nnx.max_pool(self.block(x), (2, 2), (2, 2)))
        return self.head(x.mean((1, 2)))


class NnxLSTM(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.lstm = nnx.RNN(nnx.LSTMCell(3, 4, param_dtype=float, rngs=rngs), rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.head(self.dropout(self.lstm(x)[:, -1]))


def in_nnx(name: str) -> Written:
    module = {"mlp": NnxMLP, "cnn": NnxCNN, "lstm": NnxLSTM}[name](nnx.Rngs(0))

    def fill(module: Any, weights: Weights) -> None:
        for key, value in weights.items():
            if isinstance(value, dict):
                fill(getattr(module, key), value)
            else:
                getattr(module, key).set_value(jnp.asarray(value))

    def halve(module: Any) -> tuple[Any]:
        module.head.kernel.set_value(module.head.kernel[...] / 2)
        return (module,)

    def holds(module: Any) -> Any:
        definition, others, keys = nnx.split(module, lambda _, v: not is_key(v), ...)
        return definition, others, jax.tree.map(jax.random.key_data, keys)

    def is_key(v: Any) -> bool:
        return jnp.issubdtype(v[...].dtype, jax.dtypes.prng_key)

    weights = WEIGHTS[name]()
    if name == "lstm":
        weights = by_gate(weights, forget="if_")
        weights["lstm"] = {"cell": weights["lstm"]}
    fill(module, weights)
    return Written((module,), jxp.from_nnx, holds, halve)


# --------------------------------------------------------------------------------------------------
# Equinox.


class EquinoxMLP(eqx.Module):
    hidden: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    middle: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, key: Any):
        self.hidden = eqx.nn.Linear(4, 6, key=key)
        self.dropout = eqx.nn.Dropout(0.5)
        self.middle = eqx.nn.Linear(6, 5, key=key)
        self.head = eqx.nn.Linear(5, 3, key=key)

    def __call__(self, x: Any, key: Any = None) -> Any:
        x = self.dropout(jax.nn.relu(self.hidden(x)), key=key)
        return self.head(jax.nn.relu(self.middle(x)))


class EquinoxBlock(eqx.Module):
    conv: eqx.nn.Conv2d
    bn: eqx.nn.BatchNorm

    def __init__(self, key: Any):
        self.conv = eqx.nn.Conv2d(3, 4, 3, padding=1, key=key)
        self.bn = eqx.nn.BatchNorm(4, axis_name="batch", eps=BN_EPSILON, mode="batch")

    def __call__(self, x: Any, state: Any) -> Any:
        x, state = self.bn(self.conv(x), state)
        return jax.nn.relu(x), state


class EquinoxCNN(eqx.Module):
    block: EquinoxBlock
    pool: eqx.nn.MaxPool2d
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, key: Any):
        self.block = EquinoxBlock(key)
        self.pool = eqx.nn.MaxPool2d(2, 2)
        self.dropout = eqx.nn.Dropout(0.5)
        self.head = eqx.nn.Linear(4, 3, key=key)

    def __call__(self, x: Any, state: Any, key: Any = None) -> Any:
        x, state = self.block(x, state)
        x = self.dropout(self.pool(x), key=key)
        return self.head(x.mean((1, 2))), state


class EquinoxLSTM(eqx.Module):
    lstm: eqx.nn.LSTMCell
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, key: Any):
        self.lstm = eqx.nn.LSTMCell(3, 4, key=key)
        self.dropout = eqx.nn.Dropout(0.5)
        self.head = eqx.nn.Linear(4, 3, key=key)

    def __call__(self, x: Any, key: Any = None) -> Any:
        carry = (jnp.zeros(4), jnp.zeros(4))
        (h, _), _ = lax.scan(lambda carry, x: (self.lstm(x, carry), None), carry, x)
        return self.head(self.dropout(h, key=key))


def having(module: Any, **parts: Any) -> Any:
    parts = jax.tree.map(jnp.asarray, parts)
    return eqx.tree_at(lambda m: [getattr(m, key) for key in parts], module, [*parts.values()])


def in_equinox(name: str) -> Written:
    key, weights = jax.random.key(0), WEIGHTS[name]()

    def dense(module: Any, p: Weights) -> Any:
        return having(module, weight=p["kernel"].T, bias=p["bias"])

    own: tuple[Any, ...]
    if name == "mlp":
        module = EquinoxMLP(key)
        own = (having(module, **{k: dense(getattr(module, k), p) for k, p in weights.items()}),)
        layout = None
    elif name == "lstm":
        module = EquinoxLSTM(key)
        w, u, b = weights["lstm"].values()
        lstm = having(module.lstm, weight_ih=w.T, weight_hh=u.T, bias=b)
        own, layout = (having(module, lstm=lstm, head=dense(module.head, weights["head"])),), None
    else:
        module, state = eqx.nn.make_with_state(EquinoxCNN)(key)
        conv, bn = weights["block"].values()
        kernel, bias = conv["kernel"].transpose(3, 2, 0, 1), conv["bias"][:, None, None]
        conv = having(module.block.conv, weight=kernel, bias=bias)
        statistics = jnp.asarray(bn["mean"]), jnp.asarray(bn["var"])
        bn = having(module.block.bn, weight=bn["scale"], bias=bn["bias"])
        head = dense(module.head, weights["head"])
        module = eqx.tree_at(lambda m: (m.block.conv, m.block.bn, m.head), module, (conv, bn, head))
        index = module.block.bn.batch_state_index
        state = eqx.tree_at(lambda s: s.get(index), state, statistics)
        own, layout = (module, state), (0, 3, 1, 2)

    def halve(module: Any, *state: Any) -> Any:
        return eqx.tree_at(lambda m: m.head.weight, module, module.head.weight / 2), *state

    return Written(own, jxp.from_equinox, lambda *own: own, halve, layout)


# --------------------------------------------------------------------------------------------------
# Keras.


def in_keras(name: str) -> Written:
    layers = keras.layers
    if name == "mlp":
        model = keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(6, activation="relu", name="hidden"),
                layers.Dropout(0.5),
                layers.Dense(5, activation="relu", name="middle"),
                layers.Dense(3, name="head"),
            ]
        )
    elif name == "lstm":
        lstm = layers.LSTM(4, dropout=0.5, name="lstm")
        model = keras.Sequential([keras.Input((5, 3)), lstm, layers.Dense(3, name="head")])
    else:
        block = keras.Sequential(
            [
                layers.Conv2D(4, 3, padding="same", name="conv"),
                layers.BatchNormalization(epsilon=BN_EPSILON, name="bn"),
                layers.ReLU(name="relu"),
            ],
            name="block",
        )
        x = keras.Input((6, 6, 3))
        pooled = layers.Dropout(0.5)(layers.MaxPooling2D(2, name="pool")(block(x)))
        means = layers.GlobalAveragePooling2D(name="mean")(pooled)
        model = keras.Model(x, layers.Dense(3, name="head")(means))

    def fill(model: Any, weights: Weights) -> None:
        for key, value in weights.items():
            layer = model.get_layer(key)
            if isinstance(next(iter(value.values())), dict):
                fill(layer, value)
            else:
                layer.set_weights(list(value.values()))

    def halve(model: Any) -> tuple[Any]:
        kernel = model.get_layer("head").kernel
        kernel.assign(kernel / 2)
        return (model,)

    def holds(model: Any) -> Any:
        return [np.asarray(v.value) for v in model.variables]

    fill(model, WEIGHTS[name]())
    return Written((model,), jxp.from_keras, holds, halve)


FRAMEWORKS: dict[str, Callable[[str], Written]] = {
    "plain": plain,
    "linen": in_linen,
    "nnx": in_nnx,
    "equinox": in_equinox,
    "keras": in_keras,
}
ADAPTERS = [name for name in FRAMEWORKS if name != "plain"]


def inside(module: str, names: str) -> str:
    """Names in a module; an empty one is the module's own."""
    return " ".join((module + name).rstrip("/") for name in names.split(" "))


FLAX_LSTM = "ii logistic if logistic@2 ig tanh io logistic@3 product product@2 sum tanh@2 product@3"
NAMES = {
    ("mlp", "plain"): "hidden rectifier middle rectifier@2 head",
    ("mlp", "linen"): "LinenMLP/hidden LinenMLP/rectifier LinenMLP/middle LinenMLP/rectifier@2 "
    "LinenMLP/head",
    ("mlp", "nnx"): "hidden rectifier middle rectifier@2 head",
    ("mlp", "equinox"): "hidden rectifier middle rectifier@2 head",
    ("mlp", "keras"): "hidden hidden/rectifier middle middle/rectifier head",
    ("cnn", "plain"): "block/conv block/rectifier block/reduce_window_max block/sum head",
    ("cnn", "linen"): "LinenCNN/block/conv LinenCNN/block/rectifier LinenCNN/reduce_window_max "
    "LinenCNN/sum LinenCNN/head",
    ("cnn", "nnx"): "block/conv block/rectifier block/reduce_window_max block/sum head",
    ("cnn", "equinox"): "block/conv block/rectifier block/reduce_window_max block/sum head",
    ("cnn", "keras"): "block/conv block/relu/rectifier pool/reduce_window_max mean/sum head",
    ("lstm", "plain"): "lstm logistic product logistic@2 tanh product@2 sum logistic@3 tanh@2 "
    "product@3 head",
    ("lstm", "equinox"): "lstm logistic logistic@2 tanh logistic@3 product product@2 sum tanh@2 "
    "product@3 head",
    ("lstm", "keras"): inside(
        "lstm/lstm_cell/",
        " logistic logistic@2 product tanh product@2 sum logistic@3 tanh@2 product@3",
    )
    + " head",
    ("lstm", "linen"): inside("LinenLSTM/RNN_0/lstm/", FLAX_LSTM) + " LinenLSTM/head",
    ("lstm", "nnx"): inside("lstm/cell/", FLAX_LSTM.replace("if", "if_")) + " head",
}


@cache
def written(architecture: str, framework: str) -> Written:
    return FRAMEWORKS[framework](architecture)


def inputs(architecture: str, model: Written) -> jax.Array:
    x = jnp.asarray(draw(*INPUTS[architecture], seed=9))
    return x if model.layout is None else x.transpose(model.layout)


def brought_back(array: Any, model: Written) -> Any:
    return array if model.layout is None else array.transpose(np.argsort(model.layout))


# --------------------------------------------------------------------------------------------------
# The same maps, names, models.

METHODS: dict[str, Callable[[Any], Any]] = {
    "epsilon": lambda f: jxp.lrp(f, Epsilon(1e-6)),
    "epsilon_plus_flat": lambda f: jxp.lrp(f, jxp.composites.EpsilonPlusFlat()),
    "alpha_beta": lambda f: jxp.lrp(f, AlphaBeta(2, 1)),
    "deep_taylor": jxp.deep_taylor,
    "gradient": jxp.gradient,
    "guided_backprop": jxp.guided_backprop,
    "integrated_gradients": partial(jxp.integrated_gradients, steps=3),
}


@cache
def maps(architecture: str, framework: str) -> dict[str, Any]:
    """The maps of all methods, compiled at once."""
    model = written(architecture, framework)
    f = model.adapt(*model.own)

    @jax.jit
    def explain(*args: Any) -> Any:
        return {name: method(f)(*args) for name, method in METHODS.items()}

    found = explain(inputs(architecture, model), *model.arguments)
    return {name: brought_back(array, model) for name, array in found.items()}


@pytest.mark.parametrize("framework", ADAPTERS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", WEIGHTS)
def test_the_same_map_as_in_plain_jax(architecture: str, method: str, framework: str) -> None:
    close(maps(architecture, framework)[method], maps(architecture, "plain")[method])


@pytest.mark.parametrize(("architecture", "framework"), NAMES)
def test_names_of_layers(architecture: str, framework: str) -> None:
    model = written(architecture, framework)
    plan = jxp.lrp(model.adapt(*model.own)).plan(inputs(architecture, model), *model.arguments)
    assert [layer.name for layer in plan.layers] == NAMES[architecture, framework].split()


def test_an_lstm_written_out() -> None:
    """Where only the first step's kernel is the network's first, which Flat is for."""
    model = written("lstm", "plain")
    f, x = partial(plain_lstm, unrolled=True), inputs("lstm", model)
    asked = {name: method(f) for name, method in METHODS.items() if name != "epsilon_plus_flat"}
    found = together(asked, x, *model.arguments)
    for name in asked:
        close(found[name], maps("lstm", "plain")[name])


def test_an_lstm_in_one_kernel_for_all_gates() -> None:
    """nnx adds the state's part before it splits the gates, as in Keras.

    linen adds gate by gate what it has split: a Merge of two dense layers, with a stabiliser each,
    where the other spellings have one. Without stabilisers they are the same.
    """
    weights, x = lstm_weights(), jnp.asarray(draw(*INPUTS["lstm"], seed=9))
    kernel, recurrent, bias = map(jnp.asarray, weights["lstm"].values())
    params = {"cell": jax.tree.map(jnp.asarray, by_gate(weights)["lstm"])}
    split, wanted = (
        jxp.from_linen(linen.RNN(cell(4, param_dtype=float)), {"params": params})
        for cell in (linen.OptimizedLSTMCell, linen.LSTMCell)
    )
    exact = Composite([(composites.kernel, Z()), (kind("Merge"), Norm(0))])
    close(jxp.lrp(split, exact)(x, target=1), jxp.lrp(wanted, exact)(x, target=1))

    cell = nnx.OptimizedLSTMCell(3, 4, param_dtype=float, rngs=nnx.Rngs(0))
    cell.dense_i.kernel.set_value(kernel)
    cell.dense_h.kernel.set_value(recurrent)
    cell.dense_h.bias.set_value(bias)
    joint = jxp.from_nnx(nnx.RNN(cell, rngs=nnx.Rngs(0)))
    close(jxp.lrp(joint)(x, target=1), jxp.lrp(wanted)(x, target=1))
    assert names_of(joint, x)[0] == "cell/dense_i"


def test_layers_of_a_recurrent_module_stand_where_it_is_called() -> None:
    for framework in ("linen", "nnx"):
        model = written("lstm", framework)
        plan = jxp.lrp(model.adapt(*model.own)).plan(inputs("lstm", model))
        assert all(layer.location.startswith("test_frameworks.py:") for layer in plan.layers)


def test_layers_of_a_model_without_a_line_stand_in_a_package() -> None:
    """No file of the user's calls them: the plan calls them from jaxplain."""
    x, key, rngs = jnp.asarray(draw(2, 4)), jax.random.key(0), nnx.Rngs(0)
    in_linen = linen.Sequential([linen.Dense(5), linen.tanh, linen.Dense(3)])
    in_nnx = nnx.Sequential(nnx.Linear(4, 5, rngs=rngs), nnx.tanh, nnx.Linear(5, 3, rngs=rngs))
    models: dict[str, Any] = {
        "flax": jxp.from_linen(in_linen, in_linen.init(key, x)),
        "flax ": jxp.from_nnx(in_nnx),
        "equinox": jxp.from_equinox(eqx.nn.MLP(4, 3, 5, 1, jnp.tanh, key=key)),
        "keras": jxp.from_keras(
            keras.Sequential([keras.Input((4,)), keras.layers.Dense(5), keras.layers.Dense(3)])
        ),
    }
    for package, model in models.items():
        for layer in jxp.lrp(model).plan(x).layers:
            assert re.fullmatch(rf"{package.strip()}/…/\w+\.py:\d+", layer.location)


@pytest.mark.parametrize("decorator", [eqx.filter_jit, eqx.filter_checkpoint, jax.jit])
def test_layers_of_a_decorated_function_stand_where_it_is_written(decorator: Any) -> None:
    w = jnp.asarray(draw(4, 4))

    @decorator
    def f(x: Any) -> Any:
        x = jnp.where(x > 0, x, 0)
        x = jnp.tanh(x @ w)
        return x @ w

    first = f.__wrapped__.__code__.co_firstlineno
    sources = [layer.location for layer in jxp.lrp(f).plan(jnp.asarray(draw(2, 4))).layers]
    assert sources == [f"test_frameworks.py:{first + line}" for line in (2, 3, 3, 4)]


@pytest.mark.parametrize("framework", ADAPTERS)
def test_the_model_itself_does_not_change(framework: str) -> None:
    model = written("cnn", framework)
    before = model.holds(*model.own)
    jxp.lrp(model.adapt(*model.own))(inputs("cnn", model))
    after = model.holds(*model.own)
    # modes, counters of random keys and other static parts as well
    assert jax.tree.structure(after) == jax.tree.structure(before)
    jax.tree.map(assert_array_equal, after, before)


@pytest.mark.parametrize("framework", ADAPTERS)
def test_updated_weights_are_seen(framework: str) -> None:
    model = FRAMEWORKS[framework]("mlp")  # a copy of its own
    x, updated = inputs("mlp", model), model.own
    explain = jxp.gradient(model.adapt(*model.own))
    before = explain(x, target=1)
    updated = model.halve(*model.own)
    if updated[0] is not model.own[0] or framework == "linen":
        explain = jxp.gradient(model.adapt(*updated))
    close(explain(x, target=1), before / 2)


@pytest.mark.parametrize("framework", ADAPTERS)
def test_a_pytree_of_arrays(framework: str) -> None:
    model = written("mlp", framework)
    f, x = model.adapt(*model.own), inputs("mlp", model)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(f))
    gradient = jax.jit(lambda f, x: jxp.gradient(f)(x, target=1))
    close(gradient(f, x), jxp.gradient(f)(x, target=1))
    without = jax.tree.map(lambda v: 0 * v if jnp.issubdtype(v.dtype, jnp.floating) else v, f)
    assert_array_equal(without(x), 0)
    assert_array_equal(gradient(without, x), 0)


# --------------------------------------------------------------------------------------------------
# Names.


def names_of(f: Any, x: Any) -> list[str]:
    return [layer.name for layer in jxp.lrp(f).plan(x).layers]


class NnxBlockOfATransformer(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return x + self.attention(self.norm(x))


class NnxNamed(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.position = nnx.Param(jnp.ones((3, 4)))
        self.blocks = nnx.List([NnxBlockOfATransformer(rngs) for _ in range(2)])
        self.shared = nnx.Linear(4, 4, rngs=rngs)
        self.cell = nnx.LSTMCell(4, 2, rngs=rngs)
        self.adapted = nnx.LoRALinear(2, 3, lora_rank=1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = x + self.position[...]
        for block in self.blocks:
            x = block(x)
        x = self.shared(jnp.tanh(self.shared(x)))
        carry = (jnp.zeros((2, 2)), jnp.zeros((2, 2)))
        return self.adapted(self.cell(carry, x[:, 0])[1])


def test_names_in_nnx() -> None:
    names = names_of(jxp.from_nnx(NnxNamed(nnx.Rngs(0))), jnp.ones((2, 3, 4)))
    attention = "key value query dot_general softmax dot_general@2 out sum".split()
    assert names[:10] == [
        "position",
        "blocks/0/norm",
        *(f"blocks/0/attention/{name}" for name in attention),
    ]
    assert names[10:19] == [name.replace("/0/", "/1/") for name in names[1:10]]
    assert names[19:22] == ["shared", "tanh", "shared@2"]
    cell = set(names[22:-2])
    assert {"cell/ii", "cell/if_", "cell/ig", "cell/io", "cell/logistic", "cell/tanh"} <= cell
    assert names[-2:] == ["adapted/lora", "adapted"]


class EquinoxNamed(eqx.Module):
    attention: eqx.nn.MultiheadAttention
    mlp: eqx.nn.MLP
    cell: eqx.nn.GRUCell
    head: eqx.nn.WeightNorm

    def __init__(self, key: Any):
        self.attention = eqx.nn.MultiheadAttention(2, 4, key=key)
        self.mlp = eqx.nn.MLP(4, 4, 4, 1, activation=jax.nn.gelu, key=key)
        self.cell = eqx.nn.GRUCell(4, 2, key=key)
        self.head = eqx.nn.WeightNorm(eqx.nn.Linear(2, 3, key=key))

    def __call__(self, x: Any) -> Any:
        x = jax.vmap(self.mlp)(self.attention(x, x, x))
        return self.head(self.cell(x[0], jnp.zeros(2)))


def test_names_in_equinox() -> None:
    f = jxp.from_equinox(EquinoxNamed(jax.random.key(0)))
    names = names_of(f, jnp.ones((2, 3, 4)))
    attention = "key_proj value_proj query_proj dot_general softmax dot_general@2 output_proj"
    assert names[:7] == [f"attention/{name}" for name in attention.split()]
    assert names[7:11] == ["mlp/layers/0", "mlp/layers/elementwise", "mlp/layers/1", "cell"]
    assert names[-1] == "head"  # its kernel is made of two arrays


def test_names_in_keras() -> None:
    layers = keras.layers
    x = keras.Input((3, 4))
    y = layers.MultiHeadAttention(2, 4, name="attention")(x, x) + x
    dense = layers.Dense(4, activation="gelu", name="shared")
    y = layers.LSTM(2, unroll=True, name="lstm")(
        dense(dense(layers.LayerNormalization(name="n")(y)))
    )
    y = layers.Softmax(name="softmax")(layers.Dense(3, name="head")(y))
    names = names_of(jxp.from_keras(keras.Model(x, y)), jnp.ones((2, 3, 4)))
    attention = "key value query dot_general softmax dot_general@2 attention_output"
    assert names[:7] == [f"attention/{name}" for name in attention.split()]
    assert names[7:13] == [
        *("sum", "n", "shared", "shared/elementwise", "shared@2", "shared/elementwise@2")
    ]
    assert names[13].startswith("lstm/") and names[-1] == "head"


def test_keras_variables_of_one_path() -> None:

    class Twins(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="twins")
            self.twins = [keras.layers.Dense(4, name="twin") for _ in range(2)]

        def call(self, x: Any) -> Any:
            return self.twins[1](keras.ops.relu(self.twins[0](x)))

    model, x = Twins(), jnp.asarray(draw(2, 4))
    wanted = model(x)
    f = jxp.from_keras(model)
    assert_array_equal(f(x), wanted)
    assert len(jax.tree.leaves(f)) == 4
    assert names_of(f, x) == ["twin", "rectifier", "twin@2"]


def test_arrays_are_called_by_their_path() -> None:
    for architecture, framework, path in [
        ("cnn", "nnx", "block/bn/var"),
        ("cnn", "equinox", "block/bn/batch_state_index/1"),
        ("cnn", "keras", "block/bn/moving_variance"),
    ]:
        model = written(architecture, framework)
        f = model.adapt(*model.own)
        leaves, tree = jax.tree_util.tree_flatten_with_path(f)
        paths = [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in leaves]
        broken = [v * jnp.nan if p == path else v for p, (_, v) in zip(paths, leaves, strict=True)]
        explain = jxp.lrp(jax.tree.unflatten(tree, broken), check_finite=True)
        with pytest.raises(FloatingPointError, match=f"the input {path} is not finite"):
            explain(inputs(architecture, model))


# --------------------------------------------------------------------------------------------------
# What else the adapters take.


def test_methods_and_options_of_modules() -> None:
    class Coder(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.encoder = nnx.Linear(4, 3, rngs=rngs)

        def encode(self, x: Any, scale: float = 1.0) -> Any:
            return scale * self.encoder(x)

    coder, x = Coder(nnx.Rngs(0)), jnp.asarray(draw(2, 4))
    named = jxp.from_nnx(coder, method="encode", scale=2.0)
    given = jxp.from_nnx(coder, method=Coder.encode, scale=2.0)
    for f in (named, given):
        assert_array_equal(f(x), coder.encode(x, 2.0))
    linear = eqx.nn.Linear(4, 3, key=jax.random.key(0))
    twice = jxp.from_equinox(linear, method=lambda module, x, factor: factor * module(x), factor=2)
    assert_array_equal(twice(x), 2 * jax.vmap(linear)(x))


def test_equinox_modules_of_batches() -> None:
    linear, x = eqx.nn.Linear(4, 3, key=jax.random.key(0)), jnp.asarray(draw(2, 4))
    whole = jxp.from_equinox(eqx.filter_vmap(linear), batched=True)
    explain = jxp.lrp(jxp.from_equinox(linear))
    close(jxp.lrp(whole)(x, target=1), explain(x, target=1))
    single = jxp.from_equinox(linear, batched=True)
    close(jxp.lrp(single)(x[0], target=1), explain(x, target=1)[0])


def test_a_keras_model_whose_call_knows_no_training() -> None:

    class Plain(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dropout, self.dense = keras.layers.Dropout(0.5), keras.layers.Dense(3)

        def call(self, x: Any) -> Any:
            return self.dense(self.dropout(x))

    model, x = Plain(), jnp.asarray(draw(2, 4))
    wanted = model(x, training=False)
    assert_array_equal(jxp.from_keras(model)(x), wanted)


def test_keras_models_take_several_inputs_as_one() -> None:
    inputs = [keras.Input((4,), name="a"), keras.Input((4,), name="b")]
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Add()(inputs)), name="sum")
    a, b = jnp.asarray(draw(2, 4)), jnp.asarray(draw(2, 4, seed=1))
    for explain in (jxp.from_keras(model), jxp.gradient(jxp.from_keras(model))):
        with pytest.raises(TypeError, match=r"from_keras\(sum\) takes its inputs as one argument"):
            explain(a, b)
    kernel = jnp.broadcast_to(model.layers[-1].kernel[:, 1], (2, 4))
    for found in jxp.gradient(jxp.from_keras(model))([a, b], target=1):
        close(found, kernel)


def test_keras_layers_and_models_that_take_several_arguments() -> None:
    class Weighted(keras.Model):
        def call(self, x: Any, y: Any, training: Any = None) -> Any:
            return 2 * x + 3 * y

    class Scaled(keras.layers.Layer):
        def call(self, *inputs: Any) -> Any:
            return inputs[0] + inputs[1]

    a, b = jnp.asarray(draw(2, 5, 4)), jnp.asarray(draw(2, 5, 4, seed=1))
    attention = keras.layers.MultiHeadAttention(2, 4)
    state = jnp.asarray(draw(2, 3))
    recurrent = keras.layers.GRU(3)
    for layer, *given in (
        (Weighted(), a, b),
        (Scaled(), a, b),
        (attention, a, b),
        (recurrent, a, state),
    ):
        wanted = layer(*given)
        assert_array_equal(jxp.from_keras(layer)(*given), wanted)
        assert np.abs(jxp.gradient(jxp.from_keras(layer))(*given, target=1)).max() > 0


def test_a_module_is_traced_once_for_each_of_its_structures() -> None:
    traces = []

    class Traced(nnx.Module):
        def __init__(self) -> None:
            self.head = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
            self.squared = False

        def __call__(self, x: Any) -> Any:
            traces.append(self.squared)
            return self.head(x**2 if self.squared else x)

    module, x = Traced(), jnp.asarray(draw(2, 4))
    explain = jxp.input_times_gradient(jxp.from_nnx(module))
    before = explain(x, target=1)
    module.head.kernel.set_value(-module.head.kernel[...])
    close(explain(x, target=1), -before)
    assert traces == [False]
    module.squared = True
    close(explain(x, target=1), -2 * x * before)
    assert traces == [False, True]


def test_an_explanation_in_a_training_step() -> None:
    """Inside `nnx.jit` and `eqx.filter_jit` the module holds tracers."""
    for framework, jit in [("nnx", nnx.jit), ("equinox", eqx.filter_jit)]:
        model = written("mlp", framework)
        x = inputs("mlp", model)

        def step(module: Any, x: Any, model: Written = model) -> Any:
            return jxp.gradient(model.adapt(module))(x, target=1)

        close(jit(step)(*model.own, x), step(*model.own, x))


def test_importing_jaxplain_imports_no_framework() -> None:
    code = (
        "import sys, jaxplain; "
        "print([m for m in ('flax', 'equinox', 'keras', 'tensorflow') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# --------------------------------------------------------------------------------------------------
# Wrong calls that need a model of their own; more are in tests/pages/wrong_calls.py.


@pytest.mark.parametrize(
    "adapter", [jxp.from_linen, jxp.from_nnx, jxp.from_equinox, jxp.from_keras]
)
def test_what_is_no_model(adapter: Callable[..., Any]) -> None:
    more = ({},) if adapter is jxp.from_linen else ()
    for given, spelled in [(plain_mlp, "plain_mlp"), (NnxMLP, "NnxMLP"), (3, "a int")]:
        with pytest.raises(TypeError, match=f"{adapter.__name__} needs .*, got {spelled}"):
            adapter(given, *more)


def test_a_keras_model_on_another_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    model = written("mlp", "keras")
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(RuntimeError, match="runs on tensorflow: set KERAS_BACKEND=jax"):
        jxp.from_keras(*model.own)


def test_a_framework_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for package, adapter in [
        ("flax", jxp.from_nnx),
        ("equinox", jxp.from_equinox),
        ("keras", jxp.from_keras),
    ]:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=rf"{adapter.__name__} needs .*jaxplain\[{package}\]"):
            adapter(None)


def test_models_without_values() -> None:
    abstract = nnx.eval_shape(lambda: nnx.Linear(4, 3, rngs=nnx.Rngs(0)))
    with pytest.raises(TypeError, match=r"from_nnx\(Linear\) holds no values.*bias"):
        jxp.from_nnx(abstract)
    shapes = eqx.filter_eval_shape(eqx.nn.Linear, 4, 3, key=jax.random.key(0))
    with pytest.raises(TypeError, match=r"from_equinox\(Linear\) holds no values.*weight"):
        jxp.from_equinox(shapes)


class Transformed(nnx.Module):
    """Transformations hand out copies of all variables; WeightNorm writes to its kernel."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(4, 5, rngs=rngs)
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.weight_norm = nnx.WeightNorm(nnx.Linear(5, 3, rngs=rngs), rngs=rngs)

    @nnx.jit
    def __call__(self, x: Any) -> Any:
        hidden = nnx.remat(lambda module, x: module(x))(self.first, x)
        return self.weight_norm(nnx.relu(self.norm(hidden)))


def test_nnx_transformations_inside_of_a_module() -> None:
    module, x = Transformed(nnx.Rngs(0)), jnp.asarray(draw(2, 4), jnp.float32)
    model = jxp.from_nnx(module)
    module.eval()
    assert_allclose(model(x), module(x), rtol=1e-6)
    found = jxp.gradient(model)(x, target=1)
    assert_allclose(found, jax.grad(lambda x: nnx.clone(module)(x)[:, 1].sum())(x), rtol=1e-5)
    assert "first" in [layer.name for layer in jxp.lrp(model).plan(x).layers]

    class Training(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.norm = nnx.BatchNorm(4, rngs=rngs)

        @partial(nnx.jit, static_argnames="train")
        def __call__(self, x: Any, train: bool = False) -> Any:
            return self.norm(x, use_running_average=not train)

    training = Training(nnx.Rngs(0))
    assert np.abs(jxp.gradient(jxp.from_nnx(training))(x, target=1)).max() > 0
    with pytest.raises(TypeError, match=r"changes its own arrays .*\(norm/mean, norm/var\)"):
        jxp.gradient(jxp.from_nnx(training, train=True))(x)


def test_nnx_modules_that_draw_a_key_they_do_not_use() -> None:
    """A recurrent layer does, for its first carry; dropout that is switched on uses its own."""

    class Recurrent(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.rnn = nnx.RNN(nnx.LSTMCell(4, 5, rngs=rngs), rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x: Any, train: bool = False) -> Any:
            return self.dropout(self.rnn(x)[:, -1], deterministic=not train)

    recurrent, x = Recurrent(nnx.Rngs(0)), jnp.asarray(draw(2, 3, 4), jnp.float32)
    explain = jxp.gradient(jxp.from_nnx(recurrent))
    assert np.abs(explain(x, target=1)).max() > 0
    assert all(layer.name.startswith("rnn/cell/") for layer in explain.plan(x).layers)
    with pytest.raises(TypeError, match=r"draws random numbers .*\(dropout/rngs/count\)"):
        jxp.gradient(jxp.from_nnx(recurrent, train=True))(x)


def test_keras_layers_that_draw_masks_they_do_not_use() -> None:
    layers = [keras.layers.LSTM(3, dropout=0.5), keras.layers.Dense(2)]
    model, x = keras.Sequential([keras.Input((3, 4)), *layers]), jnp.asarray(draw(2, 3, 4))
    assert np.abs(jxp.gradient(jxp.from_keras(model))(x, target=1)).max() > 0


def test_models_that_are_random() -> None:
    """By modules and flags of their own, which no adapter knows."""

    class Noise(nnx.Module):
        def __init__(self) -> None:
            self.rngs, self.dense = nnx.Rngs(0), nnx.Linear(4, 3, rngs=nnx.Rngs(1))

        def __call__(self, x: Any, noisy: bool = True) -> Any:
            x = self.dense(x)
            return x + jax.random.normal(self.rngs.noise(), x.shape) if noisy else x

    class Dropping(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense, self.dropout = keras.layers.Dense(3), keras.layers.Dropout(0.5)

        def call(self, x: Any, noisy: bool = True) -> Any:
            return self.dropout(self.dense(x), training=noisy)

    x, dropping = jnp.asarray(draw(2, 4), jnp.float32), Dropping()
    dropping(x)
    for adapter, model in ((jxp.from_nnx, Noise()), (jxp.from_keras, dropping)):
        with pytest.raises(TypeError, match=r"draws random numbers that its output depends on"):
            jxp.lrp(adapter(model))(x, target=1)
        assert np.abs(jxp.lrp(adapter(model, noisy=False))(x, target=1)).max() > 0


def test_models_that_change_when_they_are_called() -> None:
    class Training(nnx.Module):
        def __init__(self) -> None:
            self.norm = nnx.BatchNorm(4, rngs=nnx.Rngs(0))

        def __call__(self, x: Any, train: bool = True) -> Any:
            return self.norm(x, use_running_average=not train)

    x = jnp.asarray(draw(2, 4), jnp.float32)
    with pytest.raises(TypeError, match=r"changes its own arrays .*norm/mean.*train=False"):
        jxp.lrp(jxp.from_nnx(Training()))(x)
    assert jxp.from_nnx(Training(), train=False)(x).shape == (2, 4)

    class Counter(eqx.Module):
        count: eqx.nn.StateIndex

        def __init__(self) -> None:
            self.count = eqx.nn.StateIndex(jnp.zeros(()))

        def __call__(self, x: Any, state: Any) -> Any:
            return x, state.set(self.count, state.get(self.count) + 1)

    counter, state = eqx.nn.make_with_state(Counter)()
    with pytest.raises(TypeError, match="changes its own arrays"):
        jxp.gradient(jxp.from_equinox(counter, state))(x)

    class Running(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.count = self.add_weight(shape=(), trainable=False, name="count")

        def call(self, x: Any) -> Any:
            self.count.assign(self.count + 1)
            return x * self.count

    running = keras.Sequential([keras.Input((4,)), Running(name="running")])
    with pytest.raises(TypeError, match=r"changes its own arrays .*running/count"):
        jxp.gradient(jxp.from_keras(running))(x)


def test_one_example_for_an_equinox_module_is_told_about_batches() -> None:
    model = jxp.from_equinox(eqx.nn.Linear(5, 3, key=jax.random.key(0)))
    with pytest.raises(Exception) as caught:
        jxp.lrp(model)(jnp.ones(5), target=1)
    notes = "".join(caught.value.__notes__)
    assert "mapped over the leading axis of what it is given (here (5,)): give a batch" in notes
    attention = eqx.nn.MultiheadAttention(2, 4, key=jax.random.key(0))
    whole = eqx.filter_vmap(eqx.nn.Linear(4, 3, key=jax.random.key(0)))
    for module, given in (
        (attention, [jnp.ones((5, 4))] * 3),  # one example
        (whole, [jnp.ones((2, 4))]),  # takes batches itself
        (attention, [jnp.ones((2, 5, 4)), jnp.ones((1, 5, 4)), jnp.ones((1, 5, 4))]),
        (eqx.nn.Linear(4, 3, key=jax.random.key(0)), [jnp.ones(())]),
    ):
        with pytest.raises(ValueError) as caught:
            jxp.from_equinox(module)(*given)
        assert "give a batch" in "".join(caught.value.__notes__)


def test_nothing_is_said_about_batches_where_they_are_right() -> None:
    convolution = eqx.nn.Conv2d(3, 4, 3, key=jax.random.key(0), dtype=jnp.float32)
    with pytest.raises(TypeError, match="same dtypes") as caught:
        jxp.from_equinox(convolution)(jnp.ones((2, 3, 8, 8)))
    assert "batch" not in "".join(getattr(caught.value, "__notes__", ()))
    linear = eqx.nn.Linear(5, 3, key=jax.random.key(0))
    with pytest.raises(TypeError) as caught:
        jxp.from_equinox(linear)(jnp.ones((2, 4)))
    assert "batch" not in "".join(getattr(caught.value, "__notes__", ()))
    _, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(4, axis_name="batch", mode="batch")
    with pytest.raises(TypeError) as caught:
        jxp.from_equinox(linear, state)(jnp.ones((2, 5)))
    assert caught.value.__notes__[-1].startswith("from_equinox(Linear) takes no state")
    keyed = jxp.from_equinox(linear, method=lambda module, x, key: module(x))
    with pytest.raises(TypeError, match="'key'") as caught:
        keyed(jnp.ones((2, 5)))
    assert "from_equinox(module, key=None)" in "".join(caught.value.__notes__)
