"""Keras 3."""

from collections import Counter
from collections.abc import Iterable, Sequence
from inspect import Parameter, signature
from typing import Any

from jaxplain.extras import package
from jaxplain.frameworks import checks
from jaxplain.frameworks.model import Arrays, Call, Model, named

_SEED = "seed_generator_state"


def from_keras(model: Any, **kwargs: Any) -> Model:
    """Makes a Keras 3 model a function that can be explained, in inference mode.

    Its `stateless_call` is used, with `training=False`: the model itself stays as it is. Its
    variables are read whenever it is explained. Keras must run on JAX: set KERAS_BACKEND=jax in the
    environment before keras is imported.

    Args:
        model: a `keras.Model` or layer that is built.
        **kwargs: passed to every call: `mask=None`, say.

    Returns:
        A pytree that is callable on what the model is called on. Layers have Keras' own names:
        "conv2d", "block1/conv".

    Raises:
        TypeError: `model` is no Keras model or is not built, or `training=True` is asked for; when
            it is called, that it takes fewer inputs (those of a model are one list or dict), or
            that the call changes its variables or is random.
        RuntimeError: Keras runs on another backend.

    Example:
        >>> import os
        >>> os.environ["KERAS_BACKEND"] = "jax"
        >>> import jax.numpy as jnp, keras
        >>> import jaxplain as jxp
        >>> layers = [keras.Input((4,)), keras.layers.Dropout(0.5), keras.layers.Dense(3, name="d")]
        >>> explain = jxp.lrp(jxp.from_keras(keras.Sequential(layers)))
        >>> print(explain(jnp.ones((1, 4)), target=1).shape)
        (1, 4)
        >>> print([layer.name for layer in explain.plan(jnp.ones((1, 4))).layers])
        ['d']
    """
    keras = package(
        "keras",
        'from_keras needs Keras 3 on JAX: pip install "jaxplain[keras]" and set KERAS_BACKEND=jax',
    )
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(f"from_keras needs a keras.Model or layer, got {named(model)}")
    if keras.backend.backend() != "jax":
        raise RuntimeError(
            f"from_keras needs Keras on JAX, but it runs on {keras.backend.backend()}: set "
            "KERAS_BACKEND=jax in the environment before keras is imported"
        )
    name = f"from_keras({model.name})"
    if not model.built:
        raise TypeError(f"{name} has no weights yet: build the model, or call it on an input")
    if kwargs.get("training"):
        raise TypeError(
            f"{name} explains what the model predicts: leave training={kwargs['training']} out"
        )
    parameters = list(signature(model.call).parameters.values())
    if any(p.name == "training" or p.kind is p.VAR_KEYWORD for p in parameters):
        kwargs = {"training": False, **kwargs}

    def read() -> tuple[None, Arrays]:
        variables = [*model.trainable_variables, *model.non_trainable_variables]
        return None, dict(zip(_paths(variables), (v.value for v in variables), strict=True))

    def call(_: None, arrays: Arrays, *inputs: Any) -> Any:
        if len(inputs) > 1 and _takes_one(parameters):
            raise TypeError(
                f"{name} takes its inputs as one argument, got {len(inputs)}: where there are "
                "several, give them as one list or dict, explain([x1, x2])"
            )

        def run(arrays: Arrays) -> tuple[Any, Arrays]:
            values = list(arrays.values())
            count = len(model.trainable_variables)
            trained, others = values[:count], values[count:]
            output, after = model.stateless_call(trained, others, *inputs, **kwargs)
            return output, dict(zip(arrays, [*trained, *after], strict=True))

        output, after = run(arrays)
        seeds = {path: v for path, v in arrays.items() if _SEED in path}
        checks.unchanged(name, {p: v for p, v in arrays.items() if p not in seeds}, after)
        drawn = {path: v for path, v in seeds.items() if after[path] is not v}
        checks.not_random(name, drawn, lambda drawn: run({**arrays, **drawn})[0])
        return output

    return Model(name, Call(call, "keras", id(model), kwargs), read, model)


def _takes_one(parameters: Sequence[Parameter]) -> bool:
    """Whether a function takes one input, behind which only options such as `training` come."""
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    several = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return not several and named[1:2] in ([], ["training"])


def _paths(variables: Iterable[Any]) -> list[str]:
    """The paths of variables; where sub-models share one, it is numbered."""
    counts: Counter[str] = Counter()
    paths = []
    for path in (variable.path for variable in variables):
        counts[path] += 1
        paths.append(path if counts[path] == 1 else f"{path}@{counts[path]}")
    return paths
