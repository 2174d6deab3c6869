"""Where integer inputs become numbers: rows gathered from a table, and one-hot vectors.

Integers carry no relevance; the numbers that are looked up by them do, and what arrives there is
the integers'. Masks made of integers (`ids != 0`) are constants.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxplain.graph.primitives import Class, Role
from jaxplain.graph.program import Node, Program, Var

#: For each entry of a value, the position in the integer input that it was made from; or none.
_Origins = np.ndarray
_NOWHERE = -1
_THROUGH = (Role.CAST, Role.RESHAPE, Role.TRANSPOSE, Role.BROADCAST, Role.SUM, Role.DIFFERENCE)


@dataclass(frozen=True, eq=False)
class Lookup:
    """Numbers that were looked up by integers.

    Attributes:
        value: the numbers.
        features: the axes of `value` along which they all belong to one integer.
        origins: for the others, where in the integers each came from; -1 for nowhere.
        tables: what was picked from.
    """

    value: Var
    features: tuple[int, ...]
    origins: np.ndarray
    tables: tuple[Var, ...] = ()

    def gathered(self, relevance: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The relevance of the integers, of this shape, from that of the numbers."""
        summed = relevance.sum(self.features).ravel()
        size = math.prod(shape)
        origins = self.origins.ravel()
        if np.array_equal(origins, np.arange(size)):
            return summed.reshape(shape)
        places = np.where(origins == _NOWHERE, size, origins)
        zeros = jax.numpy.zeros(size, summed.dtype)
        return zeros.at[places].add(summed, mode="drop").reshape(shape)


def of(program: Program, ids: Var) -> tuple[Lookup, ...]:
    """What is looked up by an integer input.

    Raises:
        TypeError: something is looked up inside of a loop or branch.
    """
    origins: dict[Var, _Origins] = {ids: np.arange(math.prod(ids.shape)).reshape(ids.shape)}
    chosen: set[Var] = set()  # which class it is, as truth values
    hot: dict[Var, Lookup] = {}  # and as numbers
    found = []
    for node in program.nodes:
        made = [v for v in node.inputs if v in origins]
        vectors = [v for v in node.inputs if v in hot]
        out = node.outputs[0]
        if node.control is not None:
            _check_inside(node, made)
        elif vectors:
            rows = _product(node, hot)
            if rows is not None:
                found.append(rows)
            elif node.row.role is Role.CAST and out.floating:
                hot[out] = replace(hot[vectors[0]], value=out)
            else:
                found += [hot[v] for v in vectors if hot[v] not in found]
        elif not made:
            continue
        elif _picks(node, origins):
            found.append(_rows(node, origins))
        elif made[0] in chosen and node.row.role is Role.CAST and out.floating:
            hot[out] = _one_hot(out, origins[made[0]])
        elif (through := _through(node, origins)) is not None:
            origins |= dict.fromkeys(node.outputs, through)
            if _compares_classes(node, made) or made[0] in chosen:
                chosen.update(node.outputs)
    return tuple(found)


def _picks(node: Node, made: Collection[Var]) -> bool:
    """Whether an operation takes rows from a table, at places in `made`."""
    picks = node.primitive in ("gather", "dynamic_slice") and node.outputs[0].floating
    return picks and any(v in made for v in node.inputs[1:])


def _rows(node: Node, origins: Mapping[Var, _Origins]) -> Lookup:
    out, (table, *places) = node.outputs[0], node.inputs
    if node.primitive == "dynamic_slice":  # by one integer
        picked = next(origins[v] for v in places if v in origins)
        return Lookup(out, tuple(range(len(out.shape))), picked, (table,))
    features = tuple(node.params["dimension_numbers"].offset_dims)
    shape = [n for i, n in enumerate(out.shape) if i not in features]
    return Lookup(out, features, origins[places[0]][..., 0].reshape(shape), (table,))


def _one_hot(value: Var, origins: _Origins) -> Lookup:
    """The axis along which all entries have one origin is that of the classes."""
    classes = tuple(
        i
        for i, n in enumerate(value.shape)
        if n > 1 and (origins == np.take(origins, [0], axis=i)).all()
    )
    index = tuple(0 if i in classes else slice(None) for i in range(len(value.shape)))
    return Lookup(value, classes, origins[index])


def _product(node: Node, hot: Mapping[Var, Lookup]) -> Lookup | None:
    """The rows that a product with one-hot vectors picks; None for anything else."""
    if node.row.role is not Role.DOT or sum(v in hot for v in node.inputs) > 1:
        return None
    side = 0 if node.inputs[0] in hot else 1
    contracted, batch = node.params["dimension_numbers"]
    vectors, table = hot[node.inputs[side]], node.inputs[1 - side]
    if set(contracted[side]) != set(vectors.features) or batch[side]:
        return None
    own, every = vectors.origins.ndim, range(len(node.outputs[0].shape))
    features = tuple(every[own:] if side == 0 else every[: len(every) - own])
    return Lookup(node.outputs[0], features, vectors.origins, (table,))


def _compares_classes(node: Node, made: Sequence[Var]) -> bool:
    """Whether the integers are compared with all classes: `ids == arange(n)`."""
    if node.primitive != "eq" or len(made) != 1:
        return False
    (other,) = (v for v in node.inputs if v is not made[0])
    while other.producer is not None and other.producer.row.role in _THROUGH:
        other = next((v for v in other.producer.inputs if v.literal is None), other)
    return other.producer is not None and other.producer.primitive == "iota"


def _through(node: Node, origins: dict[Var, _Origins]) -> _Origins | None:
    """The origins behind an operation on integers; None where they are lost."""
    out = node.outputs[0]
    made = [origins[v] for v in node.inputs if v in origins]
    if len(node.outputs) > 1 or out.floating:
        return None
    if node.row.cls is Class.STRUCTURAL and node.row.role not in (Role.CAST, Role.SELECT):
        values: list[Any] = []
        for var in node.inputs:
            if var in origins:
                values.append(origins[var])
            elif var.shape and not var.floating and node.row.role is not Role.CONCATENATION:
                return None  # where it takes them from is known at run time
            else:
                values.append(np.full(var.shape, _NOWHERE))
        return np.asarray(_moved(node, values))
    mixes = node.row.cls in (Class.MIXING, Class.SELECTION, Class.UNKNOWN)
    return None if mixes or not node.row.local else np.broadcast_to(made[0], out.shape)


def _moved(node: Node, values: Iterable[Any]) -> Any:
    with jax.ensure_compile_time_eval():
        (moved,) = node.evaluate([jax.numpy.asarray(v) for v in values])
    return moved


def _check_inside(node: Node, made: Sequence[Var]) -> None:
    assert node.control is not None
    known = {link.inner for link in node.control.enters if link.outer in made}
    for body in node.control.bodies:
        for inner in body.walk():
            if not known.isdisjoint(inner.inputs):
                if _picks(inner, known):
                    raise TypeError(
                        f"integers are looked up inside of a {node.primitive}, at "
                        f"{inner.source or 'unknown place'}: look them up before it, all at once"
                    )
                known.update(inner.outputs)
