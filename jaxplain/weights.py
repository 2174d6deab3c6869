"""Inputs that are constants to the explained ones, and get relevance of their own all the same.

What a weight gets is what the messages through it add up to: each layer that reads constants made
of it shares its relevance out among them too, and they hand it back to the weight.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

from jaxplain.errors import CutOffError, NotAnalyzableError
from jaxplain.graph import Graph, activity
from jaxplain.graph.layers import Layer
from jaxplain.graph.program import Node, Var, compute
from jaxplain.rules import Rule

#: Given a function of several arrays, their values and the relevance of its output: theirs.
Share = Callable[[Callable[..., jax.Array], Sequence[jax.Array], jax.Array], Sequence[jax.Array]]


def _unasked(*_: Any) -> Any:
    raise AssertionError("there are no weights")


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights of which no constant is made together.

    Attributes:
        owner: the weights, and the constants that are made of them, each with its weight.
        among: for a layer under a rule, shares its relevance out among its constants.
        back: shares the relevance of a constant out among what it is made of.
    """

    owner: Mapping[Var, Var] = field(default_factory=dict)
    among: Callable[[Layer, Rule], Share] = _unasked
    back: Share = _unasked

    @property
    def inputs(self) -> list[Var]:
        """The weights."""
        return list(dict.fromkeys(self.owner.values()))

    def made(self, constants: Collection[Var]) -> list[Var]:
        """Those of the constants that are made of weights."""
        return [v for v in constants if v in self.owner]

    def shares(
        self,
        layer: Layer,
        rule: Rule,
        function: Callable[[Mapping[Var, jax.Array]], jax.Array],
        constants: Mapping[Var, jax.Array],
        r: jax.Array,
    ) -> dict[Var, jax.Array]:
        """What the constants of a layer get that are made of weights, those of each on their own.

        Args:
            layer: the layer.
            rule: its rule.
            function: the layer at its inputs, as a function of its constants.
            constants: their values.
            r: the relevance of its output.

        Raises:
            NotAnalyzableError: the rule is for inputs only.
        """
        made = self.made(constants)
        shares: dict[Var, jax.Array] = {}
        for weight in dict.fromkeys(self.owner[v] for v in made):
            names = [v for v in made if self.owner[v] is weight]
            _check_rule(layer, rule, names)

            def output(*values: jax.Array, names: Sequence[Var] = names) -> jax.Array:
                return function({**constants, **dict(zip(names, values, strict=True))})

            found = self.among(layer, rule)(output, [constants[v] for v in names], r)
            shares |= zip(names, found, strict=True)
        return shares

    def making(self, var: Var, given: Collection[Var]) -> "Making":
        """How a constant is made of a weight.

        Args:
            var: the constant.
            given: the values that are known, whatever they are made of.
        """
        nodes: dict[Node, None] = {}
        made: dict[Var, None] = {}
        others: dict[Var, None] = {}
        pending = [var]
        while pending:
            top = pending.pop()
            if top not in self.owner:
                others[top] = None
            elif top.producer is None or top in given:
                made[top] = None
            elif top.producer not in nodes:
                nodes[top.producer] = None
                pending += (v for v in top.producer.inputs if v.literal is None)
        order = sorted(nodes, key=lambda node: node.outputs[0].index)
        return Making(var, tuple(order), tuple(made), tuple(others), self.back)


@dataclass(frozen=True)
class Making:
    """How a constant is made.

    Attributes:
        var: the constant.
        nodes: the operations that make it.
        made: what it is made of, that is made of a weight.
        others: what else is read.
        back: shares its relevance out.
    """

    var: Var
    nodes: tuple[Node, ...]
    made: tuple[Var, ...]
    others: tuple[Var, ...]
    back: Share

    def __call__(self, made: tuple[Any, ...], others: tuple[Any, ...]) -> Any:
        """The constant, which shares its relevance out among what it is made of."""
        call = jax.custom_vjp(self._value)
        call.defvjp(
            lambda made, others: (self._value(made, others), (made, others)), self._backward
        )
        return call(made, others)

    def _value(self, made: tuple[Any, ...], others: tuple[Any, ...]) -> Any:
        names = (*self.made, *self.others)
        env = dict(zip(names, (*made, *others), strict=True))
        compute(self.nodes, env)
        return env[self.var]

    def _backward(self, residuals: Any, r: jax.Array) -> Any:
        made, others = residuals
        return tuple(self.back(lambda *values: self._value(values, others), made, r)), None


def batches(
    graph: Graph,
    inputs: Sequence[Var],
    among: Callable[[Layer, Rule], Share],
    back: Share,
) -> tuple[Weights, ...]:
    """Weights that one backward pass can serve together.

    Args:
        graph: the graph of the explained inputs.
        inputs: the weights: other inputs of its program.
        among: see `Weights`.
        back: see `Weights`.

    Raises:
        TypeError: a weight is no floating array.
        NotAnalyzableError: no relevance can reach a weight.
    """
    ends = {lookup.value for lookup in graph.lookups}  # explained, and made of a table
    owners: list[dict[Var, Var]] = []
    for weight in inputs:
        _check(graph, weight)
        made = activity.reached(graph.program, [weight], lambda v: v in ends or not v.carries)
        owner = next((owner for owner in owners if made.isdisjoint(owner)), None)
        if owner is None:
            owners.append(owner := {})
        owner |= dict.fromkeys(made, weight)
    return tuple(Weights(owner, among, back) for owner in owners)


def _check(graph: Graph, weight: Var) -> None:
    if not weight.floating:
        raise TypeError(
            f"parameter {weight.path} has dtype {weight.aval.dtype}: only floating parameters have "
            "relevance; give others as an argument of their own, or cast them before"
        )
    if activity.reached(graph.program, [weight]).isdisjoint(graph.explained_outputs):
        raise CutOffError(
            f"no relevance can reach parameter {weight.path}: the output is cut off from it by "
            "discrete operations or stop_gradient, or does not depend on it"
        )


def _check_rule(layer: Layer, rule: Rule, constants: Sequence[Var]) -> None:
    """Raises NotAnalyzableError for a kernel whose rule is no rule for weights."""
    if not layer.is_kernel or rule.weights_like_inputs:
        return
    end = max(map(layer.nodes.index, layer.mixing)) + 1
    if any(v in constants for node in layer.nodes[:end] for v in node.inputs):
        where = f" at {layer.location}" if layer.location else ""
        raise NotAnalyzableError(
            f"{rule!r} of layer {layer.index} ({layer.name}){where} treats inputs otherwise than "
            "weights, which have no relevance under it: give the layer a rule that shares by "
            "contribution, e.g. Epsilon or ZPlus; a rule of your own that does says so by "
            "weights_like_inputs = True"
        )
