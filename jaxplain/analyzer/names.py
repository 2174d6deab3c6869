"""The names of iNNvestigate and SIGN-XAI, and what each of them builds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from jaxplain import rules, tables, transforms
from jaxplain.analyzer import grammar, reversal
from jaxplain.analyzer import references as by
from jaxplain.analyzer.rule_names import alpha_beta, lrp_composite
from jaxplain.analyzer.settings import LRP, REVERSE, Build, Name, Settings
from jaxplain.analyzer.shapes import Changed, plus_input, shaped_as_input
from jaxplain.composites import DIFFERENTIATED, Composite, kernel, op
from jaxplain.spelling import did_you_mean
from jaxplain.transforms.explainer import Explainer
from jaxplain.transforms.method import selected_value
from jaxplain.transforms.wrapper import Base

# Builders: public transforms, from options under their old names


def _seeded(explainer: Explainer, s: Settings) -> Explainer:
    """iNNvestigate starts deconvnet and guided backpropagation from the output's value."""
    return explainer.with_method(seed=selected_value) if s.compat else explainer


def _gradient(f: Callable[..., Any], s: Settings) -> Base:
    return transforms.gradient(f, postprocess=s["postprocess"], logits=True, argnums=s.argnums)


def _times_input(f: Callable[..., Any], s: Settings) -> Base:
    return transforms.input_times_gradient(
        f, postprocess=s["postprocess"], logits=True, argnums=s.argnums
    )


def _deconvnet(f: Callable[..., Any], s: Settings) -> Base:
    return _seeded(transforms.deconvnet(f, logits=True, argnums=s.argnums), s)


def _guided(f: Callable[..., Any], s: Settings) -> Base:
    return _seeded(transforms.guided_backprop(f, logits=True, argnums=s.argnums), s)


def _input(f: Callable[..., Any], s: Settings) -> Base:
    return transforms.input(f, argnums=s.argnums)


def _random(f: Callable[..., Any], s: Settings) -> Base:
    noise = transforms.random(f, stddev=s["stddev"], argnums=s.argnums)
    return Changed(noise, plus_input) if s.compat else noise


def _integrated(f: Callable[..., Any], s: Settings) -> Base:
    same = {option: s[option] for option in ("steps", "batch_size")}
    quadrature: Literal["left", "midpoint"] = "left" if s.compat else "midpoint"
    return transforms.integrated_gradients(
        _gradient(f, s), _references(s), quadrature=quadrature, **same
    )


def _noisy(method: Callable[..., Base]) -> Build:
    def build(f: Callable[..., Any], s: Settings) -> Base:
        same = {option: s[option] for option in ("noise_scale", "batch_size")}
        return method(_gradient(f, s), samples=s["augment_by_n"], absolute=s.compat, **same)

    return build


def _expected(f: Callable[..., Any], s: Settings) -> Base:
    if s["reference_inputs"] is None:
        raise ValueError("expected_gradients needs reference_inputs: a data set of baselines")
    return transforms.expected_gradients(
        _gradient(f, s), _references(s), samples=s["augment_by_n"], batch_size=s["batch_size"]
    )


def _lrp(rule: str | Callable[[Settings], Any], input_rule: Any = None) -> Build:
    def build(f: Callable[..., Any], s: Settings) -> Base:
        given = rule if isinstance(rule, str) else rule(s)
        return transforms.lrp(f, lrp_composite(given, s, input_rule), argnums=s.argnums)

    return build


def _any_rule(s: Settings) -> Any:
    if s["rule"] is None:
        raise ValueError('"lrp" needs rule=: a rule, its name, or a list')
    return s["rule"]


def _preset(alpha: float, beta: float) -> Callable[[Settings], Any]:
    def composite(s: Settings) -> Composite:
        dense = kernel & op("dense"), rules.Epsilon(s["epsilon"])
        convolution = kernel & op("convolution"), alpha_beta(alpha, beta, True, s)
        return Composite([dense, convolution], name="Sequential preset", strict=False)

    return composite


def _preset_until(f: Callable[..., Any], s: Settings) -> Base:
    if s["until_layer_idx"] is not None and s["until_layer_rule"] is None:
        s = replace(s, options={**s.options, "until_layer_rule": "Flat"})
    return _lrp(_preset(2, 1), "Flat")(f, s)


def _deep_taylor(f: Callable[..., Any], s: Settings) -> Base:
    box = {bound: s[bound] for bound in ("low", "high") if bound in s.options}
    if any(value is None for value in box.values()):
        raise ValueError("deep_taylor.bounded needs low= and high=, the bounds of the input")
    explainer = transforms.deep_taylor(f, **box, argnums=s.argnums, epsilon=s.epsilon)
    if not s.compat:
        return explainer
    # there all but kernels are differentiated: sums copy relevance, means divide it
    entries = explainer.method.composite.entries
    composite = Composite(entries, name="DeepTaylor", base=DIFFERENTIATED, strict=False)
    return explainer.with_method(composite=composite)


def _deep_lift(f: Callable[..., Any], s: Settings) -> Base:
    maxima: Literal["gradient", "winners"] = "gradient" if s.compat else "winners"
    return transforms.deep_lift(
        f, _references(s), rule=s["nonlinear_mode"], maxima=maxima, argnums=s.argnums
    )


def _pattern(method: Callable[..., Explainer]) -> Build:
    def build(f: Callable[..., Any], s: Settings) -> Base:
        if s["patterns"] is None:
            raise ValueError("patterns are missing: call fit(X) first, or give patterns=")
        option = s["reverse_project_bottleneck_layers"]
        if s.compat and s["neuron_selection_mode"] == "index":
            option = False  # there its number of the neuron is an input beside every bottleneck
        explainer = method(f, s["patterns"], project=bool(option), argnums=s.argnums)
        if not option:
            return explainer
        return explainer.with_method(transform_relevance=reversal.project(option))

    return build


def _cam(f: Callable[..., Any], s: Settings) -> Base:
    cam = transforms.grad_cam(f, s["last_conv_layer_name"], **_cam_options(s))
    return cam if s["resize"] is None else Changed(cam, shaped_as_input)


def _guided_cam(f: Callable[..., Any], s: Settings) -> Base:
    return transforms.guided_grad_cam(f, s["last_conv_layer_name"], **_cam_options(s))


def _cam_options(s: Settings) -> dict[str, Any]:
    return {"resize": s["resize"], "argnums": _one(s), "logits": True}


def _occlusion(f: Callable[..., Any], s: Settings) -> Base:
    if s["window"] is None:
        raise ValueError("occlusion needs window=, its size along the input's trailing axes")
    options = {option: s[option] for option in _OCCLUSION}
    return transforms.occlusion(f, **options, argnums=_one(s), logits=True)


def _one(s: Settings) -> int:
    if isinstance(s.argnums, int):
        return s.argnums
    raise TypeError("this method explains one input, the model takes several")


def _references(s: Settings) -> Any:
    """Baselines; of several inputs a tuple."""
    given = s["reference_inputs"]
    return tuple(given) if isinstance(given, list) and isinstance(s.argnums, tuple) else given


# The table

_PATH = {"reference_inputs": 0.0, "steps": 64, "postprocess": None, "batch_size": 8}
_NOISE = {"augment_by_n": 64, "noise_scale": 0.1, "postprocess": None, "batch_size": 8}
_EXPECTED = {"reference_inputs": None, "augment_by_n": 64, "postprocess": None, "batch_size": 8}
_PRESET = LRP | {"epsilon": 0.1}
_PATTERN = REVERSE | {"patterns": None, "pattern_type": "relu"}
_PATTERN |= {"reverse_project_bottleneck_layers": True}
_CAM = {"last_conv_layer_name": None, "resize": "linear"}
_DEEP_LIFT = {"reference_inputs": 0.0, "nonlinear_mode": "rescale"}
_DEEP_LIFT |= {"verbose": False, "batch_size": None, "approximate_gradient": True}
_IN_DEEP_LIFT = {
    "verbose": "nothing is printed",
    "batch_size": "the examples of a call are explained together",
    "approximate_gradient": "differences that vanish always get the derivative",
}
_OCCLUSION = {"window": None, "strides": None, "baseline": 0.0, "batch_size": 8}
_POST = {"postprocess": None}
_ABSOLUTE = {"noise_scale": 1.0}

# fmt: off
_ROWS: tuple[tuple[Any, ...], ...] = (
    ("input", "the input itself", by.CONTROL, _input),
    ("random", "Gaussian noise", by.CONTROL, _random, {"stddev": 1.0}),
    ("gradient", "the gradient", by.SIMONYAN, _gradient, REVERSE | _POST),
    ("gradient.baseline", "the gradient", by.SIMONYAN, _gradient, _POST),
    ("input_t_gradient", "input times gradient", by.SHRIKUMAR_2016, _times_input, REVERSE | _POST),
    ("deconvnet", "rectified backward signals", by.ZEILER, _deconvnet, REVERSE),
    ("guided_backprop", "the gradient, negative signals cut", by.SPRINGENBERG, _guided, REVERSE),
    ("guided", "the same", by.SPRINGENBERG, _guided, REVERSE),
    ("integrated_gradients", "the gradient along a path", by.SUNDARARAJAN, _integrated, _PATH),
    ("expected_gradients", "the same over a data set of baselines", by.ERION, _expected, _EXPECTED),
    ("smoothgrad", "the mean gradient under noise", by.SMILKOV,
     _noisy(transforms.smoothgrad), _NOISE, _ABSOLUTE),
    ("smoothgrad_squared", "the mean squared gradient under noise", by.HOOKER,
     _noisy(transforms.smoothgrad_squared), _NOISE, _ABSOLUTE),
    ("vargrad", "the variance of the gradient under noise", by.ADEBAYO,
     _noisy(transforms.vargrad), _NOISE, _ABSOLUTE),
    ("lrp", "LRP by a rule, or rules", by.BACH, _lrp(_any_rule), LRP | {"rule": None}),
    ("lrp.z", "LRP-0", by.BACH, _lrp("Z"), LRP),
    ("lrp.z_IB", "LRP-0 without biases", by.BACH, _lrp("ZIgnoreBias"), LRP),
    ("lrp.epsilon", "LRP-epsilon", by.BACH,
     _lrp(lambda s: rules.Epsilon(s["epsilon"], s["bias"])), LRP | {"epsilon": 1e-7, "bias": True}),
    ("lrp.epsilon_IB", "LRP-epsilon without biases", by.BACH,
     _lrp(lambda s: rules.Epsilon(s["epsilon"], bias=False)), LRP | {"epsilon": 1e-7}),
    ("lrp.stdxepsilon", "LRP-epsilon, epsilon in deviations of the input", by.GUMPFER,
     _lrp(lambda s: rules.StdEpsilon(s["stdfactor"], s.compat)), LRP | {"stdfactor": 0.25}),
    ("lrp.gamma", "LRP-gamma", by.MONTAVON_2019,
     _lrp(lambda s: rules.Gamma(s["gamma"], s.epsilon)), LRP | {"gamma": 0.5}),
    ("lrp.w_square", "w^2 in every layer", by.MONTAVON, _lrp("WSquare"), LRP),
    ("lrp.flat", "flat in every layer", by.LAPUSCHKIN, _lrp("Flat"), LRP),
    ("lrp.alpha_beta", "LRP-alpha-beta", by.BACH,
     _lrp(lambda s: alpha_beta(s["alpha"], s["beta"], s["bias"], s)),
     LRP | {"alpha": None, "beta": None, "bias": True}),
    ("lrp.alpha_2_beta_1", "LRP-alpha-beta (2, 1)", by.BACH, _lrp("Alpha2Beta1"), LRP),
    ("lrp.alpha_2_beta_1_IB", "the same without biases", by.BACH,
     _lrp("Alpha2Beta1IgnoreBias"), LRP),
    ("lrp.alpha_1_beta_0", "LRP-alpha-beta (1, 0)", by.BACH, _lrp("Alpha1Beta0"), LRP),
    ("lrp.alpha_1_beta_0_IB", "the same without biases", by.BACH,
     _lrp("Alpha1Beta0IgnoreBias"), LRP),
    ("lrp.z_plus", "z+ without biases", by.MONTAVON, _lrp("ZPlus"), LRP),
    ("lrp.z_plus_fast", "z+ without biases", by.MONTAVON, _lrp("ZPlusFast"), LRP),
    ("lrp.sequential_preset_a", "dense epsilon, convolutions alpha-beta (1, 0)", by.LAPUSCHKIN,
     _lrp(_preset(1, 0)), _PRESET),
    ("lrp.sequential_preset_b", "dense epsilon, convolutions alpha-beta (2, 1)", by.LAPUSCHKIN,
     _lrp(_preset(2, 1)), _PRESET),
    ("lrp.sequential_preset_a_flat", "preset A, flat in the first layer", by.LAPUSCHKIN,
     _lrp(_preset(1, 0), "Flat"), _PRESET),
    ("lrp.sequential_preset_b_flat", "preset B, flat in the first layer", by.LAPUSCHKIN,
     _lrp(_preset(2, 1), "Flat"), _PRESET),
    ("lrp.sequential_preset_b_flat_until_idx", "preset B, flat up to a layer", by.LAPUSCHKIN,
     _preset_until, _PRESET),
    ("lrp.sequential_composite_a", "preset A", by.LAPUSCHKIN, _lrp(_preset(1, 0)), _PRESET),
    ("lrp.sequential_composite_b", "preset B", by.LAPUSCHKIN, _lrp(_preset(2, 1)), _PRESET),
    ("lrp.rule_until_index", "a rule, another one up to a layer", by.BACH,
     _lrp(_any_rule), LRP | {"rule": "Epsilon"}),
    ("deep_taylor", "z+ from a positive output", by.MONTAVON, _deep_taylor, REVERSE),
    ("deep_taylor.bounded", "the same, zB in the first layer", by.MONTAVON, _deep_taylor,
     REVERSE | {"low": None, "high": None}),
    ("deep_lift", "differences to a reference", by.SHRIKUMAR, _deep_lift, _DEEP_LIFT, {},
     _IN_DEEP_LIFT),
    ("deep_lift.wrapper", "the same", by.SHRIKUMAR, _deep_lift, _DEEP_LIFT, {}, _IN_DEEP_LIFT),
    ("pattern.net", "the signal, by patterns", by.KINDERMANS,
     _pattern(transforms.pattern_net), _PATTERN),
    ("pattern.attribution", "the signal's part in the output, by patterns", by.KINDERMANS,
     _pattern(transforms.pattern_attribution), _PATTERN),
    ("grad_cam", "channels, weighted by their gradient", by.SELVARAJU, _cam, _CAM),
    ("guided_grad_cam", "guided backpropagation times Grad-CAM", by.SELVARAJU, _guided_cam, _CAM),
    ("occlusion", "what the output loses behind a window", by.ZEILER, _occlusion, _OCCLUSION),
)
# fmt: on

_HEADER = ("name", "what it computes", "reference")

NAMES: dict[str, Name] = {row[0]: Name(*row) for row in _ROWS}


def find(name: str) -> Name:
    """The entry of a name.

    Raises:
        KeyError: there is none; close matches are listed.
        TypeError: it is no text.
    """
    if not isinstance(name, str):
        raise TypeError(f"a method is given by its name, got {name!r}")
    entry = NAMES.get(name) or grammar.read(name, NAMES)
    if entry is None:
        raise KeyError(
            f"no method is called {name!r}{did_you_mean(name, NAMES)}; methods() lists them all"
        )
    return entry


class Methods(tuple[tuple[str, str, str], ...]):
    """The table of all names; prints as text, shows as HTML."""

    def __str__(self) -> str:
        return tables.text(_HEADER, self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return tables.html(_HEADER, self, "Methods")


def methods() -> Methods:
    """All names that `create_analyzer` knows, each with a line and a reference.

    Returns:
        A table: printed, it is text; iterated over, triples of name, line and reference.

    Example:
        >>> import jaxplain as jxp
        >>> print([name for name, line, reference in jxp.methods()][:3])
        ['input', 'random', 'gradient']
    """
    listed = tuple((n.name, n.line, n.reference) for n in NAMES.values())
    return Methods((*listed, *grammar.FAMILIES))
