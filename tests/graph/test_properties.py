"""Properties of random networks: what holds for every model, spelling, rule and seed.

One batch asks several questions at once: its rows repeat two examples under different seeds.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, seed, settings
from hypothesis import strategies as st
from jax import nn

from jaxplain.composites import Composite, first, kernel, kind, last, op
from jaxplain.graph import trace
from jaxplain.graph.analyses.bounds import bounds_of
from jaxplain.graph.ir import read
from jaxplain.interpreter import evaluate, values
from jaxplain.ledger import Ledger
from jaxplain.plan import Plan
from jaxplain.probes import COLUMNS, Probes
from jaxplain.rules import (
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Norm,
    Pass,
    Rule,
    Uniform,
    WSquare,
    ZBox,
    ZPlus,
)
from random_models import Model, models

PARTS = 10
OTHERS = 1000 * (sys.version_info >= (3, 12))  # CI runs both, on models of their own

TOLERANCE = 1e-8


pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(autouse=True, scope="module")
def _forget() -> Iterator[None]:
    yield
    jax.clear_caches()  # thousands of small programs


# Rules. Denominators near zero would make rounding visible, hence the large stabilisers.

E = 1e-3
KERNEL = [Epsilon(E), Epsilon(0.1, bias=False), Gamma(0.25, E), AlphaBeta(2, 1, E), ZPlus(E)]
KERNEL += [WSquare(E), Flat(E), Norm(E)]
FIRST = [None, Flat(E), WSquare(E), ZBox(-4.0, 4.0, E), AlphaBeta(1, 0, E, bias=False)]
LAST = [None, Epsilon(E), Gamma(1.0, E), ZPlus(E)]
MERGE = [Norm(E), Norm(E), ZPlus(E), AlphaBeta(2, 1, E), Gamma(0.25, E)]


@dataclass(frozen=True)
class Rules:
    """Which rule for which kind of layer."""

    kernel: Rule
    first: Rule | None
    last: Rule | None
    merge: Rule

    def composite(self, stabilizer: float = 1.0) -> Composite:
        """The rules, their stabilisers times a factor."""
        entries = [
            *([(first, self.first)] if self.first else []),
            *([(last, self.last)] if self.last else []),
            (kernel, self.kernel),
            (kind("Merge") | op("sum", "pooling"), self.merge),
            (kind("Affine", "Normalization"), Norm(E)),
            (kind("Product", "Matmul"), Uniform(E)),
        ]
        return Composite(
            [(op("scale"), Pass())]
            + [(m, replace(rule, epsilon=stabilizer * rule.epsilon)) for m, rule in entries],
            strict=False,
        )


RULES = st.builds(Rules, *map(st.sampled_from, (KERNEL, FIRST, LAST, MERGE)))


class Explained:
    """A function traced, planned and run, operation by operation: compiling would cost more."""

    def __init__(self, f: Any, x: Any, composite: Composite):
        self.graph = trace(f, x, logits=True)
        self.plan = Plan(self.graph, composite)
        self.x = x
        self.constants = [value for _, value in self.graph.program.constants]

    def output(self) -> list[Any]:
        """The outputs, and on the way that all values are where they are said to be."""
        program = self.graph.program
        env = values(program, self.constants, [self.x])
        for var, (low, high) in bounds_of(program, {}).items():
            if var in env and var.floating:
                value, slack = (
                    np.asarray(env[var]),
                    1e-12 * max(map(abs, filter(np.isfinite, (1, low, high)))),
                )
                unbounded = low == -np.inf and high == np.inf  # perhaps no number at all
                inside = unbounded | ((value >= low - slack) & (value <= high + slack))
                assert inside.all(), f"{var} of {var.producer} is not within {low} and {high}"
        return [read(env, v) for v in program.outputs]

    def relevance(self, seeds_of: Any) -> tuple[list[Any], Any]:
        """The outputs that relevance starts from, and the relevance of `x`."""
        heads, pullback = jax.vjp(lambda x: self._heads(x, Probes()), self.x)
        return heads, pullback(seeds_of(heads))[0]

    def audited(self, seeds_of: Any) -> tuple[list[Any], Any, Ledger]:
        """The same with the ledger of the pass."""
        steps = self.graph.all_steps
        zeros = [dict.fromkeys(COLUMNS, jnp.zeros(())) for _ in steps]
        heads, pullback = jax.vjp(
            lambda x, columns: self._heads(
                x, Probes(ledger=dict(zip(steps, columns, strict=True)))
            ),
            self.x,
            zeros,
        )
        seeds = seeds_of(heads)
        arriving, recorded = pullback(seeds)
        columns = {key: np.array([layer[key] for layer in recorded]) for key in COLUMNS}
        total = sum(float(s.sum()) for s in seeds)
        return heads, arriving, Ledger(self.plan, total, float(arriving.sum()), **columns)

    def _heads(self, x: Any, probes: Probes) -> list[Any]:
        return evaluate(
            self.plan,
            self.constants,
            [x],
            [x],
            self.graph.explained_outputs,
            at_least_float32=True,
            probes=probes,
        )[0]


# The rows of a batch: examples (0 or 1) and their seeds.

EXAMPLES = np.array([0, 1, 0, 0, 1])
A, B = 2.0, -3.0


def seeds(heads: list[Any]) -> list[Any]:
    """Random seeds for the rows: u, v, w, A u + B w, v."""
    rng = np.random.default_rng(0)
    found = []
    for head in heads:
        u, v, w = rng.normal(size=(3, *head.shape[1:]))
        found.append(jnp.asarray(np.stack([u, v, w, A * u + B * w, v])))
    return found


ENDS = {"logits": lambda z: z, "probabilities": nn.softmax, "log_probabilities": nn.log_softmax}


def check(model: Model, rules: Rules) -> None:
    """Asks everything of one model."""
    x = model.inputs(2)[EXAMPLES]
    f = model.function(0)
    explained = Explained(f, x, rules.composite())
    heads, relevance, ledger = explained.audited(seeds)

    with jax.disable_jit():
        outputs = jax.tree.leaves(f(x))
    ended = [ENDS[model.head[0]](heads[0]), *heads[1:]]
    for wanted, run, evaluated in zip(outputs, explained.output(), ended, strict=True):
        same(wanted, run, 1e-12, "forward")
        same(wanted, evaluated, 1e-12, "heads")

    assert ledger.error() <= 1e-10, f"ledger: a step loses {ledger.error():.1e}\n{ledger}"
    gap = abs(ledger.output - ledger.inputs - np.sum(ledger.absorbed))
    assert gap <= 1e-10 * np.sum(ledger.flow), f"ledger: the total is off by {gap:.1e}\n{ledger}"

    scale = np.abs(relevance).max()
    same(A * relevance[0] + B * relevance[2], relevance[3], TOLERANCE, "linearity", scale)
    same(relevance[1], relevance[4], TOLERANCE, "permuted batch", scale)

    order = np.random.default_rng(model.seed).permutation(x.shape[-1])
    other = Explained(model.function(1, order), x[..., order], rules.composite())
    heads_of_other, permuted = other.relevance(seeds)
    for wanted, found in zip(heads, heads_of_other, strict=True):
        same(wanted, found, 1e-11, "spelling of the function")
    gap = np.abs(relevance[..., order] - permuted).max()
    if gap > TOLERANCE * scale:
        # A spelling may move a stabiliser to where units are others: what it did fades with it.
        smaller = rules.composite(stabilizer=1e-4)
        _, relevance = Explained(f, x, smaller).relevance(seeds)
        _, permuted = Explained(model.function(1, order), x[..., order], smaller).relevance(seeds)
        same(relevance[..., order], permuted, gap / scale / 100, "spelling or permuted features")


def same(wanted: Any, found: Any, tolerance: float, what: str, scale: Any = None) -> None:
    wanted, found = np.asarray(wanted), np.asarray(found)
    scale = np.abs(wanted).max() if scale is None else scale
    assert np.isfinite(wanted).all(), f"{what}: not finite"
    difference = np.abs(wanted - found).max()
    assert difference <= tolerance * scale, f"{what}: differs by {difference:.1e} of {scale:.1e}"


@pytest.mark.parametrize("part", range(PARTS))
def test_random_models(part, pytestconfig):
    wanted = pytestconfig.getoption("models") // PARTS
    passed: set[tuple[Model, Rules]] = set()
    failed = False

    @seed(OTHERS + part)
    @settings(
        max_examples=wanted * 3 // 2,  # hypothesis repeats itself
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(models(), RULES)
    def ask(model: Model, rules: Rules) -> None:
        nonlocal failed
        enough = len(passed) >= wanted and not failed  # else it is looking for less
        if (model, rules) not in passed and not enough:
            note(f"{model.source(0)}\n\n{model.source(1)}")
            try:
                check(model, rules)
            except BaseException:
                failed = True
                raise
            passed.add((model, rules))

    ask()
    assert len(passed) >= wanted
