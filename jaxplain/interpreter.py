"""Runs a plan: re-evaluates the program with every layer under its rule.

Each layer becomes a `jax.custom_vjp` whose forward pass is the layer itself and whose backward pass
is its rule. Relevance is then `jax.vjp` of the whole; what the cotangent means (relevance or
gradient) is the rules' business.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import _compat, control_flow
from jaxplain.affine.dtypes import is_half, wide
from jaxplain.graph.blocks import Block
from jaxplain.graph.layers import Layer
from jaxplain.graph.program import Program, Var, compute, read
from jaxplain.plan import Plan
from jaxplain.rules import Gradient, Move, Rule, LayerView
from jaxplain.taps import Taps, booked, change, hang, widen
from jaxplain.weights import Weights

_Env = dict[Var, Any]

#: What stands in no further call of `jax.checkpoint`.
_NOWHERE = (None,)


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
    compute(program.nodes, env)
    return env


def wanted(
    program: Program,
    constants: Sequence[Any],
    inputs: Sequence[Any],
    variables: Sequence[Var],
    weights: Weights = Weights(),
) -> list[Any]:
    """Some values of a program, and no more than they need."""
    given = _given(program, constants, inputs)
    plain = _Plain(given, {}, weights)
    return [given[v] if v in given else plain[v] for v in variables]


def evaluate(
    plan: Plan,
    constants: Sequence[Any],
    inputs: Sequence[Any],
    explained: Sequence[Any],
    heads: Sequence[Var],
    *,
    relevance: bool,
    taps: Taps = Taps(),
    states: Mapping[Layer, Any] | None = None,
    weights: Weights = Weights(),
) -> tuple[list[Any], dict[Layer, Any]]:
    """Evaluates a planned program: its derivative is its relevance.

    Args:
        plan: the plan.
        constants: the values of `program.constants`.
        inputs: the values of `program.inputs`.
        explained: those of `graph.explained`.
        heads: the values that relevance starts from.
        relevance: whether the backward pass carries relevance: it is then kept in float32 between
            half precision layers, and so are the heads.
        taps: what is read on the way.
        states: for layers whose rule wants it, a pytree of arrays: `LayerView.state`.
        weights: the inputs, not explained, that get their relevance all the same.

    Returns:
        The heads, and the outputs of the captured layers.
    """
    graph = plan.graph
    run = _Run({row.layer: row.rule for row in plan}, relevance, states or {}, weights)
    given = _given(graph.program, constants, inputs)
    given |= dict(zip(graph.explained, explained, strict=True))
    value, captured = run.block(graph, given, None, taps)
    found = [value(v) for v in heads]
    return [widen(v) if relevance else v for v in found], captured


@dataclass(frozen=True)
class _Run:
    """What is the same for all blocks of a plan."""

    rules: Mapping[Layer, Rule]
    relevance: bool
    states: Mapping[Layer, Any]
    weights: Weights

    def block(
        self, block: Block, given: Mapping[Var, Any], outside: "_Plain | None", taps: Taps
    ) -> tuple[Callable[[Var], Any], dict[Layer, Any]]:
        """Evaluates a block.

        Args:
            block: the block.
            given: the values of its inputs, and of what is explained.
            outside: the values of what holds it.
            taps: what is read on the way.

        Returns:
            A function from its variables to values, and the outputs of the captured layers.
        """
        carrying = {v: value for v, value in given.items() if v.carries}
        live = {v: change(value, taps.reverse.get(v)) for v, value in carrying.items()}
        plain = _Plain(given, live, self.weights, outside)
        captured = self.steps(block.steps, live, plain, taps)
        return lambda v: live[v] if v in live else plain[v], captured

    def steps(
        self, steps: Sequence[Layer], live: _Env, plain: "_Plain", taps: Taps, depth: int = 0
    ) -> dict[Layer, Any]:
        """Evaluates steps in a row, which all stand in the same calls of `jax.checkpoint`.

        Args:
            steps: the steps.
            live: the values that relevance flows through; those of the steps are added.
            plain: the others.
            taps: what is read on the way.
            depth: in how many such calls they stand.

        Returns:
            The outputs of the captured layers.
        """
        captured: dict[Layer, Any] = {}
        for scope, group in groupby(steps, lambda step: (*step.remat, *_NOWHERE)[depth]):
            if scope is not None:
                captured |= self.rematerialized(scope, list(group), live, plain, taps, depth + 1)
                continue
            for layer in group:
                captured |= self.step(layer, live, plain, taps)
        return captured

    def rematerialized(
        self,
        scope: Any,
        steps: Sequence[Layer],
        live: _Env,
        plain: "_Plain",
        taps: Taps,
        depth: int,
    ) -> dict[Layer, Any]:
        """`steps`, in one more call of `jax.checkpoint`."""
        names: list[Layer] = []

        def function() -> tuple[list[Any], list[Any]]:
            inner = dict(live)
            captured = self.steps(steps, inner, plain.copy(inner), taps, depth)
            names[:] = captured
            return [inner[v] for step in steps for v in step.outputs], list(captured.values())

        outputs, captured = _compat.rematerialize(scope, function)
        live.update(zip((v for step in steps for v in step.outputs), outputs, strict=True))
        return dict(zip(names, captured, strict=True))

    def step(self, layer: Layer, live: _Env, plain: "_Plain", taps: Taps) -> dict[Layer, Any]:
        """Evaluates a step: adds its outputs to `live`, and returns what is captured."""
        captured: dict[Layer, Any] = {}
        if layer.control is not None:
            body = partial(self.body, plain)
            outputs, captured = control_flow.evaluate(
                layer, live, plain, body, taps, self.relevance
            )
        else:
            outputs = list(self.layer(layer, live, plain, taps))
        outputs = list(map(change, outputs, map(taps.reverse.get, layer.outputs)))
        if layer in taps.capture or layer in taps.masks:
            outputs[0] = hang(outputs[0], taps.masks.get(layer), taps.capture.get(layer))
        live.update(zip(layer.outputs, outputs, strict=True))
        if layer in taps.capture:
            captured[layer] = outputs[0]
        return captured

    def body(
        self, outside: "_Plain", block: Block, inputs: Sequence[Any], taps: Taps
    ) -> tuple[list[Any], dict[Layer, Any]]:
        """Evaluates the body of a loop or branch."""
        given = dict(zip(block.program.inputs, inputs, strict=True))
        value, captured = self.block(block, given, outside, taps)
        return [value(v) for v in block.explained_outputs], captured

    def layer(
        self, layer: Layer, live: Mapping[Var, Any], plain: "_Plain", taps: Taps
    ) -> Sequence[Any]:
        """Evaluates a layer under its rule."""
        rule = self.rules.get(layer, Move())
        constants = {v: plain[v] for v in layer.constants if v.literal is None}
        xs = tuple(live[v] for v in layer.inputs)
        # several outputs: see Rule.objection
        differentiated = isinstance(rule, Gradient | Move) or len(layer.outputs) > 1
        wide = self.relevance and any(map(is_half, (*layer.inputs, *layer.outputs)))
        shares = isinstance(rule, Gradient) and self.weights.made(constants)
        if differentiated and not (wide or shares) and layer not in taps.ledger:
            return apply(layer, constants, xs)
        ruled = _ruled(layer, rule, constants, self.relevance, self.weights)
        entries = taps.ledger.get(layer, {})
        return ruled(tuple(constants.values()), xs, entries, self.states.get(layer))


def _given(program: Program, constants: Sequence[Any], inputs: Sequence[Any]) -> _Env:
    given = dict(zip((v for v, _ in program.constants), constants, strict=True))
    return given | dict(zip(program.inputs, inputs, strict=True))


class _Plain:
    """Values that no relevance flows through, evaluated when somebody asks.

    Constants, frozen values, and values inside layers that somebody outside needs as a number.
    """

    def __init__(
        self,
        given: Mapping[Var, Any],
        live: Mapping[Var, Any],
        weights: Weights,
        outside: "_Plain | None" = None,
    ):
        self._live = live
        self._weights = weights
        self._outside = outside
        self._env: _Env = {}
        for var, value in given.items():
            self._env[var] = jax.lax.stop_gradient(value) if var.carries else value

    def copy(self, live: Mapping[Var, Any]) -> "_Plain":
        """The same values; what is evaluated from here on is its own."""
        copied = _Plain({}, live, self._weights, self._outside)
        copied._env = dict(self._env)
        return copied

    def __getitem__(self, var: Var) -> Any:
        stack = [var]
        while stack:
            top = stack[-1]
            if top in self._env or top.literal is not None:
                stack.pop()
            elif top in self._live:
                value = self._live[top]
                self._env[top] = jax.lax.stop_gradient(value) if top.carries else value
            elif (node := top.producer) is None:  # a constant, which the whole program owns
                assert self._outside is not None
                self._env[top] = self._outside[top]
            elif top in self._weights.owner:
                self._env[top] = self._made(top)
            else:
                missing = [v for v in node.inputs if v.literal is None and v not in self._env]
                if missing:
                    stack += missing
                else:
                    compute((node,), self._env)
        return read(self._env, var)

    def _made(self, var: Var) -> Any:
        """A value that is made of a weight, and sends its relevance back to it."""
        making = self._weights.making(var, self._live)
        made, others = (tuple(self[v] for v in names) for names in (making.made, making.others))
        return making(made, others)


def apply(layer: Layer, constants: Mapping[Var, Any], xs: Sequence[Any]) -> list[Any]:
    """The outputs of one layer, from the values that it reads."""
    env = {**constants, **dict(zip(layer.inputs, xs, strict=True))}
    compute(layer.nodes, env)
    return [env[v] for v in layer.outputs]


def _ruled(
    layer: Layer, rule: Rule, constants: Mapping[Var, Any], relevance: bool, weights: Weights
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
        shares: dict[Var, Any] = {}
        if len(zs) > 1:
            received, absorbed = _routed(lambda *x: apply(layer, env, x), xs, rs), {}
        else:
            (z,), (r,) = zs, rs
            wider = partial(jnp.asarray, dtype=wide(*(v.dtype for v in (z, r, *xs))))
            view = LayerView(
                layer, lambda *x: apply(layer, env, x)[0], env, xs, state, bool(entries)
            )
            received = rule.relevance(view, tuple(map(wider, xs)), wider(z), wider(r))
            _check(layer, rule, received, xs)
            absorbed = view.recorded or {}
            shares = weights.shares(layer, rule, lambda env: apply(layer, env, xs)[0], env, r)
        received = tuple(
            a.astype(wide(x.dtype) if relevance else x.dtype)
            for a, x in zip(received, xs, strict=True)
        )
        of_constants = tuple(shares.get(v) for v in names)
        return of_constants, received, entries and booked(entries, rs, received, absorbed), None

    ruled = jax.custom_vjp(primal)
    ruled.defvjp(forward, backward)
    return ruled


def _routed(function: Callable[..., Any], xs: Any, rs: Sequence[Any]) -> Any:
    """The derivative of an operation with several outputs."""
    zs, pullback = jax.vjp(function, *xs)
    return pullback([r.astype(z.dtype) for r, z in zip(rs, zs, strict=True)])


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
