"""Runs a plan: re-evaluates the program with every layer under its rule.

Each layer becomes a `jax.custom_vjp` whose forward pass is the layer itself and whose backward pass
is its rule. Relevance is then `jax.vjp` of the whole; what the cotangent means (relevance or
gradient) is the rules' business.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain.graph.layers import Layer
from jaxplain.graph.linear import wide
from jaxplain.graph.program import Program, Var, read
from jaxplain.plan import Plan
from jaxplain.rules import TERMS, Gradient, Move, Rule, View

_Env = dict[Var, Any]

#: For values of a program, a pure function of their relevance.
Reverse = Mapping[Var, Callable[[jax.Array], jax.Array]]

#: What is read of each layer: relevance received and handed on, by magnitude, and absorbed.
ENTRIES = ("received", "sent", "flow", *TERMS)


@dataclass(frozen=True)
class Taps:
    """What hangs in the evaluation to be read from, or to act on, the backward pass.

    Attributes:
        capture: zeros in the shape of a layer's output, whose cotangent is its relevance; None to
            read only the output.
        masks: what the relevance of a layer's output is multiplied by.
        ledger: for every step, a zero per entry; their cotangents are the layer's ledger.
        reverse: for values (explained inputs and outputs of steps), what their relevance is turned
            into before a mask, on its way down.
    """

    capture: Mapping[Layer, jax.Array | None] = field(default_factory=dict)
    masks: Mapping[Layer, jax.Array] = field(default_factory=dict)
    ledger: Mapping[Layer, Mapping[str, jax.Array]] = field(default_factory=dict)
    reverse: Reverse = field(default_factory=dict)


def forward(program: Program, constants: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """Evaluates a program as it was written: no rules, its own derivatives.

    Args:
        program: the program.
        constants: the values of `program.constants`.
        inputs: the values of `program.inputs`.

    Returns:
        The function's outputs.
    """
    env = values(program, constants, inputs)
    return [read(env, v) for v in program.outputs]


def values(program: Program, constants: Sequence[Any], inputs: Sequence[Any]) -> dict[Var, Any]:
    """All values of a program, as `forward` evaluates it."""
    env = _given(program, constants, inputs)
    for node in program.nodes:
        outputs = node.evaluate([read(env, v) for v in node.inputs])
        env.update(zip(node.outputs, outputs, strict=True))
    return env


def evaluate(
    plan: Plan,
    constants: Sequence[Any],
    inputs: Sequence[Any],
    heads: Sequence[Var],
    *,
    relevance: bool,
    taps: Taps = Taps(),
    states: Mapping[Layer, Any] | None = None,
) -> tuple[list[Any], dict[Layer, Any]]:
    """Evaluates a planned program: its derivative is its relevance.

    Args:
        plan: the plan.
        constants: the values of `program.constants`.
        inputs: the values of `program.inputs`.
        heads: the values that relevance starts from.
        relevance: whether the backward pass carries relevance: it is then kept in float32 between
            half precision layers, and so are the heads.
        taps: what is read on the way.
        states: for layers whose rule wants it, a pytree of arrays: `View.state`.

    Returns:
        The heads, and the outputs of the captured layers.
    """
    graph = plan.graph
    given = _given(graph.program, constants, inputs)
    rules = {row.layer: row.rule for row in plan}

    live: _Env = {v: given[v] for v in graph.program.inputs if v.carries}
    live = {v: _reversed(value, taps.reverse.get(v)) for v, value in live.items()}
    plain = _Plain(given, live)
    for layer in graph.steps:
        state = states.get(layer) if states else None
        outputs = _apply(layer, rules.get(layer, Move()), live, plain, relevance, taps, state)
        reverses = map(taps.reverse.get, layer.exits)
        outputs = list(map(_reversed, outputs, reverses))
        if layer in taps.capture or layer in taps.masks:
            tap = _tap(outputs[0], taps.masks.get(layer), taps.capture.get(layer))
            outputs = [tap, *outputs[1:]]
        live.update(zip(layer.exits, outputs, strict=True))
    found = [live[v] if v in live else plain[v] for v in heads]
    return [_widen(v) if relevance else v for v in found], {k: live[k.exit] for k in taps.capture}


def _given(program: Program, constants: Sequence[Any], inputs: Sequence[Any]) -> _Env:
    given = dict(zip((v for v, _ in program.constants), constants, strict=True))
    return given | dict(zip(program.inputs, inputs, strict=True))


class _Plain:
    """Values that no relevance flows through, evaluated when somebody asks.

    Constants, frozen values, and values inside layers that somebody outside needs as a number.
    """

    def __init__(self, given: Mapping[Var, Any], live: Mapping[Var, Any]):
        self._live = live
        self._env: _Env = {}
        for var, value in given.items():
            self._env[var] = jax.lax.stop_gradient(value) if var.carries else value

    def __getitem__(self, var: Var) -> Any:
        stack = [var]
        while stack:
            top = stack[-1]
            if top in self._env or top.literal is not None:
                stack.pop()
            elif top in self._live:
                self._env[top] = jax.lax.stop_gradient(self._live[top])
            else:
                node = top.producer
                assert node is not None
                missing = [v for v in node.inputs if v.literal is None and v not in self._env]
                if missing:
                    stack += missing
                else:
                    values = node.evaluate([read(self._env, v) for v in node.inputs])
                    self._env.update(zip(node.outputs, values, strict=True))
        return read(self._env, var)


def _apply(
    layer: Layer,
    rule: Rule,
    live: Mapping[Var, Any],
    plain: _Plain,
    relevance: bool,
    taps: Taps,
    state: Any,
) -> Sequence[Any]:
    constants = {v: plain[v] for v in layer.constants if v.literal is None}
    xs = tuple(live[v] for v in layer.sources)
    # several outputs: see Rule.objection
    differentiated = isinstance(rule, Gradient | Move) or len(layer.exits) > 1
    wide = relevance and any(_is_half(v) for v in (*layer.sources, *layer.exits))
    if differentiated and not wide and layer not in taps.ledger:
        return apply(layer, constants, xs)
    entries = taps.ledger.get(layer, {})
    ruled = _ruled(layer, rule, constants, relevance)
    return ruled(tuple(constants.values()), xs, entries, state)


def _is_half(var: Var) -> bool:
    return var.floating and jnp.finfo(var.aval.dtype).bits < 32


def apply(layer: Layer, constants: Mapping[Var, Any], xs: Sequence[Any]) -> list[Any]:
    """The outputs of one layer, from the values that it reads."""
    env = {**constants, **dict(zip(layer.sources, xs, strict=True))}
    for node in layer.nodes:
        values = [read(env, v) for v in node.inputs]
        env.update(zip(node.outputs, node.evaluate(values), strict=True))
    return [env[v] for v in layer.exits]


def _ruled(
    layer: Layer, rule: Rule, constants: Mapping[Var, Any], relevance: bool
) -> Callable[..., Any]:
    """A function of `(constants, inputs, entries, state)` whose backward pass is the rule."""
    names = tuple(constants)

    def primal(values: tuple[Any, ...], xs: tuple[Any, ...], entries: Any, state: Any) -> list[Any]:
        return apply(layer, dict(zip(names, values, strict=True)), xs)

    def forward(values: tuple[Any, ...], xs: tuple[Any, ...], entries: Any, state: Any) -> Any:
        zs = primal(values, xs, entries, state)  # second derivatives use the rule
        return zs, (values, xs, zs, entries, state)

    def backward(residuals: Any, rs: list[Any]) -> Any:
        values, xs, zs, entries, state = residuals
        env = dict(zip(names, values, strict=True))
        if len(zs) > 1:
            received, booked = _routed(lambda *x: apply(layer, env, x), xs, rs), {}
        else:
            view = View(layer, lambda *x: apply(layer, env, x)[0], env, xs, state, bool(entries))
            (z,), (r,) = zs, rs
            wider = partial(jnp.asarray, dtype=wide(*(v.dtype for v in (z, r, *xs))))
            received = rule.relevance(view, tuple(map(wider, xs)), wider(z), wider(r))
            _check(layer, rule, received, xs)
            booked = view.booked or {}
        received = tuple(
            a.astype(wide(x.dtype) if relevance else x.dtype)
            for a, x in zip(received, xs, strict=True)
        )
        return None, received, entries and _entries(entries, rs, received, booked), None

    ruled = jax.custom_vjp(primal)
    ruled.defvjp(forward, backward)
    return ruled


def _routed(function: Callable[..., Any], xs: Any, rs: Sequence[Any]) -> Any:
    """The derivative of an operation with several outputs, some of which may be indices."""
    zs, pullback = jax.vjp(function, *xs)
    return pullback(
        [
            r if r.dtype == jax.dtypes.float0 else r.astype(z.dtype)
            for r, z in zip(rs, zs, strict=True)
        ]
    )


def _entries(
    zeros: Mapping[str, jax.Array], rs: Sequence[Any], received: Sequence[Any], booked: Any
) -> dict[str, jax.Array]:
    dtype = zeros["flow"].dtype
    floating = [r.astype(dtype) for r in rs if r.dtype != jax.dtypes.float0]
    terms = {term: amount.astype(dtype) for term, amount in booked.items()}
    sums = {
        "received": sum(map(jnp.sum, floating)),
        "sent": sum(jnp.sum(v, dtype=dtype) for v in received),
        **terms,
        "flow": terms.get("flow", 0) + sum(jnp.sum(jnp.abs(r)) for r in floating),
    }
    return {k: jnp.asarray(sums.get(k, zero), dtype) for k, zero in zeros.items()}


def _check(layer: Layer, rule: Rule, received: Any, xs: tuple[jax.Array, ...]) -> None:
    """A user's rule must return one array of real numbers per input, in its shape."""
    wanted = [x.shape for x in xs]
    listed = isinstance(received, tuple | list)
    found = [jnp.shape(a) for a in received] if listed else type(received).__name__
    if found != wanted:
        raise TypeError(
            f"{rule!r} must return a tuple of arrays of shapes {wanted} for layer {layer.index} "
            f"({layer.name}), got {found}"
        )
    dtypes = [jnp.result_type(a) for a in received]
    if not all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes):
        raise TypeError(
            f"{rule!r} must return real floating arrays for layer {layer.index} ({layer.name}), "
            f"got {', '.join(map(str, dtypes))}"
        )


@jax.custom_vjp
def _tap(value: jax.Array, mask: jax.Array | None, slot: jax.Array | None) -> jax.Array:
    """The value; its relevance is multiplied by the mask and copied into the slot."""
    return value


def _tap_backward(residuals: Any, r: jax.Array) -> Any:
    mask, slot = residuals
    r = r if mask is None else r * jnp.broadcast_to(mask.astype(r.dtype), r.shape)
    return r, None, None if slot is None else r


_tap.defvjp(lambda value, mask, slot: (value, (mask, slot)), _tap_backward)


def _reversed(value: jax.Array, change: Callable[[jax.Array], jax.Array] | None) -> jax.Array:
    """The value, whose relevance is changed."""
    if change is None:
        return value
    tap = jax.custom_vjp(lambda value: value)
    tap.defvjp(lambda value: (value, None), lambda _, r: (change(r),))
    return tap(value)


def _wide(value: jax.Array) -> jax.Array:
    return value.astype(wide(value.dtype))


#: The value in at least float32, whose cotangent stays so.
_widen = jax.custom_vjp(_wide)
_widen.defvjp(lambda value: (_wide(value), None), lambda _, r: (r,))
