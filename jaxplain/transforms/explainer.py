"""The explainer: a function's explanation, with the function's own arguments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, Never, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _compat, targets
from jaxplain.arguments import describe_value
from jaxplain.composites import Composite
from jaxplain.errors import CutOffError, readable
from jaxplain.graph import Graph, explained_leaves
from jaxplain.ledger import Ledger
from jaxplain.parameter_messages import ParameterBatch
from jaxplain.plan import LayerSpec, Plan
from jaxplain.probes import RelevanceTransforms
from jaxplain.targets import Target
from jaxplain.transforms.compiled import Compiled
from jaxplain.transforms.held import key_of, split

_UNKNOWN = ("error", "gradient")


class Options(TypedDict, total=False):
    """What every method takes besides its own arguments; see `Explainer`."""

    argnums: int | Sequence[int]
    with_output: bool
    capture: LayerSpec | None
    start: LayerSpec | None
    stop: LayerSpec | None
    check_finite: bool


@dataclass(frozen=True)
class Explainer:
    """A pure function from the arguments of `f` to an attribution of the explained ones.

    Explainers are made by the methods (`lrp`, `gradient`, ...). Calling one traces `f` for the
    shapes at hand, plans, and compiles once per shape; it works the same inside jit, vmap, grad and
    scan. Arrays that `f` holds as a pytree (a model from `from_linen`, an Equinox or nnx module, a
    `jax.tree_util.Partial`) are passed at run time. Arrays that `f` merely closes over are read
    when it is traced, as `jax.jit` does.

    Layers are named as in the plan: by their exact name, by a regular expression that is searched
    in the names, or by a match of `jaxplain.composites` (any predicate on layers).

    Attributes:
        f: the function that is explained: arrays in, an array out.
        composite: which rule for which layer.
        relevance: whether the seed is the output's value (relevance) or 1 (gradients).
        argnums: which arguments are explained, as in `jax.grad`.
        with_output: return `(output, attribution)`.
        logits: whether a trailing softmax is left out.
        unknown: "error" or "gradient": what to do with operations that have no rule.
        finish: turns explained arrays and their cotangents into attributions.
        capture: layers whose own attribution is returned as well, after the attribution, as a
            dictionary from name to an array in the shape of the layer's output.
        start: a layer whose output is explained instead of that of `f`; targets select from it.
        stop: a layer whose output gets the attribution instead of the arguments: only what comes
            through it.
        check_finite: raise FloatingPointError when a weight, an input, the output of a layer or the
            attribution is NaN or infinite, and name the first place. Inside jit, vmap and other
            transformations this is a `jax.experimental.checkify` check: functionalise the caller
            with it. A mask of -inf is no error where it is used up (before a softmax or a maximum).
        seed: what relevance starts from, a function of the selected output; None: its value for
            relevance, 1 for gradients.
        state: arrays that rules read besides their layer's own: a pytree, passed at run time.
        prepare: gives each layer its part of `state`, which its rule sees as `LayerView.state`.
            Called with the plan, the state, and a function from explained arrays to the values of
            all variables of the program.
        reverse: what relevance is turned into on its way down: a function of the graph that gives,
            for explained inputs and outputs of its steps, a function of their relevance.
        normalizations: whether a normalisation is one layer; else the layers that it is made of.
    """

    f: Callable[..., Any]
    composite: Composite
    relevance: bool
    argnums: int | Sequence[int] = 0
    with_output: bool = False
    logits: bool = True
    unknown: str = "error"
    finish: Callable[[Any, Any], Any] | None = None
    capture: LayerSpec | None = None
    start: LayerSpec | None = None
    stop: LayerSpec | None = None
    check_finite: bool = False
    seed: Callable[[jax.Array], jax.Array] | None = None
    state: Any = None
    prepare: Callable[[Plan, Any, Callable[[Sequence[Any]], Any]], Mapping[Any, Any]] | None = None
    reverse: Callable[[Graph], RelevanceTransforms] | None = None
    normalizations: bool = True
    _cache: dict[Any, "Compiled"] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not callable(self.f):
            raise TypeError(f"the first argument must be a function of arrays, got {self.f!r}")
        if self.unknown not in _UNKNOWN:
            raise ValueError(f"unknown must be one of {_UNKNOWN}, got {self.unknown!r}")
        numbers = tuple(self.argnums) if isinstance(self.argnums, Sequence) else (self.argnums,)
        if not numbers or any(isinstance(n, bool) or not isinstance(n, Integral) for n in numbers):
            raise TypeError(f"argnums must be an int or a sequence of ints, got {self.argnums!r}")
        exact = tuple(map(int, numbers))
        object.__setattr__(
            self, "argnums", exact if isinstance(self.argnums, Sequence) else exact[0]
        )

    @readable
    def __call__(
        self,
        *args: Any,
        target: Target = None,
        masks: Mapping[str, Any] | None = None,
        **keywords: Never,
    ) -> Any:
        """Explains `f(*args)`.

        Args:
            *args: the arguments of `f`; those of `argnums` (the first by default) are explained.
            target: which output is explained. None: the largest, at every leading position of the
                output (..., C). An int: that class. An int array of shape `output.shape[:-1]` or
                `(output.shape[0],)`: one class per example. "all": every class, which adds a
                leading axis of size C to the attribution. A callable: maps the output to the seed
                of the backward pass, a tree like the output.
            masks: for layers, by name, what the attribution of their output is multiplied by on its
                way down: an array that broadcasts against the layer's output. With ones at some
                channels and zeros elsewhere this is the relevance conditional on them. The forward
                pass does not depend on masks: `jax.vmap` over them computes it once.
            **keywords: none; options of `f` are bound with `functools.partial`.

        Returns:
            The attribution, a tree like the explained argument (a tuple of them for a sequence of
            argnums; the layer's array with `stop`), in the input's dtype; with `with_output` and
            `capture`, a tuple `(f(*args), attribution, captured)` of what was asked for.

        Raises:
            NotAnalyzableError: relevance would have to cross an operation that has no rule.
            TypeError, ValueError, IndexError: wrong arguments; raised before any compute.
            FloatingPointError: something is not finite, with `check_finite=True`.
        """
        if keywords:
            raise TypeError(
                f"an explainer takes target= and masks=, not {next(iter(keywords))}=; give options "
                "to the function before it is explained: functools.partial(f, train=False)"
            )
        compiled, arrays = self._compiled(args)
        targets.check(target, compiled.heads, compiled.explained)
        return compiled(arrays, args, target, compiled.masks(masks))

    @readable
    def plan(self, *args: Any) -> Plan:
        """What would run, layer by layer; nothing is computed.

        Args:
            *args: as for a call; `jax.ShapeDtypeStruct`s will do.
        """
        return self._compiled(args)[0].plan

    @readable
    def ledger(
        self,
        *args: Any,
        target: Target = None,
        per_example: bool = False,
    ) -> Ledger:
        """Where relevance went: for every layer what arrived, was handed on, and was absorbed.

        Args:
            *args: as for a call.
            target: as for a call, but for "all".
            per_example: keep the examples apart instead of summing over them. The explained
                arguments, and targets of their length, are split along their leading axis, and `f`
                sees one example at a time; other arguments are shared (for others, `jax.vmap` this
                method over batches of one).

        Raises:
            TypeError: the explainer computes a gradient, which is not conserved.
            ValueError: the explainer stops at a layer; or, for `per_example`, the explained
                arguments have no common leading axis, or the output does not follow it.

        Example:
            >>> import jax, jax.numpy as jnp
            >>> import jaxplain as jxp
            >>> w, b, v = jnp.ones((2, 2)), jnp.array([1.0, 3.0]), jnp.ones((2, 1))
            >>> f = lambda x: jax.nn.relu(x @ w + b) @ v
            >>> ledger = jxp.lrp(f, jxp.rules.Z()).ledger(jnp.array([[1.0, 2.0]]))
            >>> print(ledger.bias, ledger.output, ledger.inputs)
            [4. 0. 0.] 10.0 6.0
        """
        if not self.relevance:
            raise TypeError(
                f"{self.composite.name} is no relevance: only what is conserved adds up"
            )
        if self.stop is not None:
            raise ValueError("a ledger is of the whole pass: give the explainer no stop")
        if self.reverse is not None:
            raise ValueError("a ledger is of what the rules do: give the explainer no reverse")
        if isinstance(target, str):
            raise ValueError(f"a ledger is of one target per example, got target={target!r}")
        if per_example:
            return self._ledger_per_example(args, target)
        compiled, arrays = self._compiled(args)
        targets.check(target, compiled.heads, compiled.explained)
        return compiled.ledger(arrays, args, target)

    def _ledger_per_example(self, args: Sequence[Any], target: Target) -> Ledger:
        positions = explained_leaves(args, self.argnums)
        leaves, tree = jax.tree.flatten(tuple(args))
        sizes = {jnp.shape(leaves[i])[:1] for i in positions}
        if len(sizes) != 1 or sizes == {()}:
            raise ValueError(
                "per_example needs explained arguments with a common leading axis, got shapes "
                f"{[jnp.shape(leaves[i]) for i in positions]}"
            )
        (size,) = sizes
        compiled, _ = self._compiled(args)
        # before the examples are separated
        targets.check(target, compiled.heads, compiled.explained)
        labelled = not callable(target) and target is not None and np.shape(target)[:1] == size

        def one(explained: list[Any], label: Any) -> Ledger:
            mine = list(leaves)
            for i, value in zip(positions, explained, strict=True):
                mine[i] = value[None]
            alone = jax.tree.unflatten(tree, mine)
            try:
                heads = self._compiled(alone)[0].heads
            except Exception as error:
                error.add_note("per_example=True calls the function with one example at a time")
                raise
            _check_examples(compiled.heads, heads, *size)
            return self.ledger(*alone, target=label[None] if labelled else target)

        label = jnp.asarray(target) if labelled else None
        batch = [jnp.asarray(leaves[i]) for i in positions]
        return jax.vmap(one, in_axes=(0, 0 if labelled else None))(batch, label)

    @readable
    def activations(self, *args: Any, layers: LayerSpec) -> dict[str, jax.Array]:
        """The outputs of layers, by name.

        Args:
            *args: as for a call.
            layers: which layers.
        """
        compiled, arrays = self._compiled(args)
        return compiled.activations(arrays, args, compiled.plan.find(layers))

    @readable
    def outputs(self, *args: Any) -> Any:
        """What targets select from: the outputs of `f`, logits where a softmax is left out.

        Args:
            *args: as for a call.
        """
        compiled, arrays = self._compiled(args)
        return compiled.outputs(arrays, args)

    @readable
    def resolve(self, *args: Any, target: Target = None) -> Target:
        """The target, checked; the largest output of these arguments where it is None.

        Args:
            *args: as for a call.
            target: as for a call.

        Raises:
            TypeError, ValueError, IndexError: as for a call.
        """
        compiled, arrays = self._compiled(args)
        targets.check(target, compiled.heads, compiled.explained)
        if target is not None or compiled.heads.ndim == 0:
            return target
        return jnp.argmax(compiled.outputs(arrays, args), axis=-1)

    @readable
    def read(self, function: Callable[[Plan, Any], Any], *args: Any) -> Any:
        """A pure function of the values inside the program, compiled with it.

        Args:
            function: called with the plan and a mapping from variable to value.
            *args: as for a call.
        """
        compiled, arrays = self._compiled(args)
        return compiled.read(arrays, args, function)

    def depends(self, *args: Any) -> bool:
        """Whether relevance can get from the output to the explained arguments."""
        try:
            self._compiled(args)
        except CutOffError:
            return False
        return True

    @readable
    def weights(
        self,
        batches: Callable[[Compiled], tuple[ParameterBatch, ...]],
        *args: Any,
        target: Target = None,
    ) -> list[jax.Array]:
        """The relevance of weights: what the messages to the explained arguments leave at them.

        Args:
            batches: which weights, by those that one backward pass can serve together.
            *args: as for a call.
            target: as for a call.
        """
        compiled, arrays = self._compiled(args)
        targets.check(target, compiled.heads, compiled.explained)
        return compiled.weights(arrays, args, target, batches(compiled))

    def traced(self, *args: Any) -> Compiled:
        """The program for arguments like these."""
        return self._compiled(args)[0]

    @property
    def held(self) -> Any:
        """What is passed at run time: the function and the rules' state, as a pytree."""
        return self.f, self.state

    def holding(self, held: Any) -> "Explainer":
        """The same explainer with other run-time values."""
        f, state = held
        return replace(self, f=f, state=state)

    def _compiled(self, args: Sequence[Any]) -> tuple["Compiled", list[Any]]:
        """The program for arguments like these, and the arrays that the model holds now."""
        _check_leaves(args)
        arrays, rebuild, static = split(self.f)
        key = key_of((arrays, tuple(args)), static)
        if key is None or key not in self._cache:
            compiled = Compiled(self, arrays, rebuild, args)
            if key is not None and not compiled.holds_tracers:
                self._cache[key] = compiled
        else:
            compiled = self._cache[key]
        return compiled, arrays


def _check_examples(together: Any, alone: Any, count: int) -> None:
    """Raises ValueError where an output of one example is not one of the examples' outputs."""
    whole, single = ([v.shape for v in jax.tree.leaves(heads)] for heads in (together, alone))
    if whole != [(count, *shape[1:]) for shape in single] or any(s[:1] != (1,) for s in single):
        raise ValueError(
            f"per_example needs an output whose leading axis counts the {count} examples, got "
            f"shape {', '.join(map(str, whole))} for all of them and "
            f"{', '.join(map(str, single))} for one alone"
        )


def _check_leaves(args: Sequence[Any]) -> None:
    for number, arg in enumerate(args):
        for path, leaf in jax.tree_util.tree_flatten_with_path(arg)[0]:
            if _compat.aval(leaf) is None:
                raise TypeError(
                    f"argument {number}{jax.tree_util.keystr(path)} is of type "
                    f"{describe_value(leaf)}, which is no array to JAX: pass numeric arrays, and "
                    "fix options with functools.partial"
                )
