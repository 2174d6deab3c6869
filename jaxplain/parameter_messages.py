"""Relevance of parameters: inputs that are constants to the explained ones.

A parameter's relevance is the sum of the messages through it. Each layer shares the relevance of
its output among the constants computed from the parameter too, and they send it back to the
parameter: for `x @ (g * v)`, the layer to the kernel `g * v`, and the kernel to `g` and `v`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

from jaxplain.composites import describe_layer
from jaxplain.errors import CutOffError, NotAnalyzableError
from jaxplain.graph import Graph, Layer
from jaxplain.graph.analyses.flow import reached
from jaxplain.graph.ir import Node, Var, compute
from jaxplain.rules import Rule

#: `share(function, values, r)`: the relevance of the values, given that of `function(*values)`.
Share = Callable[[Callable[..., jax.Array], Sequence[jax.Array], jax.Array], Sequence[jax.Array]]


def _never(*_: Any) -> Any:
    raise AssertionError("there are no parameters")


@dataclass(frozen=True, eq=False)
class ParameterBatch:
    """Parameters that can share one backward pass: no constant is computed from two of them.

    Attributes:
        owner: the parameter that each constant is computed from; each parameter owns itself.
        share_in_layer: shares relevance among the constants of a layer under a rule.
        share_in_constant: shares a constant's relevance among the values it is computed from.
    """

    owner: Mapping[Var, Var] = field(default_factory=dict)
    share_in_layer: Callable[[Layer, Rule], Share] = _never
    share_in_constant: Share = _never

    @property
    def inputs(self) -> list[Var]:
        """The parameters, inputs of the program."""
        return list(dict.fromkeys(self.owner.values()))

    def derived(self, constants: Collection[Var]) -> list[Var]:
        """The constants that are parameters or are computed from one."""
        return [v for v in constants if v in self.owner]

    def messages(
        self,
        layer: Layer,
        rule: Rule,
        function: Callable[[Mapping[Var, jax.Array]], jax.Array],
        constants: Mapping[Var, jax.Array],
        r: jax.Array,
    ) -> dict[Var, jax.Array]:
        """The relevance of the layer's derived constants, for one parameter at a time.

        Args:
            layer: the layer.
            rule: its rule.
            function: the layer at its inputs, as a function of its constants.
            constants: their values.
            r: the relevance of its output.

        Raises:
            NotAnalyzableError: the rule is for inputs only.
        """
        derived = self.derived(constants)
        messages: dict[Var, jax.Array] = {}
        for parameter in dict.fromkeys(self.owner[v] for v in derived):
            names = [v for v in derived if self.owner[v] is parameter]
            _check_rule(layer, rule, names)

            def output(*values: jax.Array, names: Sequence[Var] = names) -> jax.Array:
                return function({**constants, **dict(zip(names, values, strict=True))})

            shares = self.share_in_layer(layer, rule)(output, [constants[v] for v in names], r)
            messages |= zip(names, shares, strict=True)
        return messages

    def derive(self, var: Var, given: Collection[Var], value_of: Callable[[Var], Any]) -> Any:
        """A constant computed from a parameter, as the kernel `v / norm(v)` is from `v`.

        Its relevance is shared among the values that it is computed from.

        Args:
            var: the constant.
            given: values where the computation starts, such as the carry of a loop.
            value_of: gives the values of other variables.
        """
        nodes: dict[Node, None] = {}
        sources: dict[Var, None] = {}  # with relevance: the parameter, or constants
        fixed: dict[Var, None] = {}
        pending = [var]
        while pending:
            top = pending.pop()
            if top not in self.owner:
                fixed[top] = None
            elif top.producer is None or top in given:
                sources[top] = None
            elif top.producer not in nodes:
                nodes[top.producer] = None
                pending += (v for v in top.producer.inputs if v.literal is None)
        order = sorted(nodes, key=lambda node: node.outputs[0].index)

        def derived(values: Sequence[Any], others: Sequence[Any]) -> Any:
            env = dict(zip((*sources, *fixed), (*values, *others), strict=True))
            compute(order, env)
            return env[var]

        def share(residuals: Any, r: jax.Array) -> Any:
            values, others = residuals
            shares = self.share_in_constant(lambda *values: derived(values, others), values, r)
            return tuple(shares), None

        call = jax.custom_vjp(derived)
        call.defvjp(lambda *given: (derived(*given), given), share)
        return call(tuple(map(value_of, sources)), tuple(map(value_of, fixed)))


def parameter_batches(
    graph: Graph,
    inputs: Sequence[Var],
    share_in_layer: Callable[[Layer, Rule], Share],
    share_in_constant: Share,
) -> tuple[ParameterBatch, ...]:
    """The parameters, in as few backward passes as possible.

    Args:
        graph: the graph of the explained inputs.
        inputs: the parameters: other inputs of its program.
        share_in_layer: see `ParameterBatch`.
        share_in_constant: see `ParameterBatch`.

    Raises:
        TypeError: a parameter is no floating array.
        NotAnalyzableError: no relevance can reach a parameter.
    """
    rows = {lookup.value for lookup in graph.lookups}  # explained, and picked from a table
    carries = graph.flow.carries_relevance
    owners: list[dict[Var, Var]] = []
    for parameter in inputs:
        _check(graph, parameter)
        derived = reached(graph.program, [parameter], lambda v: v in rows or v not in carries)
        owner = next((owner for owner in owners if derived.isdisjoint(owner)), None)
        if owner is None:
            owners.append(owner := {})
        owner |= dict.fromkeys(derived, parameter)
    return tuple(ParameterBatch(owner, share_in_layer, share_in_constant) for owner in owners)


def _check(graph: Graph, parameter: Var) -> None:
    if not parameter.floating:
        raise TypeError(
            f"parameter {parameter.path} has dtype {parameter.aval.dtype}: only floating "
            "parameters have relevance; give others as an argument of their own, or cast them "
            "before"
        )
    if reached(graph.program, [parameter]).isdisjoint(graph.explained_outputs):
        raise CutOffError(
            f"no relevance can reach parameter {parameter.path}: the output is cut off from it by "
            "discrete operations or stop_gradient, or does not depend on it"
        )


def _check_rule(layer: Layer, rule: Rule, constants: Sequence[Var]) -> None:
    """Raises NotAnalyzableError for derived weights under a rule that is for inputs only."""
    if not layer.is_kernel or rule.weights_like_inputs:
        return
    end = max(map(layer.nodes.index, layer.mixing)) + 1
    if any(v in constants for node in layer.nodes[:end] for v in node.inputs):
        raise NotAnalyzableError(
            f"{rule!r} of {describe_layer(layer)} treats inputs otherwise than "
            "weights, which have no relevance under it: give the layer a rule that shares by "
            "contribution, e.g. Epsilon or ZPlus; a rule of your own that does says so by "
            "weights_like_inputs = True"
        )
