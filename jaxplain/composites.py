"""Composites: which rule for which layer.

A composite is an ordered list of `(match, rule)`; the first match wins. Every composite stands on
`BASE`, which knows a rule for every kind of layer, so that presets only say what is special.
"""

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

from jaxplain import rules
from jaxplain.by_value import ByValue
from jaxplain.graph import Graph, Layer
from jaxplain.matches import (
    Match,
    any_layer,
    as_match,
    first,
    index,
    kernel,
    kind,
    last,
    name,
    op,
    rectifier,
)
from jaxplain.rules import Gradient, Rule
from jaxplain.rules.base import Stabilizer

__all__ = [
    "BASE",
    "Composite",
    "DeepTaylor",
    "EpsilonAlpha2Beta1",
    "EpsilonAlpha2Beta1Flat",
    "EpsilonGammaBox",
    "EpsilonPlus",
    "EpsilonPlusFlat",
    "ExcitationBackprop",
    "Match",
    "SequentialPresetA",
    "SequentialPresetAFlat",
    "SequentialPresetB",
    "SequentialPresetBFlat",
    "any_layer",
    "first",
    "index",
    "kernel",
    "kind",
    "last",
    "name",
    "op",
    "rectifier",
]


_Entries = tuple[tuple[Match, Rule], ...]


def _checked(entries: Iterable[tuple[Callable[[Layer], bool], Rule]]) -> _Entries:
    checked = []
    if not isinstance(entries, Iterable):
        raise TypeError(f"a composite is a list of pairs (match, rule), got {entries!r}")
    for entry in entries:
        if not (isinstance(entry, tuple) and len(entry) == 2 and callable(entry[0])):
            named = isinstance(entry, tuple) and bool(entry) and isinstance(entry[0], str)
            hint = f"; for layers by their name: (name({entry[0]!r}), ...)" if named else ""
            raise TypeError(f"a composite's entries are pairs (match, rule), got {entry!r}{hint}")
        match, rule = entry
        if not isinstance(rule, Rule):
            hint = f"; did you mean {rule.__name__}()?" if isinstance(rule, type) else ""
            raise TypeError(f"{rule!r} is not a rule{hint}")
        checked.append((as_match(match), rule))
    return tuple(checked)


BASE: _Entries = (
    (kind("Activation"), rules.Pass()),
    (kind("Merge"), rules.Norm()),
    (kind("Normalization"), rules.Norm()),
    (kind("Affine") & op("filter", "pooling", "sum", "cumulative", "linear"), rules.Norm()),
    (kind("Affine") & op("scale"), rules.Pass()),
    (kind("Selection"), rules.WinnerTakesAll()),
    (kind("Softmax"), rules.Taylor()),
    (kind("Product", "Matmul"), rules.Uniform()),
    (kernel, rules.Epsilon()),
)


class Composite(ByValue):
    """An ordered list of `(match, rule)` on top of a base map. Equal composites compare equal.

    Args:
        entries: pairs of a match (any predicate on layers will do) and a rule; the first match
            wins.
        name: its name in the plan.
        base: entries for layers that none of `entries` matches; None: `BASE`.
        strict: an entry that matches no layer of a model is an error when the model is planned: it
            is misspelled more often than not. One whose layers all went to earlier entries is not.
            The presets are not strict.

    Raises:
        TypeError: an entry is not a pair of a predicate and a rule.

    Example:
        >>> from jaxplain.composites import Composite, first, op
        >>> from jaxplain.rules import Epsilon, Flat, Gamma
        >>> print(Composite([(first, Flat()), (op("convolution"), Gamma(0.1))], name="Mine"))
        Mine: first -> Flat(), op('convolution') -> Gamma(gamma=0.1)
    """

    def __init__(
        self,
        entries: Iterable[tuple[Callable[[Layer], bool], Rule]],
        *,
        name: str = "Composite",
        base: Iterable[tuple[Callable[[Layer], bool], Rule]] | None = None,
        strict: bool = True,
    ):
        self.entries = _checked(entries)
        self.base = BASE if base is None else _checked(base)
        self.name = name
        self.strict = strict

    def assign(self, graph: Graph) -> list[tuple[Layer, Rule | None, str]]:
        """For every layer its rule (None when there is none) and why.

        Raises:
            ValueError: an entry of a strict composite matches no layer.
        """
        for match, rule in self.entries if self.strict else ():
            if not matching(match, graph.layers):
                raise ValueError(
                    f"{self.name}: {match} -> {describe(rule)} is for no layer of this model. Its "
                    f"layers are {describe_layers(graph.layers)}. For a composite that may hold "
                    "more than one model needs: Composite(..., strict=False)"
                )
        return [(layer, *self._choose(layer)) for layer in graph.layers]

    def _choose(self, layer: Layer) -> tuple[Rule | None, str]:
        for match, rule in self.entries:
            if match(layer):
                return rule, str(match)
        for match, rule in self.base:
            if match(layer):
                return rule, "base"
        return None, "no rule"

    def __str__(self) -> str:
        return f"{self.name}: " + ", ".join(f"{m} -> {describe(r)}" for m, r in self.entries)

    __repr__ = __str__


def matching(match: Callable[[Layer], bool], layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """The layers that match."""
    return tuple(layer for layer in layers if match(layer))


def describe_layers(layers: Iterable[Layer]) -> str:
    """The names of layers with their kind and op: "head (Affine dense)"."""
    return ", ".join(f"{layer.name} ({layer.kind} {layer.op})" for layer in layers)


def describe_layer(layer: Layer) -> str:
    """A layer's number, name and place, for messages."""
    where = f" at {layer.location}" if layer.location else ""
    return f"layer {layer.index} ({layer.name}){where}"


def describe(rule: Rule) -> str:
    """A rule with the options that are not its defaults."""
    options = []
    for field in fields(rule):
        key, value = field.name, getattr(rule, field.name)
        shape = getattr(value, "shape", ())
        if shape:
            options.append(f"{key}=array{list(shape)}")
        elif value is not field.default and value != field.default:
            options.append(f"{key}={value:g}" if isinstance(value, float) else f"{key}={value!r}")
    return f"{type(rule).__name__}({', '.join(options)})"


def _preset(name: str, *entries: tuple[Match, Rule], base: _Entries = BASE) -> Composite:
    return Composite(entries, name=name, base=base, strict=False)


_CONVOLUTION, _DENSE = kernel & op("convolution"), kernel & op("dense")


def of_kernels(rule: Rule) -> Composite:
    """One rule for every kernel layer."""
    return _preset(describe(rule), (kernel, rule))


def EpsilonPlus(epsilon: Stabilizer = 1e-6) -> Composite:
    """Convolutions z+, dense layers epsilon."""
    return _preset("EpsilonPlus", (_CONVOLUTION, rules.ZPlus()), (_DENSE, rules.Epsilon(epsilon)))


def EpsilonPlusFlat(epsilon: Stabilizer = 1e-6) -> Composite:
    """`EpsilonPlus` with Flat in the first layer."""
    return _flat(EpsilonPlus(epsilon), "EpsilonPlusFlat")


def EpsilonAlpha2Beta1(epsilon: Stabilizer = 1e-6) -> Composite:
    """Convolutions alpha-beta (2, 1), dense layers epsilon."""
    entries = (_CONVOLUTION, rules.AlphaBeta(2, 1)), (_DENSE, rules.Epsilon(epsilon))
    return _preset("EpsilonAlpha2Beta1", *entries)


def EpsilonAlpha2Beta1Flat(epsilon: Stabilizer = 1e-6) -> Composite:
    """`EpsilonAlpha2Beta1` with Flat in the first layer."""
    return _flat(EpsilonAlpha2Beta1(epsilon), "EpsilonAlpha2Beta1Flat")


def EpsilonGammaBox(
    low: Any, high: Any, gamma: float = 0.25, epsilon: Stabilizer = 1e-6
) -> Composite:
    """First convolution zB, other convolutions gamma, dense layers epsilon.

    Args:
        low: the smallest values of the input, in its units: a scalar or an array.
        high: the largest ones.
        gamma: of the gamma rule.
        epsilon: of the epsilon rule.
    """
    return _preset(
        "EpsilonGammaBox",
        (first & _CONVOLUTION, rules.ZBox(low, high)),
        (_CONVOLUTION, rules.Gamma(gamma)),
        (_DENSE, rules.Epsilon(epsilon)),
    )


def ExcitationBackprop() -> Composite:
    """z+ in every kernel layer.

    References:
        Zhang et al., "Top-Down Neural Attention by Excitation Backprop", IJCV 2018.
    """
    return _preset("ExcitationBackprop", (kernel, rules.ZPlus()))


def DeepTaylor(low: Any = None, high: Any = None, epsilon: Stabilizer = 1e-6) -> Composite:
    """z+ without biases in every kernel layer; with input bounds, zB in the first ones.

    Args:
        low: the smallest values of the input, in its units: a scalar or an array.
        high: the largest ones.
        epsilon: the stabiliser.

    Raises:
        ValueError: only one of them is given.

    References:
        Montavon et al., Pattern Recognition 2017.
    """
    if (low is None) != (high is None):
        raise ValueError(f"give both low and high, or neither, got low={low!r}, high={high!r}")
    box = () if low is None else ((first, rules.ZBox(low, high, epsilon)),)
    return _preset("DeepTaylor", *box, (kernel, rules.ZPlus(epsilon, bias=False)))


def SequentialPresetA(epsilon: Stabilizer = 0.1) -> Composite:
    """iNNvestigate's preset A: dense layers epsilon, convolutions alpha-beta (1, 0)."""
    entries = (_DENSE, rules.Epsilon(epsilon)), (_CONVOLUTION, rules.AlphaBeta(1, 0))
    return _preset("SequentialPresetA", *entries)


def SequentialPresetB(epsilon: Stabilizer = 0.1) -> Composite:
    """iNNvestigate's preset B: dense layers epsilon, convolutions alpha-beta (2, 1)."""
    entries = (_DENSE, rules.Epsilon(epsilon)), (_CONVOLUTION, rules.AlphaBeta(2, 1))
    return _preset("SequentialPresetB", *entries)


def SequentialPresetAFlat(epsilon: Stabilizer = 0.1) -> Composite:
    """Preset A with Flat in the first layer."""
    return _flat(SequentialPresetA(epsilon), "SequentialPresetAFlat")


def SequentialPresetBFlat(epsilon: Stabilizer = 0.1) -> Composite:
    """Preset B with Flat in the first layer."""
    return _flat(SequentialPresetB(epsilon), "SequentialPresetBFlat")


def _flat(composite: Composite, name: str) -> Composite:
    return _preset(name, (first, rules.Flat()), *composite.entries)


#: A base that differentiates every layer but unknown operations.
DIFFERENTIATED: _Entries = ((~kind("Unknown"), Gradient()),)
GRADIENT = Composite([], name="Gradient", base=[(any_layer, Gradient())])
DECONVNET = _preset("Deconvnet", (rectifier, rules.Deconvnet()), base=GRADIENT.base)
GUIDED = _preset("GuidedBackprop", (rectifier, rules.GuidedBackprop()), base=GRADIENT.base)
