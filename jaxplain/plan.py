"""The plan: which rule runs where, and why."""

import html
from collections.abc import Iterator
from dataclasses import dataclass

from jaxplain.composites import Composite, describe
from jaxplain.errors import not_analyzable
from jaxplain.graph import Graph
from jaxplain.graph.layers import Layer
from jaxplain.rules import Gradient, Rule

_HEADER = ("", "layer", "kind", "output", "rule", "why", "where")


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
        what = layer.kind if layer.op in ("", layer.kind.lower()) else f"{layer.kind} ({layer.op})"
        shape = "x".join(map(str, layer.exit.shape)) or "scalar"
        first = " *" if layer.first else ""
        rule = describe(self.rule)
        return (str(layer.index), layer.name + first, what, shape, rule, self.reason, layer.source)


class Plan:
    """Rules for all layers of a graph. `str(plan)` is a table; a notebook shows it as HTML.

    Iterate over it for its rows, each with `.layer`, `.rule` and `.reason`. A star marks the first
    kernel layers.

    Args:
        graph: the traced function.
        composite: gives each layer its rule.
        unknown: "error", or "gradient" to differentiate layers that have no rule.

    Raises:
        NotAnalyzableError: a layer has no rule.
        ValueError: a rule cannot be given to the layer that the composite gave it to.
    """

    def __init__(self, graph: Graph, composite: Composite, unknown: str = "error"):
        self.graph = graph
        self.composite = composite
        assigned = composite.assign(graph)
        ruleless = [layer for layer, rule, _ in assigned if rule is None]
        if ruleless and unknown == "error":
            raise not_analyzable(ruleless)
        self.unknown = tuple(ruleless)
        rows = []
        for layer, rule, reason in assigned:
            if rule is None:
                rule, reason = Gradient(), 'unknown="gradient"'
            elif objection := rule.objection(layer):
                where = f" at {layer.source}" if layer.source else ""
                raise ValueError(f"layer {layer.index} ({layer.name}){where}: {objection}")
            rows.append(Row(layer, rule, reason))
        self.rows = tuple(rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know beside the table."""
        notes = []
        if self.graph.softmax:
            notes.append(f"the trailing {self.graph.softmax} is left out: targets are logits")
        if self.unknown:
            count = len(self.unknown)
            notes.append(f"{count} layers without a rule are differentiated as written")
        return tuple(notes)

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

    def __str__(self) -> str:
        table = [_HEADER, *(row.cells for row in self.rows)]
        widths = [max(len(row[i]) for row in table) for i in range(len(_HEADER))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        return "\n".join([self.composite.name, *lines, *(f"note: {n}" for n in self.notes)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def line(cells: tuple[str, ...], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

        body = "".join(line(row.cells, "td") for row in self.rows)
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        caption = html.escape(self.composite.name)
        head = line(_HEADER, "th")
        return f"<table><caption>{caption}</caption>{head}{body}</table>{notes}"
