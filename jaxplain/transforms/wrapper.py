"""Methods made of other methods: averages over noise and paths, products, occlusion."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Union

import jax
import jax.numpy as jnp

from jaxplain import targets
from jaxplain.arguments import describe_value
from jaxplain.errors import readable
from jaxplain.plan import Plan
from jaxplain.targets import Target
from jaxplain.transforms.explainer import Explainer
from jaxplain.transforms.gradient import gradient
from jaxplain.transforms.partition import is_hashable, partition
from jaxplain.transforms.traced import NO_PATH, Traced

Base = Union[Explainer, "Wrapper"]


@dataclass(frozen=True, eq=False)
class Wrapper:
    """A method that calls another explainer, any number of times, as one pure function.

    A subclass says what it does in `attribute`; its fields are its options. The largest output is
    chosen on the arguments as they are given, before anything is changed; a target that is a
    function is asked anew for every output.

    Attributes:
        base: the explainer that is called.
    """

    base: Base
    _jitted: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    #: Whether a call draws random numbers and needs a key.
    random: ClassVar[bool] = False
    #: The fields that hold arrays: they are passed at run time.
    arrays: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        base, unwanted = self.base, ""
        if isinstance(base, Explainer) and (base.with_output or base.capture or base.check_finite):
            unwanted = "neither with_output nor capture nor check_finite"
        elif getattr(base, "with_gap", False):
            unwanted = "no with_gap"
        if unwanted:
            raise ValueError(
                f"{type(self).__name__} needs an explainer that returns the attribution alone: "
                f"give it {unwanted}"
            )

    def attribute(self, base: Base, args: Sequence[Any], target: Target, key: Any) -> Any:
        """The attribution; pure.

        Args:
            base: the explainer, holding the arrays of this call.
            args: the arguments of the call.
            target: the target, fixed.
            key: a key where `random`, else None.
        """
        raise NotImplementedError

    def check(self, args: Sequence[Any], target: Target) -> None:
        """Checks the arguments of a call before any compute; raises ValueError or TypeError."""

    @readable
    def __call__(
        self, *args: Any, target: Target = None, key: jax.Array | None = None, **keywords: Any
    ) -> Any:
        """Explains `f(*args)`.

        Args:
            *args: the arguments of `f`.
            target: as for the base explainer.
            key: a `jax.random.key`, for methods that draw random numbers.
            **keywords: none; options of `f` are bound with `functools.partial`.

        Returns:
            As the base explainer.

        Raises:
            TypeError: the method needs a key and got none, or needs none and got one.
        """
        name = type(self).__name__
        if keywords:
            raise TypeError(f"{name} takes target= and key=, not {next(iter(keywords))}=")
        if self.needs_key and key is None:
            raise TypeError(f"{name} draws random numbers: give key=jax.random.key(0)")
        if key is not None and not self.needs_key:
            raise TypeError(f"{name} draws no random numbers: leave key= out")
        if key is not None and not _is_key(key):
            raise TypeError(f"key must be a jax.random.key, got {describe_value(key)}")
        traced = self.traced(*args)  # errors of the arguments themselves come first
        if traced.looks_up:
            raise TypeError(NO_PATH)
        traced.check_target(target)
        self.check(args, target)
        target = self.resolve(*args, target=target)
        arrays, combine, static = partition(self.dynamic)
        kind, index = targets.static(target)
        run = self._jitted.get(static) if is_hashable(static) else None
        if run is None:
            run = self._program(combine)
            if is_hashable(static):
                self._jitted[static] = run
        with traced.mesh():
            return run(arrays, args, index, key, kind=kind)

    def _program(self, combine: Callable[[list[Any]], Any]) -> Callable[..., Any]:
        def run(arrays: list[Any], args: Sequence[Any], index: Any, key: Any, kind: Any) -> Any:
            mine = self.combine(combine(arrays))
            target = targets.dynamic(kind, index)
            return mine.attribute(mine.base, args, target, key)

        return jax.jit(run, static_argnames=("kind",))

    @property
    def needs_key(self) -> bool:
        """Whether a call needs a key, here or further in."""
        return self.random or (isinstance(self.base, Wrapper) and self.base.needs_key)

    @property
    def f(self) -> Callable[..., Any]:
        """The function that is explained."""
        return self.base.f

    @property
    def argnums(self) -> int | Sequence[int]:
        """Which arguments are explained."""
        return self.base.argnums

    @readable
    def plan(self, *args: Any) -> Plan:
        """The plan of the base explainer, as `Explainer.plan`."""
        return self.traced(*args).plan

    def outputs(self, *args: Any) -> Any:
        """The explained outputs, as `Explainer.outputs`."""
        return self.base.outputs(*args)

    def resolve(self, *args: Any, target: Target = None) -> Target:
        """The target, checked and fixed, as `Explainer.resolve`."""
        return self.base.resolve(*args, target=target)

    def traced(self, *args: Any) -> Traced:
        """The function of the base explainer, as `Explainer.traced`."""
        return self.base.traced(*args)

    @property
    def dynamic(self) -> Any:
        """The part that is passed at run time, a pytree: that of the base, and `arrays`."""
        return self.base.dynamic, {name: getattr(self, name) for name in self.arrays}

    def combine(self, dynamic: Any) -> Any:
        """The same method with another dynamic part."""
        inner, own = dynamic
        return replace(self, base=self.base.combine(inner), **own)


def _is_key(value: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    is_typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    return is_typed or dtype == jnp.uint32


def as_explainer(base: Any) -> Base:
    """The explainer itself; for a function, its gradient."""
    return base if isinstance(base, Explainer | Wrapper) else gradient(base)


def innermost(base: Base) -> Explainer:
    """The explainer that all wrappers around it call."""
    return innermost(base.base) if isinstance(base, Wrapper) else base


def call(base: Base, args: Sequence[Any], target: Target, key: Any) -> Any:
    """Calls an explainer, with the key where it needs one."""
    if isinstance(base, Wrapper) and base.needs_key:
        return base(*args, target=target, key=key)
    return base(*args, target=target)
