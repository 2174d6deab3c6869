"""Names of layers: from the user's modules, or from the parameters they use."""

from collections.abc import Iterable
from itertools import takewhile

from jaxplain.graph.analyses.flow import Flow
from jaxplain.graph.ir import Var
from jaxplain.graph.layer import Step


def names_of(steps: Iterable[Step], flow: Flow) -> dict[Step, str]:
    """A unique name for every step but structure, steps inside of loops and branches included.

    A kernel or normalisation has its module path ("CNN/Conv_0"), any other layer the path of the
    module around it and its operation ("CNN/rectifier"). Where the framework writes no module
    paths, the path of the layer's parameters; without parameters, the module that its latest input
    comes from, and its operation.
    """
    names = _Names(flow)
    names.give(steps)
    return names.names


class _Names:
    """The names so far.

    Attributes:
        names: the name of each step.
        counts: how often each name was wanted.
        modules: the modules that values come from, as far as parameters alone tell.
        outside: for the inputs of bodies, the values outside that enter there.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.names: dict[Step, str] = {}
        self.counts: dict[str, int] = {}
        self.modules: dict[Var, str] = {}
        self.outside: dict[Var, Var] = {}

    def give(self, steps: Iterable[Step]) -> None:
        for layer in steps:
            wanted, module = self.name_and_module(layer)
            self.modules |= dict.fromkeys(layer.outputs, module)
            if layer.kind != "Structure":
                count = self.counts[wanted] = self.counts.get(wanted, 0) + 1
                self.names[layer] = wanted if count == 1 else f"{wanted}@{count}"
            if layer.control is not None:
                for link in layer.control.enters:
                    self.outside[link.inner] = link.outer
                    self.modules[link.inner] = self.modules.get(link.outer, "")
                for block in layer.blocks:
                    self.give(block.steps)
                for link in layer.control.leaves:
                    self.modules[link.outer] = self.modules.get(link.inner, "")

    def name_and_module(self, layer: Step) -> tuple[str, str]:
        """A layer's name, and the module that it stands in as far as parameters alone tell."""
        nodes = (layer.main, *reversed(layer.nodes))
        path = next((name for node in nodes for name in node.names if name), "")
        if path:
            whole = layer.is_kernel or layer.kind == "Normalization"
            return path if whole else f"{path}/{layer.op}", ""
        parameters = "" if layer.blocks else self.parameter_path(layer)
        if parameters:
            return parameters, parameters.rpartition("/")[0]
        # a loop's carry comes from the iteration before
        latest = max(layer.inputs, key=lambda v: (bool(v.producer), v.index), default=layer.output)
        module = self.modules.get(latest, "")
        return f"{module}/{layer.op}" if module else layer.op, module

    def parameter_path(self, layer: Step) -> str:
        """The module whose parameters a layer's weights are computed from."""
        seen: set[Var] = set()
        nodes = layer.nodes if layer.kind == "Activation" else (layer.main,)
        pending = [v for node in nodes for v in node.inputs if v not in self.flow.active]
        while pending:
            var = pending.pop()
            while var in self.outside:
                var = self.outside[var]
            if var not in seen and var not in self.flow.active:
                seen.add(var)
                pending += var.producer.inputs if var.producer is not None else ()
        paths = [v.path for v in seen if v.path]
        if len(paths) == 1:
            return paths[0].rpartition("/")[0] or paths[0]
        parts = takewhile(
            lambda parts: len(set(parts)) == 1, zip(*(p.split("/") for p in paths), strict=False)
        )
        return "/".join(part for part, *_ in parts)
