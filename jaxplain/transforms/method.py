"""Methods of explanation, and the options that a user sets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain.composites import Composite
from jaxplain.graph import Graph, Layer
from jaxplain.graph.ir import Var
from jaxplain.plan import LayerSpec, Plan
from jaxplain.probes import RelevanceTransforms

#: `run(explained)`: the values of all variables of a program at other explained arrays.
Run = Callable[[Sequence[Any]], Mapping[Var, Any]]


def selected_value(output: jax.Array) -> jax.Array:
    """The seed of relevance methods: the selected output itself."""
    return output


@dataclass(frozen=True)
class Method:
    """A method that runs backward through the layers: by default one of relevance, as LRP is.

    Attributes:
        composite: the rule of each layer.
        seed: the start of the backward pass, a function of the selected output: its value, or 1.
        custom_derivatives: whether functions under `jax.custom_jvp` or `jax.custom_vjp` keep their
            own derivative; relevance goes through the operations that they are made of.
        refuse_cut_off: whether a function whose output does not depend on the explained input is an
            error; its gradient is zero.
        at_least_float32: whether the backward pass is kept in float32 between half precision
            layers: relevance is as large as the output, and small parts of it count.
        ledger: whether the method conserves what its rules do not absorb, so that it has a ledger.
        normalizations: whether a normalisation is one layer; else the squares, sums, roots and
            quotients that it is made of.
        postprocess: a function of an explained array and its cotangent; None: the cotangent.
        layer_states: gives layers what their rule reads as `LayerView.state`, such as a pattern:
            a function of the plan, of `Explainer.state` and of a `Run`.
        transform_relevance: functions of relevance on its way, such as a projection, by the
            variable of a graph (an explained input or an output of its steps).
    """

    composite: Composite
    seed: Callable[[jax.Array], jax.Array] = selected_value
    custom_derivatives: bool = False
    refuse_cut_off: bool = True
    at_least_float32: bool = True
    ledger: bool = True
    normalizations: bool = True
    postprocess: Callable[[Any, Any], Any] | None = None
    layer_states: Callable[[Plan, Any, Run], Mapping[Layer, Any]] | None = None
    transform_relevance: Callable[[Graph], RelevanceTransforms] | None = None


def one(output: jax.Array) -> jax.Array:
    """The seed of gradients."""
    return jnp.ones_like(output)


#: A method that computes the gradient, but for some rules: guided backpropagation, PatternNet.
gradient_method = partial(
    Method,
    seed=one,
    custom_derivatives=True,
    refuse_cut_off=False,
    at_least_float32=False,
    ledger=False,
)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A method with the options that a user sets. `Explainer` describes each."""

    method: Method
    argnums: int | Sequence[int] = 0
    with_output: bool = False
    logits: bool | str = True
    unknown: str = "error"
    capture: LayerSpec | None = None
    start: LayerSpec | None = None
    stop: LayerSpec | None = None
    check_finite: bool = False
