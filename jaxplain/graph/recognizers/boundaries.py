"""Who owns the scales, offsets, casts and moves between two cores.

A *gap* holds the operations between a core and a value behind it that are linear in one value and
mix nothing. The first line of the table that fits says whose they are; moves and casts (a reshape,
a transpose, an axis of size one) are looked through on every line, and go with what is behind them.

    where                           what                                     owner
    1  before a softmax             temperature, mask, stabilising shift     the softmax
    2  before an activation         offsets that are one number              the activation
    3  behind a curved activation   scales, offsets that are one number      the activation
       or a clipped line, as of hard_sigmoid
    4  behind a normalisation       scales, offsets (gain and offset)        the normalisation
    5  behind a weighted sum,       everything (bias, BatchNorm)             the weighted sum
       until somebody else reads the value
    6  behind a sum of several,     offsets                                  the sum
       or behind one of its terms
    7  before a kernel              what is left, copied to each kernel      the kernel
       before a pooling or mean     what is left and nobody else reads       the pooling or mean
    8  behind a sum of several      what is left                             the sum
    9  elsewhere                    what is left                             a layer of its own

Here the first kernel owns the bias (line 5), and the second kernel the scale (line 7):

    a = dot_general x w; b = add a bias; c = max b 0.0; d = mul c 2.0; e = dot_general d v

Line 1 is applied by `recognizers.softmax`, which finds the shift between the scales; an array that
is added behind a kernel is the kernel's bias, no mask. All other lines are applied here. One number
is a literal of the function, or its broadcast: the value of an array is not known. On line 2 a
scale is not the activation's, as the z+ rule must see its sign; on line 3 a rectifier has nothing,
as guided backprop and deconvnet act on the rectifier alone. Activations with numbers and moves
between them that nobody else reads are one. On lines 3, 4 and 7 an operation may belong to several
layers: each has its own copy.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import dropwhile

from jaxplain.graph.ir import Node, Var
from jaxplain.graph.layouts import is_move
from jaxplain.graph.primitives import Kind, Role
from jaxplain.graph.recognizers import activation, linear_subgraph
from jaxplain.graph.recognizers.core import Before, Behind, Core, linear_core
from jaxplain.graph.recognizers.facts import Facts, in_order
from jaxplain.graph.recognizers.mixing import sums_copies
from jaxplain.graph.recognizers.operation import single


@dataclass(frozen=True, eq=False)
class Gap:
    """The operations between a core (or an input) and a value behind it.

    Attributes:
        start: the value of the core, or an input.
        nodes: the operations, each of which reads the value before it.
        core: the core; None behind an input.
        shared: the positions of the operations whose operand somebody else reads too.
        facts: what is known of the program.
    """

    start: Var
    nodes: tuple[Node, ...]
    core: Core | None
    shared: list[int]
    facts: Facts

    @property
    def unshared(self) -> int:
        """The position from which on nobody else reads the values between operations."""
        return max(self.shared, default=0)

    @cached_property
    def behind(self) -> int:
        """The number of operations, from the first on, that belong to the core."""
        return _behind(self.core, self) if self.core and self.nodes else 0


def gap_before(end: Var, facts: Facts) -> Gap:
    """The gap that ends at a value."""
    nodes = tuple(facts.steps_back(end))[::-1]
    start = facts.flow.inputs[nodes[0]][0] if nodes else end
    core = facts.core(start)
    if core is not None and core.kind == "Structure" and not all(map(is_move, nodes)):
        core = joint_kernel(core, facts) or core
    shared = [i for i, n in enumerate(nodes) if facts.flow.shared(facts.flow.inputs[n][0])]
    return Gap(start, nodes, core, shared, facts)


def joint_kernel(core: Core, facts: Facts) -> Core | None:
    """Dense kernels whose outputs a sum or concatenation joins, as one; None for other cores."""
    nodes, kernels = [*core.nodes], list[Core]()
    if core.nodes[-1].info.role not in (Role.SUM, Role.DIFFERENCE, Role.CONCATENATION):
        return None
    for end in core.inputs:
        gap = gap_before(end, facts)
        kernel = gap.core
        if kernel is not None and kernel.kind == "Structure":
            kernel = joint_kernel(kernel, facts)
        apart = gap.shared or facts.flow.shared(end)
        if kernel is None or apart or (kernel.kind, kernel.op) != ("Affine", "dense"):
            return None
        nodes += (*kernel.nodes, *gap.nodes)
        kernels.append(kernel)
    inputs = tuple(dict.fromkeys(v for kernel in kernels for v in kernel.inputs))
    mixing = tuple(n for kernel in kernels for n in kernel.mixing)
    sides = {"before": Before.ALL, "behind": Behind.ALL}
    return linear_core("Affine", "dense", in_order(nodes), inputs, mixing=mixing, **sides)


def core_behind(end: Var, facts: Facts) -> tuple[Core, Sequence[Node]]:
    """The core of the layer that ends at a value, and the operations behind it in that layer."""
    if (core := facts.core(end)) is not None:
        return core, ()
    gap = gap_before(end, facts)
    left = gap.nodes[max(gap.behind, gap.unshared) :]
    moves = all(node.info.kind is Kind.STRUCTURAL for node in left)
    if gap.core is not None:
        of_merge = gap.core.kind == "Merge" and not gap.shared and not moves
        if of_merge or gap.behind == len(gap.nodes):
            return gap.core, gap.nodes
    if moves:
        return single("Structure", gap.nodes[-1], facts), ()
    return linear_core("Affine", "scale", left, facts.flow.inputs[left[0]]), ()


def taken_before(core: Core, end: Var, facts: Facts) -> tuple[Node, ...]:
    """The operations before an input of a core that belong to it."""
    unshared = core.before is Before.UNSHARED and facts.flow.shared(end)
    if core.before is Before.NOTHING or unshared:
        return ()
    if core.before is Before.NUMBERS_ADDED:
        return _numbers_added(end, facts)
    gap = gap_before(end, facts)
    if core.before is Before.CONSTANTS_ADDED:
        return _added_to_term(core, gap, end, facts)
    first = gap.behind if core.before is Before.ALL else max(gap.behind, gap.unshared)
    left = _apart(gap.nodes[first:], core, facts)
    if core.before is Before.ALL and len(left) == len(gap.nodes):
        left = (*_rearranged(gap.start, core, facts), *left)
    return left


def continues_kernel(node: Node, facts: Facts) -> bool:
    """Whether a sum over devices ends a kernel that is split over them."""
    if node.info.role is not Role.DEVICE_SUM:
        return False
    (operand,) = facts.flow.inputs[node]
    gap = gap_before(operand, facts)
    kernel = gap.core is not None and gap.core.behind is Behind.ALL
    return kernel and not gap.shared and not facts.flow.shared(operand)


def whole_activation(core: Core, facts: Facts) -> Core:
    """An activation, joined with those before it: `relu(relu(x) + 1)` is one.

    Only numbers and moves stand between them, and nobody else reads the values.
    """
    flow = facts.flow
    while True:
        (end,) = core.inputs
        gap = gap_before(end, facts)
        if gap.core is None or gap.core.kind != "Activation":
            return core
        readers = {*gap.nodes, *core.nodes}
        values = (gap.start, end, *(n.outputs[0] for n in gap.nodes))
        alone = all(v not in flow.must_end and readers.issuperset(flow.readers[v]) for v in values)
        if not alone or not all(is_move(n) or _is_number(n, facts) for n in gap.nodes):
            return core
        core = activation.joined(gap.core, gap.nodes, core)


def _behind(core: Core, gap: Gap) -> int:
    """The number of operations behind a core that belong to it."""
    nodes, facts = gap.nodes, gap.facts
    alone = min(gap.shared, default=len(nodes))
    if core.behind is Behind.ALL:
        return alone
    if core.behind is Behind.CONSTANTS:
        return _last(nodes, facts.is_diagonal)
    if core.behind is Behind.CONSTANTS_ADDED:
        return _last(nodes[:alone], lambda n: facts.sign(n) == 1)
    if core.kind != "Activation":
        return 0
    core = whole_activation(core, facts)
    # a clipped line, as of relu6(x + 3) / 6, is a gate as a whole
    takes = core.behind is Behind.NUMBERS or _numbers_added(core.inputs[0], facts)
    return _last(nodes, lambda n: _is_number(n, facts)) if takes else 0


def _numbers_added(end: Var, facts: Facts) -> tuple[Node, ...]:
    """The offsets by one number before a value, with the moves between and behind them."""

    def adds(node: Node) -> bool:
        return node.info.role in (Role.SUM, Role.DIFFERENCE) and _is_number(node, facts)

    nodes = tuple(facts.steps_back(end))
    return nodes[: _last(nodes, adds)][::-1]


def _last(nodes: Iterable[Node], owned: Callable[[Node], bool]) -> int:
    """The number of operations up to the last owned one, where all between them are moves."""
    count = 0
    for place, node in enumerate(nodes, start=1):
        if owned(node):
            count = place
        elif not is_move(node):
            break
    return count


def _is_number(node: Node, facts: Facts) -> bool:
    """Whether an operation scales by, or adds, a constant that is one number."""
    carries = facts.flow.carries_relevance
    return facts.is_diagonal(node) and all(v.uniform for v in node.inputs if v not in carries)


def _added_to_term(core: Core, gap: Gap, end: Var, facts: Facts) -> tuple[Node, ...]:
    """The unshared offsets behind a term of a sum; none where there is a scale among them."""
    left = gap.nodes[max(gap.behind, gap.unshared) :]
    signs = [facts.sign(n) for n in left if not is_move(n)]  # -(-b - x) is x + b
    if facts.flow.shared(end) or 0 in signs or signs.count(-1) % 2:
        return ()
    left = tuple(dropwhile(is_move, left))
    return () if left and facts.flow.inputs[left[0]][0] in core.inputs else left


def _apart(nodes: tuple[Node, ...], core: Core, facts: Facts) -> tuple[Node, ...]:
    """The operations behind the last broadcast whose copies a core would add up (`sums_copies`)."""
    *way, last = core.nodes
    while nodes and core.mixing and sums_copies((*nodes, *way), last, facts.flow):
        nodes = nodes[1:]
    return nodes


def _rearranged(start: Var, core: Core, facts: Facts) -> tuple[Node, ...]:
    """The operations before a kernel from a scale on, past pieces that are moved and rejoined.

    A BatchNorm before reflecting padding is an example.
    """
    taken: tuple[Node, ...] = ()
    held: tuple[Node, ...] = ()
    while (pieces := linear_subgraph.moved_pieces(start, facts)) is not None:
        gap = gap_before(pieces.input, facts)
        left = _apart(gap.nodes[gap.behind :], core, facts)
        held = (*left, *pieces.nodes, *held)
        if any(n.info.kind is not Kind.STRUCTURAL for n in held):
            taken = held
        if len(left) < len(gap.nodes):
            break
        start = gap.start
    return taken
