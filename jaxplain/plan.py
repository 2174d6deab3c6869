"""The plan: which rule runs where, and why."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jaxplain import composites, notes, tables
from jaxplain.composites import Composite, describe
from jaxplain.errors import not_analyzable
from jaxplain.graph import Graph
from jaxplain.graph.layer import Layer
from jaxplain.rules import Gradient, Rule

_HEADER = ("", "layer", "kind", "output", "rule", "why", "where")

#: How a user names layers: by name, by a regular expression in names, or by a predicate.
LayerSpec = str | Callable[[Layer], bool]


@dataclass(frozen=True)
class Row:
    """One layer of a plan: its rule and the line of the composite that gave it."""

    layer: Layer
    rule: Rule
    reason: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        layer = self.layer
        name = "  " * len(layer.around) + layer.name + (" *" if layer.first else "")
        what = layer.kind if layer.op in ("", layer.kind.lower()) else f"{layer.kind} ({layer.op})"
        rule = describe(self.rule)
        return (str(layer.index), name, what, _shape(layer), rule, self.reason, layer.location)


class Plan:
    """Rules for all layers of a graph. `str(plan)` is a table; a notebook shows it as HTML.

    Iterate over it for its rows, each with `.layer`, `.rule` and `.reason`. A star marks the first
    kernel layers. What a loop or branch holds is indented below it; outputs are those of one
    iteration there.

    Args:
        graph: the traced function.
        composite: gives each layer its rule.
        unknown: "error", or "gradient" to differentiate layers that have no rule.

    Raises:
        NotAnalyzableError: a layer has no rule.
        ValueError: a rule cannot be given to the layer that the composite gave it to, or an entry
            of the composite is for no layer.
    """

    def __init__(self, graph: Graph, composite: Composite, unknown: str = "error"):
        self.graph = graph
        self.composite = composite
        assigned = composite.assign(graph)
        ruleless = [layer for layer, rule, _ in assigned if rule is None]
        endless = [
            layer
            for layer, rule, _ in assigned
            if layer.main.info.irreversible and isinstance(rule, Gradient | None)
        ]
        if endless or (ruleless and unknown == "error"):
            raise not_analyzable(endless or ruleless)
        self.unknown = tuple(ruleless)
        rows = []
        for layer, rule, reason in assigned:
            if rule is None:
                rule, reason = Gradient(), 'unknown="gradient"'
            elif objection := rule.objection(layer):
                where = f" at {layer.location}" if layer.location else ""
                raise ValueError(f"layer {layer.index} ({layer.name}){where}: {objection}")
            rows.append(Row(layer, rule, reason))
        self.rows = tuple(rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, by index."""
        return self.graph.layers

    def find(self, which: LayerSpec) -> tuple[Layer, ...]:
        """The layers of an exact name, else those that a regular expression or predicate matches.

        Raises:
            TypeError: `which` is neither text nor a predicate.
            ValueError: there are none.
        """
        if not isinstance(which, str) and not callable(which):
            raise TypeError(
                f"layers are given by name, regular expression or predicate, got {which!r}"
            )
        exact = tuple(layer for layer in self.layers if layer.name == which)
        if exact:
            return exact
        test = composites.name(which) if isinstance(which, str) else which
        found = composites.matching(test, self.layers)
        if not found:
            there = composites.spelled(self.layers)
            raise ValueError(f"no layer matches {_spelled(which)}; there are: {there}")
        return found

    def find_one(self, which: LayerSpec) -> Layer:
        """The one layer that `find` finds.

        Raises:
            ValueError: there are several.
        """
        found = self.find(which)
        if len(found) > 1:
            names = ", ".join(layer.name for layer in found)
            raise ValueError(f"{_spelled(which)} matches several layers, give one of: {names}")
        return found[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know beside the table."""
        return tuple(notes.of(self))

    def summary(self) -> str:
        """How many layers of each kind got which rule, one line per pair."""
        counts: dict[tuple[str, str], int] = {}
        for row in self.rows:
            layer = row.layer
            what = layer.op if layer.kind == "Affine" else layer.kind.lower()
            key = (describe(row.rule), what)
            counts[key] = counts.get(key, 0) + 1
        lines = [f"{n:4d} x {what:<14} {rule}" for (rule, what), n in counts.items()]
        return "\n".join([f"{self.composite.name}: {len(self)} layers", *lines, *self.notes])

    def _cells(self) -> list[tuple[str, ...]]:
        """The rows, and one above those of each loop or branch."""
        cells: list[tuple[str, ...]] = []
        around: tuple[Layer, ...] = ()
        for row in self.rows:
            inside = row.layer.around
            cells += [_heading(step) for step in inside if step not in around]
            cells.append(row.cells)
            around = inside
        return cells

    def __str__(self) -> str:
        table = tables.text(_HEADER, self._cells())
        return "\n".join([self.composite.name, table, *(f"note: {n}" for n in self.notes)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return tables.html(_HEADER, self._cells(), self.composite.name, self.notes)


def _shape(layer: Layer) -> str:
    return "x".join(map(str, layer.output.shape)) or "scalar"


def _heading(step: Layer) -> tuple[str, ...]:
    """The row of a loop or branch."""
    name = "  " * len(step.around) + step.name
    return ("", name, str(step.control), _shape(step), "", "", step.location)


def _spelled(which: LayerSpec) -> str:
    return repr(which) if isinstance(which, str) else str(which)
