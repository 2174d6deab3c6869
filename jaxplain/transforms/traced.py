"""A function, traced and planned for arguments of given shapes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import _compat, notes, targets
from jaxplain.arguments import by_path, describe_value, fits, function_name, with_paths
from jaxplain.errors import CutOffError
from jaxplain.graph import Graph, Layer, explained_leaves
from jaxplain.graph.examples import counts_examples
from jaxplain.graph.flatten import flatten
from jaxplain.graph.ir import Program, Var
from jaxplain.plan import LayerSpec, Plan
from jaxplain.targets import Target
from jaxplain.transforms.method import Method, Spec

#: Why integers have no integrated gradients, and no baseline.
NO_PATH = (
    "this method moves through the values of an input or compares it with others, and integers "
    "have none between them: explain the vectors that they look up (split the model behind its "
    "embedding), or give numbers"
)


class Traced:
    """A function, traced and planned for arguments of given shapes.

    Args:
        spec: the method and its options.
        f: the function.
        arrays: how many arrays the function holds, which is a pytree.
        program: its program (see `program_of`).
        args: the arguments, or `jax.ShapeDtypeStruct`s in their place.

    Attributes:
        spec: the method and its options.
        plan: the layers and their rules.
        program: the operations.
        positions: the places of the explained arrays among the program's inputs.
        explained: the explained arrays' shapes and dtypes.
        explained_outputs: the variables that relevance starts from.
        output: their shapes and dtypes, a tree like the function's output.
        stop: the layer whose output gets the attribution, or None.
        captured: the layers whose own attribution is returned as well.
        transforms: see `Method.transform_relevance`.
        jitted: its computations so far, each compiled once.
    """

    def __init__(
        self,
        spec: Spec,
        f: Any,
        arrays: int,
        program: Program,
        args: Sequence[Any],
    ):
        self.spec, method, name = spec, spec.method, function_name(f)
        self._model_arrays, self.program = arrays, program
        self.positions = tuple(i + arrays for i in explained_leaves(args, spec.argnums))
        inputs = tuple(program.inputs[i] for i in self.positions)
        graph = Graph(program, inputs, spec.logits, method.normalizations)
        self.looks_up = bool(graph.lookups)
        if self.looks_up and method.layer_states is not None:
            raise TypeError(NO_PATH)
        carries = graph.flow.carries_relevance
        if method.refuse_cut_off and carries.isdisjoint(graph.explained_outputs):
            cuts = notes.cuts(graph)
            raise CutOffError(
                f"no relevance can reach the explained input of {name}: its output "
                + (f"is cut off from it by {cuts}" if cuts else "does not depend on it")
            )
        self.plan = plan = Plan(graph, method.composite, spec.unknown)
        self.stop = None if spec.stop is None else plan.find_one(spec.stop)
        self.captured = () if spec.capture is None else plan.find(spec.capture)
        tree: Any = jax.tree.structure(program.out_tree)
        self.explained_outputs: Sequence[Var] = graph.explained_outputs
        if spec.start is not None:
            tree = jax.tree.structure(0)
            self.explained_outputs = (self._find_start(spec.start).output,)
        for layer in (*self.captured, *((self.stop,) if self.stop else ())):
            self._check_reached(layer)
        self.output = jax.tree.unflatten(tree, [v.aval for v in self.explained_outputs])
        self.explained = [v.aval for v in graph.inputs]
        self._mesh = _compat.mesh_of(v.aval for v in program.inputs)
        self.jitted: dict[Callable[..., Any], Callable[..., Any]] = {}
        transform_relevance = method.transform_relevance
        self.transforms = {} if transform_relevance is None else transform_relevance(graph)

    @property
    def batched(self) -> bool:
        """Whether the leading axis of the explained arrays counts examples."""
        return counts_examples(self.output, self.explained)

    def mesh(self) -> Any:
        """A context with the mesh of explicitly sharded inputs, where none is set."""
        return self._mesh() if self._mesh is not None else nullcontext()

    def check_target(self, target: Target) -> None:
        """Checks a target, as `targets.check` does."""
        targets.check(target, self.output, self.explained)

    def check_masks(self, masks: Mapping[str, Any] | None) -> dict[int, jax.Array]:
        """Masks by the index of their layer.

        Raises:
            TypeError, ValueError: they have no effect, or do not fit.
        """
        if not isinstance(masks, Mapping | None):
            raise TypeError(f"masks are a dictionary from layer to array, got {masks!r}")
        by_index: dict[int, jax.Array] = {}
        for name, mask in (masks or {}).items():
            layer = self.plan.find_one(name)
            self._check_reached(layer)
            stop = self.stop and _outermost(self.stop)
            if stop is not None and stop.output not in _upstream(_outermost(layer).outputs):
                raise ValueError(
                    f"layer {layer.name!r} is not above the stop {self.spec.stop!r}: a mask "
                    "there has no effect"
                )
            if layer.index in by_index:
                raise ValueError(f"masks give layer {layer.name!r} twice")
            if not fits(mask, layer.shape):
                raise ValueError(
                    f"the mask of layer {layer.name!r} must be a real array that broadcasts to the "
                    f"layer's output of shape {layer.shape}, got {describe_value(mask)}"
                )
            by_index[layer.index] = jnp.asarray(mask)
        return by_index

    def argument(self, args: Sequence[Any], number: int) -> Sequence[Var]:
        """The variables of an argument's arrays."""
        counts = [len(jax.tree.leaves(arg)) for arg in args]
        number %= len(args)
        start = self._model_arrays + sum(counts[:number])
        return self.program.inputs[start : start + counts[number]]

    def like_explained(self, args: Sequence[Any], values: Sequence[Any]) -> Any:
        """Values of the explained arrays, as a tree like the explained argument, or a tuple."""
        by_position = dict(zip(self.positions, values, strict=True))
        leaves, tree = jax.tree.flatten(tuple(args))
        places = enumerate(leaves, self._model_arrays)
        trees = jax.tree.unflatten(tree, [by_position.get(i, leaf) for i, leaf in places])
        argnums = self.spec.argnums
        return trees[argnums] if isinstance(argnums, int) else tuple(trees[n] for n in argnums)

    def _find_start(self, start: LayerSpec) -> Layer:
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
        output = _outermost(layer).output
        if self.spec.start is not None and output not in _upstream(self.explained_outputs):
            raise ValueError(
                f"layer {layer.name!r} is not below the start {self.spec.start!r}: no "
                "attribution arrives there"
            )


def program_of(
    f: Any,
    arrays: list[Any],
    combine: Callable[[list[Any]], Callable[..., Any]],
    args: Sequence[Any],
    method: Method,
) -> Program:
    """The program of a function, checked, its inputs named by their paths.

    Args:
        f: the function.
        arrays: the arrays of the function, which is a pytree.
        combine: a function from such arrays to the function.
        args: the arguments, or `jax.ShapeDtypeStruct`s in their place.
        method: the method that explains it.
    """
    name = function_name(f)
    function = _as_function_of_arrays(combine, name)
    program = flatten(function, (arrays, *args), keep_derivatives=method.custom_derivatives)
    _check_output(program, name)
    _name_inputs(program, f, args)
    return program


def _outermost(layer: Layer) -> Layer:
    """The loop or branch that the layer stands in, or the layer."""
    return layer.around[0] if layer.around else layer


def _upstream(variables: Iterable[Var]) -> set[Var]:
    """The variables, and all that they are computed from."""
    upstream: set[Var] = set()
    stack = list(variables)
    while stack:
        var = stack.pop()
        if var not in upstream:
            upstream.add(var)
            stack += var.producer.inputs if var.producer else ()
    return upstream


def _as_function_of_arrays(
    combine: Callable[[list[Any]], Callable[..., Any]], name: str
) -> Callable[..., Any]:
    """The model as a function of its arrays and arguments, refused where it is none."""

    def call(arrays: list[Any], *args: Any) -> Any:
        model = combine(arrays)
        before = _traced_arrays(model)
        output = model(*args)
        after = _traced_arrays(model)
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


def _traced_arrays(model: Any) -> dict[str, Any]:
    return {p: leaf for p, leaf in by_path(model).items() if isinstance(leaf, jax.core.Tracer)}


def _check_output(program: Program, name: str) -> None:
    if not program.outputs:
        raise TypeError(f"{name} returns no array: there is nothing to explain")
    for var in program.outputs:
        if not jnp.issubdtype(var.aval.dtype, jnp.floating):
            raise TypeError(
                f"{name} returns dtype {var.aval.dtype}: only floating outputs can be explained; "
                "return the scores instead of the decision"
            )


def _name_inputs(program: Program, f: Any, args: Sequence[Any]) -> None:
    """Names the inputs by their path in the model or in an argument: "params/Dense_0/kernel"."""
    paths = [path for path, leaf in with_paths(f) if hasattr(leaf, "shape")]
    paths += [path for arg in args for path, _ in with_paths(arg)]
    for var, path in zip(program.inputs, paths, strict=True):
        var.path = path
