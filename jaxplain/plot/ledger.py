"""The ledger as a figure: what is left of the output's relevance, and who keeps the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._matplotlib import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = {
    "bias": "#e69f00",
    "stabilizer": "#56b4e9",
    "dead": "#999999",
    "constants": "#009e73",
    "remainder": "#cc79a7",
    "gap": "#d55e00",
}
_INK = "#333333"
_NAMED = 24  # more names than this do not fit side by side


def ledger(ledger: Any, *, width: float = 7.0, height: float = 3.2) -> Figure:
    """What each layer keeps of the output's relevance, from the output (left) to the input.

    Bars show what a layer keeps, by term, in percent of the output's relevance; below zero where a
    term adds relevance. The line is what remains of it below the layer, on every path together. A
    gap, where a rule does not conserve relevance, is a term of its own. In deep networks only the
    layers that keep most are named; the others are counted as in the plan.

    Args:
        ledger: a `jaxplain.Ledger`; examples are added up.
        width: of the figure, in inches.
        height: of the figure, in inches.

    Raises:
        ValueError: the output's relevance is zero: there is nothing to divide by.
        ImportError: matplotlib is not installed.
    """
    if not ledger.percent:
        raise ValueError("the output's relevance adds up to zero: there are no shares to show")
    kept = {term: _summed(getattr(ledger, term)) * ledger.percent for term in _COLORS}
    everything = np.sum(list(kept.values()), axis=0)
    steps = ledger.steps
    shown = [i for i, k in enumerate(steps) if k.index >= 0 or abs(everything[i]) > 0][::-1]
    x = np.arange(len(shown))
    remaining = 100 - np.cumsum(everything[::-1])[len(everything) - 1 - np.asarray(shown)]

    figure = require("figure").Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    tops, bottoms = np.zeros(len(shown)), np.zeros(len(shown))
    for term, values in kept.items():
        heights = values[shown]
        if np.abs(heights).max(initial=0) < 0.01:
            continue
        base = np.where(heights > 0, tops, bottoms)
        axes.bar(x, heights, 0.8, bottom=base, color=_COLORS[term], label=term)
        tops, bottoms = tops + np.maximum(heights, 0), bottoms + np.minimum(heights, 0)
    axes.plot(x, remaining, color=_INK, marker=".", markersize=4, linewidth=1, label="remains")
    axes.axhline(0, color=_INK, linewidth=0.6)
    names = [steps[i].name or steps[i].op for i in shown]
    if len(shown) <= _NAMED:
        axes.set_xticks(x, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=7)
    else:
        ends = np.where(tops >= -bottoms, tops, bottoms)
        _name_the_worst(axes, ledger, shown, _without_common_scope(names), ends)
    axes.set_ylabel("% of the output's relevance", fontsize=8, color=_INK)
    axes.tick_params(axis="y", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def _name_the_worst(
    axes: Any, ledger: Any, shown: list[int], names: list[str], ends: np.ndarray
) -> None:
    indices = [ledger.steps[i].index for i in shown]
    ticks = range(0, len(shown), max(1, len(shown) // 10))
    axes.set_xticks(ticks, [str(indices[k]) for k in ticks], fontsize=7)
    axes.set_xlabel("layer, from the output to the input", fontsize=8, color=_INK)
    for layer in ledger.worst():
        k = indices.index(layer.index)
        axes.annotate(
            names[k],
            (k, ends[k]),
            xytext=(4, 2 if ends[k] > 0 else -8),
            textcoords="offset points",
            fontsize=7,
            color=_INK,
        )


def _without_common_scope(names: list[str]) -> list[str]:
    """Names without the module that all of them stand in."""
    scope = names[0].partition("/")[0] + "/"
    common = all(n.startswith(scope) for n in names)
    return [n.removeprefix(scope) for n in names] if common else names


def _summed(values: Any) -> np.ndarray:
    values = np.asarray(values, np.float64)
    return values.reshape(-1, values.shape[-1]).sum(0)
