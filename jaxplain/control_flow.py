"""Relevance through loops, branches and shard_maps.

Each is rebuilt as a `scan`, `switch` or `shard_map` whose bodies are evaluated under their layers'
rules, so that its derivative is relevance.
"""

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxplain import _compat
from jaxplain.affine.dtypes import is_half
from jaxplain.graph.ir import Control, Link, Var
from jaxplain.graph.layer import Block, Layer
from jaxplain.probes import Columns, Probes, ProbesInside, absorb, narrow, widen

#: Evaluates a body at the values of its inputs: its outputs, and the outputs of captured layers.
Run = Callable[[Block, Sequence[Any], Probes], tuple[list[Any], dict[Layer, Any]]]


def evaluate(
    layer: Layer,
    values: Any,
    run: Run,
    probes: Probes,
    carries_relevance: Set[Var],
    at_least_float32: bool,
) -> tuple[list[Any], dict[Layer, Any]]:
    """Evaluates a loop, branch or shard_map whose layers have rules.

    Args:
        layer: the loop, branch or shard_map.
        values: the values around it: `values.carried[v]` and `values.constant(v)`.
        run: evaluates a body.
        probes: the probes of the whole evaluation.
        carries_relevance: the variables that relevance flows through.
        at_least_float32: whether relevance enters and leaves the bodies in at least float32.

    Returns:
        The outputs, and the outputs of captured layers inside, which a loop stacks.
    """
    control = _control(layer)
    columns = probes.ledger.get(layer)
    entering = [_Crossing(links, carries_relevance, at_least_float32) for links in control.operands]
    leaving = [_Crossing(links, carries_relevance, at_least_float32) for links in control.outputs]
    start = control.flow.fixed
    for operand, output in zip(entering[start:], leaving[: control.flow.carried], strict=False):
        operand.wide = output.wide = operand.wide or output.wide

    def inside(block: Block, operands: Sequence[Any], inner: Probes) -> tuple[list[Any], Any]:
        operands = [c.narrowed(v) for c, v in zip(entering, operands, strict=True)]
        outputs, captured = run(block, operands, inner)
        left = []
        for value, crossing, var in zip(outputs, leaving, block.explained_outputs, strict=True):
            absorbs = crossing.carries and var not in carries_relevance
            left.append(crossing.widened(_absorbed(value, absorbs, columns)))
        return left, captured

    operands = []
    for crossing in entering:
        outer, carries = crossing.outer, crossing.carries
        flows = carries and outer in carries_relevance
        value = values.carried[outer] if flows else values.constant(outer)
        operands.append(crossing.widened(_absorbed(value, carries and not flows, columns)))
    build = _BUILD[control.kind]
    outputs, captured = build(layer, operands, values, inside, probes.inside(layer))
    return [c.narrowed(v) for c, v in zip(leaving, outputs, strict=True)], captured


class _Crossing:
    """A value that enters or leaves bodies.

    Attributes:
        outer: the value outside.
        carries: whether relevance flows through it inside of a body.
        wide: whether it crosses in at least float32, so that its relevance does.
    """

    def __init__(self, links: Sequence[Link], carries_relevance: Set[Var], at_least_float32: bool):
        self.outer = links[0].outer
        self.carries = any(link.inner in carries_relevance for link in links)
        self.wide = at_least_float32 and self.carries and is_half(self.outer)

    def widened(self, value: Any) -> Any:
        return widen(value) if self.wide else value

    def narrowed(self, value: Any) -> Any:
        return narrow(value, self.outer.aval.dtype) if self.wide else value


def _absorbed(value: Any, absorbs: bool, columns: Columns | None) -> Any:
    """The value; where it `absorbs`, its relevance ends here and is recorded in the ledger."""
    return absorb(value, columns) if absorbs and columns else value


def _loop(
    layer: Layer, operands: list[Any], values: Any, inside: Run, probes: ProbesInside
) -> tuple[list[Any], dict[Layer, Any]]:
    (block,), flow = layer.blocks, _control(layer).flow
    layers: list[Layer] = []

    def body(carry: list[Any], scanned: tuple[list[Any], list[Any]]) -> Any:
        slices, arrays = scanned
        taken = [*operands[: flow.fixed], *carry, *slices]
        outputs, captured = inside(block, taken, probes.attach(arrays))
        layers[:] = captured
        return outputs[: flow.carried], (outputs[flow.carried :], list(captured.values()))

    start, scanned = operands[flow.fixed :][: flow.carried], operands[flow.fixed + flow.carried :]
    end, (outputs, captured) = _compat.scan(layer.main.eqn, body, start, (scanned, probes.arrays))
    return [*end, *outputs], dict(zip(layers, captured, strict=True))


def _branch(
    layer: Layer, operands: list[Any], values: Any, inside: Run, probes: ProbesInside
) -> tuple[list[Any], dict[Layer, Any]]:
    names = _captured(layer, probes)

    def case(block: Block) -> Callable[..., Any]:
        def run(operands: list[Any], arrays: list[Any]) -> Any:
            outputs, captured = inside(block, operands, probes.attach(arrays))
            zeros = (jnp.zeros(k.shape_inside(layer), k.output.aval.dtype) for k in names)
            return outputs, [captured.get(k, zero) for k, zero in zip(names, zeros, strict=True)]

        return run

    (index,) = _control(layer).selectors
    cases = list(map(case, layer.blocks))
    outputs, captured = jax.lax.switch(values.constant(index), cases, operands, probes.arrays)
    return outputs, dict(zip(names, captured, strict=True))


def _shards(
    layer: Layer, operands: list[Any], values: Any, inside: Run, probes: ProbesInside
) -> tuple[list[Any], dict[Layer, Any]]:
    """Evaluates a shard_map; captured and attached arrays have an axis of devices in front."""
    (block,), eqn, names = layer.blocks, layer.main.eqn, _captured(layer, probes)
    ledger = {k: v for k, v in probes.probes.ledger.items() if layer in k.around}

    def body(operands: list[Any], given: tuple[list[Any], list[Any]]) -> Any:
        arrays, zeros = given
        own = [v[0] if _axes(k) else v for k, v in zip(probes.layers, arrays, strict=True)]
        zeros = jax.tree.map(lambda v: _compat.every_shard(eqn, v), zeros)
        inner = probes.attach(own)
        inner = replace(inner, ledger={**inner.ledger, **dict(zip(ledger, zeros, strict=True))})
        outputs, captured = inside(block, operands, inner)
        return outputs, [captured[k][None] if _axes(k) else captured[k] for k in names]

    def _axes(k: Layer) -> tuple[str, ...]:
        return _compat.shard_axes(eqn, k.output.aval)

    def specs(layers: Iterable[Layer]) -> list[Any]:
        return [PartitionSpec(_axes(k)) if _axes(k) else PartitionSpec() for k in layers]

    given = (probes.arrays, list(ledger.values())), (specs(probes.layers), PartitionSpec())
    outputs, captured = _compat.shard(eqn, body, operands, given, specs(names))
    return outputs, dict(zip(names, captured, strict=True))


_BUILD = {"Loop": _loop, "Branch": _branch, "Shards": _shards}


def _control(layer: Layer) -> Control:
    assert layer.control is not None
    return layer.control


def _captured(layer: Layer, probes: ProbesInside) -> list[Layer]:
    return [k for k in probes.probes.capture if layer in k.around]
