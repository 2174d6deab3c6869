"""The first place where a network stops being finite."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from jaxplain.composites import describe_layer
from jaxplain.graph.ir import Control, read
from jaxplain.graph.layer import Layer
from jaxplain.interpreter import values
from jaxplain.plan import Plan

#: Inputs inside of loops and branches are not visible here: assume that they may hold -inf masks.
_MASKED = [-jnp.inf]


def places(plan: Plan) -> list[str]:
    """Names of the arrays that `flags` checks: weights and inputs, then the layers in order."""
    program = plan.graph.program
    shapes = (v.shape for v, _ in program.constants)
    weights = [f"an array of shape {shape} that the function closes over" for shape in shapes]
    inputs = [f"the input {v.path or i}" for i, v in enumerate(program.inputs)]
    layers = [f"the output of {describe_layer(layer)}" for layer in plan.layers]
    return [*weights, *inputs, *layers]


def flags(
    plan: Plan, constants: Sequence[Any], inputs: Sequence[Any], outputs: Mapping[Layer, Any]
) -> jax.Array:
    """Whether each of the places is finite.

    Args:
        plan: the plan.
        constants: the values of the program's constants.
        inputs: the values of its inputs.
        outputs: the outputs of its layers.
    """
    explained = {id(v) for v in plan.graph.explained}
    given = [*constants, *inputs]
    variables = [*(v for v, _ in plan.graph.program.constants), *plan.graph.program.inputs]
    pairs = zip(variables, given, strict=True)
    sound = [is_finite(v) if id(var) in explained else _weight(v) for var, v in pairs]
    env = values(plan.graph.program, constants, inputs)
    for outermost, layers in groupby(plan.layers, lambda layer: layer.around[:1]):
        if outermost and outermost[0].control is not None and outermost[0].control.length:
            sound += _in_first_iteration(outermost[0].control, [outputs[k] for k in layers])
            continue
        for layer in layers:
            read_by = (*layer.inputs, *layer.constants)
            given = _MASKED if layer.around else [read(env, v) for v in read_by]
            sound.append(_is_sound(outputs[layer], given))
    return jnp.stack(sound)


def _in_first_iteration(loop: Control, outputs: Sequence[Any]) -> list[jax.Array]:
    """The flags of the first iteration with a layer that is not sound; all true where none is."""
    sound = jnp.stack([jax.vmap(lambda v: _is_sound(v, _MASKED))(v) for v in outputs])
    order = sound[:, ::-1] if loop.flow.reverse else sound
    return list(order[:, jnp.argmin(order.all(0))])


def check(places: Sequence[str], flags: jax.Array) -> None:
    """Raises for the first place that is not finite, now or (in a trace) through checkify.

    Raises:
        FloatingPointError: something is not finite.
    """
    if isinstance(flags, jax.core.Tracer):
        for place, flag in zip(places, flags, strict=True):
            checkify.check(flag, f"{place} is not finite")
        return
    bad = np.flatnonzero(~np.asarray(flags))
    if bad.size:
        raise FloatingPointError(
            f"{places[bad[0]]} is not finite: it holds NaN or inf. No attribution was computed"
        )


def check_attribution(tree: Any) -> None:
    """`check`, of the attribution that the backward pass returned.

    Raises:
        FloatingPointError: it holds NaN or infinity.
    """
    check(["the attribution"], jnp.stack([is_finite(tree)]))


def is_finite(tree: Any) -> jax.Array:
    """Whether all arrays of a tree are free of NaN and infinity."""
    leaves = map(jnp.asarray, jax.tree.leaves(tree))
    inexact = (v for v in leaves if jnp.issubdtype(v.dtype, jnp.inexact))
    return jnp.stack([jnp.array(True), *(jnp.isfinite(v).all() for v in inexact)]).all()


def _is_sound(output: Any, given: Sequence[Any]) -> jax.Array:
    """Whether an output is finite, or -inf where an input is; inputs have flags of their own."""
    return is_finite(output) | (~is_finite(given) & _weight(output))


def _weight(value: Any) -> jax.Array:
    """Whether a weight is finite, or -inf as masks are: a wrong mask shows in a layer."""
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return is_finite(value)
    return (value < jnp.inf).all()
