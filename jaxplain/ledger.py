"""The ledger: where relevance went, layer by layer."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import tables
from jaxplain.composites import describe
from jaxplain.graph.layer import Layer
from jaxplain.plan import Plan
from jaxplain.rules import TERMS, Gradient
from jaxplain.tables import Cells

_HEADER = ("", "layer", "rule", "arrived", "handed on", *TERMS, "gap", " ")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class Ledger:
    """An audit of the relevance of one backward pass: `str(ledger)` is a table.

    At every layer, received = sent + bias + stabilizer + dead + constants + remainder, up to
    rounding, which is measured against `flow`: contributions of both signs may each be much larger
    than their sum. Each term is computed from its own definition, none from the others, so that a
    rule that loses or doubles relevance shows as a `gap`.

    A ledger is a pytree: it passes through jit and vmap. All arrays but the totals have one entry
    per step of `plan.graph.all_steps` (the layers, and what only moves values) in their last axis;
    with `per_example=True`, or under vmap, examples are in the first.

    Attributes:
        plan: the layers and their rules.
        output: the relevance that the pass started from, in units of the output.
        inputs: the relevance that arrived at the explained inputs.
        received: the relevance that arrived at each step's output.
        sent: the relevance that the step handed to its inputs.
        flow: the magnitude of the flow: the sum over connections of |x w s|, plus |received|.
        bias: the share of the bias.
        stabilizer: the share of the stabiliser of a denominator.
        dead: the relevance of outputs that nothing contributed to.
        constants: the relevance of outputs that are constants (padding, masked values).
        remainder: the share of the constant term of a Taylor expansion.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> f = lambda x: (x @ jnp.array([[1.0], [2.0]]) + 1) * 0.5
        >>> ledger = jxp.lrp(f, jxp.rules.Z()).ledger(jnp.array([[1.0, 0.0]]))
        >>> print(ledger.received, ledger.sent, ledger.bias, ledger.gap)
        [1.] [0.5] [0.5] [0.]
    """

    plan: Plan = field(metadata={"static": True})
    output: Any
    inputs: Any
    received: Any
    sent: Any
    flow: Any
    bias: Any
    stabilizer: Any
    dead: Any
    constants: Any
    remainder: Any

    @property
    def absorbed(self) -> Any:
        """The relevance that each step kept, over all terms."""
        return sum(getattr(self, term) for term in TERMS)

    @property
    def gap(self) -> Any:
        """Relevance that no term accounts for: rounding, or a rule that loses or doubles some."""
        return self.received - self.sent - self.absorbed

    @property
    def percent(self) -> float:
        """The factor that makes the output's relevance 100; 0 where it adds up to rounding."""
        total, flow = float(np.sum(self.output)), np.asarray(self.flow)
        rounding = 1e3 * float(np.finfo(flow.dtype).eps) * float(flow.max(initial=0))
        return 100 / total if abs(total) > rounding else 0.0

    @property
    def steps(self) -> tuple[Layer, ...]:
        """The step of each column entry."""
        return self.plan.graph.all_steps

    def error(self) -> float:
        """The largest gap of any step, relative to what flowed there; infinite where it is NaN.

        Steps that are differentiated as written (`unknown="gradient"`) are left out: they do not
        conserve relevance.
        """
        exact = [not isinstance(rule, Gradient) for rule in self._rules()]
        gap, flow = np.abs(self.gap), np.asarray(self.flow)
        sound = np.isfinite(gap) & np.isfinite(flow)
        relative = np.where(sound, gap / np.where(flow > 0, flow, 1), np.inf)
        return float(np.where(exact & ((flow > 0) | ~sound), relative, 0).max(initial=0))

    def worst(self, count: int = 3) -> tuple[Layer, ...]:
        """The steps that kept most (the gap included), the worst first.

        Steps that kept less than a thousandth of the output's relevance are left out.
        """
        kept = np.abs(self._summed(self.received) - self._summed(self.sent))
        order = [int(i) for i in np.argsort(-kept, kind="stable")[:count]]
        threshold = 1e-3 * abs(float(np.sum(self.output)))
        return tuple(self.steps[i] for i in order if kept[i] > threshold)

    def _rules(self) -> list[Any]:
        rules = {row.layer: row.rule for row in self.plan}
        return [rules.get(layer) for layer in self.steps]

    def _summed(self, values: Any) -> np.ndarray:
        """Summed over examples."""
        values = np.asarray(values)
        return values.reshape(-1, values.shape[-1]).sum(0)

    def _cells(self) -> list[tuple[str, ...]]:
        scale = self.percent or 1.0
        worst = self.worst()
        columns = [self._summed(getattr(self, key)) for key in ("received", "sent", *TERMS)]
        gap, flow = self._summed(self.gap), self._summed(self.flow)
        rows = []
        for i, (layer, rule) in enumerate(zip(self.steps, self._rules(), strict=True)):
            kept = any(column[i] != 0 for column in columns[2:])
            if rule is None and not kept:  # moves values, keeps nothing
                continue
            shown = [_short(v[i] * scale) for v in columns]
            size = abs(gap[i]) / flow[i] if flow[i] > 0 else 0.0
            closed = size <= _rounding(layer, gap.dtype)
            mark = ("*" if layer in worst else "") + ("" if closed else "!")
            name = describe(rule) if rule is not None else ""
            number = str(layer.index) if layer.index >= 0 else ""
            left = "" if closed else f"{size:.0e}"
            rows.append((number, layer.name or layer.op, name, *shown, left, mark))
        return rows

    def _table(self) -> tuple[Cells, list[Cells]]:
        """Header and rows, without columns of numbers that are empty."""
        rows = self._cells()
        kept = [i for i in range(len(_HEADER)) if i < 5 or any(row[i] for row in rows)]
        return [_HEADER[i] for i in kept], [[row[i] for i in kept] for row in rows]

    def notes(self) -> list[str]:
        """A legend of the table, and the steps that kept most."""
        output, inputs = float(np.sum(self.output)), float(np.sum(self.inputs))
        unit, reached = f"% of the output's relevance ({output:.4g})", f"{inputs:.4g}"
        if self.percent:
            reached = f"{_short(inputs * self.percent) or 0} % ({reached})"
        else:
            unit = "units of the output, whose relevance adds up to 0"
        lines = [f"columns in {unit}; gap relative to the flow", f"{reached} reaches the input"]
        if aside := self._aside():
            lines.append(f"{aside} reaches numbers that the explained integers did not pick")
        if worst := self.worst():
            lines.append("* kept most: " + ", ".join(self._why(layer) for layer in worst))
        if any("!" in row[-1] for row in self._cells()):
            lines.append("! no term accounts for this gap: the rule does not conserve relevance")
        return lines

    def _aside(self) -> str:
        """The relevance of numbers beside token ids that no id picked, as text."""
        if not self.plan.graph.lookups:
            return ""
        rest = float(np.sum(self.output) - np.sum(self.absorbed) - np.sum(self.inputs))
        rounding = 1e-5 * float(np.asarray(self.flow).max(initial=0))
        return f"{rest:.4g}" if abs(rest) > rounding else ""

    def _why(self, layer: Layer) -> str:
        i = self.steps.index(layer)
        kept = {term: abs(self._summed(getattr(self, term))[i]) for term in (*TERMS, "gap")}
        at = f" at {layer.location}" if layer.location else ""
        return f"{layer.name or layer.op}{at} ({max(kept, key=lambda term: kept[term])})"

    def __str__(self) -> str:
        header, rows = self._table()
        numbers = range(3, len(header) - (header[-1] == _HEADER[-1]))
        table = tables.text(header, rows, numbers)
        return "\n".join([f"Ledger of {self.plan.composite.name}", table, *self.notes()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        caption = f"Ledger of {self.plan.composite.name}"
        return tables.html(*self._table(), caption, self.notes())


def _rounding(layer: Layer, dtype: Any) -> float:
    """The largest gap, as a part of the flow, that is rounding; half precision rounds once."""
    inside = {v for n in layer.nodes for v in (*n.inputs, *n.outputs)}
    dtypes = [dtype, *(v.aval.dtype for v in inside if v.floating)]
    return max(float(i.eps) * (1e3 if i.bits >= 32 else 1) for i in map(jnp.finfo, dtypes))


def _short(value: float) -> str:
    if abs(value) < 1e-3:
        return "~0" if value else ""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.1e}"
