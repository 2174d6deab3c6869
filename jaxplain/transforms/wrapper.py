"""Methods made of other methods: averages over noise and paths, products, occlusion."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Union

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _compat, targets
from jaxplain.affine.dtypes import wide
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
        base = self.base
        if isinstance(base, Explainer) and (base.with_output or base.capture or base.check_finite):
            raise ValueError(
                f"{type(self).__name__} needs an explainer that returns the attribution alone: "
                "give it neither with_output nor capture nor check_finite"
            )
        if getattr(base, "with_gap", False):
            raise ValueError(
                f"{type(self).__name__} needs an explainer that returns the attribution alone: "
                "give it no with_gap"
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
        if keywords:
            raise TypeError(
                f"{type(self).__name__} takes target= and key=, not {next(iter(keywords))}="
            )
        if self.needs_key and key is None:
            raise TypeError(
                f"{type(self).__name__} draws random numbers: give key=jax.random.key(0)"
            )
        if key is not None and not self.needs_key:
            raise TypeError(f"{type(self).__name__} draws no random numbers: leave key= out")
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
        return run(arrays, args, index, key, kind=kind)

    def _program(self, combine: Callable[[list[Any]], Any]) -> Callable[..., Any]:
        def run(arrays: list[Any], args: Sequence[Any], index: Any, key: Any, kind: Any) -> Any:
            mine = self.combine(combine(arrays))
            target = index if isinstance(kind, str) and kind == "index" else kind
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
    if dtype is None:
        return False
    return jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == jnp.uint32


def as_explainer(base: Any) -> Base:
    """The explainer itself; for a function, its gradient."""
    return base if isinstance(base, Explainer | Wrapper) else gradient(base)


def call(base: Base, args: Sequence[Any], target: Target, key: Any) -> Any:
    """Calls an explainer, with the key where it needs one."""
    if isinstance(base, Wrapper) and base.needs_key:
        return base(*args, target=target, key=key)
    return base(*args, target=target)


def explained(args: Sequence[Any], argnums: int | Sequence[int]) -> Any:
    """The explained arguments, a tree like their attribution; numbers become arrays."""
    picked = args[argnums] if isinstance(argnums, int) else tuple(args[n] for n in argnums)
    return jax.tree.map(jnp.asarray, picked)


def replaced(args: Sequence[Any], argnums: int | Sequence[int], values: Any) -> list[Any]:
    """The arguments with the explained ones exchanged."""
    changed = list(args)
    if isinstance(argnums, int):
        changed[argnums] = values
    else:
        for number, value in zip(argnums, values, strict=True):
            changed[number] = value
    return changed


def scaled(attribution: Any, factors: Any) -> Any:
    """The attribution times factors in the explained shapes; for "all", times them for each class.

    Args:
        attribution: a tree of arrays.
        factors: a tree like it, whose arrays may lack a leading axis.
    """

    def times(a: jax.Array, factor: jax.Array) -> jax.Array:
        return a * factor.reshape((1,) * (a.ndim - factor.ndim) + factor.shape)

    return jax.tree.map(times, attribution, factors)


def times_input(attribution: Any, values: Any) -> Any:
    """The attribution, which must have the explained shapes, times values in them, as `scaled`.

    Raises:
        ValueError: it has others.
    """
    given, expected = (jax.tree.leaves(tree) for tree in (attribution, values))
    shapes = [a.shape[max(a.ndim - v.ndim, 0) :] for a, v in zip(given, expected, strict=False)]
    if len(given) != len(expected) or shapes != [v.shape for v in expected]:
        raise ValueError(
            f"attributions of shapes {[a.shape for a in given]} cannot be multiplied by what is in "
            f"the input's shapes, {[v.shape for v in expected]}: take a base whose attribution is "
            "shaped as the input, or a method that only averages (path_average)"
        )
    return scaled(attribution, values)


def widened(tree: Any) -> Any:
    """In at least float32, as sums are."""
    return jax.tree.map(lambda v: v.astype(wide(v.dtype)), tree)


def narrowed(attribution: Any, x: Any) -> Any:
    """An attribution in the dtypes of the explained arrays."""
    leaves, tree = jax.tree.flatten(attribution)
    dtypes = [v.dtype for v in jax.tree.leaves(x)]
    if len(dtypes) != len(leaves):  # Grad-CAM has one map for all
        dtypes = [jnp.result_type(*dtypes)] * len(leaves)
    return jax.tree.unflatten(tree, [v.astype(d) for v, d in zip(leaves, dtypes, strict=True)])


def fold(
    term: Callable[[Any], Any],
    xs: Any,
    batch_size: int,
    update: Callable[[Any, Any, jax.Array], Any],
    state: Any,
) -> Any:
    """Folds `term(x)` over the leading axis of `xs`, a batch at a time.

    Memory holds one batch of terms, however many there are.

    Args:
        term: maps one entry of `xs` to a tree of arrays.
        xs: a tree of arrays with a common leading axis.
        batch_size: how many entries are mapped at a time, at most.
        update: maps the state, a batch of terms and which of them count to the next state.
        state: the first state.
    """
    count = jax.tree.leaves(xs)[0].shape[0]
    batches = -(-count // batch_size)
    size = -(-count // batches)
    index = np.arange(batches * size).reshape(batches, size)

    def step(state: Any, batch: Any) -> tuple[Any, None]:
        which, counts = batch
        terms = jax.vmap(term)(jax.tree.map(lambda v: v[which], xs))
        return update(state, terms, counts), None

    # the last batch is filled up with the last entry, which does not count again
    return jax.lax.scan(step, state, (np.minimum(index, count - 1), index < count))[0]


def counted(values: jax.Array, counts: jax.Array) -> jax.Array:
    """The values of a batch that count, zeros in the place of the others."""
    return jnp.where(counts.reshape(-1, *(1,) * (values.ndim - 1)), values, 0)


def total(term: Callable[[Any], Any], xs: Any, batch_size: int) -> Any:
    """The sum of `term(x)` over the leading axis of `xs`, as `fold`, in at least float32."""
    first = jax.tree.map(lambda v: v[0], xs)
    terms = jax.eval_shape(lambda x: widened(term(x)), first)
    zeros = jax.tree.map(lambda v: _compat.zeros(v, v.dtype), terms)

    def update(sums: Any, batch: Any, counts: jax.Array) -> Any:
        return jax.tree.map(lambda s, v: s + counted(v, counts).sum(0), sums, widened(batch))

    return fold(term, xs, batch_size, update, zeros)
