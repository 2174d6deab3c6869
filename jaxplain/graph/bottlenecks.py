"""Bottlenecks: the values that everything passes through."""

from jaxplain.graph import Graph
from jaxplain.graph.ir import Var


def bottlenecks(graph: Graph) -> tuple[Var, ...]:
    """The values through which every path from the explained inputs to the outputs goes.

    The output of each layer of a plain chain is one, and so are the input and the output where
    there is just one; a value inside a residual block or a branch is none.

    Args:
        graph: the graph; values inside its layers do not count.
    """
    # the last step that reads a value
    ends = {v: len(graph.steps) for v in graph.explained_outputs}
    for number, step in reversed(list(enumerate(graph.steps))):
        for source in step.inputs:
            ends.setdefault(source, number)
    made = [(-1, tuple(v for v in graph.explained if v in ends))]
    made += [(number, step.outputs) for number, step in enumerate(graph.steps)]
    found, open_until = [], -1
    for number, values in made:
        wanted = [v for v in values if v in ends]
        if len(wanted) == 1 and open_until <= number:
            found += wanted
        open_until = max(open_until, *(ends[v] for v in wanted), -1)
    return tuple(found)
