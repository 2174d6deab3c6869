"""The same program in another layout: identity moves and casts at places of its jaxpr.

A `Program` is a function's jaxpr as a flat list of equations, and a `Layout` a list of insertions
that leave what it computes as it is:

- `Moved`: a value goes somewhere and comes back, such as `x.T.T` or `x[None][0]`, behind the
  equation that makes it; everybody who reads the value reads what came back.
- `Held`: a value is kept elsewhere for as long as its readers allow, such as `(x.T + b.T).T`:
  elementwise equations, reductions and products follow it there.
- `Span`: consecutive equations in a call of their own: jitted, or under `jax.vmap`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxplain import _compat

# Programs


@dataclass(frozen=True, eq=False)
class Equation:
    """An equation whose operands are values by number, or literals."""

    eqn: Any
    inputs: tuple[Any, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """A function of one array as a flat list of equations.

    Attributes:
        equations: in their order; jitted calls are written out.
        input: the number of the argument.
        outputs: the numbers of the outputs (or literals).
        constants: the values that the function closed over, by number.
        avals: the shape and dtype of every value.
        active: the values that depend on the argument.
        tree: what the function returns.
    """

    equations: tuple[Equation, ...]
    input: int
    outputs: tuple[Any, ...]
    constants: dict[int, Any]
    avals: tuple[Any, ...]
    active: frozenset[int]
    tree: Any

    def __str__(self) -> str:
        return "\n".join(self.line(equation) for equation in self.equations)

    def line(self, equation: Equation) -> str:
        """An equation as text."""
        params = {k: v for k, v in equation.eqn.params.items() if k in _SHOWN}
        shown = "".join(f" {k}={v}" for k, v in params.items())
        operands = ", ".join(
            f"{v.val}" if isinstance(v, _compat.Literal) else f"v{v}{list(self.avals[v].shape)}"
            for v in equation.inputs
        )
        made = ", ".join(f"v{v}" for v in equation.outputs)
        return f"{made} = {equation.eqn.primitive.name}({operands}){shown}"


_SHOWN = frozenset(
    "dimension_numbers axes permutation new_sizes shape broadcast_dimensions new_dtype y".split()
)


def program(f: Callable[..., Any], x: Any, opened: bool) -> Program:
    """Reads a function's program off its jaxpr.

    Args:
        f: a function of one array.
        x: the array.
        opened: whether functions with a derivative of their own are written out too.
    """
    with jax.enable_x64(x.dtype == jnp.float64):
        closed, tree = jax.make_jaxpr(lambda v: f(v), return_shape=True)(x)
    containers = dict(_compat.TRANSPARENT) | (_compat.CUSTOM_DERIVATIVE if opened else {})
    containers.pop(_compat.REMAT, None)  # what is computed twice stays together
    avals: list[Any] = []
    constants: dict[int, Any] = {}
    equations: list[Equation] = []
    written: dict[str, tuple[int, ...]] = {}

    def new(atom: Any) -> int:
        avals.append(atom.aval)
        return len(avals) - 1

    def inline(jaxpr: Any, consts: Sequence[Any], operands: Sequence[Any]) -> list[Any]:
        env: dict[Any, Any] = dict(zip(jaxpr.invars, operands, strict=True))
        for var, value in zip(jaxpr.constvars, consts, strict=True):
            env[var] = new(var)
            constants[env[var]] = value

        def read(atom: Any) -> Any:
            return atom if isinstance(atom, _compat.Literal) else env[atom]

        for eqn in jaxpr.eqns:
            inputs = tuple(map(read, eqn.invars))
            container = containers.get(eqn.primitive.name)
            if container is not None:
                env |= zip(eqn.outvars, inline(*_compat.body(eqn, container), inputs), strict=True)
                continue
            # written twice, one of them moved, it would be two computations
            same = str((eqn.primitive.name, sorted(eqn.params.items()), inputs))
            if same not in written:
                written[same] = outputs = tuple(map(new, eqn.outvars))
                equations.append(Equation(eqn, inputs, outputs))
            env |= zip(eqn.outvars, written[same], strict=True)
        return [read(v) for v in jaxpr.outvars]

    jaxpr, consts = _compat.open_jaxpr(closed)
    jaxpr = _compat.pruned(jaxpr)
    argument = new(jaxpr.invars[0])
    outputs = inline(jaxpr, consts, [argument])
    active = {argument}
    for equation in equations:
        if any(v in active for v in equation.inputs if isinstance(v, int)):
            active.update(equation.outputs)
    return Program(
        tuple(equations),
        argument,
        tuple(outputs),
        constants,
        tuple(avals),
        frozenset(active),
        jax.tree.structure(tree),
    )


# Moves there and back. Each takes a source of randomness, the value, and others of its program.

Move = Callable[[Random, Any, Sequence[Any]], Any]


def _factors(size: int) -> list[int]:
    return [n for n in range(2, size) if size % n == 0]


def _other_shapes(shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Flattened; with two axes as one; with one axis as two; with an axis of one more."""
    yield (math.prod(shape),)
    for i in range(len(shape) - 1):
        yield (*shape[:i], shape[i] * shape[i + 1], *shape[i + 2 :])
    for i, size in enumerate(shape):
        yield from ((*shape[:i], n, size // n, *shape[i + 1 :]) for n in _factors(size))
    for i in range(len(shape) + 1):
        yield (*shape[:i], 1, *shape[i:])


def _other_shape(rng: Random, shape: Sequence[int]) -> tuple[int, ...]:
    return rng.choice([s for s in _other_shapes(shape) if s != tuple(shape)])


def _other_order(rng: Random, rank: int) -> tuple[int, ...]:
    order = list(range(rank))
    while rank > 1 and order == sorted(order):
        rng.shuffle(order)
    return tuple(order)


def _inverse(order: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argsort(order))


def _long_axis(rng: Random, shape: Sequence[int]) -> int | None:
    long = [i for i, size in enumerate(shape) if size > 1]
    return rng.choice(long) if long else None


def _reshape(rng: Random, x: Any, others: Sequence[Any]) -> Any:
    return x.reshape(_other_shape(rng, x.shape)).reshape(x.shape)


def _transpose(rng: Random, x: Any, others: Sequence[Any]) -> Any:
    order = _other_order(rng, x.ndim)
    return x.transpose(order).transpose(_inverse(order))


def _split(rng: Random, x: Any, others: Sequence[Any]) -> Any:
    axis = _long_axis(rng, x.shape)
    if axis is None:
        return x
    size = x.shape[axis]
    at = rng.randrange(1, size)
    way = rng.choice(["split", "slices", "lax"])
    if way == "split":
        parts = jnp.split(x, sorted({at, rng.randrange(1, size)}), axis)
    elif way == "lax":
        parts = lax.split(x, (at, size - at), axis)
    else:
        ends = [(0, at), (at, size)]
        parts = [lax.slice_in_dim(x, low, high, axis=axis) for low, high in ends]
    return jnp.concatenate(parts, axis)


def _expand(rng: Random, x: Any, others: Sequence[Any]) -> Any:
    axis = rng.randrange(x.ndim + 1)
    if rng.random() < 0.5:
        return jnp.squeeze(jnp.expand_dims(x, axis), axis)
    return lax.index_in_dim(jnp.expand_dims(x, axis), 0, axis, keepdims=False)


def _rev(rng: Random, x: Any, others: Sequence[Any]) -> Any:
    axes = [i for i in range(x.ndim) if rng.random() < 0.5] or [x.ndim - 1]
    return lax.rev(lax.rev(x, axes), axes)


def _barrier(rng: Random, x: Any, others: Sequence[Any]) -> Any:
    return lax.optimization_barrier(x)


def _barrier_of_several(rng: Random, x: Any, others: Sequence[Any]) -> Any:
    return lax.optimization_barrier((x, *rng.sample(others, min(len(others), 2))))[0]


def _cast(rng: Random, x: Any, others: Sequence[Any]) -> Any:
    return x.astype(jnp.float64).astype(x.dtype)


MOVES: dict[str, Move] = {
    "reshape": _reshape,
    "transpose": _transpose,
    "split": _split,
    "expand": _expand,
    "rev": _rev,
    "barrier": _barrier,
    "barrier_of_several": _barrier_of_several,
    "cast": _cast,
}
# Where values are held


class Place:
    """Somewhere to hold a value: `back(to(x))` is `x`."""

    def to(self, x: Any) -> Any:
        """The value there."""
        raise NotImplementedError

    def back(self, x: Any) -> Any:
        """The value as it was."""
        raise NotImplementedError

    def operand(self, x: Any, shape: tuple[int, ...]) -> Any:
        """Another operand of an elementwise equation that is evaluated there."""
        return self.to(jnp.broadcast_to(x, shape)) if jnp.ndim(x) else x

    def fits(self, shape: tuple[int, ...], made: tuple[int, ...]) -> bool:
        """Whether an equation with such an operand and output can be evaluated there."""
        return shape == made


@dataclass(frozen=True)
class Transposed(Place):
    """`x.transpose(order)`."""

    order: tuple[int, ...]

    def to(self, x: Any) -> Any:
        return jnp.transpose(x, self.order)

    def back(self, x: Any) -> Any:
        return jnp.transpose(x, _inverse(self.order))

    def operand(self, x: Any, shape: tuple[int, ...]) -> Any:
        return self.to(x) if jnp.ndim(x) else x  # axes of one stay so

    def fits(self, shape: tuple[int, ...], made: tuple[int, ...]) -> bool:
        return len(shape) == len(made)


@dataclass(frozen=True)
class Reshaped(Place):
    """`x.reshape(shape)`."""

    shape: tuple[int, ...]
    own: tuple[int, ...]

    def to(self, x: Any) -> Any:
        return jnp.reshape(x, self.shape)

    def back(self, x: Any) -> Any:
        return jnp.reshape(x, self.own)


@dataclass(frozen=True)
class Reversed(Place):
    """`x[::-1]` along an axis."""

    axis: int

    def to(self, x: Any) -> Any:
        return lax.rev(x, (self.axis,))

    def back(self, x: Any) -> Any:
        return lax.rev(x, (self.axis,))


@dataclass(frozen=True)
class Wide(Place):
    """In float64, where the program computes in float32."""

    def to(self, x: Any) -> Any:
        return x.astype(jnp.float64) if x.dtype == jnp.float32 else x

    def back(self, x: Any) -> Any:
        return x.astype(jnp.float32)

    def operand(self, x: Any, shape: tuple[int, ...]) -> Any:
        return self.to(jnp.asarray(x))

    def fits(self, shape: tuple[int, ...], made: tuple[int, ...]) -> bool:
        return True


def place_of(kind: str, rng: Random, shape: tuple[int, ...]) -> Place:
    if kind == "transposed":
        return Transposed(_other_order(rng, len(shape)))
    if kind == "reshaped":
        return Reshaped(_other_shape(rng, shape), shape)
    if kind == "reversed":
        return Reversed(rng.randrange(len(shape)))
    return Wide()


PLACES = ("transposed", "reshaped", "reversed", "wide")

ELEMENTWISE = frozenset(
    "add sub mul div neg max min exp exp2 log log1p expm1 logistic tanh erf erfc sin cos sqrt "
    "rsqrt cbrt abs square integer_pow pow sign select_n stop_gradient gt lt ge le eq ne and or "
    "not clamp is_finite round floor ceil copy copy_p add_any log2 one_minus_square".split()
)
REDUCTIONS = frozenset("reduce_sum reduce_max reduce_min".split())

# Layouts


@dataclass(frozen=True)
class Moved:
    """A value that goes there and back where it is made."""

    value: int
    kind: str
    seed: int


@dataclass(frozen=True)
class Held:
    """A value that is held elsewhere."""

    value: int
    kind: str
    seed: int


@dataclass(frozen=True)
class Span:
    """Equations from `start` to `stop` in a call of their own."""

    start: int
    stop: int
    kind: str
    seed: int


SPANS = ("jit", "vmap_of_one", "vmap_of_examples")
Insertion = Moved | Held | Span
Layout = tuple[Insertion, ...]


class Rewritten:
    """A program in a layout, as a function.

    Args:
        program: the program.
        layout: what is inserted.
        alone: the program of one example, for what runs under a vmap over examples.
    """

    def __init__(self, program: Program, layout: Layout, alone: Program | None = None):
        self.program = program
        self.alone = alone
        self.at: dict[int, list[Moved | Held]] = {}
        for insertion in layout:
            if not isinstance(insertion, Span):
                self.at.setdefault(insertion.value, []).append(insertion)
        self.spans = {s.start: s for s in layout if isinstance(s, Span)}

    def __call__(self, x: Any) -> Any:
        run = _Run(self, self.program)
        for number, value in self.program.constants.items():
            run.define(number, jnp.asarray(value))
        run.define(self.program.input, x)
        number = 0
        while number < len(self.program.equations):
            span = self.spans.get(number)
            stop = span.stop if span is not None else number + 1
            if span is not None:
                self.span(run, span)
            else:
                run.equation(self.program.equations[number])
            number = stop
        outputs = [run.read(v) for v in self.program.outputs]
        return jax.tree.unflatten(self.program.tree, outputs)

    def span(self, run: "_Run", span: Span) -> None:
        """Evaluates a span in a call of its own."""
        equations = self.program.equations[span.start : span.stop]
        made = [v for equation in equations for v in equation.outputs]
        read = {v for equation in equations for v in equation.inputs if isinstance(v, int)}
        inputs = sorted(read - set(made))
        later = self.program.equations[span.stop :]
        wanted = {v for equation in later for v in equation.inputs if isinstance(v, int)}
        wanted |= {v for v in self.program.outputs if isinstance(v, int)}
        outputs = [v for v in made if v in wanted]
        values = [run.read(v) for v in inputs]
        rng = Random(span.seed)

        def body(program: Program, *operands: Any) -> list[Any]:
            inner = _Run(self, program)
            inner.env = {v: (value, None) for v, value in zip(inputs, operands, strict=True)}
            for equation in program.equations[span.start : span.stop]:
                inner.equation(equation)
            return [inner.read(v) for v in outputs]

        if span.kind == "jit":
            results = jax.jit(lambda *operands: body(self.program, *operands))(*values)
        elif span.kind == "vmap_of_one":
            results = self._of_one(rng, body, inputs, outputs, values)
        else:
            results = self._of_examples(body, inputs, outputs, values)
        for number, value in zip(outputs, results, strict=True):
            run.env[number] = value, None

    def _of_one(self, rng: Random, body: Any, inputs: Any, outputs: Any, values: Any) -> Any:
        """Under a vmap over a new axis of one."""
        avals, active = self.program.avals, self.program.active
        axes = [rng.randrange(len(avals[v].shape) + 1) if v in active else None for v in inputs]
        if all(axis is None for axis in axes):
            return body(self.program, *values)
        out = [rng.randrange(len(avals[v].shape) + 1) for v in outputs]
        operands = [
            v if axis is None else jnp.expand_dims(v, axis)
            for v, axis in zip(values, axes, strict=True)
        ]
        mapped = jax.vmap(lambda *v: body(self.program, *v), in_axes=axes, out_axes=out)
        return [jnp.squeeze(v, axis) for v, axis in zip(mapped(*operands), out, strict=True)]

    def _of_examples(self, body: Any, inputs: Any, outputs: Any, values: Any) -> Any:
        """Under a vmap over the examples, each a batch of one."""
        axes = [self._examples(v) for v in inputs]
        out = [self._examples(v) for v in outputs]
        if self.alone is None or -1 in (*axes, *out) or None in out or set(axes) <= {None}:
            return body(self.program, *values)

        def one(*operands: Any) -> list[Any]:
            rows = [
                v if axis is None else jnp.expand_dims(v, axis)
                for v, axis in zip(operands, axes, strict=True)
            ]
            found = body(self.alone, *rows)
            return [jnp.squeeze(v, axis) for v, axis in zip(found, out, strict=True)]

        return jax.vmap(one, in_axes=axes, out_axes=out)(*values)

    def _examples(self, value: int) -> int | None:
        """The axis that counts examples: None where none does, -1 where it is not alone."""
        if self.alone is None:
            return -1
        together, alone = (p.avals[value].shape for p in (self.program, self.alone))
        batch = self.program.avals[self.program.input].shape[0]
        differ = [i for i, (n, m) in enumerate(zip(together, alone, strict=True)) if n != m]
        if not differ:
            return None
        axis = differ[0]
        return axis if len(differ) == 1 and (together[axis], alone[axis]) == (batch, 1) else -1


class _Run:
    """The values of a program while it is evaluated: `(value, place)` by number."""

    def __init__(self, rewritten: Rewritten, program: Program):
        self.at = rewritten.at
        self.program = program
        self.env: dict[int, tuple[Any, Place | None]] = {}

    def read(self, atom: Any) -> Any:
        """A value where the program has it."""
        if not isinstance(atom, int):
            return np.asarray(atom.val, atom.aval.dtype)
        value, place = self.env[atom]
        return value if place is None else place.back(value)

    def define(self, number: int, value: Any, place: Place | None = None) -> None:
        """Adds a value, with what the layout inserts there."""
        for insertion in self.at.get(number, ()):
            if not applies(insertion.kind, value.dtype, jnp.ndim(value)):
                continue
            if isinstance(insertion, Held):
                if place is None:
                    place = place_of(insertion.kind, Random(insertion.seed), jnp.shape(value))
                    value = place.to(value)
                continue
            plain = value if place is None else place.back(value)
            others = [
                self.read(v)
                for v in sorted(self.env)
                if v in self.program.active and jnp.issubdtype(plain.dtype, jnp.floating)
            ]
            value = MOVES[insertion.kind](Random(insertion.seed), plain, others)
            place = None
        self.env[number] = value, place

    def equation(self, equation: Equation) -> None:
        """Evaluates an equation, where its operands are held if it can."""
        held = [self.env[v] for v in equation.inputs if isinstance(v, int)]
        places = [place for _, place in held if place is not None]
        if places:
            found = self._there(equation, places[0])
            if found is not None:
                self.define(equation.outputs[0], *found)
                return
        values = [self.read(v) for v in equation.inputs]
        outputs = _compat.bind(equation.eqn, values)
        for number, value in zip(equation.outputs, outputs, strict=True):
            self.define(number, value)

    def _there(self, equation: Equation, place: Place) -> tuple[Any, Place | None] | None:
        """The output where the operands are held; None where the equation cannot follow."""
        name = equation.eqn.primitive.name
        made = self.program.avals[equation.outputs[0]]
        if name in ELEMENTWISE:
            return self._elementwise(equation, place, made)
        if not isinstance(place, Transposed):
            return None
        if name in REDUCTIONS and equation.eqn.params.get("out_sharding") is None:
            value, order = self.env[equation.inputs[0]][0], place.order
            axes = equation.eqn.params["axes"]
            reduced = tuple(j for j, i in enumerate(order) if i in axes)
            reduce = {
                "reduce_sum": jnp.sum, "reduce_max": jnp.max, "reduce_min": jnp.min
            }[name]  # fmt: skip
            kept = [i for i in order if i not in axes]
            return reduce(value, axis=reduced), _transposed([sorted(kept).index(i) for i in kept])
        if name == "dot_general":
            return self._product(equation)
        if name == "broadcast_in_dim":
            return self._broadcast(equation, place)
        return None

    def _elementwise(self, equation: Equation, place: Place, made: Any) -> Any:
        held = [v for v in equation.inputs if isinstance(v, int) and self.env[v][1] == place]
        if not all(place.fits(self.program.avals[v].shape, made.shape) for v in held):
            return None
        operands = []
        for atom in equation.inputs:
            value, where = self.env[atom] if isinstance(atom, int) else (None, None)
            if where == place:
                operands.append(value)
            else:
                operands.append(place.operand(self.read(atom), made.shape))
        (value,) = _compat.bind(equation.eqn, operands)
        if isinstance(place, Wide) and value.dtype != jnp.float64:
            return value, None
        return value, place

    def _product(self, equation: Equation) -> Any:
        """A product of two arrays of which some are transposed."""
        params = equation.eqn.params
        values, orders = [], []
        for atom in equation.inputs:
            value, place = self.env[atom] if isinstance(atom, int) else (self.read(atom), None)
            if place is not None and not isinstance(place, Transposed):
                value, place = place.back(value), None
            values.append(value)
            orders.append(place.order if place is not None else tuple(range(jnp.ndim(value))))
        there = [
            [tuple(map(order.index, axes)) for order, axes in zip(orders, of, strict=True)]
            for of in params["dimension_numbers"]
        ]
        options = {k: params[k] for k in ("precision", "preferred_element_type")}
        value = lax.dot_general(*values, there, **options)
        found = list(range(len(there[1][0])))
        for order, *gone in zip(orders, *params["dimension_numbers"], strict=True):
            free = [i for i in order if not any(i in axes for axes in gone)]
            first = len(found)
            found += [first + sorted(free).index(i) for i in free]
        return value, _transposed(found)

    def _broadcast(self, equation: Equation, place: Transposed) -> Any:
        """A broadcast of a transposed array; None where it would have to be transposed first."""
        params = equation.eqn.params
        goes = [params["broadcast_dimensions"][i] for i in place.order]
        new = [i for i in range(len(params["shape"])) if i not in goes]
        order = (*new, *goes)
        shape = tuple(params["shape"][i] for i in order)
        value = lax.broadcast_in_dim(
            self.env[equation.inputs[0]][0], shape, tuple(range(len(new), len(order)))
        )
        return value, _transposed(order)


def _transposed(order: Sequence[int]) -> Transposed | None:
    return Transposed(tuple(order)) if list(order) != sorted(order) else None


def applies(kind: str, dtype: Any, rank: int) -> bool:
    """Whether a value of such a dtype and rank can be moved so."""
    if not jnp.issubdtype(dtype, jnp.floating):
        return False
    if kind in ("cast", "wide"):
        return dtype == jnp.float32
    if kind in ("transpose", "transposed"):
        return rank > 1
    return rank > 0 or kind not in ("split", "rev", "reversed")
