"""The plan: which rule runs where, and why."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from jaxplain import _compat, composites, notes, origins, tables
from jaxplain.composites import Composite, describe, describe_layer
from jaxplain.errors import NotAnalyzableError, join_some
from jaxplain.graph import Graph, Layer
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
    kernel layers. Layers inside of a loop or branch are indented below it; their outputs are those
    of one iteration.

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
        differentiated = (k for k, rule, _ in assigned if isinstance(rule, Gradient | None))
        endless = [layer for layer in differentiated if layer.main.info.irreversible]
        if endless or (ruleless and unknown == "error"):
            raise _not_analyzable(endless or ruleless)
        self.unknown = tuple(ruleless)
        rows = []
        for layer, rule, reason in assigned:
            if rule is None:
                rule, reason = Gradient(), 'unknown="gradient"'
            elif objection := rule.objection(layer):
                raise ValueError(f"{describe_layer(layer)}: {objection}")
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
        if exact := tuple(layer for layer in self.layers if layer.name == which):
            return exact
        test = composites.name(which) if isinstance(which, str) else which
        if not (layers := composites.matching(test, self.layers)):
            there = composites.describe_layers(self.layers)
            raise ValueError(f"no layer matches {_describe(which)}; there are: {there}")
        return layers

    def find_one(self, which: LayerSpec) -> Layer:
        """The one layer that `find` finds.

        Raises:
            ValueError: there are several.
        """
        layers = self.find(which)
        if len(layers) > 1:
            names = ", ".join(layer.name for layer in layers)
            raise ValueError(f"{_describe(which)} matches several layers, give one of: {names}")
        return layers[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks to read beside the table."""
        return tuple(notes.describe(self.graph, self.composite, self.unknown))

    def summary(self) -> str:
        """How many layers of each kind got which rule, one line per pair."""
        counts: Counter[tuple[str, str]] = Counter()
        for row in self.rows:
            layer = row.layer
            what = layer.op if layer.kind == "Affine" else layer.kind.lower()
            counts[describe(row.rule), what] += 1
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


def _describe(which: LayerSpec) -> str:
    return repr(which) if isinstance(which, str) else str(which)


def _not_analyzable(layers: Sequence[Layer]) -> NotAnalyzableError:
    """The error for layers without a rule."""
    loops = [layer for layer in layers if layer.main.info.irreversible]
    complexes = [layer for layer in layers if layer.is_complex]
    others = [layer for layer in layers if layer not in complexes]
    lines = [
        f"  `{layer.main.primitive}` at {_place(layer)} (layer {layer.index}: {layer.name})"
        for layer in others[:5]
    ]
    if len(others) > 5:
        lines.append(f"  and {len(others) - 5} more")
    if complexes:
        lines.append(
            f"  complex arithmetic at {join_some(map(_place, complexes))}: write the real and the "
            "imaginary parts of these values as real arrays"
        )
    customs = [layer for layer in others if layer.main.primitive in _compat.CUSTOM_DERIVATIVE]
    bounded = any(origins.is_equinox_loop(k.main.origins[0]) for k in (*loops, *customs))
    or_bounded = ', or Equinox\'s kind="bounded"' if bounded else ""
    if customs:
        lines.append(
            "A custom derivative around a while_loop, as diffrax solves by default, tells nothing "
            "of relevance: write the loop as a scan (in diffrax: adjoint=DirectAdjoint())"
            + or_bounded
        )
    if loops:
        lines.append(
            "How often a while_loop runs is known only when it does, and without a derivative of "
            "its own nothing can go backward through it: use jax.lax.scan, or jax.lax.fori_loop "
            "between bounds that are Python ints (for a loop that may end early, with jax.lax.cond "
            "inside)" + or_bounded
        )
    ways = [
        "declare a primitive of your own, or of another library, with jaxplain.register_primitive",
        "give them a rule of your own in a composite, e.g. Composite([(kind('Unknown'), "
        "MyRule())]) with 'Unknown' in MyRule.kinds",
    ] * (len(others) > len(loops))
    ways += [
        "rewrite them with known operations",
        "put jax.lax.stop_gradient around them if they are not to be explained",
    ]
    ways += ['pass unknown="gradient" to lrp to differentiate them as written (not conserved)'] * (
        not loops
    )
    return NotAnalyzableError(
        "relevance would have to cross operations that no rule is known for:\n"
        + "\n".join(lines)
        + f"\nWays out: {'; '.join(ways)}."
    )


def _place(layer: Layer) -> str:
    return layer.location or "unknown place"
