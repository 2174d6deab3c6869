"""Rules by their old names, and composites from the options of the LRP family."""

from collections.abc import Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any

from jaxplain import composites, rules
from jaxplain.analyzer.settings import Settings
from jaxplain.composites import Composite, Match, first, kernel, kind, op
from jaxplain.graph import Graph, Layer
from jaxplain.matches import Where
from jaxplain.rules import Rule
from jaxplain.spelling import did_you_mean


def rule_of(spec: Any, s: Settings) -> Rule:
    """A rule from its name, its class, itself, or the bounds (low, high) of zB.

    Raises:
        ValueError: no rule has that name.
        TypeError: it is none of these.
    """
    if isinstance(spec, Rule):
        return spec
    if isinstance(spec, type) and issubclass(spec, Rule):
        return spec()
    pair = isinstance(spec, tuple) and len(spec) == 2
    if pair and not any(isinstance(v, str | Rule | type) for v in spec):
        return rules.ZBox(spec[0], spec[1], s.epsilon)
    if not isinstance(spec, str):
        raise TypeError(
            "a rule is given by its name, itself, or as the bounds (low, high) of the input, got "
            f"{spec!r}"
        )
    known = {
        "Z": rules.Z(),
        "ZIgnoreBias": rules.Z(bias=False),
        "Epsilon": rules.Epsilon(1e-7),
        "EpsilonIgnoreBias": rules.Epsilon(1e-7, bias=False),
        "WSquare": rules.WSquare(s.epsilon),
        "Flat": rules.Flat(s.epsilon),
        "Alpha2Beta1": alpha_beta(2, 1, True, s),
        "Alpha2Beta1IgnoreBias": alpha_beta(2, 1, False, s),
        "Alpha1Beta0": alpha_beta(1, 0, True, s),
        "Alpha1Beta0IgnoreBias": alpha_beta(1, 0, False, s),
        "ZPlus": rules.ZPlus(s.epsilon, bias=False),
        "ZPlusFast": rules.ZPlusFast() if s.compat else rules.ZPlus(bias=False),
        "Bounded": rules.ZBox(-1.0, 1.0, s.epsilon),
        "Gamma": rules.Gamma(0.5, s.epsilon),
        "SIGN": rules.Sign(),
        "SIGNmu": rules.Sign(0.0),
        "StdxEpsilon": rules.StdEpsilon(batch=s.compat),
    }
    if spec not in known:
        raise ValueError(f"no rule is called {spec!r}{did_you_mean(spec, known)}")
    return known[spec]


def alpha_beta(alpha: Any, beta: Any, bias: bool, s: Settings) -> Rule:
    """LRP-alpha-beta; one of alpha and beta follows from the other."""
    if alpha is None and beta is None:
        raise ValueError("give alpha or beta")
    for number in (alpha, beta):
        if number is not None and (isinstance(number, bool) or not isinstance(number, Real)):
            raise ValueError(f"alpha and beta are numbers, got {number!r}")
    alpha = 1 + beta if alpha is None else alpha
    beta = alpha - 1 if beta is None else beta
    if s.compat and bias:
        return rules.AlphaBetaWholeBias(alpha, beta)
    return rules.AlphaBeta(alpha, beta, s.epsilon, bias)


class OnePerKernel(Composite):
    """A list of rules, one for every kernel layer, from the input on."""

    def __init__(self, listed: Sequence[Rule], before: Sequence[tuple[Match, Rule]], base: Any):
        super().__init__(before, name="LRP", base=base, strict=False)
        self.listed = tuple(listed)

    def assign(self, graph: Graph) -> list[tuple[Layer, Rule | None, str]]:
        """As `Composite.assign`.

        Raises:
            ValueError: there are not as many rules as kernel layers.
        """
        kernels = [layer for layer in graph.layers if layer.is_kernel]
        if len(kernels) != len(self.listed):
            raise ValueError(
                f"rule lists {len(self.listed)} rules; the model has {len(kernels)} kernel layers: "
                f"{composites.describe_layers(kernels)}"
            )
        by_layer = dict(zip(kernels, self.listed, strict=True))
        return [
            (layer, by_layer[layer], "listed")
            if layer in by_layer and why == "base"
            else (layer, rule, why)
            for layer, rule, why in super().assign(graph)
        ]


class ByCondition(Composite):
    """Pairs of a condition on kernel layers and a rule; the first that holds counts."""

    def assign(self, graph: Graph) -> list[tuple[Layer, Rule | None, str]]:
        """As `Composite.assign`.

        Raises:
            ValueError: no condition holds for a kernel layer.
        """
        assigned = super().assign(graph)
        for layer, _, why in assigned:
            if layer.is_kernel and why == "base":
                raise ValueError(
                    f"no condition of rule= holds for layer {layer.index} ({layer.name}): end the "
                    "list with (lambda layer: True, ...)"
                )
        return assigned


def _for_kernels(entry: Any, s: Settings) -> tuple[Match, Rule]:
    if len(entry) != 2:
        raise TypeError(f"rule lists pairs (condition, rule), got {entry!r}")
    condition, given = entry
    match = condition if isinstance(condition, Match) else Where(condition, repr(condition))
    return kernel & match, rule_of(given, s)


def lrp_composite(rule: Any, s: Settings, input_rule: Any = None) -> Composite:
    """The composite of the LRP options.

    Args:
        rule: a rule (see `rule_of`) for all kernel layers, a list of one per kernel layer from the
            input on, a list of pairs (match, rule), or a composite.
        s: the settings.
        input_rule: for the first kernel layers, where the option does not say.
    """
    entries: list[tuple[Match, Rule]] = []
    if s["input_layer_rule"] is not None:
        input_rule = s["input_layer_rule"]
    if input_rule is not None:
        entries.append((first, rule_of(input_rule, s)))
    entries += _until(s)
    base = [(m, rules.Norm(s.epsilon) if r == rules.Norm() else r) for m, r in composites.BASE]
    if s["bn_layer_rule"] is not None:
        lone = kind("Affine") & op("scale")
        base = [(lone, rule_of(s["bn_layer_rule"], s)), *base]
    if isinstance(rule, Composite):
        if not entries and s["bn_layer_rule"] is None:
            return rule
        base = [*base[:1], *rule.base] if s["bn_layer_rule"] is not None else list(rule.base)
        return Composite([*entries, *rule.entries], name=rule.name, base=base, strict=rule.strict)
    if not isinstance(rule, list):
        entries.append((kernel, rule_of(rule, s)))
        return Composite(entries, name="LRP", base=base, strict=False)
    if rule and all(isinstance(v, tuple) and (not v or callable(v[0])) for v in rule):
        entries += (_for_kernels(v, s) for v in rule)
        return ByCondition(entries, name="LRP", base=base, strict=False)
    listed = [rule_of(given, s) for given in rule]
    return OnePerKernel(listed[::-1] if s.compat else listed, entries, base)


def _until(s: Settings) -> list[tuple[Match, Rule]]:
    index, rule = s["until_layer_idx"], s["until_layer_rule"]
    if (index is None) != (rule is None):
        raise ValueError("until_layer_idx and until_layer_rule go together: give both")
    if index is None:
        return []
    if isinstance(index, bool) or not isinstance(index, Integral) or int(index) < 0:
        raise ValueError(f"until_layer_idx is a position in the plan, >= 0, got {index!r}")
    last = int(index)
    match = Where(partial(_is_kernel_until, last), f"until {index}")
    return [(match, rule_of(rule, s))]


def _is_kernel_until(last: int, layer: Layer) -> bool:
    return layer.is_kernel and layer.index <= last
