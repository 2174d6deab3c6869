"""Writes ``docs/methods.md``: ``python tests/pages/methods_page.py``. test_analyzer checks it."""

import sys
from pathlib import Path

import jax

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

import jaxplain as jxp  # noqa: E402
from jaxplain.analyzer.grammar import FAMILIES  # noqa: E402
from parity import ALL, bound, error  # noqa: E402

PAGE = ROOT / "docs" / "methods.md"

HEAD = """# Methods by name

This page is written by `tests/pages/methods_page.py`; `tests/transforms/test_analyzer.py` checks
what it says.

`jxp.create_analyzer(name, model)` knows the names of iNNvestigate 1.0.9 and 2.1.2 and of SIGN-XAI.
`compat="innvestigate"` gives iNNvestigate's numbers, the default the mathematically right ones.

*parity*: under compat, the largest distance from the arrays of iNNvestigate 2.1.2 and 1.0.9 on the
reference models (`tests/references`), relative to each map's maximum, for the largest output and
for a fixed one (`pattern.*`: for a fixed one where the reference projects only the largest);
"captum" where captum's arrays are met instead (to 1e-5), "formula" where there is no array and a
test of the formula stands in.

| name | what it computes | parity | by default otherwise, because |
| --- | --- | --- | --- |
"""

WHOLE_BIAS = "the bias counts once: its positive part in z+, its negative part in z-"
STABILIZED = "a stabiliser of 1e-6 beside exact zeros"
SUMS = "sums and means have a stabiliser of 1e-6"
VALUE = "starts from 1, not from the output's value, which scales and may flip the map"
RELATIVE = "noise is relative to the input's range: it means the same at any scale"
SIGN_XAI = "SIGN-XAI is followed by its formulas, not by arrays"

DIFFERENCES = {
    "random": "noise alone; the reference returns the input plus noise",
    "deconvnet": VALUE,
    "guided_backprop": VALUE,
    "guided": VALUE,
    "integrated_gradients": "the midpoint rule: its error falls with the square of the steps",
    "smoothgrad": RELATIVE + "; 2.x ignores noise_scale",
    "smoothgrad_squared": RELATIVE,
    "vargrad": RELATIVE,
    "lrp": "lists of rules start at the input; the reference's start at the output",
    "lrp.stdxepsilon": "the deviation is per example: a map does not depend on its batch",
    "lrp.gamma": "the rule of Montavon et al.; SIGN-XAI's is another one",
    "lrp.alpha_beta": WHOLE_BIAS,
    "lrp.alpha_2_beta_1": WHOLE_BIAS,
    "lrp.alpha_1_beta_0": WHOLE_BIAS,
    "lrp.z_plus_fast": "inputs of both signs are treated as by z+",
    "lrp.sequential_preset_b_flat_until_idx": "until_layer_idx counts the plan's layers",
    "lrp.rule_until_index": "until_layer_idx counts the plan's layers",
    "deep_lift.wrapper": "max-pooling is shared out so that the sum is exact",
    "deep_lift": "max-pooling is shared out so that the sum is exact",
    "pattern.net": "projects in every mode; the reference not in mode index",
    "pattern.attribution": "projects in every mode; the reference not in mode index",
}
DIFFERENCES |= {
    f"lrp.sequential_{kind}_{end}": WHOLE_BIAS
    for kind in ("preset", "composite")
    for end in ("a", "b", "a_flat", "b_flat")
}
DIFFERENCES |= dict.fromkeys(("lrp.w_square", "lrp.flat", "lrp.z_plus"), STABILIZED)
DIFFERENCES |= dict.fromkeys(("lrp.z", "lrp.z_IB", "lrp.epsilon", "lrp.epsilon_IB"), SUMS)
DIFFERENCES |= dict.fromkeys(
    ("deep_taylor", "deep_taylor.bounded"),
    STABILIZED + "; sums and means share relevance out, where the reference copies or divides it",
)
DIFFERENCES |= {f"lrp.alpha_{a}_beta_{b}_IB": STABILIZED for a, b in ((2, 1), (1, 0))}

CAPTUM = ("deep_lift", "grad_cam", "guided_grad_cam", "occlusion")

TAIL = f"""
For all names: the largest output is the first of equals (under compat they share), and a batch's
examples never see each other (under compat `lrp.stdxepsilon` takes one deviation for all).

BatchNorm is folded into the kernel beside it; the reference's surrogate for it squares the variance
and is not reproduced, so that the models of the arrays have no BatchNorm where relevance would
cross it.

Grad-CAM, occlusion, DeepLIFT, and integrated gradients also meet captum's arrays
(`tests/peers/test_captum.py`, `tests/rules/test_deep_lift.py`). Differences there: captum's
trapezoid weights add up to (n - 1)/n, jaxplain's to 1; captum differentiates max-pooling in
DeepLIFT.

{SIGN_XAI}; its `zblrp_*` maps are zero by a slip, which is mended here; its `grad_cam` divides by
the map's maximum, which is left to the plot; its `guided_grad_cam` explains the sum of a layer,
here it explains the output.
"""


def figures() -> dict[str, tuple[float, bool]]:
    """By name, the largest error, and whether every key is within its bound."""
    found: dict[str, tuple[float, bool]] = {}
    jax.config.update("jax_disable_most_optimizations", True)  # compiling is what this costs
    with jax.enable_x64(True):
        for model, peer, key in ALL:
            distance = error(model, peer, key)
            worst, fine = found.get(key.partition("@")[0], (0.0, True))
            within = distance <= bound(key)
            found[key.partition("@")[0]] = max(worst, distance), fine and within
            print(f"{model} {peer} {key} {distance:.1e}", file=sys.stderr)
    return found


def main() -> None:
    measured = figures()
    assert all(fine for _, fine in measured.values())
    lines = []
    for name, line, _ in jxp.methods():
        other = "captum" if name in CAPTUM else "formula"
        figure = f"{measured[name][0]:.0e}" if name in measured else other
        lines.append(f"| `{name}` | {line} | {figure} | {DIFFERENCES.get(name, '')} |\n")
    PAGE.write_text(HEAD + "".join(lines) + TAIL)
    assert len(lines) > len(FAMILIES)


if __name__ == "__main__":
    main()
