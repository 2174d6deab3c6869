"""For each axis of a value, the axis of the explained input that it runs along.

The rows of a convolution's output run along the rows of the image, whatever the layouts; its
channels run along no axis. Axes that a reshape merges or splits are lost.
"""

from collections.abc import Iterable

from jaxplain.graph.contractions import Contraction, contraction
from jaxplain.graph.ir import Control, Node, Program, Var
from jaxplain.graph.layouts import axes_read, spans
from jaxplain.graph.primitives import Kind, Role

#: For each axis of a value, an axis of the input, or None.
Labels = tuple[int | None, ...]


class Axes:
    """The axes of all values that depend on the explained inputs.

    Attributes:
        examples: the axes of the explained input that are some convolution's batch axis.
    """

    def __init__(self, program: Program, explained: Iterable[Var]):
        self._labels: dict[Var, Labels] = {v: tuple(range(len(v.shape))) for v in explained}
        self.examples: set[int] = set()
        self._run(program)

    def of(self, var: Var) -> Labels:
        """The labels of a value's axes."""
        return self._labels.get(var, (None,) * len(var.shape))

    def examples_of(self, var: Var) -> int | None:
        """The axis of a value that counts examples, for inputs whose leading axis does."""
        labels = self.of(var)
        return labels.index(0) if labels.count(0) == 1 else None

    def _run(self, program: Program) -> None:
        for node in program.nodes:
            if node.control is not None:
                self._enter(node.control)
            elif any(v in self._labels for v in node.inputs):
                for var in node.outputs:
                    self._labels[var] = self._through(node, var)

    def _enter(self, control: Control) -> None:
        """Labels the values of bodies; a loop's until its carry has the labels that it ends with.

        A carry whose axes change places in every iteration (`x.T`) has no labels.
        """
        for link in control.enters:
            if link.outer in self._labels:
                self._join(link.inner, self.of(link.outer)[link.sliced :])
        for round_ in range(len(control.repeats) + 2):
            for body in control.bodies:
                self._run(body)
            known = [(out, to) for out, to in control.repeats if out in self._labels]
            if not any([self._join(to, self.of(out)) for out, to in known]):
                break
            if round_ >= len(control.repeats):
                self._labels |= {to: (None,) * len(to.shape) for _, to in control.repeats}
        steps = (_common(self.of(v.outer)[0] for v in control.enters if v.sliced),)
        for link in control.leaves:
            if link.inner in self._labels:
                self._join(link.outer, (*steps * link.sliced, *self.of(link.inner)))

    def _join(self, var: Var, labels: Labels) -> bool:
        """Drops a value's labels that disagree with other labels; returns whether any changed.

        An axis without a label agrees with any.
        """
        known = var in self._labels
        before = self.of(var)
        after = tuple(map(_common, zip(before, labels, strict=True)))
        self._labels[var] = after
        return not known or before != after

    def _through(self, node: Node, out: Var) -> Labels:
        rank = len(out.shape)
        known = [v for v in node.inputs if v in self._labels]
        first = self.of(known[0])
        behind = moved(node, first)
        if behind is not None:
            return behind
        if node.info.role in (Role.SUM_REDUCTION, Role.EXTREMUM_REDUCTION):
            gone = node.params["axes"]
            return tuple(v for i, v in enumerate(first) if i not in gone)
        product = contraction(node)
        if product is not None:
            return self._contracted(node, product, rank)
        positional = node.info.kind is not Kind.UNKNOWN and node.info.keeps_places
        if positional and all(len(v.shape) == rank for v in known):
            return tuple(map(_common, zip(*map(self.of, known), strict=True)))
        return (None,) * rank

    def _contracted(self, node: Node, product: Contraction, rank: int) -> Labels:
        operands = node.inputs[:1] if product.slides else node.inputs
        along = [
            {out: self.of(v)[axis] for out, axis in axes.items()}
            for v, axes in zip(operands, product.runs_along, strict=False)
        ]
        batch = None if product.batch is None else self.of(node.inputs[0])[product.batch]
        if batch is not None:
            self.examples.add(batch)
        return tuple(_common(labels.get(axis) for labels in along) for axis in range(rank))


def moved(node: Node, labels: Labels) -> Labels | None:
    """The labels behind a transpose, reshape or broadcast; None for other operations.

    Axes that a reshape merges or splits have none.
    """
    role, shape = node.info.role, node.outputs[0].shape
    if role is Role.TRANSPOSE:
        return tuple(labels[i] for i in node.params["permutation"])
    if role is Role.RESHAPE:
        order = axes_read(node)
        before = spans([node.inputs[0].shape[i] for i in order])
        known = {span: labels[i] for span, i in zip(before, order, strict=True)}
        return tuple(known.get(span) if span[0] < span[1] else None for span in spans(shape))
    if role is Role.BROADCAST:
        place = {to: i for i, to in enumerate(node.params["broadcast_dimensions"])}
        return tuple(labels[place[i]] if i in place else None for i in range(len(shape)))
    return None


def _common(labels: Iterable[int | None]) -> int | None:
    known = set(labels) - {None}
    return known.pop() if len(known) == 1 else None
