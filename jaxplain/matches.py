"""Matches: predicates on layers that compare by value, print themselves and combine."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from jaxplain.by_value import ByValue
from jaxplain.graph import Layer
from jaxplain.rules import Gradient


class Match(ByValue, ABC):
    """A predicate on layers; combine with `&`, `|` and `~`. Equal matches compare equal.

    Example:
        >>> from jaxplain.composites import kind, name, op
        >>> print(op("dense") & ~name("head"))
        op('dense') & ~name('head')
    """

    @abstractmethod
    def __call__(self, layer: Layer) -> bool:
        """Whether the layer matches."""

    def __and__(self, other: Callable[[Layer], bool]) -> "Match":
        return _Both(self, as_match(other)) if callable(other) else NotImplemented

    def __or__(self, other: Callable[[Layer], bool]) -> "Match":
        return _Either(self, as_match(other)) if callable(other) else NotImplemented

    def __invert__(self) -> "Match":
        return _Not(self)


@dataclass(frozen=True)
class Where(Match):
    """The layers for which a function is true.

    Attributes:
        test: the function.
        label: its name in the plan.
    """

    test: Callable[[Layer], bool]
    label: str

    def __call__(self, layer: Layer) -> bool:
        """Whether the function is true."""
        return self.test(layer)

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True)
class _OneOf(Match):
    """The layers an attribute of which is one of some values."""

    attribute: str
    values: tuple[Any, ...]

    def __call__(self, layer: Layer) -> bool:
        return getattr(layer, self.attribute) in self.values

    def __str__(self) -> str:
        return f"{self.attribute}({_join(self.values)})"


@dataclass(frozen=True)
class _Is(Match):
    """The layers an attribute of which is true."""

    attribute: str
    label: str

    def __call__(self, layer: Layer) -> bool:
        return bool(getattr(layer, self.attribute))

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True)
class _Named(Match):
    pattern: str

    def __call__(self, layer: Layer) -> bool:
        return re.search(self.pattern, layer.name) is not None

    def __str__(self) -> str:
        return f"name({self.pattern!r})"


@dataclass(frozen=True)
class _Any(Match):
    def __call__(self, layer: Layer) -> bool:
        return True

    def __str__(self) -> str:
        return "any_layer"


@dataclass(frozen=True)
class _Pair(Match):
    first: Match
    second: Match


class _Both(_Pair):
    def __call__(self, layer: Layer) -> bool:
        return self.first(layer) and self.second(layer)

    def __str__(self) -> str:
        return f"{self.first} & {self.second}"


class _Either(_Pair):
    def __call__(self, layer: Layer) -> bool:
        return self.first(layer) or self.second(layer)

    def __str__(self) -> str:
        return f"({self.first} | {self.second})"


@dataclass(frozen=True)
class _Not(Match):
    match: Match

    def __call__(self, layer: Layer) -> bool:
        return not self.match(layer)

    def __str__(self) -> str:
        return f"~({self.match})" if isinstance(self.match, _Both) else f"~{self.match}"


def as_match(test: Callable[[Layer], bool]) -> Match:
    """A match of the layers for which a function is true."""
    return test if isinstance(test, Match) else Where(test, getattr(test, "__name__", repr(test)))


def _join(values: Iterable[Any]) -> str:
    return ", ".join(map(repr, values))


def kind(*kinds: str) -> Match:
    """Layers of the given kinds (see `Layer.kind`)."""
    if unknown := [k for k in kinds if k not in Gradient.kinds]:
        known = _join(sorted(Gradient.kinds))
        raise ValueError(f"no kind is called {unknown[0]!r}; there are: {known}")
    return _OneOf("kind", kinds)


def op(*ops: str) -> Match:
    """Layers of the given operations (see `Layer.op`)."""
    return _OneOf("op", ops)


def name(pattern: str) -> Match:
    """Layers whose name contains a match of the regular expression."""
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    return _Named(pattern)


def index(*indices: int) -> Match:
    """Layers at the given positions of the plan."""
    return _OneOf("index", indices)


any_layer = _Any()
kernel = _Is("is_kernel", "kernel")
first = _Is("first", "first")
last = _Is("last", "last")
rectifier = kind("Activation") & op("rectifier")
