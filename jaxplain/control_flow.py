"""Relevance through loops and branches: rebuilt around their interpreted bodies."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import _compat, taps
from jaxplain.graph.blocks import Block
from jaxplain.graph.control import Control, Link
from jaxplain.graph.layers import Layer
from jaxplain.graph.program import Var
from jaxplain.taps import Arrays, Taps

#: Evaluates a body at the values of its inputs: its outputs, and those of captured layers.
Run = Callable[[Block, Sequence[Any], Taps], tuple[list[Any], dict[Layer, Any]]]


def evaluate(
    layer: Layer, live: Mapping[Var, Any], plain: Any, run: Run, hung: Taps, relevance: bool
) -> tuple[list[Any], dict[Layer, Any]]:
    """Evaluates a loop or branch whose layers have rules.

    Args:
        layer: the loop or branch.
        live: the values that relevance flows through.
        plain: the others, and these as constants.
        run: evaluates a body.
        hung: what is read on the way.
        relevance: whether the backward pass carries relevance; it is then kept in float32 where it
            enters and leaves a body.

    Returns:
        Its outputs, and those of the captured layers inside, behind an axis for the iterations.
    """
    control = layer.control
    assert control is not None
    entries = hung.ledger.get(layer)
    entering = [_Crossing(links, relevance) for links in control.operands]
    leaving = [_Crossing(links, relevance) for links in control.outputs]
    start = control.flow.fixed
    for operand, output in zip(entering[start:], leaving[: control.flow.carried], strict=False):
        operand.wide = output.wide = operand.wide or output.wide

    def inside(block: Block, values: Sequence[Any], inner: Taps) -> tuple[list[Any], Any]:
        operands = [c.narrowed(v) for c, v in zip(entering, values, strict=True)]
        outputs, captured = run(block, operands, inner)
        kept = [
            _kept(v, crossing.carries and not head.carries, entries)
            for v, crossing, head in zip(outputs, leaving, block.heads, strict=True)
        ]
        return [c.widened(v) for c, v in zip(leaving, kept, strict=True)], captured

    values = []
    for crossing in entering:
        flows = crossing.carries and crossing.outer.carries
        value = (live if flows else plain)[crossing.outer]
        values.append(crossing.widened(_kept(value, crossing.carries and not flows, entries)))
    build = _loop if control.kind == "Loop" else _branch
    outputs, captured = build(layer, control, values, plain, inside, hung)
    return [c.narrowed(v) for c, v in zip(leaving, outputs, strict=True)], captured


class _Crossing:
    """A value that enters or leaves bodies.

    Attributes:
        outer: the value outside.
        carries: whether relevance flows through it inside of a body.
        wide: whether it is passed in at least float32, so that its relevance is.
    """

    def __init__(self, links: Sequence[Link], relevance: bool):
        self.outer = links[0].outer
        self.carries = any(link.inner.carries for link in links)
        self.wide = relevance and self.carries and is_half(self.outer)

    def widened(self, value: Any) -> Any:
        return taps.widen(value) if self.wide else value

    def narrowed(self, value: Any) -> Any:
        return taps.narrow(value, self.outer.aval.dtype) if self.wide else value


def is_half(var: Var) -> bool:
    """Whether a value is of a floating dtype below float32."""
    return var.floating and jnp.finfo(var.aval.dtype).bits < 32


def _kept(value: Any, keeps: bool, entries: Any) -> Any:
    return taps.keep(value, entries) if keeps and entries else value


def _loop(
    layer: Layer,
    control: Control,
    operands: list[Any],
    plain: Any,
    inside: Run,
    hung: Taps,
) -> tuple[list[Any], dict[Layer, Any]]:
    (block,), node = layer.blocks, layer.main
    fixed, carried = control.flow.fixed, control.flow.carried
    arrays, hang = hung.inside(layer)
    names: list[Layer] = []

    def body(carry: list[Any], scanned: tuple[list[Any], Arrays]) -> Any:
        slices, arrays = scanned
        outputs, captured = inside(block, [*operands[:fixed], *carry, *slices], hang(arrays))
        names[:] = captured
        return outputs[:carried], (outputs[carried:], list(captured.values()))

    start, scanned = operands[fixed : fixed + carried], operands[fixed + carried :]
    end, (outputs, captured) = _compat.scan(node.eqn, body, start, (scanned, arrays))
    return [*end, *outputs], dict(zip(names, captured, strict=True))


def _branch(
    layer: Layer,
    control: Control,
    operands: list[Any],
    plain: Any,
    inside: Run,
    hung: Taps,
) -> tuple[list[Any], dict[Layer, Any]]:
    arrays, hang = hung.inside(layer)
    names = [k for k in hung.capture if layer in k.around]

    def case(block: Block) -> Callable[..., Any]:
        def run(operands: list[Any], arrays: Arrays) -> Any:
            outputs, captured = inside(block, operands, hang(arrays))
            others = (jnp.zeros(k.shape_inside(layer), k.exit.aval.dtype) for k in names)
            return outputs, [captured.get(k, zero) for k, zero in zip(names, others, strict=True)]

        return run

    (index,) = control.selectors
    outputs, captured = jax.lax.switch(
        plain[index], list(map(case, layer.blocks)), operands, arrays
    )
    return outputs, dict(zip(names, captured, strict=True))
