"""The explainer: a function's explanation, with the function's own arguments."""

import copy
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral
from typing import Any, Never, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _compat, by_value, finite
from jaxplain.arguments import check_choice, describe_value, function_name
from jaxplain.errors import CutOffError, readable
from jaxplain.graph import equality, explained_leaves
from jaxplain.graph.ir import Program
from jaxplain.ledger import Ledger
from jaxplain.parameter_messages import ParameterBatch
from jaxplain.plan import LayerSpec, Plan
from jaxplain.targets import Target
from jaxplain.transforms import shared, trees
from jaxplain.transforms.compiled import Call
from jaxplain.transforms.evaluation import Evaluation
from jaxplain.transforms.method import Spec
from jaxplain.transforms.partition import cache_key, partition
from jaxplain.transforms.traced import Traced, program_of


class Options(TypedDict, total=False):
    """The options that every method takes besides its own: see `Explainer`."""

    argnums: int | Sequence[int]
    with_output: bool
    capture: LayerSpec | None
    start: LayerSpec | None
    stop: LayerSpec | None
    check_finite: bool


@dataclass(frozen=True, repr=False)
class Explainer(Spec):
    """A pure function from the arguments of `f` to an attribution of the explained ones.

    Explainers are made by the methods (`lrp`, `gradient`, ...). Calling one traces `f` for the
    shapes at hand, plans, and compiles once per shape; another explainer of the same function,
    method and options traces it anew and compiles nothing. It works the same inside jit, vmap, grad
    and scan. Arrays that `f` holds as a pytree (a model from `from_linen`, an Equinox or nnx
    module, a `jax.tree_util.Partial`) are passed at run time. Arrays that `f` merely closes over
    are read when an explainer traces it, as `jax.jit` does.

    Layers are named as in the plan: by their exact name, by a regular expression that is searched
    in the names, or by a match of `jaxplain.composites` (any predicate on layers).

    Attributes:
        f: the function that is explained: arrays in, an array out.
        method: the method, as `lrp` or `gradient` describes it.
        argnums: which arguments are explained, as in `jax.grad`.
        with_output: return `(output, attribution)`.
        logits: whether a trailing softmax or sigmoid is left out; "softmax": a softmax alone.
        unknown: "error": refuse operations that have no rule. "gradient": differentiate them.
        capture: layers whose own attribution is returned as well, after the attribution, as a
            dictionary from name to an array in the shape of the layer's output.
        start: a layer whose output is explained instead of that of `f`; targets select from it.
        stop: a layer whose output gets the attribution instead of the arguments: only what comes
            through it.
        check_finite: raise FloatingPointError when a weight, an input, the output of a layer or the
            attribution is NaN or infinite, and name the first place. Inside jit, vmap and other
            transformations this is a `jax.experimental.checkify` check: functionalise the caller
            with it. A mask of -inf is no error where it is used up (before a softmax or a maximum).
        state: arrays that the rules of the method read, such as patterns; passed at run time.
    """

    f: Callable[..., Any]
    state: Any = field(default=None, kw_only=True)
    _cache: dict[Any, tuple[Traced, list[Any]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not callable(self.f):
            raise TypeError(f"the first argument must be a function of arrays, got {self.f!r}")
        check_choice(self.unknown, "unknown", ("error", "gradient"))
        numbers = tuple(self.argnums) if isinstance(self.argnums, Sequence) else (self.argnums,)
        if not numbers or any(isinstance(n, bool) or not isinstance(n, Integral) for n in numbers):
            raise TypeError(f"argnums must be an int or a sequence of ints, got {self.argnums!r}")
        exact = tuple(map(int, numbers))
        argnums = exact if isinstance(self.argnums, Sequence) else exact[0]
        object.__setattr__(self, "argnums", argnums)

    def __repr__(self) -> str:
        options = [
            f"{option.name}={getattr(self, option.name)!r}"
            for option in fields(Spec)
            if option.name != "method" and getattr(self, option.name) != option.default
        ]
        words = [function_name(self.f), self.method.composite.name, *options]
        return f"Explainer({', '.join(words)})"

    def __getstate__(self) -> dict[str, Any]:
        """The fields: what was compiled stays behind."""
        return vars(self) | {"_cache": {}}

    def __reduce_ex__(self, protocol: Any) -> Any:
        try:
            pickle.dumps(self.f)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"{function_name(self.f)} cannot be pickled ({error}): explain a function of a "
                "module, or a model that is a pytree, and pickle that"
            ) from None
        return super().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: Any) -> "Explainer":
        return replace(self, f=copy.deepcopy(self.f, memo), state=copy.deepcopy(self.state, memo))

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
                of the backward pass, a tree like the output. It is traced once: what it closes over
                is read then. Arrays that change are given with it, in a
                `jax.tree_util.Partial(function, arrays)`, which is called with them first.
            masks: factors for the attribution of layers' outputs on its way down, by the name of
                the layer: an array that broadcasts against its output. With ones at some
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
        call = self._call(args)
        traced = call.traced
        traced.check_target(target)
        factors = traced.check_masks(masks)
        call.check_finite()
        results = call.compute(Evaluation.attribution, target=target, masks=factors)
        output, explained, captured = results
        if self.check_finite:
            finite.check_attribution((explained, captured))
        attribution = explained[0] if traced.stop else traced.like_explained(args, explained)
        captured = {layer.name: captured[layer.name] for layer in traced.captured}  # by depth
        before = [output] if self.with_output else []
        behind = [captured] if self.capture is not None else []
        return (*before, attribution, *behind) if before or behind else attribution

    @readable
    def plan(self, *args: Any) -> Plan:
        """The rule of each layer, and why; nothing is computed.

        Args:
            *args: as for a call; `jax.ShapeDtypeStruct`s will do.
        """
        return self.traced(*args).plan

    @readable
    def ledger(self, *args: Any, target: Target = None, per_example: bool = False) -> Ledger:
        """An audit of relevance: how much every layer received, sent on and absorbed.

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
        method = self.method
        if not method.ledger:
            raise TypeError(
                f"{method.composite.name} is no relevance: only what is conserved adds up"
            )
        if self.stop is not None:
            raise ValueError("a ledger is of the whole pass: give the explainer no stop")
        if method.transform_relevance is not None:
            raise ValueError("a ledger is of what the rules do: give no transform_relevance")
        if isinstance(target, str):
            raise ValueError(f"a ledger is of one target per example, got target={target!r}")
        if per_example:
            return self._ledger_per_example(args, target)
        call = self._call(args)
        call.traced.check_target(target)
        call.check_finite()
        return Ledger(call.traced.plan, **call.compute(Evaluation.ledger, target=target))

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
        together = self.traced(*args)
        together.check_target(target)  # before the examples are separated
        labelled = not callable(target) and target is not None and np.shape(target)[:1] == size

        def one(explained: list[Any], label: Any) -> Ledger:
            mine = trees.replaced(leaves, positions, [value[None] for value in explained])
            alone = jax.tree.unflatten(tree, mine)
            try:
                output = self.traced(*alone).output
            except Exception as error:
                error.add_note("per_example=True calls the function with one example at a time")
                raise
            _check_examples(together.output, output, *size)
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
        call = self._call(args)
        return call.compute(Evaluation.activations, call.traced.plan.find(layers))

    @readable
    def outputs(self, *args: Any) -> Any:
        """The outputs that targets select from: those of `f`, logits where a softmax is left out.

        Args:
            *args: as for a call.
        """
        call = self._call(args)
        tree: Any = jax.tree.structure(call.traced.output)
        return jax.tree.unflatten(tree, call.compute(Evaluation.outputs))

    @readable
    def resolve(self, *args: Any, target: Target = None) -> Target:
        """The target, checked; the largest output of these arguments where it is None.

        Args:
            *args: as for a call.
            target: as for a call.

        Raises:
            TypeError, ValueError, IndexError: as for a call.
        """
        traced = self.traced(*args)
        traced.check_target(target)
        if target is not None or traced.output.ndim == 0:
            return target
        return jnp.argmax(self.outputs(*args), axis=-1)

    @readable
    def read(self, function: Callable[[Plan, Any], Any], *args: Any) -> Any:
        """A pure function of the values inside the program, compiled with it.

        Args:
            function: called with the plan and a mapping from variable to value.
            *args: as for a call.
        """
        return self._call(args).compute(Evaluation.read, function)

    def depends(self, *args: Any) -> bool:
        """Whether relevance can get from the output to the explained arguments."""
        try:
            self.traced(*args)
        except CutOffError:
            return False
        return True

    @readable
    def parameter_messages(
        self,
        batches: Callable[[Traced], tuple[ParameterBatch, ...]],
        *args: Any,
        target: Target = None,
    ) -> list[jax.Array]:
        """The relevance of parameters: the sums of the messages through them.

        Args:
            batches: gives the parameters, by those that can share one backward pass.
            *args: as for a call.
            target: as for a call.
        """
        call = self._call(args)
        call.traced.check_target(target)
        return call.compute(Evaluation.parameter_messages, batches(call.traced), target=target)

    def with_method(self, **changes: Any) -> "Explainer":
        """The same explainer with another method, whose fields are `changes`."""
        return replace(self, method=replace(self.method, **changes))

    def traced(self, *args: Any) -> Traced:
        """The function, traced and planned for arguments like these."""
        return self._call(args).traced

    @property
    def dynamic(self) -> Any:
        """The part that is passed at run time, a pytree: the function and the rules' state."""
        return self.f, self.state

    def combine(self, dynamic: Any) -> "Explainer":
        """The same explainer with another dynamic part."""
        f, state = dynamic
        return replace(self, f=f, state=state)

    def _call(self, args: Sequence[Any]) -> Call:
        """The function, traced for arguments like these, and its arrays now."""
        _check_leaves(args)
        arrays, combine, static = partition(self.f)
        model = None if jax.tree_util.treedef_is_leaf(static[0]) else static
        key = cache_key((arrays, tuple(args)), model)
        known = None if key is None else self._cache.get(key)
        if known is None:
            explained_leaves(args, self.argnums)  # its errors come first
            try:
                program = program_of(self.f, arrays, combine, args, self.method)
            except Exception as error:
                for note in _doubts(args):
                    error.add_note(note)
                raise
            constants = [value for _, value in program.constants]
            stays = key is not None and not any(isinstance(c, jax.core.Tracer) for c in constants)
            known = self._traced(program, len(arrays), args, key if stays else None), constants
            if stays:
                self._cache[key] = known
        return Call(*known, [*arrays, *jax.tree.leaves(tuple(args))], self.state)

    def _traced(self, program: Program, arrays: int, args: Sequence[Any], key: Any) -> Traced:
        """The program, planned; what another explainer of the function planned, where it may be."""
        spec = Spec(**{option.name: getattr(self, option.name) for option in fields(Spec)})
        shared_key = None if key is None else (by_value.key(spec), key)
        if shared_key is not None:
            traced = shared.find(self.f, shared_key)
            if traced is not None and equality.same(traced.program, program):
                return traced
        traced = Traced(spec, self.f, arrays, program, args)
        if shared_key is not None:
            shared.keep(self.f, shared_key, traced)
        return traced


def _check_examples(together: Any, alone: Any, count: int) -> None:
    """Raises ValueError where an output of one example is not one of the examples' outputs."""
    whole, single = ([v.shape for v in jax.tree.leaves(output)] for output in (together, alone))
    if whole != [(count, *shape[1:]) for shape in single] or any(s[:1] != (1,) for s in single):
        raise ValueError(
            f"per_example needs an output whose leading axis counts the {count} examples, got "
            f"shape {', '.join(map(str, whole))} for all of them and "
            f"{', '.join(map(str, single))} for one alone"
        )


def _doubts(args: Sequence[Any]) -> Iterator[str]:
    """What may be wrong with arguments that the function does not take."""
    for number, arg in enumerate(args):
        numbers = jax.tree.leaves(arg) if isinstance(arg, list | tuple) else []
        if numbers and all(isinstance(v, int | float) for v in numbers):
            yield (
                f"argument {number} is a list of numbers, a tree of scalars to JAX: give an array, "
                "jnp.asarray(x)"
            )
    if len(args) > 1 and isinstance(args[-1], str | int | np.integer):
        yield f"if {args[-1]!r} is the target, give it by its name: explain(x, target={args[-1]!r})"


def _check_leaves(args: Sequence[Any]) -> None:
    for number, arg in enumerate(args):
        for path, leaf in jax.tree_util.tree_flatten_with_path(arg)[0]:
            if _compat.aval(leaf) is None:
                raise TypeError(
                    f"argument {number}{jax.tree_util.keystr(path)} is of type "
                    f"{describe_value(leaf)}, which is no array to JAX: pass numeric arrays, and "
                    "fix options with functools.partial"
                )
