"""Relevance through loops, branches and shards: rebuilt around their interpreted bodies."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxplain import _compat, taps
from jaxplain.affine.dtypes import is_half
from jaxplain.graph.analyses.flow import Flow
from jaxplain.graph.ir import Control, Link, Var
from jaxplain.graph.layer import Block, Layer
from jaxplain.taps import Inside, Taps

#: Evaluates a body at the values of its inputs: its outputs, and those of captured layers.
Run = Callable[[Block, Sequence[Any], Taps], tuple[list[Any], dict[Layer, Any]]]


def evaluate(
    layer: Layer,
    live: Mapping[Var, Any],
    plain: Any,
    run: Run,
    hung: Taps,
    flow: Flow,
    relevance: bool,
) -> tuple[list[Any], dict[Layer, Any]]:
    """Evaluates a loop or branch whose layers have rules.

    Args:
        layer: the loop or branch.
        live: the values that relevance flows through.
        plain: the others, and these as constants.
        run: evaluates a body.
        hung: what is read on the way.
        flow: where relevance flows.
        relevance: whether the backward pass carries relevance; it is then kept in float32 where it
            enters and leaves a body.

    Returns:
        Its outputs, and those of the captured layers inside, behind an axis for the iterations.
    """
    control, carries = _control(layer), flow.carries_relevance
    entries = hung.ledger.get(layer)
    entering = [_Crossing(links, carries, relevance) for links in control.operands]
    leaving = [_Crossing(links, carries, relevance) for links in control.outputs]
    start = control.flow.fixed
    for operand, output in zip(entering[start:], leaving[: control.flow.carried], strict=False):
        operand.wide = output.wide = operand.wide or output.wide

    def inside(block: Block, values: Sequence[Any], inner: Taps) -> tuple[list[Any], Any]:
        operands = [c.narrowed(v) for c, v in zip(entering, values, strict=True)]
        outputs, captured = run(block, operands, inner)
        kept = [
            _kept(v, crossing.carries and head not in carries, entries)
            for v, crossing, head in zip(outputs, leaving, block.explained_outputs, strict=True)
        ]
        return [c.widened(v) for c, v in zip(leaving, kept, strict=True)], captured

    values = []
    for crossing in entering:
        flows = crossing.carries and crossing.outer in carries
        value = (live if flows else plain)[crossing.outer]
        values.append(crossing.widened(_kept(value, crossing.carries and not flows, entries)))
    build = _BUILD[control.kind]
    outputs, captured = build(layer, values, plain, inside, hung.inside(layer))
    return [c.narrowed(v) for c, v in zip(leaving, outputs, strict=True)], captured


class _Crossing:
    """A value that enters or leaves bodies.

    Attributes:
        outer: the value outside.
        carries: whether relevance flows through it inside of a body.
        wide: whether it is passed in at least float32, so that its relevance is.
    """

    def __init__(self, links: Sequence[Link], carries: Set[Var], relevance: bool):
        self.outer = links[0].outer
        self.carries = any(link.inner in carries for link in links)
        self.wide = relevance and self.carries and is_half(self.outer)

    def widened(self, value: Any) -> Any:
        return taps.widen(value) if self.wide else value

    def narrowed(self, value: Any) -> Any:
        return taps.narrow(value, self.outer.aval.dtype) if self.wide else value


def _kept(value: Any, keeps: bool, entries: Any) -> Any:
    return taps.keep(value, entries) if keeps and entries else value


def _loop(
    layer: Layer, operands: list[Any], plain: Any, inside: Run, hung: Inside
) -> tuple[list[Any], dict[Layer, Any]]:
    (block,), flow = layer.blocks, _control(layer).flow
    names: list[Layer] = []

    def body(carry: list[Any], scanned: tuple[list[Any], list[Any]]) -> Any:
        slices, arrays = scanned
        taken = [*operands[: flow.fixed], *carry, *slices]
        outputs, captured = inside(block, taken, hung.hang(arrays))
        names[:] = captured
        return outputs[: flow.carried], (outputs[flow.carried :], list(captured.values()))

    start, scanned = operands[flow.fixed :][: flow.carried], operands[flow.fixed + flow.carried :]
    end, (outputs, captured) = _compat.scan(layer.main.eqn, body, start, (scanned, hung.arrays))
    return [*end, *outputs], dict(zip(names, captured, strict=True))


def _branch(
    layer: Layer, operands: list[Any], plain: Any, inside: Run, hung: Inside
) -> tuple[list[Any], dict[Layer, Any]]:
    names = _captured(layer, hung)

    def case(block: Block) -> Callable[..., Any]:
        def run(operands: list[Any], arrays: list[Any]) -> Any:
            outputs, captured = inside(block, operands, hung.hang(arrays))
            others = (jnp.zeros(k.shape_inside(layer), k.output.aval.dtype) for k in names)
            return outputs, [captured.get(k, zero) for k, zero in zip(names, others, strict=True)]

        return run

    (index,) = _control(layer).selectors
    cases = list(map(case, layer.blocks))
    outputs, captured = jax.lax.switch(plain[index], cases, operands, hung.arrays)
    return outputs, dict(zip(names, captured, strict=True))


def _shards(
    layer: Layer, operands: list[Any], plain: Any, inside: Run, hung: Inside
) -> tuple[list[Any], dict[Layer, Any]]:
    """What each device has of an array that is hung in or read out is along its first axis."""
    (block,), eqn, names = layer.blocks, layer.main.eqn, _captured(layer, hung)
    ledger = {k: v for k, v in hung.taps.ledger.items() if layer in k.around}

    def body(operands: list[Any], given: tuple[list[Any], list[Any]]) -> Any:
        arrays, zeros = given
        own = [v[0] if _axes(k) else v for k, v in zip(hung.layers, arrays, strict=True)]
        zeros = jax.tree.map(lambda v: _compat.every_shard(eqn, v), zeros)
        taps = hung.hang(own)
        taps = replace(taps, ledger={**taps.ledger, **dict(zip(ledger, zeros, strict=True))})
        outputs, captured = inside(block, operands, taps)
        return outputs, [captured[k][None] if _axes(k) else captured[k] for k in names]

    def _axes(k: Layer) -> tuple[str, ...]:
        return _compat.shard_axes(eqn, k.output.aval)

    def specs(layers: Iterable[Layer]) -> list[Any]:
        return [PartitionSpec(_axes(k)) if _axes(k) else PartitionSpec() for k in layers]

    given = (hung.arrays, list(ledger.values())), (specs(hung.layers), PartitionSpec())
    outputs, captured = _compat.shard(eqn, body, operands, given, specs(names))
    return outputs, dict(zip(names, captured, strict=True))


_BUILD = {"Loop": _loop, "Branch": _branch, "Shards": _shards}


def _control(layer: Layer) -> Control:
    assert layer.control is not None
    return layer.control


def _captured(layer: Layer, hung: Inside) -> list[Layer]:
    return [k for k in hung.taps.capture if layer in k.around]
