"""Probes: identities whose backward pass reads or changes the relevance of a value.

A zero that is added to a value has the value's relevance as its cotangent, as a perturbation of
Flax (`Module.perturb`) has its gradient. A zero whose cotangent is not asked for costs nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import _compat
from jaxplain.affine.dtypes import wide
from jaxplain.graph.ir import Var
from jaxplain.graph.layer import Layer
from jaxplain.rules import TERMS

#: Functions of relevance, by the value whose relevance they change: `{x: jax.nn.relu}`.
RelevanceTransforms = Mapping[Var, Callable[[jax.Array], jax.Array]]

#: The ledger's columns: relevance received, relevance sent, its magnitude, and the absorbed terms.
COLUMNS = ("received", "sent", "flow", *TERMS)

#: A zero for each column of one layer; their cotangents are the layer's row of the ledger.
Columns = Mapping[str, jax.Array]


@dataclass(frozen=True)
class Probes:
    """The probes of one evaluation, by the layer or value that they are attached to.

    Attributes:
        capture: zeros in the shape of a layer's output (see `Layer.shape`), whose cotangent is the
            layer's relevance; None to read the output alone.
        masks: factors for the relevance of a layer's output.
        ledger: the zeros of a step's row in the ledger.
        transforms: functions of the relevance of explained inputs and outputs of steps. A mask on
            the same output multiplies the result.
    """

    capture: Mapping[Layer, jax.Array | None] = field(default_factory=dict)
    masks: Mapping[Layer, jax.Array] = field(default_factory=dict)
    ledger: Mapping[Layer, Columns] = field(default_factory=dict)
    transforms: RelevanceTransforms = field(default_factory=dict)

    def inside(self, step: Layer) -> "ProbesInside":
        """The probes in a loop, branch or shard_map."""
        captured = tuple(k for k, v in self.capture.items() if step in k.around and v is not None)
        masked = tuple(k for k in self.masks if step in k.around)
        return ProbesInside(self, captured, masked, step)


@dataclass(frozen=True)
class ProbesInside:
    """The probes of layers inside of a loop, branch or shard_map, which takes them as arrays.

    A loop takes one slice of each array per iteration, as `jax.lax.scan` does of its `xs`.

    Attributes:
        probes: all probes.
        captured: the layers inside whose relevance is captured.
        masked: the layers inside with masks.
        step: the loop, branch or shard_map.
    """

    probes: Probes
    captured: tuple[Layer, ...]
    masked: tuple[Layer, ...]
    step: Layer

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layer of each array."""
        return (*self.captured, *self.masked)

    @property
    def arrays(self) -> list[Any]:
        """The zeros and the masks, of all iterations and devices."""
        zeros = [self.probes.capture[k] for k in self.captured]
        masks = ((self.probes.masks[k], k.shape_inside(self.step)) for k in self.masked)
        return zeros + [jnp.broadcast_to(mask, shape) for mask, shape in masks]

    def attach(self, arrays: Sequence[Any]) -> Probes:
        """The probes of one iteration, from its slices of `arrays`."""
        count = len(self.captured)
        zeros = dict(zip(self.captured, arrays[:count], strict=True))
        masks = dict(zip(self.masked, arrays[count:], strict=True))
        capture, masks = {**self.probes.capture, **zeros}, {**self.probes.masks, **masks}
        return replace(self.probes, capture=capture, masks=masks)


@jax.custom_vjp
def attach(value: jax.Array, mask: jax.Array | None, zero: jax.Array | None) -> jax.Array:
    """The value. Its relevance is multiplied by the mask; the product is the zero's cotangent."""
    return value


def _attach_backward(residuals: Any, r: jax.Array) -> Any:
    mask, zero = residuals
    r = r if mask is None else r * jnp.broadcast_to(mask.astype(r.dtype), r.shape)
    return r, None, None if zero is None else r


attach.defvjp(lambda value, mask, zero: (value, (mask, zero)), _attach_backward)


def transform(value: jax.Array, function: Callable[[jax.Array], jax.Array] | None) -> jax.Array:
    """The value; its relevance r becomes `function(r)`."""
    return value if function is None else _probed(value, lambda value: value, function)


@jax.custom_vjp
def absorb(value: jax.Array, columns: Columns) -> jax.Array:
    """The value as a constant, such as an initial carry: the ledger records what arrives at it."""
    return value


absorb.defvjp(
    lambda value, columns: (value, columns),
    lambda columns, r: (None, record(columns, [r], [], {"constants": jnp.sum(r)})),
)


def record(
    zeros: Columns, rs: Sequence[Any], sent: Sequence[Any], absorbed: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """A layer's row of the ledger, in the dtype of its zeros.

    Args:
        zeros: the zeros of the row.
        rs: the relevance of the layer's outputs.
        sent: the relevance of its inputs.
        absorbed: the amounts that its rule recorded, by term.
    """
    dtype = zeros["flow"].dtype
    floating = [r.astype(dtype) for r in rs if r.dtype != jax.dtypes.float0]
    terms = {term: amount.astype(dtype) for term, amount in absorbed.items()}
    sums = {
        "received": sum(map(jnp.sum, floating)),
        "sent": sum(jnp.sum(v, dtype=dtype) for v in sent),
        **terms,
        "flow": terms.get("flow", 0) + sum(jnp.sum(jnp.abs(r)) for r in floating),
    }
    columns = ((k, jnp.asarray(sums.get(k, zero), dtype), zero) for k, zero in zeros.items())
    return {k: _compat.share(column, zero) for k, column, zero in columns}


def widen(value: jax.Array) -> jax.Array:
    """The value in at least float32, and its relevance too: backward, nothing is cast back."""
    return narrow(value, wide(value.dtype))


def narrow(value: jax.Array, dtype: Any) -> jax.Array:
    """The inverse of `widen`: the value in `dtype`, while its relevance stays in float32."""
    return _probed(value, lambda value: value.astype(dtype), lambda r: r)


def _probed(
    value: jax.Array, forward: Callable[[Any], jax.Array], backward: Callable[[Any], jax.Array]
) -> jax.Array:
    """`forward(value)`, whose relevance r becomes `backward(r)`."""
    probe = jax.custom_vjp(forward)
    probe.defvjp(lambda value: (forward(value), None), lambda _, r: (backward(r),))
    return probe(value)
