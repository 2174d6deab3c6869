"""Runs a plan: re-evaluates the program with every layer under its rule.

Each layer becomes a `jax.custom_vjp` whose forward pass is the layer itself and whose backward pass
is its rule. Relevance is then `jax.vjp` of the whole; whether the cotangent is relevance or a
gradient is up to the rules.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import _compat, control_flow
from jaxplain.affine.dtypes import is_half, wide
from jaxplain.affine.moves import undone
from jaxplain.graph.ir import Program, Var, compute, read
from jaxplain.graph.layer import Block, Layer
from jaxplain.parameter_messages import ParameterBatch
from jaxplain.plan import Plan
from jaxplain.probes import Probes, attach, record, transform, widen
from jaxplain.rules import Gradient, LayerView, Move, Rule

_Env = dict[Var, Any]

#: The end of the list of calls of `jax.checkpoint` that a step stands in.
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


def values_of(
    variables: Sequence[Var],
    program: Program,
    constants: Sequence[Any],
    inputs: Sequence[Any],
    parameters: ParameterBatch = ParameterBatch(),
) -> list[Any]:
    """The values of some variables, computed by the operations that they need alone."""
    given = _given(program, constants, inputs)
    env = _Values(given, {}, parameters)
    return [given[v] if v in given else env.constant(v) for v in variables]


def evaluate(
    plan: Plan,
    constants: Sequence[Any],
    inputs: Sequence[Any],
    explained: Sequence[Any],
    outputs: Sequence[Var],
    *,
    at_least_float32: bool,
    probes: Probes = Probes(),
    states: Mapping[Layer, Any] | None = None,
    parameters: ParameterBatch = ParameterBatch(),
    differentiated: bool = False,
) -> tuple[list[Any], dict[Layer, Any]]:
    """Evaluates a planned program: its derivative is its relevance.

    Args:
        plan: the plan.
        constants: the values of `program.constants`.
        inputs: the values of `program.inputs`.
        explained: the values of `graph.explained`.
        outputs: the values that relevance starts from.
        at_least_float32: whether the backward pass is kept in float32 between half precision
            layers; the outputs are then in float32 too.
        probes: the probes to attach.
        states: for layers whose rule reads one, a pytree of arrays: `LayerView.state`.
        parameters: inputs that are no explained input and yet get relevance, such as weights.
        differentiated: whether the derivative is that of the function instead, whatever the rules.

    Returns:
        The values of `outputs`, and the outputs of the captured layers.
    """
    graph = plan.graph
    rules = {row.layer: Gradient() if differentiated else row.rule for row in plan}
    relevance = at_least_float32 and not differentiated
    run = _Run(rules, graph.flow.carries_relevance, relevance, states or {}, parameters)
    given = _given(graph.program, constants, inputs)
    given |= dict(zip(graph.explained, explained, strict=True))
    env, captured = run.block(graph.block, given, None, probes)
    ended = [widen(env[v]) if relevance else env[v] for v in outputs]
    return [v.astype(wide(v.dtype)) for v in ended] if at_least_float32 else ended, captured


@dataclass(frozen=True)
class _Run:
    """One evaluation of a plan: the arguments that all its blocks share.

    Attributes: see `evaluate`.
    """

    rules: Mapping[Layer, Rule]
    carries_relevance: Set[Var]
    at_least_float32: bool
    states: Mapping[Layer, Any]
    parameters: ParameterBatch

    def block(
        self, block: Block, given: Mapping[Var, Any], outside: "_Values | None", probes: Probes
    ) -> tuple["_Values", dict[Layer, Any]]:
        """Evaluates a block.

        Args:
            block: the whole function, or the body of a loop or branch.
            given: the values of its inputs, and of the explained variables.
            outside: the values of the block around a body.
            probes: the probes to attach.

        Returns:
            The values of its variables, and the outputs of the captured layers.
        """
        transforms = probes.transforms
        entering = ((v, x) for v, x in given.items() if v in self.carries_relevance)
        carried = {v: transform(x, transforms.get(v)) for v, x in entering}
        values = _Values(given, carried, self.parameters, outside)
        return values, self.steps(block.steps, values, probes)

    def steps(
        self, steps: Sequence[Layer], values: "_Values", probes: Probes, depth: int = 0
    ) -> dict[Layer, Any]:
        """Evaluates steps in a row, which all stand in the same calls of `jax.checkpoint`.

        Args:
            steps: the steps.
            values: the values before; the steps' outputs are added.
            probes: the probes to attach.
            depth: the number of these calls.

        Returns:
            The outputs of the captured layers.
        """
        captured: dict[Layer, Any] = {}
        for scope, group in groupby(steps, lambda step: (*step.remat, *_NOWHERE)[depth]):
            if scope is not None:
                captured |= self.rematerialized(scope, list(group), values, probes, depth + 1)
                continue
            for layer in group:
                captured |= self.step(layer, values, probes)
        return captured

    def rematerialized(
        self, scope: Any, steps: Sequence[Layer], values: "_Values", probes: Probes, depth: int
    ) -> dict[Layer, Any]:
        """`steps`, in one more call of `jax.checkpoint`."""
        layers: list[Layer] = []

        def function() -> tuple[list[Any], list[Any]]:
            inner = values.copy()
            captured = self.steps(steps, inner, probes, depth)
            layers[:] = captured
            return [inner[v] for step in steps for v in step.outputs], list(captured.values())

        outputs, captured = _compat.rematerialize(scope, function)
        variables = (v for step in steps for v in step.outputs)
        values.add(variables, outputs, self.carries_relevance)
        return dict(zip(layers, captured, strict=True))

    def step(self, layer: Layer, values: "_Values", probes: Probes) -> dict[Layer, Any]:
        """Evaluates a step: its outputs are added to the values, captured outputs are returned."""
        captured: dict[Layer, Any] = {}
        if layer.control is not None:
            body = partial(self.body, values)
            outputs, captured = control_flow.evaluate(
                layer, values, body, probes, self.carries_relevance, self.at_least_float32
            )
        else:
            outputs = list(self.layer(layer, values, probes))
        outputs = list(map(transform, outputs, map(probes.transforms.get, layer.outputs)))
        mask, zero = probes.masks.get(layer), probes.capture.get(layer)
        if mask is not None or zero is not None:
            outputs[0] = attach(outputs[0], mask, zero)
        values.add(layer.outputs, outputs, self.carries_relevance)
        if layer in probes.capture:
            captured[layer] = outputs[0]
        return captured

    def body(
        self, outside: "_Values", block: Block, inputs: Sequence[Any], probes: Probes
    ) -> tuple[list[Any], dict[Layer, Any]]:
        """Evaluates the body of a loop or branch."""
        given = dict(zip(block.program.inputs, inputs, strict=True))
        values, captured = self.block(block, given, outside, probes)
        return [values[v] for v in block.explained_outputs], captured

    def layer(self, layer: Layer, values: "_Values", probes: Probes) -> Sequence[Any]:
        """Evaluates a layer under its rule."""
        rule = self.rules.get(layer, Move())
        constants = {v: values.constant(v) for v in layer.constants if v.literal is None}
        xs = tuple(values.carried[v] for v in layer.inputs)
        # several outputs: see Rule.objection
        differentiated = isinstance(rule, Gradient | Move) or len(layer.outputs) > 1
        wide = self.at_least_float32 and any(map(is_half, (*layer.inputs, *layer.outputs)))
        shares = isinstance(rule, Gradient) and self.parameters.derived(constants)
        if differentiated and not (wide or shares) and layer not in probes.ledger:
            return apply(layer, constants, xs)
        ruled = _under_rule(layer, rule, tuple(constants), self.at_least_float32, self.parameters)
        columns = probes.ledger.get(layer, {})
        return ruled(tuple(constants.values()), xs, columns, self.states.get(layer))


def _given(program: Program, constants: Sequence[Any], inputs: Sequence[Any]) -> _Env:
    given = dict(zip((v for v, _ in program.constants), constants, strict=True))
    return given | dict(zip(program.inputs, inputs, strict=True))


class _Values:
    """The values of a block: carried ones are there, constants are evaluated on demand.

    Constants are values of the model, frozen values (comparisons, argmax), and values inside of
    layers that something outside reads as a number.

    Args:
        given: the values of the block's inputs.
        carried: the values that relevance flows through.
        parameters: constants derived from these send their relevance back.
        outside: the values of the block around.

    Attributes:
        carried: as given, and the outputs of steps.
    """

    def __init__(
        self,
        given: Mapping[Var, Any],
        carried: _Env,
        parameters: ParameterBatch,
        outside: "_Values | None" = None,
    ):
        self.carried = carried
        self._parameters = parameters
        self._outside = outside
        self._constants = {
            v: jax.lax.stop_gradient(value) if v in carried else value for v, value in given.items()
        }

    def copy(self) -> "_Values":
        """The same values; values that are added to the copy stay there."""
        copied = _Values({}, dict(self.carried), self._parameters, self._outside)
        copied._constants = dict(self._constants)
        return copied

    def add(self, variables: Iterable[Var], outputs: Iterable[Any], carries: Set[Var]) -> None:
        """Adds the outputs of steps; some outputs of a loop may be constants."""
        for var, value in zip(variables, outputs, strict=True):
            (self.carried if var in carries else self._constants)[var] = value

    def __getitem__(self, var: Var) -> Any:
        return self.carried[var] if var in self.carried else self.constant(var)

    def constant(self, var: Var) -> Any:
        """The value of a variable as a number, through which no relevance flows."""
        stack = [var]
        while stack:
            top = stack[-1]
            if top in self._constants or top.literal is not None:
                stack.pop()
            elif top in self.carried:
                self._constants[top] = jax.lax.stop_gradient(self.carried[top])
            elif (node := top.producer) is None:  # a constant of the whole program
                assert self._outside is not None
                self._constants[top] = self._outside.constant(top)
            elif top in self._parameters.owner:
                self._constants[top] = self._parameters.derive(top, self.carried, self.constant)
            else:
                inputs = (v for v in node.inputs if v.literal is None)
                if missing := [v for v in inputs if v not in self._constants]:
                    stack += missing
                else:
                    compute((node,), self._constants)
        return read(self._constants, var)


def apply(layer: Layer, constants: Mapping[Var, Any], xs: Sequence[Any]) -> list[Any]:
    """The outputs of one layer, from the values that it reads."""
    env = {**constants, **dict(zip(layer.inputs, xs, strict=True))}
    compute(layer.nodes, env)
    return [env[v] for v in layer.outputs]


def _under_rule(
    layer: Layer,
    rule: Rule,
    names: tuple[Var, ...],
    at_least_float32: bool,
    parameters: ParameterBatch,
) -> Callable[..., Any]:
    """A layer as a function whose backward pass is the rule.

    Args:
        layer: the layer.
        rule: its rule.
        names: the constants that it reads.
        at_least_float32: as for `evaluate`.
        parameters: as for `evaluate`.

    Returns:
        A function of `(constants, inputs, columns, state)`: `columns` are the zeros of the layer's
        row in the ledger, and `state` is `LayerView.state`.
    """

    def primal(values: tuple[Any, ...], xs: tuple[Any, ...], columns: Any, state: Any) -> list[Any]:
        return apply(layer, dict(zip(names, values, strict=True)), xs)

    def forward(values: tuple[Any, ...], xs: tuple[Any, ...], columns: Any, state: Any) -> Any:
        zs = primal(values, xs, columns, state)  # second derivatives use the rule
        return zs, (values, xs, zs, columns, state)

    def backward(residuals: Any, rs: list[Any]) -> Any:
        values, xs, zs, columns, state = residuals
        env = dict(zip(names, values, strict=True))
        messages: dict[Var, Any] = {}
        absorbed: dict[str, jax.Array] = {}
        if len(zs) > 1:
            pullback = jax.vjp(lambda *x: apply(layer, env, x), *xs)[1]
            received = pullback([r.astype(z.dtype) for r, z in zip(rs, zs, strict=True)])
        else:
            z, r = (undone(layer.moves, v) for v in (zs[0], rs[0]))
            inside = {v.aval.dtype for n in layer.nodes for v in n.outputs if v.floating}
            wider = partial(jnp.asarray, dtype=wide(*inside, *(v.dtype for v in (z, r, *xs))))
            function = lambda *x: undone(layer.moves, apply(layer, env, x)[0])  # noqa: E731
            view = LayerView(layer, function, env, xs, state, bool(columns))
            received = rule.relevance(view, tuple(map(wider, xs)), wider(z), wider(r))
            _check_received(layer, rule, received, xs)
            absorbed = view.recorded or {}
            messages = parameters.messages(
                layer, rule, lambda env: apply(layer, env, xs)[0], env, rs[0]
            )
        dtypes = (wide(x.dtype) if at_least_float32 else x.dtype for x in xs)
        received = tuple(a.astype(dtype) for a, dtype in zip(received, dtypes, strict=True))
        to_constants = tuple(messages.get(v) for v in names)
        return to_constants, received, columns and record(columns, rs, received, absorbed), None

    ruled = jax.custom_vjp(primal)
    ruled.defvjp(forward, backward)
    return ruled


def _check_received(layer: Layer, rule: Rule, received: Any, xs: tuple[jax.Array, ...]) -> None:
    """Raises TypeError where a user's rule returns anything but one real array per input."""
    expected = [x.shape for x in xs]
    in_tuple = isinstance(received, tuple | list)
    shapes = [jnp.shape(a) for a in received] if in_tuple else type(received).__name__
    if shapes != expected:
        raise TypeError(
            f"{rule!r} must return a tuple of arrays of shapes {expected} for layer {layer.index} "
            f"({layer.name}), got {shapes}"
        )
    dtypes = [jnp.result_type(a) for a in received]
    if not all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes):
        raise TypeError(
            f"{rule!r} must return real floating arrays for layer {layer.index} ({layer.name}), "
            f"got {', '.join(map(str, dtypes))}"
        )
