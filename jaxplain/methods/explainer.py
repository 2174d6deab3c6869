"""The explainer: a function's explanation, with the function's own arguments."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import targets
from jaxplain.composites import Composite
from jaxplain.errors import NotAnalyzableError
from jaxplain.graph import Graph, explained_leaves
from jaxplain.graph.program import Program, flatten
from jaxplain.interpreter import evaluate, forward
from jaxplain.plan import Plan
from jaxplain.targets import Target

_UNKNOWN = ("error", "gradient")


@dataclass(frozen=True)
class Explainer:
    """A pure function from the arguments of `f` to an attribution of the explained ones.

    Explainers are made by the methods (`lrp`, `gradient`, ...). Calling one traces `f` for the
    shapes at hand, plans, and compiles once per shape; it works the same inside jit, vmap, grad and
    scan. Arrays that `f` holds as a pytree (a model from `from_linen`, an Equinox or nnx module, a
    `jax.tree_util.Partial`) are passed at run time. Arrays that `f` merely closes over are read
    when it is traced, as `jax.jit` does.

    Attributes:
        f: the function that is explained: arrays in, an array out.
        composite: which rule for which layer.
        relevance: whether the seed is the output's value (relevance) or 1 (gradients).
        argnums: which arguments are explained, as in `jax.grad`.
        with_output: return `(output, attribution)`.
        logits: whether a trailing softmax is left out.
        unknown: "error" or "gradient": what to do with operations that have no rule.
        finish: turns explained arrays and their cotangents into attributions.
    """

    f: Callable[..., Any]
    composite: Composite
    relevance: bool
    argnums: int | tuple[int, ...] = 0
    with_output: bool = False
    logits: bool = True
    unknown: str = "error"
    finish: Callable[[Any, Any], Any] | None = None
    _cache: dict[Any, "_Compiled"] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not callable(self.f):
            raise TypeError(f"the first argument must be a function of arrays, got {self.f!r}")
        if self.unknown not in _UNKNOWN:
            raise ValueError(f"unknown must be one of {_UNKNOWN}, got {self.unknown!r}")

    def __call__(self, *args: Any, target: Target = None) -> Any:
        """Explains `f(*args)`.

        Args:
            *args: the arguments of `f`; those of `argnums` (the first by default) are explained.
            target: which output is explained. None: the largest, at every leading position of the
                output (..., C). An int: that class. An int array of shape `output.shape[:-1]` or
                `(output.shape[0],)`: one class per example. "all": every class, which adds a
                leading axis of size C to the attribution. A callable: maps the output to the seed
                of the backward pass, a tree like the output.

        Returns:
            The attribution, a tree like the explained argument (a tuple of them for a sequence of
            argnums); `(f(*args), attribution)` with `with_output=True`. It has the input's dtype.

        Raises:
            NotAnalyzableError: relevance would have to cross an operation that has no rule.
            TypeError, ValueError, IndexError: wrong arguments; raised before any compute.
        """
        compiled, arrays = self._compiled(args)
        targets.check(target, compiled.heads)
        return compiled(arrays, args, target)

    def plan(self, *args: Any) -> Plan:
        """What would run, layer by layer; nothing is computed.

        Args:
            *args: as for a call; `jax.ShapeDtypeStruct`s will do.
        """
        return self._compiled(args)[0].plan

    def _compiled(self, args: Sequence[Any]) -> tuple["_Compiled", list[Any]]:
        """The program for arguments like these, and the arrays that the model holds now."""
        _check_leaves(args)
        arrays, rebuild, static = _split(self.f)
        key = _key((arrays, tuple(args)), static)
        if key is None or key not in self._cache:
            compiled = _Compiled(self, arrays, rebuild, args)
            if key is not None and not compiled.holds_tracers:
                self._cache[key] = compiled
        else:
            compiled = self._cache[key]
        return compiled, arrays


class _Compiled:
    """An explainer traced, planned and jitted for arguments of given shapes."""

    def __init__(
        self,
        explainer: Explainer,
        arrays: list[Any],
        rebuild: Callable[[list[Any]], Callable[..., Any]],
        args: Sequence[Any],
    ):
        self.explainer = explainer
        self.held = len(arrays)
        positions = explained_leaves(args, explainer.argnums)
        program = flatten(
            lambda model, *rest: rebuild(model)(*rest),
            (arrays, *args),
            keep_derivatives=not explainer.relevance,
        )
        _check_output(program, explainer.f)
        self.positions = tuple(i + len(arrays) for i in positions)
        _label(program, explainer.f, args)
        graph = Graph(program, tuple(program.inputs[i] for i in self.positions), explainer.logits)
        if explainer.relevance and not any(v.carries for v in graph.heads):
            raise NotAnalyzableError(
                f"no relevance can reach the explained input of {explainer.f!r}: its output is cut "
                "off from it by discrete operations or stop_gradient, or does not depend on it"
            )
        self.plan = Plan(graph, explainer.composite, explainer.unknown)
        self.out_tree = jax.tree.structure(program.out_tree)
        self.heads = jax.tree.unflatten(self.out_tree, [v.aval for v in graph.heads])
        self.constants = [value for _, value in program.constants]
        self._jitted = jax.jit(self._run, static_argnames=("kind",))

    @property
    def holds_tracers(self) -> bool:
        """Whether the function closed over values of a transformation in progress."""
        return any(isinstance(c, jax.core.Tracer) for c in self.constants)

    def __call__(self, arrays: list[Any], args: Sequence[Any], target: Target) -> Any:
        flat = [*arrays, *jax.tree.leaves(tuple(args))]
        kind: Any = (
            target if target is None or isinstance(target, str) or callable(target) else "index"
        )
        index = jnp.asarray(target) if kind == "index" else None
        output, explained = self._jitted(self.constants, flat, index, kind=kind)
        trees = self._explained_trees(args, explained)
        attribution = trees[0] if isinstance(self.explainer.argnums, int) else tuple(trees)
        return (output, attribution) if self.explainer.with_output else attribution

    def _explained_trees(self, args: Sequence[Any], explained: list[Any]) -> list[Any]:
        argnums = self.explainer.argnums
        numbers = (argnums,) if isinstance(argnums, int) else argnums
        by_position = dict(zip(self.positions, explained, strict=True))
        trees, offset = {}, self.held
        for number, arg in enumerate(args):
            leaves, tree = jax.tree.flatten(arg)
            if number in {n % len(args) for n in numbers}:
                chosen = [by_position[offset + i] for i in range(len(leaves))]
                trees[number] = jax.tree.unflatten(tree, chosen)
            offset += len(leaves)
        return [trees[n % len(args)] for n in numbers]

    def _run(self, constants: list[Any], flat: list[Any], index: Any, kind: Any) -> Any:
        explained = [jnp.asarray(flat[i]) for i in self.positions]

        def heads_of(values: list[Any]) -> list[Any]:
            inputs = list(flat)
            for position, value in zip(self.positions, values, strict=True):
                inputs[position] = value
            return evaluate(self.plan, constants, inputs)

        heads, pullback = jax.vjp(heads_of, explained)
        relevance, finish = self.explainer.relevance, self.explainer.finish

        def attribute(seeds: list[Any]) -> list[Any]:
            (cotangents,) = pullback(seeds)
            return cotangents if finish is None else list(map(finish, explained, cotangents))

        if callable(kind):
            seeds = self._check_seed(kind(jax.tree.unflatten(self.out_tree, heads)), heads)
            attribution = attribute(seeds)
        else:
            (head,) = heads
            scale = head if relevance else jnp.ones_like(head)
            if kind == "all":
                attribution = jax.vmap(lambda hot: attribute([hot * scale]))(
                    targets.every_class(head)
                )
            else:
                hot = targets.one_hot(head, index)
                # not hot * scale: an infinite logit elsewhere must not make the seed NaN
                attribution = attribute([jnp.where(hot == 0, 0, hot * scale)])
        if not self.explainer.with_output:
            return None, attribution
        outputs = forward(self.plan.graph.program, constants, flat)
        return jax.tree.unflatten(self.out_tree, outputs), attribution

    def _check_seed(self, seed: Any, heads: list[Any]) -> list[Any]:
        leaves = jax.tree.leaves(seed)
        shapes, wanted = [jnp.shape(v) for v in leaves], [h.shape for h in heads]
        if shapes != wanted:
            raise ValueError(
                f"target's callable must return a seed in the shape of the output, {wanted}, got "
                f"{shapes}; to explain a scalar g(output), return jax.grad(g)(output)"
            )
        return [jnp.asarray(v, h.dtype) for v, h in zip(leaves, heads, strict=True)]


def _split(f: Callable[..., Any]) -> tuple[list[Any], Callable[[list[Any]], Any], Any]:
    """The arrays of a model that is a pytree, how to put them back, and a key for the rest."""
    leaves, tree = jax.tree.flatten(f)
    held = [isinstance(v, jax.Array) or hasattr(v, "__array__") for v in leaves]
    arrays = [v for v, is_array in zip(leaves, held, strict=True) if is_array]
    others = [v for v, is_array in zip(leaves, held, strict=True) if not is_array]

    def rebuild(values: list[Any]) -> Any:
        of_array, of_other = iter(values), iter(others)
        return jax.tree.unflatten(tree, [next(of_array if a else of_other) for a in held])

    return arrays, rebuild, (tree, tuple(map(id, others)))


def _key(arrays: Any, static: Any) -> Any:
    """What a compiled program depends on; None when that cannot be told."""
    leaves, tree = jax.tree.flatten(arrays)
    avals = tuple(
        (jnp.shape(v), jnp.result_type(v), getattr(v, "weak_type", False)) for v in leaves
    )
    key = (static, tree, avals, jax.config.read("jax_enable_x64"))
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _check_leaves(args: Sequence[Any]) -> None:
    for number, arg in enumerate(args):
        for leaf in jax.tree.leaves(arg):
            if not hasattr(leaf, "dtype") and not isinstance(leaf, int | float | complex):
                raise TypeError(
                    f"argument {number} holds a {type(leaf).__name__}, not an array: fix options "
                    "with functools.partial or a lambda, and pass only arrays"
                )


def _check_output(program: Program, f: Any) -> None:
    if not program.outputs:
        raise TypeError(f"{f!r} returns no array: there is nothing to explain")
    for var in program.outputs:
        if not var.floating:
            raise TypeError(
                f"{f!r} returns dtype {var.aval.dtype}: only floating outputs can be explained; "
                "return the scores instead of the decision"
            )


def _label(program: Program, f: Any, args: Sequence[Any]) -> None:
    """Names the inputs by where the user holds them: in the model or in an argument."""
    paths = [
        path for path, leaf in jax.tree_util.tree_flatten_with_path(f)[0] if hasattr(leaf, "shape")
    ]
    for arg in args:
        paths += [path for path, _ in jax.tree_util.tree_flatten_with_path(arg)[0]]
    for var, path in zip(program.inputs, paths, strict=True):
        var.path = jax.tree_util.keystr(path, simple=True, separator="/")
