"""Checks that a model is in evaluation mode."""

from collections.abc import Callable
from typing import Any

import jax

from jaxplain.frameworks.model import Arrays
from jaxplain.graph.flatten import flatten

_EVALUATE = (
    "switch it to evaluation mode by the options that the adapter passes on, such as train=False, "
    "or in the model itself where it insists on training"
)


def initialised(name: str, arrays: Arrays) -> None:
    """Raises TypeError for a model of shapes without values."""
    for path, array in arrays.items():
        if isinstance(array, jax.ShapeDtypeStruct):
            raise TypeError(
                f"{name} holds no values, only shapes (of {path}): give it its weights first"
            )


def unchanged(
    name: str, before: Arrays, after: Arrays, again: Callable[[Arrays], Arrays] | None = None
) -> None:
    """Raises TypeError for a model whose call changed its arrays; new ones do no harm.

    Args:
        name: of the model.
        before: its arrays.
        after: those that its call left.
        again: makes the ones of the others, where the framework may hand out copies.
    """
    changed = [path for path, array in before.items() if after.get(path, array) is not array]
    if changed and again is not None:
        program = flatten(again, (before,), keep_derivatives=True)
        inputs = dict(zip(sorted(before), program.inputs, strict=True))
        outputs = dict(zip(sorted(after), program.outputs, strict=True))
        changed = [path for path in changed if outputs[path] is not inputs[path]]
    if changed:
        raise TypeError(
            f"{name} changes its own arrays when it is called ({', '.join(changed[:4])}), as "
            f"dropout and BatchNorm do in training mode: {_EVALUATE}"
        )


def not_random(name: str, streams: Arrays, output: Callable[[Arrays], Any]) -> None:
    """Raises TypeError for a model whose output depends on the states of random streams.

    A number that is drawn and not used, as for a recurrent layer without dropout, does no harm.

    Args:
        name: of the model.
        streams: the states that its call changed.
        output: makes the model's output of others.
    """
    if not streams:
        return
    program = flatten(output, (streams,), keep_derivatives=True)
    read = {v for node in program.nodes for v in node.inputs} | set(program.outputs)
    used = [p for p, v in zip(sorted(streams), program.inputs, strict=True) if v in read]
    if used:
        raise TypeError(
            f"{name} draws random numbers that its output depends on ({', '.join(used[:4])}), as "
            f"dropout and noise do in training mode: {_EVALUATE}"
        )
