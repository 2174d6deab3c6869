"""Random networks in random layouts: `Case(seed)` draws both, and an input, from one integer.

Printing a case shows the network and what was inserted; `smallest` leaves out of a failing one what
it does not need to fail.
"""

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from random import Random
from typing import Any

import jax.numpy as jnp
import numpy as np

import random_models
from layout_maps import METHODS, RULES, differences, maps
from layout_networks import NETWORKS, Weights, random_model
from layouts import (
    MOVES,
    PLACES,
    SPANS,
    Held,
    Insertion,
    Layout,
    Moved,
    Program,
    Rewritten,
    Span,
    applies,
    place_of,
    program,
)

BATCH = 2
MODES = {"moves": jnp.float64, "casts": jnp.float32}


@dataclass(frozen=True, eq=False)
class Case:
    """A network, an input and a layout, drawn from a seed.

    Attributes:
        seed: what everything is drawn from.
        given: what is inserted; drawn from the seed where it is None.
    """

    seed: int
    given: Layout | None = None
    cache: dict[str, Any] = field(default_factory=dict)  # shared with its smaller ones

    @cached_property
    def network(self) -> tuple[str, Callable[[Any], Any], Any]:
        """Its text, the function and an input."""
        return self.network_in(MODES[self.mode])

    def network_in(self, dtype: Any) -> tuple[str, Callable[[Any], Any], Any]:
        """The same in a precision."""
        rng = Random(self.seed)
        if rng.random() < 0.5:
            name = rng.choice(list(NETWORKS))
            f, shape = NETWORKS[name](Weights(self.seed, dtype))
        else:
            model = random_model(self.seed)
            narrow = {k: _as(v, dtype) for k, v in model.weights.items()}
            model.__dict__["weights"] = narrow
            name, f = model.source(0), model.function(0)
            shape = random_models.SHAPES[model.domain]
        x = np.random.default_rng(self.seed + 1).normal(size=(BATCH, *shape))
        return name, f, jnp.asarray(x, dtype)

    @cached_property
    def program(self) -> Program:
        """The network's program."""
        _, f, x = self.network
        return program(f, x, self.opened)

    @property
    def mode(self) -> str:
        """One of "moves", in float64, and "casts", in float32 with casts among the insertions."""
        return "casts" if self.seed % 3 == 0 else "moves"

    @property
    def opened(self) -> bool:
        """Whether its functions with derivatives of their own are written out."""
        return self.seed % 2 == 0

    @cached_property
    def alone(self) -> Program | None:
        """The program of one example; None where it is another one."""
        _, f, x = self.network
        found = program(f, x[:1], self.opened)
        same = [[e.eqn.primitive for e in p.equations] for p in (found, self.program)]
        return found if same[0] == same[1] and len(found.avals) == len(self.program.avals) else None

    @cached_property
    def layout(self) -> Layout:
        """What is inserted."""
        return self.given if self.given is not None else tuple(self._drawn())

    def _drawn(self) -> Iterator[Insertion]:
        rng = Random(self.seed + 2)
        made = [v for e in self.program.equations for v in e.outputs]
        places = [v for v in made if applies("", self.program.avals[v].dtype, 1)]
        places += [v for v in places if v in self.program.active] * 3
        places += [self.program.input]
        free = 0  # where the next span may start
        narrow = self.mode == "casts"
        for _ in range(rng.choice([1, 2, 3, 4, 6, 10])):
            seed = rng.randrange(10**6)
            chance = rng.random()
            if chance < 0.15 and free < len(self.program.equations):
                start = rng.randrange(free, len(self.program.equations))
                stop = min(start + rng.choice([1, 1, 2, 3, 5]), len(self.program.equations))
                yield Span(start, stop, rng.choice(SPANS), seed)
                free = stop
                continue
            value = rng.choice(places)
            kinds, insert = (list(PLACES), Held) if chance < 0.5 else (list(MOVES), Moved)
            wide = "wide" if insert is Held else "cast"
            aval = self.program.avals[value]
            kinds = [k for k in kinds if applies(k, aval.dtype, aval.ndim)]
            if narrow and wide in kinds and rng.random() < 0.5:
                kinds = [wide]
            yield insert(value, rng.choice(kinds), seed)

    def without(self, number: int) -> "Case":
        """The same with an insertion left out."""
        return self.with_(self.layout[:number] + self.layout[number + 1 :])

    def with_(self, layout: Layout) -> "Case":
        """The same network in another layout."""
        case = replace(self, given=layout)
        drawn = {name: self.__dict__[name] for name in _DRAWN if name in self.__dict__}
        case.__dict__.update(drawn)
        return case

    def plain(self) -> Callable[[Any], Any]:
        """The function as its author wrote it."""
        _, f, x = self.network
        # in float32 it must be traced without x64, and the layout with it
        return f if self.mode == "moves" else Rewritten(program(f, x, opened=False), ())

    def rewritten(self) -> Callable[[Any], Any]:
        """The function in the layout."""
        return Rewritten(self.program, self.layout, self.alone)

    def describe(self) -> str:
        """The insertions, and where they are, as text."""
        return "\n".join(map(self._describe, self.layout))

    def _describe(self, insertion: Insertion) -> str:
        equations = self.program.equations
        if isinstance(insertion, Span):
            lines = map(self.program.line, equations[insertion.start : insertion.stop])
            return f"{insertion.kind}: " + "; ".join(lines)
        maker = next((e for e in equations if insertion.value in e.outputs), None)
        line = self.program.line(maker) if maker else f"v{insertion.value} (the input)"
        aval = self.program.avals[insertion.value]
        return f"{_in_words(insertion, aval)} behind {line}"

    def __repr__(self) -> str:
        return f"Case({self.seed})\n{self.network[0]}\n{self.describe()}"


_DRAWN = ("network", "program", "alone")


def _in_words(insertion: Moved | Held, aval: Any) -> str:
    """What becomes of the value."""
    if isinstance(insertion, Held):
        place = place_of(insertion.kind, Random(insertion.seed), aval.shape)
        return f"held {place}"
    return f"{insertion.kind} (seed {insertion.seed})"


def _as(value: Any, dtype: Any) -> Any:
    return value.astype(dtype) if jnp.issubdtype(value.dtype, jnp.floating) else value


def failure(case: Case, methods: Sequence[str] = METHODS) -> dict[str, Any]:
    """What differs between a case's two spellings; nothing where all is well."""
    x = case.network[2]
    audited = list(RULES)[case.seed % len(RULES)]
    if "wanted" not in case.cache:
        case.cache["wanted"] = maps(case.plain(), x)
    wanted = case.cache["wanted"]
    wanted = replace(wanted, maps={name: wanted.maps[name] for name in methods})
    found = maps(case.rewritten(), x, methods, [audited] if audited in methods else [])
    return differences(case.mode, wanted, found)


def is_steady(case: Case) -> bool:
    """Whether rounding alone leaves the plain map as it is, as it does not next to a kink."""
    x = np.asarray(case.network[2])
    noise = 4 * np.finfo(x.dtype).eps * np.random.default_rng(case.seed).normal(size=x.shape)
    _, f, wide = case.network_in(jnp.float64)
    others = maps(case.plain(), jnp.asarray(x * (1 + noise), x.dtype)), maps(f, wide)
    return not any(differences(case.mode, case.cache["wanted"], found) for found in others)


def smallest(case: Case, fails: Callable[[Case], Any] = failure) -> Case:
    """The case with no more insertions than it takes to fail."""
    number = 0
    while number < len(case.layout):
        smaller = case.without(number)
        if fails(smaller):
            case, number = smaller, 0
        else:
            number += 1
    return case


def report(case: Case, differ: dict[str, Any]) -> str:
    """A failure as text: the program, what was inserted, and the layers that became others."""
    x = case.network[2]
    plain, moved = (maps(f, x, ()).layers for f in (case.plain(), case.rewritten()))
    layers = "\n".join(difflib.unified_diff(plain, moved, "plain", "moved", lineterm="", n=0))
    return f"{case!r}\n\ndiffers: {differ}\n\n{case.program}\n\n{layers}"
