"""The names of iNNvestigate and SIGN-XAI, and what each of them builds.

A name stands for a public transform with options under their old names. `Settings.compat` chooses
iNNvestigate's numbers where they differ from the mathematically right ones.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import composites, rules, tables, transforms
from jaxplain.composites import Composite, Match, first, kernel, kind, op
from jaxplain.graph import Graph, Layer
from jaxplain.rules import Rule
from jaxplain.transforms.explainer import Explainer
from jaxplain.transforms.wrapper import Base, Wrapper


@dataclass(frozen=True)
class Settings:
    """The options of a name, complete, and how numbers are to be computed.

    Attributes:
        options: every option of the name.
        argnums: which arguments of the model are explained.
        compat: iNNvestigate's numbers.
    """

    options: Mapping[str, Any]
    argnums: int | tuple[int, ...]
    compat: bool

    def __getitem__(self, option: str) -> Any:
        return self.options[option]

    @property
    def epsilon(self) -> float:
        """The stabiliser of rules that have none in the reference."""
        return 0.0 if self.compat else 1e-6


Build = Callable[[Callable[..., Any], Settings], Base]


@dataclass(frozen=True)
class Name:
    """A name.

    Attributes:
        name: as it is written.
        line: what it computes.
        reference: who introduced it, where.
        build: makes the explainer of a model.
        options: the options it takes besides those of all names, with their defaults.
        compat_options: defaults that are others under compat.
    """

    name: str
    line: str
    reference: str
    build: Build
    options: Mapping[str, Any] = field(default_factory=dict)
    compat_options: Mapping[str, Any] = field(default_factory=dict)


#: Options of every name.
COMMON: dict[str, Any] = {"neuron_selection_mode": "max_activation", "disable_model_checks": False}
COMMON |= {"allow_lambda_layers": False}
#: Options of names that propagate backward through the layers.
REVERSE: dict[str, Any] = dict.fromkeys(
    (
        "reverse_verbose",
        "reverse_clip_values",
        "reverse_project_bottleneck_layers",
        "reverse_check_min_max_values",
        "reverse_check_finite",
        "reverse_keep_tensors",
        "reverse_reapply_on_copied_layers",
    ),
    False,
)
#: Options of the LRP family.
LRP: dict[str, Any] = REVERSE | dict.fromkeys(
    ("input_layer_rule", "until_layer_idx", "until_layer_rule", "bn_layer_rule")
)
LRP |= {"bn_layer_fuse_mode": "one_linear"}

SIMONYAN = "Simonyan et al., ICLR workshop 2014"
BACH = "Bach et al., PLOS ONE 2015"
MONTAVON = "Montavon et al., Pattern Recognition 2017"
LAPUSCHKIN = "Lapuschkin et al., Nature Communications 2019"
SHRIKUMAR = "Shrikumar et al., ICML 2017"
KINDERMANS = "Kindermans et al., ICLR 2018"
GUMPFER = "Gumpfer et al., Information Fusion 2023"
SELVARAJU = "Selvaraju et al., ICCV 2017"


# Rules by name


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
    if isinstance(spec, tuple) and len(spec) == 2:
        return rules.ZBox(*spec, epsilon=s.epsilon)
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
        raise ValueError(f"no rule is called {spec!r}{_close(spec, known)}")
    return known[spec]


def alpha_beta(alpha: Any, beta: Any, bias: bool, s: Settings) -> Rule:
    """LRP-alpha-beta; one of alpha and beta follows from the other."""
    if alpha is None and beta is None:
        raise ValueError("give alpha or beta")
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
                f"{composites.spelled(kernels)}"
            )
        by_layer = dict(zip(kernels, self.listed, strict=True))
        return [
            (layer, by_layer[layer], "listed")
            if layer in by_layer and why == "base"
            else (layer, rule, why)
            for layer, rule, why in super().assign(graph)
        ]


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
        return Composite([*entries, *rule.entries], name=rule.name, base=base, strict=False)
    if not isinstance(rule, list):
        entries.append((kernel, rule_of(rule, s)))
    elif all(isinstance(entry, tuple) and callable(entry[0]) for entry in rule):
        entries += [(match, rule_of(given, s)) for match, given in rule]
    else:
        listed = [rule_of(given, s) for given in rule]
        return OnePerKernel(listed[::-1] if s.compat else listed, entries, base)
    return Composite(entries, name="LRP", base=base, strict=False)


def _until(s: Settings) -> list[tuple[Match, Rule]]:
    index, rule = s["until_layer_idx"], s["until_layer_rule"]
    if (index is None) != (rule is None):
        raise ValueError("until_layer_idx and until_layer_rule go together: give both")
    if index is None:
        return []
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise ValueError(f"until_layer_idx is a position in the plan, >= 0, got {index!r}")
    match = Match(lambda layer: layer.is_kernel and layer.index <= index, f"until {index}")
    return [(match, rule_of(rule, s))]


# What names build


def _seeded(explainer: Explainer, s: Settings) -> Explainer:
    """iNNvestigate starts deconvnet and guided backpropagation from the output's value."""
    from dataclasses import replace

    return replace(explainer, seed=_itself) if s.compat else explainer


def _itself(output: jax.Array) -> jax.Array:
    return output


def _gradient(f: Callable[..., Any], s: Settings) -> Base:
    return transforms.gradient(
        f, postprocess=s["postprocess"], logits=True, argnums=s.argnums
    )


def _input_t_gradient(f: Callable[..., Any], s: Settings) -> Base:
    return transforms.input_times_gradient(
        f, postprocess=s["postprocess"], logits=True, argnums=s.argnums
    )


def _deconvnet(f: Callable[..., Any], s: Settings) -> Base:
    return _seeded(transforms.deconvnet(f, logits=True, argnums=s.argnums), s)


def _guided_backprop(f: Callable[..., Any], s: Settings) -> Base:
    return _seeded(transforms.guided_backprop(f, logits=True, argnums=s.argnums), s)


def _input(f: Callable[..., Any], s: Settings) -> Base:
    return transforms.input(f, argnums=s.argnums)


def _random(f: Callable[..., Any], s: Settings) -> Base:
    noise = transforms.random(f, stddev=s["stddev"], argnums=s.argnums)
    return PlusInput(noise) if s.compat else noise


def _integrated_gradients(f: Callable[..., Any], s: Settings) -> Base:
    return transforms.integrated_gradients(
        _gradient(f, s),
        s["reference_inputs"],
        steps=s["steps"],
        quadrature="left" if s.compat else "midpoint",
        batch_size=s["batch_size"],
    )


def _noisy(method: Callable[..., Base]) -> Build:
    def build(f: Callable[..., Any], s: Settings) -> Base:
        return method(
            _gradient(f, s),
            samples=s["augment_by_n"],
            noise_scale=s["noise_scale"],
            absolute=s.compat,
            batch_size=s["batch_size"],
        )

    return build


def _expected_gradients(f: Callable[..., Any], s: Settings) -> Base:
    if s["reference_inputs"] is None:
        raise ValueError("expected_gradients needs reference_inputs: a data set of baselines")
    return transforms.expected_gradients(
        _gradient(f, s),
        s["reference_inputs"],
        samples=s["augment_by_n"],
        batch_size=s["batch_size"],
    )


def _lrp(rule: Callable[[Settings], Any], input_rule: Any = None) -> Build:
    def build(f: Callable[..., Any], s: Settings) -> Base:
        return transforms.lrp(f, lrp_composite(rule(s), s, input_rule), argnums=s.argnums)

    return build


def _any_rule(s: Settings) -> Any:
    if s["rule"] is None:
        raise ValueError('"lrp" needs rule=: a rule, its name, or a list')
    return s["rule"]


def _preset(alpha: float, beta: float) -> Callable[[Settings], Any]:
    def preset(s: Settings) -> Composite:
        dense, convolution = kernel & op("dense"), kernel & op("convolution")
        return Composite(
            [
                (dense, rules.Epsilon(s["epsilon"])),
                (convolution, alpha_beta(alpha, beta, True, s)),
            ],
            name="Sequential preset",
            strict=False,
        )

    return preset


def _preset_until(f: Callable[..., Any], s: Settings) -> Base:
    if s["until_layer_idx"] is not None and s["until_layer_rule"] is None:
        s = Settings({**s.options, "until_layer_rule": "Flat"}, s.argnums, s.compat)
    return _lrp(_preset(2, 1), "Flat")(f, s)


def _deep_taylor(f: Callable[..., Any], s: Settings) -> Base:
    return transforms.deep_taylor(f, argnums=s.argnums, epsilon=s.epsilon)


def _deep_taylor_bounded(f: Callable[..., Any], s: Settings) -> Base:
    if s["low"] is None or s["high"] is None:
        raise ValueError("deep_taylor.bounded needs low= and high=, the bounds of the input")
    return transforms.deep_taylor(
        f, low=s["low"], high=s["high"], argnums=s.argnums, epsilon=s.epsilon
    )


def _deep_lift(f: Callable[..., Any], s: Settings) -> Base:
    modes = {"rescale": "rescale", "reveal_cancel": "reveal_cancel"}
    if s["nonlinear_mode"] not in modes:
        raise ValueError(
            f"nonlinear_mode must be one of {tuple(modes)}, got {s['nonlinear_mode']!r}"
        )
    return transforms.deep_lift(
        f, s["reference_inputs"], rule=modes[s["nonlinear_mode"]], argnums=s.argnums
    )


def _cam(f: Callable[..., Any], s: Settings) -> Base:
    cam = transforms.grad_cam(
        f, s["last_conv_layer_name"], resize=s["resize"], argnums=_one(s), logits=True
    )
    return InputShaped(cam)


def _guided_cam(f: Callable[..., Any], s: Settings) -> Base:
    return transforms.guided_grad_cam(
        f, s["last_conv_layer_name"], resize=s["resize"], argnums=_one(s), logits=True
    )


def _occlusion(f: Callable[..., Any], s: Settings) -> Base:
    if s["window"] is None:
        raise ValueError("occlusion needs window=, its size along the input's trailing axes")
    return transforms.occlusion(
        f,
        s["window"],
        s["strides"],
        baseline=s["baseline"],
        batch_size=s["batch_size"],
        argnums=_one(s),
        logits=True,
    )


def _one(s: Settings) -> int:
    if isinstance(s.argnums, int):
        return s.argnums
    raise TypeError("this method explains one input, the model takes several")


@dataclass(frozen=True, eq=False)
class PlusInput(Wrapper):
    """The input plus the base attribution: iNNvestigate's "random"."""

    def attribute(self, base: Base, args: Sequence[Any], target: Any, key: Any) -> Any:
        """See the class."""
        found = transforms.wrapper.call(base, args, target, key)
        return jax.tree.map(jnp.add, transforms.wrapper.explained(args, self.argnums), found)


@dataclass(frozen=True, eq=False)
class InputShaped(Wrapper):
    """A map of one channel, repeated to the input's shape."""

    def attribute(self, base: Base, args: Sequence[Any], target: Any, key: Any) -> Any:
        """See the class."""
        x = transforms.wrapper.explained(args, self.argnums)
        found = transforms.wrapper.call(base, args, target, key)
        return jnp.broadcast_to(found, (*found.shape[: found.ndim - x.ndim], *x.shape))

    def check(self, args: Sequence[Any], target: Any) -> None:
        """As the base."""
        if isinstance(self.base, Wrapper):
            self.base.check(args, target)
