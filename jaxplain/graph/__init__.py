"""The graph of a function: its layers, read off its jaxpr.

program (flatten) -> activity -> dominators -> regions, chains -> layers
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import targets
from jaxplain.graph import activity, signs
from jaxplain.graph.axes import Axes
from jaxplain.graph.dominators import Dominators
from jaxplain.graph.layers import Grouper, Layer
from jaxplain.graph.primitives import Role
from jaxplain.graph.program import Node, Program, Var, flatten
from jaxplain.graph.regions import Regions

__all__ = ["Graph", "Layer", "trace"]

_MOVES = (Role.CAST, Role.RESHAPE, Role.TRANSPOSE)


class Graph:
    """The layers of a traced function.

    Attributes:
        program: the flat operations.
        explained: the inputs that are explained.
        heads: the outputs that relevance starts from: the function's outputs, with a trailing
            softmax left out when `trace` was asked to.
        steps: every layer in execution order, structure included.
        layers: the layers that a rule can be given to, in execution order.
        softmax: what was left out at the outputs ("softmax", "log_softmax" or "").
        axes: along which axis of the explained input the axes of every value run.
        batched: whether the leading axis of the explained inputs counts examples.
    """

    def __init__(
        self,
        program: Program,
        explained: tuple[Var, ...],
        logits: bool,
        normalizations: bool = True,
    ):
        self.program = program
        self.explained = explained
        activity.mark(program, explained, program.outputs)
        regions = Regions(Dominators(program, explained), normalizations)
        ends = [_before_softmax(var, regions) for var in program.outputs] if logits else []
        self.softmax = next((op for _, _, op in ends if op), "")
        self.heads = tuple(program.outputs)
        if self.softmax:
            self.heads = tuple(_moved(program, head, moves) for head, moves, _ in ends)
            activity.mark(program, explained, self.heads)
            regions = Regions(Dominators(program, explained), normalizations)
        self.steps = _demand(self.heads, Grouper(regions))
        self.layers = tuple(layer for layer in self.steps if layer.kind != "Structure")
        self.axes = Axes(program, explained)
        self.batched = targets.counts_examples(
            [v.aval for v in self.heads], [v.aval for v in explained]
        )
        _describe(self)

    def __str__(self) -> str:
        return "\n".join(map(str, self.layers))


def trace(
    f: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] = 0,
    keep_derivatives: bool = False,
    logits: bool = False,
) -> Graph:
    """Reads the layers of `f(*args)` off its jaxpr, without running it.

    Args:
        f: a pure function of arrays (any pytrees of them).
        *args: example arguments, or `jax.ShapeDtypeStruct`s in their place.
        argnums: which arguments are explained, as in `jax.grad`.
        keep_derivatives: keep functions with a custom derivative as they are, as gradient methods
            need; relevance methods look through them.
        logits: leave a trailing softmax or log-softmax out of the layers.

    Returns:
        The graph; `graph.layers` from the input to the output.

    Raises:
        TypeError: an explained argument holds something else than floating arrays.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxplain.graph
        >>> def f(x, w):
        ...     return jax.nn.softmax(jax.nn.gelu(x @ w) @ w.T)
        >>> x, w = jnp.ones((1, 3)), jnp.ones((3, 4))
        >>> print([layer.kind for layer in jaxplain.graph.trace(f, x, w).layers])
        ['Affine', 'Activation', 'Affine', 'Softmax']
    """
    program = flatten(f, args, keep_derivatives=keep_derivatives)
    positions = explained_leaves(args, argnums)
    return Graph(program, tuple(program.inputs[i] for i in positions), logits)


def explained_leaves(args: Sequence[Any], argnums: int | Sequence[int]) -> tuple[int, ...]:
    """The positions of the explained arrays among all flat arguments.

    Raises:
        TypeError: there is nothing to explain, or it is not floating.
        ValueError: `argnums` is out of range.
    """
    wanted = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for number in wanted:
        if not -len(args) <= number < len(args):
            raise ValueError(
                f"argnums={number} is out of range: the function got {len(args)} arguments"
            )
    numbers = {number % len(args) for number in wanted}
    if len(numbers) < len(wanted):
        raise ValueError(f"argnums={wanted} names an argument twice")
    positions: list[int] = []
    offset = 0
    for number, arg in enumerate(args):
        leaves = jax.tree_util.tree_flatten_with_path(arg)[0]
        if number in numbers:
            if not leaves:
                raise TypeError(f"argument {number} is explained (argnums) but holds no arrays")
            for path, leaf in leaves:
                dtype = jnp.result_type(leaf)
                if not jnp.issubdtype(dtype, jnp.floating):
                    raise TypeError(
                        f"argument {number}{jax.tree_util.keystr(path)} is explained (argnums) but "
                        f"has dtype {dtype}: only floating inputs have an attribution. Cast images "
                        "to float; for token ids explain the embedded vectors"
                    )
            positions += range(offset, offset + len(leaves))
        offset += len(leaves)
    return tuple(positions)


def _before_softmax(var: Var, regions: Regions) -> tuple[Var, list[Node], str]:
    """The logits, how they become an output in the softmax's place, and the softmax's name."""
    end = var
    moves: list[Node] = []
    while end.carries and end.producer is not None and end.producer.row.role in _MOVES:
        moves.insert(0, end.producer)
        end = end.producer.inputs[0]
    region = regions.ending_at(end)
    if region is None or region.kind != "Softmax" or region.op == "logsumexp":
        return var, [], ""
    if region.logits is None:
        return var, [], ""
    if all(node.row.role is Role.CAST for node in moves):
        moves = []  # the logits' own precision is better
    return region.logits, moves, region.op


def _moved(program: Program, var: Var, moves: Sequence[Node]) -> Var:
    """A value, reshaped as another one is (a model of batches under vmap drops an axis)."""
    for node in moves:
        copy = Node(node.eqn, node.row, [var], node.names[0], node.origin)
        (var,) = copy.outputs
        var.index = 1 + max(v.index for n in program.nodes for v in n.outputs)
        program.nodes.append(copy)
    return var


def _demand(heads: Sequence[Var], grouper: Grouper) -> tuple[Layer, ...]:
    """The layers that the heads need, each found when a later layer asks for its exit."""
    found: dict[Var, Layer] = {}
    pending = [(-v.index, v) for v in dict.fromkeys(heads) if v.carries]
    heapq.heapify(pending)
    asked = {v for _, v in pending}
    while pending:
        _, var = heapq.heappop(pending)
        if var.producer is None or var in found:
            continue
        layer = grouper.producing(var)
        found |= dict.fromkeys(layer.exits, layer)
        for source in layer.sources:
            if source not in asked:
                asked.add(source)
                heapq.heappush(pending, (-source.index, source))
    return tuple(sorted(dict.fromkeys(found.values()), key=lambda layer: layer.exit.index))


def _describe(graph: Graph) -> None:
    """Gives every layer its index, name, place and the signs of its inputs."""
    positive = signs.nonnegative(graph.program)
    below_kernel: set[Var] = set()
    names: dict[str, int] = {}
    for layer in graph.steps:
        layer.nonnegative = tuple(v in positive for v in layer.sources)
        if graph.batched:
            layer.examples = tuple(graph.axes.examples_of(v) for v in (*layer.sources, layer.exit))
        reached = any(v in below_kernel for v in layer.sources)
        layer.first = layer.is_kernel and not reached
        if reached or layer.is_kernel:
            below_kernel.update(layer.exits)
    above_kernel: set[Var] = set()
    for layer in reversed(graph.steps):
        reached = any(v in above_kernel for v in layer.exits)
        layer.last = layer.is_kernel and not reached
        if reached or layer.is_kernel:
            above_kernel.update(layer.sources)
    modules: dict[Var, str] = {}
    for layer in graph.steps:
        name, module = _name(layer, modules)
        modules |= dict.fromkeys(layer.exits, module)
        if layer.kind != "Structure":
            names[name] = names.get(name, 0) + 1
            layer.name = name if names[name] == 1 else f"{name}@{names[name]}"
    for index, layer in enumerate(graph.layers):
        layer.index = index


def _name(layer: Layer, modules: Mapping[Var, str]) -> tuple[str, str]:
    """A layer's name, and the module that it stands in as far as parameters alone tell.

    The module path of a layer with weights, else the path around it and what it does. Where the
    framework writes no module paths, the path of its parameters; without any, the module that its
    latest source comes from and what it does.
    """
    nodes = (layer.main, *reversed(layer.nodes))
    path = next((name for node in nodes for name in node.names if name), "")
    if path:
        whole = layer.is_kernel or layer.kind == "Normalization"
        return path if whole else f"{path}/{layer.op}", ""
    parameters = _parameter_path(layer)
    if parameters:
        return parameters, parameters.rpartition("/")[0]
    module = modules.get(max(layer.sources, key=lambda v: v.index, default=layer.exit), "")
    return f"{module}/{layer.op}" if module else layer.op, module


def _parameter_path(layer: Layer) -> str:
    """The module that the arguments stand in from which a layer's weights are computed."""
    found: set[Var] = set()
    pending = [v for v in layer.main.inputs if not v.active]
    while pending:
        var = pending.pop()
        if var not in found:
            found.add(var)
            pending += var.producer.inputs if var.producer is not None else ()
    paths = [v.path for v in found if v.path]
    if len(paths) == 1:
        return paths[0].rpartition("/")[0] or paths[0]
    parts = takewhile(
        lambda parts: len(set(parts)) == 1, zip(*(p.split("/") for p in paths), strict=False)
    )
    return "/".join(part for part, *_ in parts)
