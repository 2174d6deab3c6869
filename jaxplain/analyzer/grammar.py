"""The names of SIGN-XAI that are read instead of listed."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax

from jaxplain import rules, transforms
from jaxplain.analyzer.references import BACH, GUMPFER, MONTAVON, SHRIKUMAR_2016
from jaxplain.analyzer.rule_names import lrp_composite
from jaxplain.analyzer.settings import LRP, REVERSE, Name, Settings
from jaxplain.analyzer.shapes import Changed
from jaxplain.transforms import trees
from jaxplain.transforms.wrapper import Base

_NUMBER = r"(neg_)?\d+(?:_\d+)?"
_MU = re.compile(rf"(?P<base>.+?)_x_sign(?P<mu>_mu(?:_(?P<value>{_NUMBER}))?)?")
_LRP_NAME = re.compile(
    r"(?P<first>lrp|lrpsign|lrpz|w2lrp|flatlrp|zblrp)_(?P<base>.+?)"
    rf"(?P<mu>_mu(?:_(?P<value>{_NUMBER}))?)?(?P<box>_VGG16ILSVRC)?"
)
_EPSILON = re.compile(rf"epsilon_(?P<value>{_NUMBER})(?P<std>_std_x)?")
_FIRST_RULES = {"lrp": None, "lrpsign": "SIGN", "lrpz": "Z", "w2lrp": "WSquare", "flatlrp": "Flat"}
_BOX = (-123.68, 151.061)  # VGG16's inputs: BGR, centred

#: The families of names that are read instead of listed: `(grammar, line, reference)`.
FAMILIES = (
    ("<m>_x_input", "m times the input; m: gradient, smoothgrad, ...", SHRIKUMAR_2016),
    ("<m>_x_sign", "m times the sign of the input", GUMPFER),
    ("<m>_x_sign_mu_<mu>", "m times the sign of the input minus mu (0_5, neg_0_5, ...)", GUMPFER),
    ("lrp_<r>", "LRP by r: z, epsilon_0_1, epsilon_0_25_std_x, alpha_1_beta_0, gamma, ...", BACH),
    ("lrpsign_<r>, lrpsign_<r>_mu_<mu>", "the same, SIGN in the first layer", GUMPFER),
    ("lrpz_<r>, w2lrp_<r>, flatlrp_<r>", "the same, LRP-0, w^2, flat in the first layer", BACH),
    ("zblrp_<r>", "the same, zB in the first layer (low=, high=)", MONTAVON),
)


def read(name: str, names: Mapping[str, Name]) -> Name | None:
    """The entry that a name spells out; None where it follows no grammar."""
    return _signed(name, names) or _sign_lrp(name, names)


def _number(text: str) -> float:
    """`0_25` is 0.25 and `neg_1` -1."""
    value = float(text.removeprefix("neg_").replace("_", "."))
    return -value if text.startswith("neg_") else value


def _signed(name: str, names: Mapping[str, Name]) -> Name | None:
    """`gradient_x_input`, `gradient_x_sign`, `gradient_x_sign_mu_0_5`, ..."""
    signs = None
    if name.endswith("_x_input"):
        base = name.removesuffix("_x_input")
    elif match := _MU.fullmatch(name):
        base, signs = match["base"], rules.Sign(_number(match["value"] or "0")).signs
    else:
        return None
    if base not in ("gradient", "guided_backprop", "smoothgrad", "deconvnet"):
        return None
    inner = names[base]

    def times_factor(attribution: Any, x: Any) -> Any:
        return trees.times_input(attribution, x if signs is None else jax.tree.map(signs, x))

    def build(f: Callable[..., Any], s: Settings) -> Base:
        return Changed(inner.build(f, s), times_factor)

    line = f"{base} times the {'input' if signs is None else 'sign of the input'}"
    options = {k: v for k, v in inner.options.items() if k not in REVERSE}
    return Name(name, line, GUMPFER, build, options, inner.compat_options)


def _sign_lrp(name: str, names: Mapping[str, Name]) -> Name | None:
    """`lrpsign_epsilon_0_1`, `flatlrp_alpha_1_beta_0`, `zblrp_z_VGG16ILSVRC`, ..."""
    match = _LRP_NAME.fullmatch(name)
    if match is None or bool(match["mu"]) > (match["first"] == "lrpsign"):
        return None
    base, first_rule = match["base"], _FIRST_RULES.get(match["first"])
    epsilon = _EPSILON.fullmatch(base)
    inner = names.get(f"lrp.{base}")
    if epsilon is None and (inner is None or "input_layer_rule" not in inner.options):
        return None
    boxed = match["first"] == "zblrp"
    mu = rules.Sign(_number(match["value"] or "0")) if match["mu"] else None

    def build(f: Callable[..., Any], s: Settings) -> Base:
        rule: Any = mu or first_rule
        if boxed:
            rule = (s["low"], s["high"])
        if rule is not None and s["input_layer_rule"] is None:
            s = replace(s, options={**s.options, "input_layer_rule": rule})
        if epsilon is None:
            assert inner is not None
            return inner.build(f, s)
        value = _number(epsilon["value"])
        own = rules.StdEpsilon(value, s.compat) if epsilon["std"] else rules.Epsilon(value)
        return transforms.lrp(f, lrp_composite(own, s), argnums=s.argnums)

    options = dict(LRP if inner is None else inner.options)
    if boxed:
        options |= {"low": _BOX[0], "high": _BOX[1]}
    line = f"LRP by {base}" + (f", {match['first']} in the first layer" if first_rule else "")
    return Name(name, line, GUMPFER, build, options)
