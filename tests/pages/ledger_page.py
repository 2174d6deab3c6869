"""Writes the page on the ledger, from its tests: `python tests/pages/ledger_page.py`."""

import re
import sys
from pathlib import Path

import jax

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), *(str(ROOT / "tests" / name) for name in ("helpers", "rules"))]

import jaxplain as jxp  # noqa: E402
import test_ledger  # noqa: E402
import zoo  # noqa: E402
from jaxplain.rules import TERMS  # noqa: E402

PAGE = ROOT / "docs" / "ledger.md"
PICTURE = ROOT / "docs" / "ledger.png"

TEXT = """\
# The ledger

Relevance that leaves the output does not all arrive at the input. `explain.ledger(x)` runs the same
backward pass as `explain(x)` and says, for every layer, what arrived, what was handed on, and where
the rest went:

{terms}

At every layer, *arrived = handed on + the terms*, to rounding. Each term is computed from its own
definition and none from the others, so that a rule that loses or doubles relevance leaves a *gap*.
Rounding is measured against the flow Σ|x w s| over all connections, not against the relevance:
contributions of +1000 and −999 are known to seven digits of 1999 in float32.

This page and its picture are written by `python tests/pages/ledger_page.py`.

## A table

A small convolutional network with all that can keep relevance (`convolutional` in
`tests/rules/test_ledger.py`), under alpha-beta:

```text
{table}
```

`explain.ledger(x, per_example=True)` keeps the examples apart, `jaxplain.plot.ledger` draws it, and
a ledger is a pytree: `jax.jit(jax.vmap(explain.ledger))` works.

## A picture

EfficientNet-Lite0 and a cat, under `EpsilonPlusFlat`. Two thirds of the logit end in the bias of
one depthwise convolution (its BatchNorm's offset); 0.02 % reaches the pixels. The map is a picture
of those 0.02 %.

![What each layer keeps of the output's relevance](ledger.png)

## What is tested

In float64 the ledger closes to {tolerance:g} of the flow at every layer, and from the output to the
input, with all biases (in float32 to {single:g}):

- for the network above under {rules};
- for a DenseNet block and a transformer block under alpha-beta and gamma;
- for {blocks};
- for random networks by the thousand (`tests/graph/test_properties.py`).

Rules that are broken on purpose are caught:

{broken}

A layer used twice whose uses are mixed up conserves relevance all the same: that is caught by
writing the same network in two ways (`test_a_shared_layer_mixed_up_is_caught_by_spelling`).
"""


def markdown() -> str:
    """The page."""
    with jax.enable_x64(True):
        model = test_ledger.convolutional()
        rule = jxp.rules.AlphaBeta()
        table = str(jxp.lrp(model.f, rule).ledger(*model.args, target=test_ledger.everywhere))
        lines = []
        for name, broken in test_ledger.BROKEN.items():
            x = zoo.normal(4, 6, seed=4)
            found = str(jxp.lrp(test_ledger.residual, broken).ledger(x)).splitlines()
            (line,) = [line for line in found if line.endswith("!")]
            lines.append(f"*{name}*\n\n```text\n{found[1]}\n{line}\n```")
    return TEXT.format(
        terms="\n".join(f"- **{name}**: {meaning}" for name, meaning in TERMS.items()),
        table=re.sub(r"test_ledger\.py:\d+", "model.py:…", table),
        tolerance=test_ledger.FLOAT64,
        single=test_ledger.FLOAT32,
        rules=", ".join(test_ledger.RULES),
        blocks=", ".join(test_ledger.BLOCKS),
        broken="\n\n".join(lines),
    )


def draw() -> None:
    """The picture."""
    from jaxplain import plot
    from jaxplain.models import efficientnet_lite0, photographs

    model = jxp.from_linen(*efficientnet_lite0.load())
    x = efficientnet_lite0.preprocess(photographs.photograph("chelsea"))[None]
    ledger = jxp.lrp(model, jxp.composites.EpsilonPlusFlat()).ledger(x)
    plot.save(plot.ledger(ledger), PICTURE)


if __name__ == "__main__":
    PAGE.write_text(markdown())
    draw()
