"""Blocks: straight programs grouped into layers, the function's own and those inside of it."""

import heapq
from collections.abc import Collection, Iterator, Sequence

from jaxplain.graph.layers import Grouper, Layer
from jaxplain.graph.program import Program, Var
from jaxplain.graph.regions import Regions


class Block:
    """The layers of a program: a function, or the body of a loop or branch.

    Attributes:
        program: the flat operations.
        explained_outputs: the values that relevance starts from.
        steps: every layer in execution order: structure, loops and branches too.
    """

    def __init__(self, program: Program, heads: Sequence[Var], regions: Regions):
        self.program = program
        self.explained_outputs = tuple(heads)
        self.steps = _demand(self.explained_outputs, Grouper(regions), regions.sources)
        for step in self.steps:
            step.blocks = tuple(Block(body, body.outputs, regions.of(body)) for body in step.bodies)
            for block in step.blocks:
                for inner in block.walk():
                    inner.around = (step, *inner.around)

    def walk(self) -> Iterator[Layer]:
        """All steps; those inside of a loop or branch follow it."""
        for step in self.steps:
            yield step
            for block in step.blocks:
                yield from block.walk()


def _demand(heads: Sequence[Var], grouper: Grouper, sources: Collection[Var]) -> tuple[Layer, ...]:
    """The layers between the sources and the heads, each found when a later one asks for it."""
    found: dict[Var, Layer] = {}
    pending = [(-v.index, v) for v in dict.fromkeys(heads) if v.carries]
    heapq.heapify(pending)
    asked = {v for _, v in pending}
    while pending:
        _, var = heapq.heappop(pending)
        if var.producer is None or var in found or var in sources:
            continue
        layer = grouper.producing(var)
        found |= dict.fromkeys(layer.outputs, layer)
        for source in layer.inputs:
            if source not in asked:
                asked.add(source)
                heapq.heappush(pending, (-source.index, source))
    return tuple(sorted(dict.fromkeys(found.values()), key=lambda layer: layer.output.index))
