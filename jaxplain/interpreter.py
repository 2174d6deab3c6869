"""Runs a plan: re-evaluates the program with every layer under its rule.

Each layer becomes a `jax.custom_vjp` whose forward pass is the layer itself and whose backward pass
is its rule. Relevance is then `jax.vjp` of the whole; what the cotangent means (relevance or
gradient) is the rules' business.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain.graph.layers import Layer
from jaxplain.graph.program import Program, Var, read
from jaxplain.plan import Plan
from jaxplain.rules import Gradient, Rule, View

_Env = dict[Var, Any]


def forward(program: Program, constants: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """Evaluates a program as it was written: no rules, its own derivatives.

    Args:
        program: the program.
        constants: the values of `program.constants`.
        inputs: the values of `program.inputs`.

    Returns:
        The function's outputs.
    """
    env = _given(program, constants, inputs)
    for node in program.nodes:
        values = node.evaluate([read(env, v) for v in node.inputs])
        env.update(zip(node.outputs, values, strict=True))
    return [read(env, v) for v in program.outputs]


def evaluate(plan: Plan, constants: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """Evaluates a planned program: its derivative is its relevance.

    Args:
        plan: the plan.
        constants: the values of `program.constants`.
        inputs: the values of `program.inputs`.

    Returns:
        The heads that relevance starts from.
    """
    program, graph = plan.graph.program, plan.graph
    given = _given(program, constants, inputs)
    rules = {row.layer: row.rule for row in plan}

    live: _Env = {v: given[v] for v in program.inputs if v.carries}
    plain = _Plain(given, live)
    for layer in graph.steps:
        outputs = _apply(layer, rules.get(layer, Gradient()), live, plain)
        live.update(zip(layer.exits, outputs, strict=True))
    return [live[v] if v in live else plain[v] for v in graph.heads]


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


def _apply(layer: Layer, rule: Rule, live: Mapping[Var, Any], plain: _Plain) -> Sequence[Any]:
    constants = {v: plain[v] for v in layer.constants if v.literal is None}
    xs = tuple(live[v] for v in layer.sources)
    if isinstance(rule, Gradient) or len(layer.exits) > 1:  # several outputs: see Rule.objection
        return _forward(layer, constants, xs)
    return (_ruled(layer, rule, constants)(tuple(constants.values()), xs),)


def _forward(layer: Layer, constants: Mapping[Var, Any], xs: Sequence[Any]) -> list[Any]:
    env = {**constants, **dict(zip(layer.sources, xs, strict=True))}
    for node in layer.nodes:
        values = [read(env, v) for v in node.inputs]
        env.update(zip(node.outputs, node.evaluate(values), strict=True))
    return [env[v] for v in layer.exits]


def _ruled(layer: Layer, rule: Rule, constants: Mapping[Var, Any]) -> Callable[..., Any]:
    """The layer as a function of `(constants, inputs)` whose backward pass is the rule."""
    names = tuple(constants)

    def primal(values: tuple[Any, ...], xs: tuple[jax.Array, ...]) -> jax.Array:
        return _forward(layer, dict(zip(names, values, strict=True)), xs)[0]

    def forward(values: tuple[Any, ...], xs: tuple[jax.Array, ...]) -> Any:
        z = primal(values, xs)  # the layer itself: the rule would be used in second derivatives
        return z, (values, xs, z)

    def backward(residuals: Any, r: jax.Array) -> Any:
        values, xs, z = residuals
        env = dict(zip(names, values, strict=True))
        view = View(layer, lambda *x: _forward(layer, env, x)[0], env, xs)
        wide = jnp.promote_types(z.dtype, jnp.float32)
        received = rule.relevance(view, xs, z.astype(wide), r.astype(wide))
        _check(layer, rule, received, xs)
        return None, tuple(a.astype(x.dtype) for a, x in zip(received, xs, strict=True))

    ruled = jax.custom_vjp(primal)
    ruled.defvjp(forward, backward)
    return ruled


def _check(layer: Layer, rule: Rule, received: Any, xs: tuple[jax.Array, ...]) -> None:
    """A user's rule must return one array per input, in its shape."""
    wanted = [x.shape for x in xs]
    listed = isinstance(received, tuple | list)
    found = [jnp.shape(a) for a in received] if listed else type(received).__name__
    if found != wanted:
        raise TypeError(
            f"{rule!r} must return a tuple of arrays of shapes {wanted} for layer {layer.index} "
            f"({layer.name}), got {found}"
        )
