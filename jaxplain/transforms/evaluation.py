"""The computations of an explainer: pure functions of arrays, which a `Call` jits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import _compat, finite, targets
from jaxplain.affine.dtypes import wide
from jaxplain.arguments import describe_value, fits
from jaxplain.graph.analyses.integer_inputs import starts
from jaxplain.graph.ir import Var
from jaxplain.graph.layer import Layer
from jaxplain.interpreter import evaluate, forward, values, values_of
from jaxplain.parameter_messages import ParameterBatch
from jaxplain.plan import Plan
from jaxplain.probes import COLUMNS, Probes
from jaxplain.transforms import trees
from jaxplain.transforms.traced import Traced


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A traced function at given arrays.

    Attributes:
        traced: the function.
        kind: the static part of the target: see `targets.static`.
        constants: the arrays that the function closes over.
        inputs: the arrays of the model and of the arguments.
        state: see `Explainer.state`.
        index: the array of the target.
        masks: factors of relevance, by the index of their layer.
        parameters: inputs that are not explained and get their relevance all the same.
    """

    traced: Traced
    kind: Any
    constants: Sequence[Any]
    inputs: Sequence[Any]
    state: Any = None
    index: Any = None
    masks: Mapping[int, jax.Array] = field(default_factory=dict)
    parameters: ParameterBatch = ParameterBatch()

    # The computations

    def attribution(self) -> tuple[Any, Any, dict[str, Any]]:
        """The output of the function (or None), the attribution, and captured ones by layer.

        The attribution is a list with that of each explained array, or of the layer to stop at.
        """
        traced, spec = self.traced, self.traced.spec
        stops = (traced.stop,) if traced.stop else ()
        layers = tuple(dict.fromkeys((*traced.captured, *stops)))
        masks = {traced.plan.layers[i]: mask for i, mask in self.masks.items()}
        states = self._layer_states()

        def outputs_of(values: list[Any], zeros: list[Any]) -> tuple[list[Any], list[Any]]:
            capture = dict(zip(layers, zeros, strict=True))
            probes = Probes(capture, masks, transforms=traced.transforms)
            outputs, captured = self._run(values, probes, states)
            return outputs, [captured[layer] for layer in layers]

        zeros = [self._zero(layer) for layer in layers]
        outputs, pullback, captured = jax.vjp(outputs_of, self._explained, zeros, has_aux=True)
        postprocess = spec.method.postprocess

        def attribute(seeds: list[Any]) -> tuple[list[Any], dict[str, Any]]:
            arriving, at_layers = pullback(seeds)
            if postprocess is not None:
                arriving = list(map(postprocess, self._explained, arriving))
                at_layers = list(map(postprocess, captured, at_layers))
            by_layer = dict(zip(layers, at_layers, strict=True))
            if traced.stop is not None:
                arriving = [by_layer[traced.stop]]
            else:
                pairs = zip(arriving, self._explained, strict=True)
                arriving = self._by_input([a.astype(x.dtype) for a, x in pairs])
            return arriving, {layer.name: by_layer[layer] for layer in traced.captured}

        attribution = self._seeded(attribute, outputs)
        if not spec.with_output:
            return None, *attribution
        written = forward(traced.program, self.constants, self.inputs)
        tree = jax.tree.structure(traced.program.out_tree)
        return jax.tree.unflatten(tree, written), *attribution

    def ledger(self) -> dict[str, jax.Array]:
        """The arrays of a ledger, by field."""
        steps, states = self.traced.plan.graph.all_steps, self._layer_states()

        def outputs_of(values: list[Any], columns: list[Any]) -> list[Any]:
            probes = Probes(ledger=dict(zip(steps, columns, strict=True)))
            return self._run(values, probes, states)[0]

        dtype = wide(*(x.dtype for x in self._explained))
        zero = _compat.along(jnp.zeros((), dtype), self._mesh_axes)
        zeros = [dict.fromkeys(COLUMNS, zero) for _ in steps]
        outputs, pullback = jax.vjp(outputs_of, self._explained, zeros)
        seeds = self._seeds(outputs)
        arriving, rows = pullback(seeds)
        columns = {key: jnp.stack([row[key] for row in rows]) for key in COLUMNS}
        arriving = self._by_input(arriving)
        start, end = (sum((v.sum(dtype=dtype) for v in vs), zero) for vs in (seeds, arriving))
        return {"output": start, "inputs": end, **columns}

    def parameter_messages(self, batches: Sequence[ParameterBatch]) -> list[jax.Array]:
        """The relevance of parameters, in their order among the inputs."""
        inputs = self.traced.program.inputs
        messages: dict[Var, jax.Array] = {}
        for batch in batches:
            places = [inputs.index(v) for v in batch.inputs]

            def outputs_of(values: list[Any], places: Any = places, batch: Any = batch) -> Any:
                given = trees.replaced(self.inputs, places, values)
                there = replace(self, inputs=given, parameters=batch)
                return there._run(there._explained)[0]

            outputs, pullback = jax.vjp(outputs_of, [jnp.asarray(self.inputs[i]) for i in places])
            messages |= zip(batch.inputs, self._seeded(pullback, outputs)[0], strict=True)
        return [messages[v] for v in inputs if v in messages]

    def activations(self, layers: Sequence[Layer]) -> dict[str, jax.Array]:
        """The outputs of layers, by name; their derivative is the function's."""
        return {layer.name: v for layer, v in self._outputs_of(layers).items()}

    def outputs(self) -> list[Any]:
        """The outputs that targets select from; their derivative is the function's."""
        return self._run(self._explained, differentiated=True)[0]

    def is_finite(self) -> jax.Array:
        """Whether each of `finite.places` is finite."""
        plan = self.traced.plan
        return finite.flags(plan, self.constants, self.inputs, self._outputs_of(plan.layers))

    def read(self, function: Callable[[Plan, Mapping[Var, Any]], Any]) -> Any:
        """A function of the plan and of the values of all variables of the program."""
        env = values(self.traced.program, self.constants, self.inputs)
        return function(self.traced.plan, env)

    # Their parts

    @cached_property
    def _explained(self) -> list[jax.Array]:
        """The values of `graph.explained`."""
        explained = self.traced.plan.graph.explained
        given = (self.traced.program, self.constants, self.inputs, self.parameters)
        return list(map(jnp.asarray, values_of(explained, *given)))

    @property
    def _mesh_axes(self) -> frozenset[str]:
        """The axes of the shard_map around, along which the explained arrays vary."""
        return frozenset().union(*map(_compat.varying, self._explained))

    def _run(
        self,
        explained: Sequence[Any],
        probes: Probes = Probes(),
        states: Mapping[Layer, Any] | None = None,
        differentiated: bool = False,
    ) -> tuple[list[Any], dict[Layer, Any]]:
        """The explained outputs, whose derivative is relevance, and those of captured layers."""
        return evaluate(
            self.traced.plan,
            self.constants,
            self.inputs,
            explained,
            self.traced.explained_outputs,
            at_least_float32=self.traced.spec.method.at_least_float32,
            probes=probes,
            states=states,
            parameters=self.parameters,
            differentiated=differentiated,
        )

    def _outputs_of(self, layers: Sequence[Layer]) -> dict[Layer, Any]:
        probes = Probes(capture=dict.fromkeys(layers))
        return self._run(self._explained, probes, differentiated=True)[1]

    def _layer_states(self) -> Mapping[Layer, Any] | None:
        """`LayerView.state` of the layers: see `Method.layer_states`."""
        traced = self.traced
        layer_states = traced.spec.method.layer_states
        if layer_states is None or self.state is None:
            return None

        def run(explained: Sequence[Any]) -> dict[Var, Any]:
            inputs = trees.replaced(self.inputs, traced.positions, explained)
            return values(traced.program, self.constants, inputs)

        return layer_states(traced.plan, self.state, run)

    def _zero(self, layer: Layer) -> jax.Array:
        """The zero whose cotangent is the relevance of a layer's output."""
        dtype = layer.output.aval.dtype
        wider = self.traced.spec.method.at_least_float32
        zeros = jnp.zeros(layer.shape, wide(dtype) if wider else dtype)
        if not layer.around:
            zeros = _compat.placed(zeros, layer.output.aval)
        return _compat.along(zeros, self._mesh_axes & _compat.varying(layer.output.aval))

    def _by_input(self, arriving: Sequence[jax.Array]) -> list[jax.Array]:
        """The relevance of the explained inputs, from that of `graph.explained`.

        The relevance of token ids is that of the table rows that they pick.
        """
        graph = self.traced.plan.graph
        relevance = dict(zip(graph.explained, arriving, strict=True))
        integers = [v for v in graph.inputs if not v.floating]
        for var, start in zip(integers, starts(integers), strict=True):
            lookups = [lookup for lookup in graph.lookups if lookup.has(start, var)]
            each = [k.gathered(relevance[k.value], start, var.shape) for k in lookups]
            relevance[var] = reduce(jnp.add, each)
        return [relevance[var] for var in graph.inputs]

    # Seeds

    def _seeded(self, pullback: Callable[[list[Any]], Any], outputs: list[Any]) -> Any:
        """The backward pass from the seeds of the target; for "all", with a leading axis."""
        if not (isinstance(self.kind, str) and self.kind == "all"):
            return pullback(self._seeds(outputs))
        (output,) = outputs
        scale = self.traced.spec.method.seed(output)
        return _compat.mapped(lambda hot: pullback([hot * scale]), targets.every_class(output))

    def _seeds(self, outputs: list[Any]) -> list[Any]:
        target = targets.dynamic(self.kind, self.index)
        if callable(target):
            leaves, tree = jax.tree.flatten(self.traced.output)
            narrow = [v.astype(like.dtype) for v, like in zip(outputs, leaves, strict=True)]
            return _check_seed(target(jax.tree.unflatten(tree, narrow)), outputs, tree)
        (output,) = outputs
        hot = targets.one_hot(output, self.index)
        # not hot * seed: an infinite logit elsewhere must not make the seed NaN
        return [jnp.where(hot == 0, 0, hot * self.traced.spec.method.seed(output))]


def _check_seed(seed: Any, outputs: list[Any], expected: Any) -> list[Any]:
    """The leaves of the seed that a callable target returned.

    Raises:
        ValueError: it is not like the output.
    """
    leaves, tree = jax.tree.flatten(seed)
    if tree != expected:
        raise ValueError(
            f"target's callable must return a tree like the output, {expected}, got {tree}"
        )
    for leaf, output in zip(leaves, outputs, strict=True):
        if not fits(leaf, output.shape) or jnp.shape(leaf) != output.shape:
            raise ValueError(
                "target's callable must return a real seed in the shape of the output, "
                f"{output.shape}, got {describe_value(leaf)}; to explain a scalar g(output), "
                "return jax.grad(g)(output)"
            )
    return [jnp.asarray(v, output.dtype) for v, output in zip(leaves, outputs, strict=True)]
