"""Taps: identities that read, or act on, the relevance that passes them backward."""

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

#: For values of a program, a pure function of their relevance.
Reverse = Mapping[Var, Callable[[jax.Array], jax.Array]]

#: What is read of each layer: relevance received and handed on, by magnitude, and absorbed.
ENTRIES = ("received", "sent", "flow", *TERMS)

#: A zero per entry, whose cotangents are the ledger of one layer.
Entries = Mapping[str, jax.Array]


@dataclass(frozen=True)
class Taps:
    """What hangs in the evaluation to be read from, or to act on, the backward pass.

    Attributes:
        capture: zeros in the shape of a layer's output (see `Layer.shape`), whose cotangent is its
            relevance; None to read only the output.
        masks: what the relevance of a layer's output is multiplied by.
        ledger: for every step, a zero per entry; their cotangents are the layer's ledger.
        reverse: for values (explained inputs and outputs of steps), what their relevance is turned
            into before a mask, on its way down.
    """

    capture: Mapping[Layer, jax.Array | None] = field(default_factory=dict)
    masks: Mapping[Layer, jax.Array] = field(default_factory=dict)
    ledger: Mapping[Layer, Entries] = field(default_factory=dict)
    reverse: Reverse = field(default_factory=dict)

    def inside(self, step: Layer) -> "Inside":
        """What hangs in a loop or branch."""
        return Inside(
            self,
            tuple(k for k, v in self.capture.items() if step in k.around and v is not None),
            tuple(k for k in self.masks if step in k.around),
            step,
        )


@dataclass(frozen=True)
class Inside:
    """The arrays that hang in a loop or branch.

    Attributes:
        taps: all taps.
        captured: the layers inside with slots.
        masked: the layers inside with masks.
        step: the loop or branch.
    """

    taps: Taps
    captured: tuple[Layer, ...]
    masked: tuple[Layer, ...]
    step: Layer

    @property
    def layers(self) -> tuple[Layer, ...]:
        """What the arrays belong to."""
        return (*self.captured, *self.masked)

    @property
    def arrays(self) -> list[Any]:
        """The slots and the masks, of all iterations and devices."""
        masks = ((self.taps.masks[k], k.shape_inside(self.step)) for k in self.masked)
        return [
            *(self.taps.capture[k] for k in self.captured),
            *(jnp.broadcast_to(mask, shape) for mask, shape in masks),
        ]

    def hang(self, arrays: Sequence[Any]) -> Taps:
        """The taps, with others in the place of these arrays."""
        count = len(self.captured)
        slots = dict(zip(self.captured, arrays[:count], strict=True))
        masks = dict(zip(self.masked, arrays[count:], strict=True))
        return replace(
            self.taps,
            capture={**self.taps.capture, **slots},
            masks={**self.taps.masks, **masks},
        )


@jax.custom_vjp
def hang(value: jax.Array, mask: jax.Array | None, slot: jax.Array | None) -> jax.Array:
    """The value; its relevance is multiplied by the mask and copied into the slot."""
    return value


def _hang_backward(residuals: Any, r: jax.Array) -> Any:
    mask, slot = residuals
    r = r if mask is None else r * jnp.broadcast_to(mask.astype(r.dtype), r.shape)
    return r, None, None if slot is None else r


hang.defvjp(lambda value, mask, slot: (value, (mask, slot)), _hang_backward)


def change(value: jax.Array, change: Callable[[jax.Array], jax.Array] | None) -> jax.Array:
    """The value, whose relevance is changed."""
    if change is None:
        return value
    tap = jax.custom_vjp(lambda value: value)
    tap.defvjp(lambda value: (value, None), lambda _, r: (change(r),))
    return tap(value)


@jax.custom_vjp
def keep(value: jax.Array, entries: Entries) -> jax.Array:
    """A constant: what relevance arrives there, it keeps."""
    return value


keep.defvjp(
    lambda value, entries: (value, entries),
    lambda entries, r: (None, booked(entries, [r], [], {"constants": jnp.sum(r)})),
)


def booked(
    zeros: Entries, rs: Sequence[Any], sent: Sequence[Any], absorbed: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """The ledger of one layer, like its zeros: relevance `rs` arrived, and `sent` was handed on."""
    dtype = zeros["flow"].dtype
    floating = [r.astype(dtype) for r in rs if r.dtype != jax.dtypes.float0]
    terms = {term: amount.astype(dtype) for term, amount in absorbed.items()}
    sums = {
        "received": sum(map(jnp.sum, floating)),
        "sent": sum(jnp.sum(v, dtype=dtype) for v in sent),
        **terms,
        "flow": terms.get("flow", 0) + sum(jnp.sum(jnp.abs(r)) for r in floating),
    }
    return {
        k: _compat.share(jnp.asarray(sums.get(k, zero), dtype), zero) for k, zero in zeros.items()
    }


def _wide(value: jax.Array) -> jax.Array:
    return value.astype(wide(value.dtype))


#: The value in at least float32, whose relevance stays so.
widen = jax.custom_vjp(_wide)
widen.defvjp(lambda value: (_wide(value), None), lambda _, r: (r,))


def narrow(value: jax.Array, dtype: Any) -> jax.Array:
    """What `widen` made of a value in `dtype`, as it was; its relevance stays wide."""
    tap = jax.custom_vjp(lambda value: value.astype(dtype))
    tap.defvjp(lambda value: (value.astype(dtype), None), lambda _, r: (r,))
    return tap(value)
