"""What all methods make of one function, evaluated in numpy: compiling would take seconds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxplain as jxp
import numpy_jaxpr
from jaxplain.composites import Composite, kernel, kind, op
from jaxplain.errors import NotAnalyzableError
from jaxplain.graph import trace
from jaxplain.interpreter import evaluate, values
from jaxplain.ledger import Ledger
from jaxplain.plan import Plan
from jaxplain.probes import COLUMNS, Probes
from jaxplain.rules import AlphaBeta, Epsilon, Flat, Gamma, Norm, Rule, Uniform, ZPlus

E = 1e-2  # large: what it does where it does not belong shows, and rounding does not
TOLERANCE = {"moves": 1e-9, "casts": 1e-5}


def _composite(rule: Rule, merge: Rule) -> Composite:
    return Composite(
        [
            (kernel, rule),
            (kind("Merge") | op("sum", "pooling"), merge),
            (kind("Affine", "Normalization"), Norm(E)),
            (kind("Product", "Matmul"), Uniform(E)),
        ],
        strict=False,
    )


RULES = {
    "epsilon": _composite(Epsilon(E), Norm(E)),
    "z_plus": _composite(ZPlus(E), ZPlus(E)),
    "alpha_beta": _composite(AlphaBeta(2, 1, E), AlphaBeta(2, 1, E)),
    "gamma": _composite(Gamma(0.25, E), Gamma(0.25, E)),
    "flat": _composite(Flat(E), Norm(E)),
}
METHODS = (*RULES, "deep_lift")


@dataclass
class Maps:
    """What a function's methods answer.

    Attributes:
        maps: the relevance of the input, by method; text where the method refuses.
        gaps: the error of the ledger, for the methods that were asked for it.
        layers: the layers as text.
        outputs: what relevance started from.
    """

    maps: dict[str, Any]
    gaps: dict[str, float]
    layers: list[str]
    outputs: list[Any] = field(default_factory=list)


def maps(f: Any, x: Any, methods: Sequence[str] = METHODS, audited: Sequence[str] = ()) -> Maps:
    """Explains a function by each method, operation by operation: compiling would cost more.

    Args:
        f: the function.
        x: its input.
        methods: of `METHODS`.
        audited: those whose ledger is read too.
    """
    graph = trace(f, x, logits=True)
    found = Maps({}, {}, [describe(layer) for layer in graph.layers])
    asked: dict[str, Callable[..., Any]] = {}
    plans: dict[str, Plan] = {}
    for name in methods:
        try:
            if name == "deep_lift":
                explainer = jxp.deep_lift(f).base
                plan = explainer.traced(x).plan
                asked[name] = partial(_deep_lift, explainer.method.layer_states, plan)
            else:
                plan = Plan(graph, RULES[name])
                asked[name] = partial(_relevance, plan, audited=name in audited)
        except NotAnalyzableError as error:
            found.maps[name] = str(error)
            continue
        plans[name] = plan
    constants = {k: [value for _, value in p.graph.program.constants] for k, p in plans.items()}
    answers = numpy_jaxpr.run(
        lambda constants, x: {name: ask(constants[name], x) for name, ask in asked.items()},
        constants,
        x,
    )
    for name, (relevance, heads, total, columns) in answers.items():
        found.maps[name], found.outputs = relevance, heads
        if columns is not None:
            ledger = Ledger(plans[name], float(total), float(relevance.sum()), **columns)
            found.gaps[name] = ledger.error()
    return found


def describe(layer: Any) -> str:
    """A layer as text, without what only moves values."""
    inner = [n.primitive for n in layer.nodes if n.primitive not in _MOVING]
    return f"{layer.kind}:{layer.op}[{' '.join(inner)}]"


_MOVING = frozenset(
    "reshape squeeze transpose broadcast_in_dim convert_element_type optimization_barrier rev "
    "slice split concatenate".split()
)


def _seeds(heads: Sequence[Any]) -> list[Any]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=head.shape), head.dtype) for head in heads]


def _relevance(plan: Plan, constants: list[Any], x: Any, audited: bool) -> Any:
    """The relevance of `x`, the outputs, the relevance there, and what the ledger is made of."""
    steps = plan.graph.all_steps if audited else ()
    zeros = [dict.fromkeys(COLUMNS, jnp.zeros((), x.dtype)) for _ in steps]

    def heads_of(x: Any, entries: Any) -> list[Any]:
        probes = Probes(ledger=dict(zip(steps, entries, strict=True)))
        return _evaluate(plan, constants, x, probes)

    heads, pullback = jax.vjp(heads_of, x, zeros)
    seeds = _seeds(heads)
    arriving, recorded = pullback(seeds)
    columns = {key: jnp.stack([e[key] for e in recorded]) for key in COLUMNS} if audited else None
    return arriving, heads, sum(s.sum() for s in seeds), columns


def _deep_lift(prepare: Any, plan: Plan, constants: list[Any], x: Any) -> Any:
    baseline = 0.5 * jnp.roll(x, 1, 0) + 0.1
    states = prepare(plan, [baseline], lambda inputs: values(plan.graph.program, constants, inputs))
    heads, pullback = jax.vjp(lambda x: _evaluate(plan, constants, x, Probes(), states), x)
    return pullback(_seeds(heads))[0] * (x - baseline), heads, 0, None


def _evaluate(plan: Plan, constants: list[Any], x: Any, probes: Probes, states: Any = None) -> Any:
    heads = plan.graph.explained_outputs
    return evaluate(
        plan, constants, [x], [x], heads, at_least_float32=True, probes=probes, states=states
    )[0]


def differences(mode: str, wanted: Maps, found: Maps) -> dict[str, Any]:
    """What differs by more than the tolerance, by method, of the maximum of the plain map."""
    tolerance, differ = TOLERANCE[mode], {}
    for theirs, mine in zip(wanted.outputs, found.outputs, strict=True):
        if not np.abs(theirs - mine).max() <= tolerance * np.abs(theirs).max():
            differ["output"] = float(np.abs(theirs - mine).max())
    for name, theirs in wanted.maps.items():
        mine = found.maps[name]
        if isinstance(theirs, str):  # under vmap a loop may have one iteration, and be no loop
            continue
        if isinstance(mine, str):
            differ[name] = f"refused: {mine}"
            continue
        theirs, mine = np.asarray(theirs), np.asarray(mine)
        gap = np.abs(theirs - mine).max() / max(np.abs(theirs).max(), 1e-30)
        if not gap <= tolerance:
            differ[name] = float(gap)
    for name, error in found.gaps.items():
        if not error <= tolerance:
            differ[f"ledger of {name}"] = error
    return differ
