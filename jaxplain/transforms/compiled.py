"""An explainer traced, planned and jitted for arguments of given shapes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxplain import _compat, finite, notes, targets
from jaxplain.affine.dtypes import wide
from jaxplain.arguments import describe_value, fits
from jaxplain.errors import CutOffError
from jaxplain.graph import Graph, explained_leaves
from jaxplain.graph.layers import Layer
from jaxplain.graph.lookups import starts
from jaxplain.graph.program import Program, Var, flatten
from jaxplain.interpreter import evaluate, forward, values, values_of
from jaxplain.ledger import Ledger
from jaxplain.parameter_messages import ParameterBatch
from jaxplain.plan import LayerSpec, Plan
from jaxplain.probes import COLUMNS, Probes
from jaxplain.targets import Target

if TYPE_CHECKING:
    from jaxplain.transforms.explainer import Explainer


class Compiled:
    """An explainer traced, planned and jitted for arguments of given shapes."""

    def __init__(
        self,
        explainer: "Explainer",
        arrays: list[Any],
        rebuild: Callable[[list[Any]], Callable[..., Any]],
        args: Sequence[Any],
    ):
        self.explainer = explainer
        self.held = len(arrays)
        positions = explained_leaves(args, explainer.argnums)
        program = flatten(
            _pure(rebuild, _name(explainer.f)),
            (arrays, *args),
            keep_derivatives=not explainer.relevance,
        )
        _check_output(program, explainer.f)
        self.positions = tuple(i + len(arrays) for i in positions)
        _label(program, explainer.f, args)
        graph = Graph(
            program,
            tuple(program.inputs[i] for i in self.positions),
            explainer.logits,
            explainer.normalizations,
        )
        self.looks_up = bool(graph.lookups)
        if self.looks_up and explainer.prepare is not None:
            raise TypeError(NO_PATH)
        if explainer.relevance and not any(v.carries for v in graph.explained_outputs):
            cuts = notes.cuts(graph)
            raise CutOffError(
                f"no relevance can reach the explained input of {_name(explainer.f)}: its output "
                + (f"is cut off from it by {cuts}" if cuts else "does not depend on it")
            )
        self.plan = plan = Plan(graph, explainer.composite, explainer.unknown)
        start, stop, capture = explainer.start, explainer.stop, explainer.capture
        self.stop = None if stop is None else plan.find_one(stop)
        self.captured = () if capture is None else plan.find(capture)
        self.out_tree: Any = jax.tree.structure(program.out_tree)
        self.head_vars = graph.explained_outputs
        if start is not None:
            self.out_tree = jax.tree.structure(0)
            self.head_vars = (self._start(start).output,)
        for layer in (*self.captured, *((self.stop,) if self.stop else ())):
            self._check_reached(layer)
        self.heads = jax.tree.unflatten(self.out_tree, [v.aval for v in self.head_vars])
        self.explained = [v.aval for v in graph.inputs]
        self.constants = [value for _, value in program.constants]
        self.reverse = explainer.reverse(graph) if explainer.reverse else {}
        self._explain = jax.jit(self._run, static_argnames=("kind",))
        self._audit = jax.jit(self._book, static_argnames=("kind",))
        self._weigh = jax.jit(self._weighed, static_argnames=("kind", "batches"))
        self._observe = jax.jit(self._values, static_argnames=("layers",))
        self._inspect = jax.jit(self._finite)
        self._forward = jax.jit(self._heads)
        self._reading = jax.jit(self._read, static_argnames=("function",))

    @property
    def holds_tracers(self) -> bool:
        """Whether the function closed over values of a transformation in progress."""
        return any(isinstance(c, jax.core.Tracer) for c in self.constants)

    def masks(self, masks: Mapping[str, Any] | None) -> dict[int, jax.Array]:
        """Masks by the index of their layer, checked."""
        if not isinstance(masks, Mapping | None):
            raise TypeError(f"masks are a dictionary from layer to array, got {masks!r}")
        found: dict[int, jax.Array] = {}
        for name, mask in (masks or {}).items():
            layer = self.plan.find_one(name)
            self._check_reached(layer)
            if self.stop is not None and _outermost(self.stop).output not in _upstream(
                _outermost(layer).outputs
            ):
                raise ValueError(
                    f"layer {layer.name!r} is not above the stop {self.explainer.stop!r}: a mask "
                    "there has no effect"
                )
            shape = layer.shape
            if layer.index in found:
                raise ValueError(f"masks give layer {layer.name!r} twice")
            if not fits(mask, shape):
                raise ValueError(
                    f"the mask of layer {layer.name!r} must be a real array that broadcasts to the "
                    f"layer's output of shape {shape}, got {describe_value(mask)}"
                )
            found[layer.index] = jnp.asarray(mask)
        return found

    def _start(self, start: LayerSpec) -> Layer:
        """The layer to start from.

        Raises:
            ValueError: it is inside of a loop or branch, where it has no one output.
        """
        layer = self.plan.find_one(start)
        if layer.around:
            raise ValueError(
                f"layer {layer.name!r} is inside of {layer.around[-1].name!r}: start at a layer "
                "outside of loops and branches (jaxplain.unroll writes loops out)"
            )
        return layer

    def _check_reached(self, layer: Layer) -> None:
        """Raises ValueError for a layer that relevance never reaches from `start`."""
        exit_ = _outermost(layer).output
        if self.explainer.start is not None and exit_ not in _upstream(self.head_vars):
            raise ValueError(
                f"layer {layer.name!r} is not below the start {self.explainer.start!r}: no "
                "attribution arrives there"
            )

    def __call__(
        self, arrays: list[Any], args: Sequence[Any], target: Target, masks: dict[int, jax.Array]
    ) -> Any:
        """The attribution, with what else was asked for."""
        flat = self._flat(arrays, args)
        kind, index = targets.static(target)
        self._check_values(flat)
        state = self.explainer.state
        output, explained, captured = self._explain(
            self.constants, flat, index, masks, state, kind=kind
        )
        if self.explainer.check_finite:
            finite.check_attribution((explained, captured))
        if self.stop is not None:
            (attribution,) = explained
        else:
            trees = self._explained_trees(args, explained)
            attribution = trees[0] if isinstance(self.explainer.argnums, int) else tuple(trees)
        captured = {layer.name: captured[layer.name] for layer in self.captured}  # by depth
        wanted = (
            *((output,) if self.explainer.with_output else ()),
            attribution,
            *((captured,) if self.explainer.capture is not None else ()),
        )
        return wanted if len(wanted) > 1 else attribution

    def ledger(self, arrays: list[Any], args: Sequence[Any], target: Target) -> Ledger:
        """The ledger of these arguments."""
        flat = self._flat(arrays, args)
        kind, index = targets.static(target)
        self._check_values(flat)
        state = self.explainer.state
        return Ledger(self.plan, **self._audit(self.constants, flat, index, state, kind=kind))

    def weights(
        self,
        arrays: list[Any],
        args: Sequence[Any],
        target: Target,
        batches: tuple[ParameterBatch, ...],
    ) -> list[jax.Array]:
        """The relevance of weights, in their order among the arguments."""
        kind, index = targets.static(target)
        flat = self._flat(arrays, args)
        found = self._weigh(self.constants, flat, index, kind=kind, batches=batches)
        names = (v for batch in batches for v in batch.inputs)
        by_weight = dict(zip(names, found, strict=True))
        return [by_weight[v] for v in self.plan.graph.program.inputs if v in by_weight]

    def inputs(self, args: Sequence[Any], number: int) -> list[Var]:
        """The variables of an argument's arrays."""
        counts = [len(jax.tree.leaves(arg)) for arg in args]
        number %= len(args)
        start = self.held + sum(counts[:number])
        return self.plan.graph.program.inputs[start : start + counts[number]]

    def activations(
        self, arrays: list[Any], args: Sequence[Any], layers: tuple[Layer, ...]
    ) -> dict[str, jax.Array]:
        """The outputs of layers, by name."""
        return self._observe(self.constants, self._flat(arrays, args), layers=layers)

    def outputs(self, arrays: list[Any], args: Sequence[Any]) -> Any:
        """What targets select from."""
        heads = self._forward(self.constants, self._flat(arrays, args))
        return jax.tree.unflatten(self.out_tree, heads)

    def read(
        self, arrays: list[Any], args: Sequence[Any], function: Callable[[Plan, Any], Any]
    ) -> Any:
        """A function of the plan and of the values of all variables of the program."""
        return self._reading(self.constants, self._flat(arrays, args), function=function)

    def _check_values(self, flat: list[Any]) -> None:
        if self.explainer.check_finite:
            finite.check(finite.places(self.plan), self._inspect(self.constants, flat))

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

    def _flat(self, arrays: list[Any], args: Sequence[Any]) -> list[Any]:
        flat = [*arrays, *jax.tree.leaves(tuple(args))]
        if any(isinstance(v, jax.ShapeDtypeStruct) for v in flat):
            raise TypeError("a jax.ShapeDtypeStruct holds no values: only plan() takes one")
        return flat

    def _evaluate(
        self,
        constants: list[Any],
        flat: list[Any],
        explained: Sequence[Any],
        probes: Probes,
        state: Any = None,
        parameters: ParameterBatch = ParameterBatch(),
    ) -> tuple[list[Any], dict[Layer, Any]]:
        prepare = self.explainer.prepare
        states = None
        if prepare is not None and state is not None:

            def run(others: Sequence[Any]) -> dict[Var, Any]:
                inputs = list(flat)
                for position, value in zip(self.positions, others, strict=True):
                    inputs[position] = value
                return values(self.plan.graph.program, constants, inputs)

            states = prepare(self.plan, state, run)
        return evaluate(
            self.plan,
            constants,
            flat,
            explained,
            self.head_vars,
            at_least_float32=self.explainer.relevance,
            probes=probes,
            states=states,
            parameters=parameters,
        )

    def _explained(
        self, constants: list[Any], flat: list[Any], parameters: ParameterBatch = ParameterBatch()
    ) -> list[jax.Array]:
        """The values of `graph.explained`."""
        graph = self.plan.graph
        found = values_of(graph.explained, graph.program, constants, flat, parameters)
        return list(map(jnp.asarray, found))

    def _by_input(self, arriving: Sequence[jax.Array]) -> list[jax.Array]:
        """What arrived at `graph.explained`, for each explained input."""
        graph = self.plan.graph
        values = dict(zip(graph.explained, arriving, strict=True))
        integers = [v for v in graph.inputs if not v.floating]
        for var, start in zip(integers, starts(integers), strict=True):
            found = [lookup for lookup in graph.lookups if lookup.has(start, var)]
            each = [lookup.gathered(values[lookup.value], start, var.shape) for lookup in found]
            values[var] = reduce(jnp.add, each)
        return [values[var] for var in graph.inputs]

    def _run(
        self, constants: list[Any], flat: list[Any], index: Any, masks: Any, state: Any, kind: Any
    ) -> tuple[Any, list[Any], dict[str, Any]]:
        layers = tuple(dict.fromkeys((*self.captured, *((self.stop,) if self.stop else ()))))
        factors = {self.plan.layers[i]: mask for i, mask in masks.items()}

        def heads_of(values: list[Any], slots: list[Any]) -> tuple[list[Any], list[Any]]:
            probes = Probes(dict(zip(layers, slots, strict=True)), factors, transforms=self.reverse)
            heads, outputs = self._evaluate(constants, flat, values, probes, state)
            return heads, [outputs[layer] for layer in layers]

        explained = self._explained(constants, flat)
        slots = [self._slot(layer) for layer in layers]
        heads, pullback, outputs = jax.vjp(heads_of, explained, slots, has_aux=True)
        finish = self.explainer.finish

        def attribute(seeds: list[Any]) -> tuple[list[Any], dict[str, Any]]:
            arriving, captured = pullback(seeds)
            if finish is not None:
                arriving = list(map(finish, explained, arriving))
                captured = list(map(finish, outputs, captured))
            by_layer = dict(zip(layers, captured, strict=True))
            if self.stop is not None:
                arriving = [by_layer[self.stop]]
            else:
                arriving = [a.astype(x.dtype) for a, x in zip(arriving, explained, strict=True)]
                arriving = self._by_input(arriving)
            return arriving, {layer.name: by_layer[layer] for layer in self.captured}

        attribution = self._seeded(attribute, heads, index, kind)
        if not self.explainer.with_output:
            return None, *attribution
        outputs = forward(self.plan.graph.program, constants, flat)
        tree = jax.tree.structure(self.plan.graph.program.out_tree)
        return jax.tree.unflatten(tree, outputs), *attribution

    def _weighed(
        self, constants: list[Any], flat: list[Any], index: Any, kind: Any, batches: Any
    ) -> list[jax.Array]:
        inputs = self.plan.graph.program.inputs
        found = []
        for parameters in batches:
            places = [inputs.index(v) for v in parameters.inputs]

            def heads_of(
                values: list[Any], places: Any = places, parameters: Any = parameters
            ) -> Any:
                given = list(flat)
                for place, value in zip(places, values, strict=True):
                    given[place] = value
                explained = self._explained(constants, given, parameters)
                return self._evaluate(constants, given, explained, Probes(), parameters=parameters)[
                    0
                ]

            heads, pullback = jax.vjp(heads_of, [jnp.asarray(flat[i]) for i in places])
            found += self._seeded(pullback, heads, index, kind)[0]
        return found

    def _seeded(
        self, pullback: Callable[[list[Any]], Any], heads: list[Any], index: Any, kind: Any
    ) -> Any:
        """What a backward pass makes of the seeds of a target; of "all", along a first axis."""
        if not (isinstance(kind, str) and kind == "all"):
            return pullback(self._seeds(heads, index, kind))
        (head,) = heads
        scale = self._scale(head)
        return jax.vmap(lambda hot: pullback([hot * scale]))(targets.every_class(head))

    def _slot(self, layer: Layer) -> jax.Array:
        dtype = layer.output.aval.dtype
        slot = wide(dtype) if self.explainer.relevance else dtype
        return jnp.zeros(layer.shape, slot)

    def _scale(self, head: jax.Array) -> jax.Array:
        if self.explainer.seed is not None:
            return self.explainer.seed(head)
        return head if self.explainer.relevance else jnp.ones_like(head)

    def _seeds(self, heads: list[Any], index: Any, kind: Any) -> list[Any]:
        if callable(kind):
            narrow = [h.astype(v.aval.dtype) for h, v in zip(heads, self.head_vars, strict=True)]
            return self._check_seed(kind(jax.tree.unflatten(self.out_tree, narrow)), heads)
        (head,) = heads
        hot = targets.one_hot(head, index)
        # not hot * scale: an infinite logit elsewhere must not make the seed NaN
        return [jnp.where(hot == 0, 0, hot * self._scale(head))]

    def _book(
        self, constants: list[Any], flat: list[Any], index: Any, state: Any, kind: Any
    ) -> dict[str, jax.Array]:
        """The fields of a ledger."""
        steps = self.plan.graph.all_steps

        def heads_of(values: list[Any], columns: list[Any]) -> list[Any]:
            probes = Probes(ledger=dict(zip(steps, columns, strict=True)))
            return self._evaluate(constants, flat, values, probes, state)[0]

        explained = self._explained(constants, flat)
        dtype = wide(*(x.dtype for x in explained))
        columns = [dict.fromkeys(COLUMNS, jnp.zeros((), dtype)) for _ in steps]
        heads, pullback = jax.vjp(heads_of, explained, columns)
        seeds = self._seeds(heads, index, kind)
        arriving, recorded = pullback(seeds)
        arriving = self._by_input(arriving)
        stacked = {key: jnp.stack([layer[key] for layer in recorded]) for key in COLUMNS}
        total = sum((jnp.sum(seed, dtype=dtype) for seed in seeds), jnp.zeros((), dtype))
        reached = sum((jnp.sum(a, dtype=dtype) for a in arriving), jnp.zeros((), dtype))
        return {"output": total, "inputs": reached, **stacked}

    def _values(
        self, constants: list[Any], flat: list[Any], layers: tuple[Layer, ...]
    ) -> dict[str, jax.Array]:
        probes = Probes(capture=dict.fromkeys(layers))
        _, outputs = self._evaluate(constants, flat, self._explained(constants, flat), probes)
        return {layer.name: outputs[layer] for layer in layers}

    def _heads(self, constants: list[Any], flat: list[Any]) -> list[Any]:
        return self._evaluate(constants, flat, self._explained(constants, flat), Probes())[0]

    def _read(self, constants: list[Any], flat: list[Any], function: Any) -> Any:
        return function(self.plan, values(self.plan.graph.program, constants, flat))

    def _finite(self, constants: list[Any], flat: list[Any]) -> jax.Array:
        probes = Probes(capture=dict.fromkeys(self.plan.layers))
        _, outputs = self._evaluate(constants, flat, self._explained(constants, flat), probes)
        return finite.flags(self.plan, constants, flat, outputs)

    def _check_seed(self, seed: Any, heads: list[Any]) -> list[Any]:
        leaves, tree = jax.tree.flatten(seed)
        if tree != self.out_tree:
            raise ValueError(
                f"target's callable must return a tree like the output, {self.out_tree}, got {tree}"
            )
        for leaf, head in zip(leaves, heads, strict=True):
            if not fits(leaf, head.shape) or jnp.shape(leaf) != head.shape:
                raise ValueError(
                    "target's callable must return a real seed in the shape of the output, "
                    f"{head.shape}, got {describe_value(leaf)}; to explain a scalar g(output), "
                    "return jax.grad(g)(output)"
                )
        return [jnp.asarray(v, h.dtype) for v, h in zip(leaves, heads, strict=True)]


#: Why integers have no integrated gradients, and no baseline.
NO_PATH = (
    "this method moves through the values of an input or compares it with others, and integers "
    "have none between them: explain the vectors that they look up (split the model behind its "
    "embedding), or give numbers"
)


def _outermost(layer: Layer) -> Layer:
    """The loop or branch that the layer stands in, or the layer."""
    return layer.around[0] if layer.around else layer


def _upstream(ends: Iterable[Var]) -> set[Var]:
    """What the values are computed from, themselves included."""
    found: set[Var] = set()
    stack = list(ends)
    while stack:
        var = stack.pop()
        if var not in found:
            found.add(var)
            stack += var.producer.inputs if var.producer else ()
    return found


def _pure(rebuild: Callable[[list[Any]], Callable[..., Any]], name: str) -> Callable[..., Any]:
    """The model as a function of its arrays and arguments, refused where it is none."""

    def call(arrays: list[Any], *args: Any) -> Any:
        model = rebuild(arrays)
        before = _by_path(model)
        output = model(*args)
        after = _by_path(model)
        changed = [path for path, leaf in before.items() if after.get(path, leaf) is not leaf]
        if changed:
            raise TypeError(
                f"{name} changes its own arrays when it is called ({', '.join(changed[:4])}), as "
                "dropout and BatchNorm do in training mode: put it into evaluation mode "
                "(from_nnx(model) or model.eval() for nnx), or explain a pure function of it"
            )
        for leaf in jax.tree.leaves(output):
            if _compat.aval(leaf) is None:
                raise TypeError(
                    f"{name} returns a {describe_value(leaf)}, not an array: explain a function "
                    "that returns only the scores"
                )
        return output

    return call


def _by_path(model: Any) -> dict[str, Any]:
    """The traced arrays that a model holds."""
    leaves = jax.tree_util.tree_flatten_with_path(model)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in leaves
        if isinstance(leaf, jax.core.Tracer)
    }


def _name(f: Any) -> str:
    """What messages call a function: models print at length."""
    return getattr(f, "__name__", type(f).__name__)


def _check_output(program: Program, f: Any) -> None:
    name = _name(f)
    if not program.outputs:
        raise TypeError(f"{name} returns no array: there is nothing to explain")
    for var in program.outputs:
        if not jnp.issubdtype(var.aval.dtype, jnp.floating):
            raise TypeError(
                f"{name} returns dtype {var.aval.dtype}: only floating outputs can be explained; "
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
