"""Integer inputs, and the floats that they become: rows of a table, one-hot vectors, or casts.

Integers carry no relevance; the floats made of them do, and a token's relevance is the sum over its
row of the embedding. So each entry of every value is traced to the one integer it was made of.
Masks (`ids != 0`) and positions (argmax) count as constants, one-hot vectors do not.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import jax
import numpy as np

from jaxplain import _compat
from jaxplain.graph.analyses.constants import Known, run
from jaxplain.graph.analyses.flow import flow_of
from jaxplain.graph.contractions import contraction
from jaxplain.graph.ir import Node, Program, Var
from jaxplain.graph.primitives import Kind, Operand, Role

#: For each entry of a value, the position among all explained integers of the one it was made of,
#: or one of the codes below; None where every entry may be made of several.
_Origins = np.ndarray | None
_NOWHERE = -1
_SEVERAL = -2

_CHOOSING = (Role.CAST, Role.SELECT)  # make numbers of which class it is
_ENTRYWISE = (Kind.DIAGONAL, Kind.ELEMENTWISE, Kind.DISCRETE)


@dataclass(frozen=True, eq=False)
class Lookup:
    """Floats that integers become, such as the embedded tokens of (batch, length, width).

    Attributes:
        value: the floats.
        features: the axes of `value` along which all entries belong to one integer: the width.
        origins: over its other axes, the position of that integer among all; -1 for none of them.
        tables: the tables whose rows were picked.
    """

    value: Var
    features: tuple[int, ...]
    origins: np.ndarray
    tables: tuple[Var, ...] = ()

    @property
    def ambiguous(self) -> bool:
        """Whether some of the floats were made of several integers."""
        return bool((self.origins == _SEVERAL).any())

    def has(self, start: int, integers: Var) -> bool:
        """Whether some of the floats were made of an input's integers."""
        end = start + math.prod(integers.shape)
        return bool(((self.origins >= start) & (self.origins < end)).any())

    def gathered(self, relevance: jax.Array, start: int, shape: tuple[int, ...]) -> jax.Array:
        """The relevance of one array of integers from the relevance of the floats.

        Args:
            relevance: the relevance of `value`.
            start: the position of the array's first integer among all.
            shape: the array's shape.
        """
        summed = relevance.sum(self.features).ravel()
        size = math.prod(shape)
        places = self.origins.ravel() - start
        if np.array_equal(places, np.arange(size)):
            return summed.reshape(shape)
        places = np.where((places >= 0) & (places < size), places, size)
        zeros = jax.numpy.zeros(size, summed.dtype)
        return zeros.at[places].add(summed, mode="drop").reshape(shape)


def lookups_of(program: Program, inputs: Sequence[Var]) -> tuple[Lookup, ...]:
    """The floats that integer inputs become.

    Raises:
        TypeError: no output depends on the floats of an input, some of them belong to several
            integers at once, or a table is explained as well as the integers that pick its rows.
    """
    integers = [v for v in inputs if not v.floating]
    if not integers:
        return ()
    made = _Search(program, integers).lookups
    floating = [v for v in inputs if v.floating]
    explained = [*floating, *(lookup.value for lookup in made)]
    carries = flow_of(program, explained, program.outputs).carries_relevance
    lookups = tuple(lookup for lookup in made if lookup.value in carries)
    for lookup in lookups:
        if lookup.ambiguous and lookup.value.producer is not None:
            raise TypeError(
                f"{lookup.value.producer.primitive} at "
                f"{lookup.value.producer.location or 'unknown place'} makes numbers of several "
                "explained integers at once, and their relevance would be that of all of them: "
                "explain the numbers (split the model behind them) or one of the inputs, or cast "
                "integers to floats before (images)"
            )
    for var, start in zip(integers, starts(integers), strict=True):
        if not any(lookup.has(start, var) for lookup in lookups):
            raise TypeError(
                f"{var.path or 'an input'} is explained, and its integers become no numbers that "
                "reach the output: integers are explained where they pick rows of a table, "
                "choose a class or are cast to floats; masks and places are constants"
            )
    _check_tables(lookups, floating)
    return lookups


def starts(integers: Sequence[Var]) -> list[int]:
    """The position of each input's first integer among all."""
    sizes = [math.prod(v.shape) for v in integers]
    return [sum(sizes[:i]) for i in range(len(sizes))]


def _check_tables(lookups: Sequence[Lookup], floating: Sequence[Var]) -> None:
    """Raises TypeError for a table that is explained, as the integers that pick its rows are."""
    pending = [v for lookup in lookups for v in lookup.tables]
    while pending:
        var = pending.pop()
        if var in floating:
            raise TypeError(
                f"{var.path} is explained, and so are the integers that pick its rows: their "
                "relevance is that of the rows. Explain one of them"
            )
        pending += var.producer.inputs if var.producer is not None else ()


class _Search:
    """One pass over a program, which collects its lookups."""

    def __init__(self, program: Program, integers: Sequence[Var]):
        self.origins: dict[Var, _Origins] = {
            v: start + np.arange(math.prod(v.shape)).reshape(v.shape)
            for v, start in zip(integers, starts(integers), strict=True)
        }
        self.known = Known(lambda node: node.control is None, dict(program.constants))
        self.classes: set[Var] = set()  # `ids == arange(n)`, as booleans or integers
        self.hot: dict[Var, Lookup] = {}  # the same as floats: one-hot vectors
        self.lookups: list[Lookup] = []
        self.numbers: set[Var] = set()  # the values computed from a lookup, itself included
        for node in program.nodes:
            self.visit(node)

    def visit(self, node: Node) -> None:
        """Follows the origins through one operation."""
        made = [v for v in node.inputs if v in self.origins]
        vectors = [v for v in node.inputs if v in self.hot]
        out = node.outputs[0]
        if not self.numbers.isdisjoint(node.inputs):
            self.numbers.update(node.outputs)
        if node.control is not None:
            self.check_inside(node, made)
            self.origins |= dict.fromkeys(node.outputs if made else (), None)
            self.use(vectors, node)
        elif vectors:
            self.mix(node, vectors)
        elif not made:
            return
        elif node.info.role is Role.LOOKUP and node.inputs[0] not in self.origins:
            features, picked = self.picked(node)
            if not out.floating:
                whole = picked is not None and np.expand_dims(picked, features)
                self.origins[out] = None if picked is None else np.broadcast_to(whole, out.shape)
            elif node.inputs[0] not in self.numbers:  # else numbers are moved
                self.add(_lookup(out, features, picked, (node.inputs[0],)))
        elif out.floating and node.inputs[0] in self.classes and node.info.role in _CHOOSING:
            self.hot[out] = _one_hot(out, self.origins[node.inputs[0]])
        else:
            self.follow(node, made)

    def add(self, lookup: Lookup) -> None:
        """Adds a lookup."""
        self.lookups.append(lookup)
        self.numbers.add(lookup.value)

    def mix(self, node: Node, vectors: Sequence[Var]) -> None:
        """Adds the rows that one-hot vectors pick in a product, elsewhere the vectors themselves.

        Casts are looked through.
        """
        out = node.outputs[0]
        rows = _product(node, self.hot)
        if rows is not None:
            self.add(rows)
        elif node.info.role is Role.CAST and out.floating:
            self.hot[out] = replace(self.hot[vectors[0]], value=out)
        else:
            self.use(vectors, node)

    def use(self, vectors: Sequence[Var], node: Node) -> None:
        """Adds one-hot vectors as lookups."""
        for vector in vectors:
            if self.hot[vector] not in self.lookups:
                self.add(self.hot[vector])
        self.numbers.update(node.outputs if vectors else ())

    def follow(self, node: Node, made: Sequence[Var]) -> None:
        """Records the origins of the outputs, unless they are masks or positions."""
        compares = self.compares_classes(node, made)
        of_classes = compares or not self.classes.isdisjoint(made)
        info, out = node.info, node.outputs[0]
        if _compat.boolean(out) and not of_classes:
            return
        if info.kind is Kind.DISCRETE and not info.local:
            return
        self.origins |= zip(node.outputs, self.through(node), strict=True)
        if of_classes:
            self.classes.update(node.outputs)
        elif self.makes_numbers(node, made):
            one = info.role in _CHOOSING
            self.add(_lookup(out, (), self.origins[out] if one else None))

    def makes_numbers(self, node: Node, made: Collection[Var]) -> bool:
        """Whether integers become floats here, and do not only move the floats of a lookup."""
        integers = not any(v.floating for v in node.inputs if v in made)
        return node.outputs[0].floating and integers and self.numbers.isdisjoint(node.inputs)

    def compares_classes(self, node: Node, made: Collection[Var]) -> bool:
        """Whether the integers are compared with all classes: `ids == arange(n)`."""
        others = [v for v in node.inputs if v not in made]
        if node.info.role is not Role.EQUALITY or len(others) != 1:
            return False
        (other,) = others
        value = self.known.of(other)
        return value is not None and len(np.unique(value)) > 1

    def through(self, node: Node) -> Sequence[_Origins]:
        """The origins of the outputs of an operation."""
        info = node.info
        if info.role is Role.CAST:
            return [self.of(v) for v in node.inputs]
        if info.role is Role.SELECT or (info.kind in _ENTRYWISE and info.local):
            chosen = info.role is Role.SELECT and _compat.boolean(node.inputs[0])
            cases = node.inputs[1:] if chosen else node.inputs
            return [_joined([self.of(v) for v in cases], node.outputs[0].shape)]
        return self.moved(node) or [None for _ in node.outputs]

    def of(self, var: Var) -> _Origins:
        """The origins of any value."""
        return self.origins[var] if var in self.origins else np.full(var.shape, _NOWHERE)

    def moved(self, node: Node) -> Sequence[_Origins] | None:
        """The origins of the outputs of a move; None where its indices are not known."""
        if node.info.kind is not Kind.STRUCTURAL:
            return None
        moved = [kind is Operand.MOVED for kind, _ in node.operands]
        made = zip(moved, node.inputs, strict=True)
        values: list[Any] = [self.of(v) if moves else self.known.of(v) for moves, v in made]
        if any(value is None for value in values):
            return None
        others = [v + moves if moves else v for moves, v in zip(moved, values, strict=True)]
        places, others = ([np.asarray(v) for v in run(node, each)] for each in (values, others))
        # a fill value stays the same in both, and has no origin
        return [np.where(b == a + 1, a, _NOWHERE) for a, b in zip(places, others, strict=True)]

    def picked(self, node: Node) -> tuple[tuple[int, ...], _Origins]:
        """What an operation picks from a table: the axes inside of it, and the others' origins."""
        places, shape = [self.of(v) for v in node.inputs[1:]], node.outputs[0].shape
        if "dimension_numbers" not in node.params:  # a slice that begins at integers
            return tuple(range(len(shape))), _joined(places, ())
        (index,) = places
        features = tuple(node.params["dimension_numbers"].offset_dims)
        if index is None:
            return features, None
        kept = tuple(n for i, n in enumerate(shape) if i not in features)
        # the last axis holds the coordinates of a place
        coordinates = [index[..., k].reshape(kept) for k in range(index.shape[-1])]
        return features, _joined(coordinates, kept)

    def check_inside(self, node: Node, made: Collection[Var]) -> None:
        """Raises TypeError where integers become numbers inside of a loop, branch or mesh."""
        assert node.control is not None
        known = {link.inner for link in node.control.enters if link.outer in made}
        unroll = ", or explain jaxplain.unroll(f)" if node.control.kind == "Loop" else ""
        for body in node.control.bodies:
            for inner in body.nodes:
                read = known.intersection(inner.inputs)
                if not read:
                    continue
                if inner.control is not None:
                    self.check_inside(inner, read)
                elif self.makes_numbers(inner, read):
                    raise TypeError(
                        f"integers are looked up inside of a {node.primitive}, at "
                        f"{inner.location or 'unknown place'}: look them up (or cast them to "
                        f"floats) before it, all at once{unroll}"
                    )
                truth = _compat.boolean(inner.outputs[0])
                if not truth or self.compares_classes(inner, read):
                    known.update(inner.outputs)


def _joined(origins: Sequence[_Origins], shape: tuple[int, ...]) -> _Origins:
    """The origins of a value that is made of several values, entry by entry."""

    def join(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        differ = (a != _NOWHERE) & (b != _NOWHERE) & (a != b)
        return np.where(differ, _SEVERAL, np.where(a == _NOWHERE, b, a))

    known = [np.broadcast_to(o, shape) for o in origins if o is not None]
    return reduce(join, known) if len(known) == len(origins) else None


def _lookup(
    value: Var, features: tuple[int, ...], origins: _Origins, tables: tuple[Var, ...] = ()
) -> Lookup:
    return Lookup(value, features, np.array(_SEVERAL) if origins is None else origins, tables)


def _one_hot(value: Var, origins: _Origins) -> Lookup:
    """One-hot vectors; their class axes are those along which all entries have one origin."""
    if origins is None:
        return _lookup(value, (), None)
    origins = np.broadcast_to(origins, value.shape)
    classes = tuple(
        i
        for i, n in enumerate(value.shape)
        if n > 1 and (origins == np.take(origins, [0], axis=i)).all()
    )
    index = tuple(0 if i in classes else slice(None) for i in range(len(value.shape)))
    return Lookup(value, classes, origins[index])


def _product(node: Node, hot: Mapping[Var, Lookup]) -> Lookup | None:
    """The rows that a product with one-hot vectors picks; None for anything else."""
    axes = contraction(node)
    if axes is None or axes.slides or sum(v in hot for v in node.inputs) > 1:
        return None
    side = 0 if node.inputs[0] in hot else 1
    vectors, table = hot[node.inputs[side]], node.inputs[1 - side]
    if set(axes.contracted[side]) != set(vectors.features) or axes.shared[side]:
        return None
    own, every = vectors.origins.ndim, range(len(node.outputs[0].shape))
    features = tuple(every[own:] if side == 0 else every[: len(every) - own])
    return Lookup(node.outputs[0], features, vectors.origins, (table,))
