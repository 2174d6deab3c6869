"""What becomes of every primitive of JAX: `python tests/pages/primitives_page.py` writes the page.

Each has a function or two through which relevance would have to cross it. What the page says is
what the traced plan of that function says; `test_primitives` checks the page, and the numbers.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.extend.core.primitives as jp
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax._src.lax import parallel  # for a primitive that no public function writes
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jaxplain as jxp
from jaxplain import _compat
from jaxplain.composites import describe
from jaxplain.errors import NotAnalyzableError
from jaxplain.graph import primitives, trace
from jaxplain.graph.layer import RULELESS
from jaxplain.graph.primitives import Kind

PAGE = Path(__file__).parents[2] / "docs" / "primitives.md"

Function = Callable[..., Any]


class Case(NamedTuple):
    """A function of x in which it carries relevance to a primitive, and one of x and y."""

    one: Function
    several: Function | None = None


X, Y = np.random.default_rng(0).uniform(0.2, 0.8, (2, 3, 3))
C = np.random.default_rng(1).uniform(0.2, 0.8, (3, 3))
KERNEL = np.random.default_rng(2).normal(size=(2, 1, 2, 2))
WINDOW: dict[str, Any] = {
    "window_dimensions": (1, 2),
    "window_strides": (1, 1),
    "padding": ((0, 0), (0, 0)),
}


def like(value: Any, x: Any) -> Any:
    """A constant in the dtype of x."""
    return jnp.asarray(value, x.dtype)


def whole(x: Any) -> Any:
    """Integers that depend on x."""
    return lax.convert_element_type(lax.round(9 * x), jnp.int32)


def truth(x: Any) -> Any:
    return lax.gt(x, 0.5)


def back(value: Any) -> Any:
    return lax.convert_element_type(value, jnp.float32)


def word(x: Any) -> Any:
    return lax.convert_element_type(whole(x), jnp.uint32)


def bound(name: str, *operands: Any) -> Any:
    return getattr(jp, f"{name}_p").bind(*operands)


def key(x: Any) -> Any:
    return jax.random.key(whole(x)[0, 0])


def mesh(kind: AxisType = AxisType.Auto) -> Mesh:
    return jax.make_mesh((1,), ("d",), axis_types=(kind,))


def sharded(f: Function, inside: Any = "d", outside: Any = "d", check: bool = True) -> Function:
    specs = [PartitionSpec(*(axis,) * (axis is not None)) for axis in (inside, outside)]
    return jax.shard_map(f, mesh=mesh(), in_specs=specs[0], out_specs=specs[1], check_vma=check)


def call(primitive: Any) -> Function:
    def f(x: Any) -> Any:
        params = primitive.get_bind_params({"call_jaxpr": jax.make_jaxpr(jnp.tanh)(x)})
        return primitive.bind(x, **params)[0]

    return f


@jax.custom_vjp
def backwards(x: Any) -> Any:
    return jnp.tanh(x)


backwards.defvjp(lambda x: (jnp.tanh(x), x), lambda _, g: (g,))


def written(x: Any) -> Any:
    ref = jax.new_ref(jnp.zeros_like(x))
    ref[...] = x
    return x + ref[...]


def convolve(x: Any, kernel: Any) -> Any:
    return lax.conv_general_dilated(x[None, None], kernel, (1, 1), "VALID")


def combined(x: Any) -> Any:
    start, shape = jnp.zeros((), x.dtype), jax.ShapeDtypeStruct((), x.dtype)
    order, total = (jax.make_jaxpr(f)(shape, shape) for f in (lax.ge, lax.add))
    jaxprs = {"select_jaxpr": _compat.open_jaxpr(order)[0], "select_consts": ()}
    jaxprs |= {"scatter_jaxpr": _compat.open_jaxpr(total)[0], "scatter_consts": ()}
    return jp.select_and_scatter_p.bind(x, x[:, :2], start, **jaxprs, **WINDOW)


ROWS = np.array([0, 2])
INDEX = np.array([[0], [2]])
SCATTER = lax.ScatterDimensionNumbers((1,), (0,), (0,))


def scatter(f: Function) -> Case:
    """`f(operand, indices, updates, dimensions)`."""
    return Case(
        lambda x: f(like(C, x), INDEX, x[:2], SCATTER), lambda x, y: f(x, INDEX, y[:2], SCATTER)
    )


def each(f: Function) -> Function:
    """A reduction of what may be no float."""
    return lambda x: back(f(truth(x), (0,)))


_UNARY = (
    "abs acos asin asinh atan atanh bessel_i0e bessel_i1e cbrt ceil cos cosh digamma erf erf_inv "
    "erfc exp exp2 expm1 floor lgamma log log1p logistic neg round rsqrt sign sin sinh sqrt square "
    "tan tanh log2 one_minus_square"
).split()
_COMPARISONS = "eq ne ge gt le lt".split()
_BINARY = "add sub mul div max min pow atan2 rem igamma igammac nextafter".split()
_BITS = "and or xor shift_left shift_right_arithmetic shift_right_logical".split()

CASES: dict[str, Case] = {
    **{name: Case(lambda x, name=name: getattr(lax, name)(x)) for name in _UNARY},
    **{name: Case(lambda x, name=name: back(getattr(lax, name)(x, 0.5))) for name in _COMPARISONS},
    **{
        name: Case(lambda x, name=name: getattr(lax, name)(x, like(C, x)), getattr(lax, name))
        for name in _BINARY
    },
    **{
        name: Case(lambda x, name=name: back(bound(name, whole(x), whole(x) + 1))) for name in _BITS
    },
    # one output per input
    "logistic": Case(lambda x: 2 * lax.logistic(x)),  # alone at the end it is left out
    "acosh": Case(lambda x: lax.acosh(x + 1)),
    "integer_pow": Case(lambda x: lax.integer_pow(x, 3)),
    "is_finite": Case(lambda x: back(lax.is_finite(x))),
    "not": Case(lambda x: back(lax.bitwise_not(truth(x)))),
    "clz": Case(lambda x: back(lax.clz(whole(x)))),
    "population_count": Case(lambda x: back(lax.population_count(whole(x)))),
    "igamma_grad_a": Case(lambda x: lax.igamma_grad_a(like(C, x), x), lax.igamma_grad_a),
    "polygamma": Case(lambda x: lax.polygamma(jnp.ones_like(x), x), lax.polygamma),
    "zeta": Case(lambda x: lax.zeta(x + 1, like(C, x)), lambda x, y: lax.zeta(x + 1, y)),
    "regularized_incomplete_beta": Case(
        lambda x: lax.betainc(like(C, x), like(C, x), x), lambda x, y: lax.betainc(x, y, y)
    ),
    "polynomial": Case(
        lambda x: lax.polynomial(x, [1.0, 2.0, 3.0]), lambda x, y: lax.polynomial(x, [y, 2.0, y])
    ),
    "clamp": Case(lambda x: lax.clamp(0.3, x, 0.6), lambda x, y: lax.clamp(x, y, 1.0)),
    "add_any": Case(lambda x: jp.add_jaxvals_p.bind(x, like(C, x)), jp.add_jaxvals_p.bind),
    **{
        f"{name}_to": Case(lambda x, name=name: back(bound(f"{name}_to", x, like(C, x))))
        for name in ("eq", "le", "lt")
    },
    # moves
    "reshape": Case(lambda x: lax.reshape(x, (9,))),
    "squeeze": Case(lambda x: lax.squeeze(x[:1], (0,))),
    "transpose": Case(lambda x: lax.transpose(x, (1, 0))),
    "broadcast_in_dim": Case(lambda x: lax.broadcast_in_dim(x, (2, 3, 3), (1, 2))),
    "convert_element_type": Case(lambda x: lax.convert_element_type(x, jnp.float16)),
    "reduce_precision": Case(lambda x: lax.reduce_precision(x, 11, 52)),
    "layout_constraint": Case(lambda x: with_layout_constraint(x, Layout((0, 1)))),
    "copy": Case(jp.copy_p.bind),
    "optimization_barrier": Case(
        lax.optimization_barrier, lambda x, y: jnp.stack(lax.optimization_barrier((x, y)))
    ),
    "sharding_constraint": Case(
        lambda x: lax.with_sharding_constraint(x, NamedSharding(mesh(), PartitionSpec()))
    ),
    "reshard": Case(
        lambda x: jax.sharding.reshard(x, NamedSharding(mesh(AxisType.Explicit), PartitionSpec()))
    ),
    "device_put": Case(jax.device_put, lambda x, y: jnp.stack(jax.device_put((x, y)))),
    "name": Case(lambda x: checkpoint_name(x, "h")),
    "select_n": Case(
        lambda x: lax.select(C > 0.5, x, like(C, x)), lambda x, y: lax.select(truth(x), x, y)
    ),
    "pad": Case(
        lambda x: lax.pad(x, like(0.0, x), ((1, 0, 0), (0, 0, 1))),
        lambda x, y: lax.pad(x, y[0, 0], ((1, 0, 0), (0, 0, 0))),
    ),
    "slice": Case(lambda x: lax.slice(x, (1, 0), (3, 3))),
    "dynamic_slice": Case(lambda x: lax.dynamic_slice(x, (1, 0), (2, 3))),
    "dynamic_update_slice": Case(
        lambda x: lax.dynamic_update_slice(x, like(C, x)[:1], (1, 0)),
        lambda x, y: lax.dynamic_update_slice(x, y[:1], (1, 0)),
    ),
    "gather": Case(lambda x: x[ROWS]),
    "scatter": scatter(lax.scatter),
    "rev": Case(lambda x: lax.rev(x, (0,))),
    "split": Case(lambda x: jnp.concatenate(lax.split(x, (1, 2))[::-1])),
    "unstack": Case(lambda x: jnp.stack(jnp.unstack(x)[:2])),
    "concatenate": Case(
        lambda x: lax.concatenate([x, like(C, x)], 0), lambda x, y: lax.concatenate([x, y], 0)
    ),
    "stack": Case(lambda x: jnp.stack([x, like(C, x)]), lambda x, y: jnp.stack([x, y])),
    "tile": Case(lambda x: lax.tile(x, (2, 1))),
    "bitcast_convert_type": Case(lambda x: lax.bitcast_convert_type(x, jnp.float16)),
    # sums
    "dot_general": Case(lambda x: x @ like(C, x), lambda x, y: x @ y),
    "ragged_dot_general": Case(
        lambda x: lax.ragged_dot(x, like(np.stack([C, C.T]), x), jnp.array([1, 2])),
        lambda x, y: lax.ragged_dot(x, jnp.stack([y, y.T]), jnp.array([1, 2])),
    ),
    "conv_general_dilated": Case(
        lambda x: convolve(x, like(KERNEL, x)), lambda x, y: convolve(x, y[None, None])
    ),
    "reduce_sum": Case(lambda x: lax.reduce_sum(x, (0,))),
    "reduce_window_sum": Case(lambda x: lax.reduce_window(x, 0.0, lax.add, **WINDOW)),
    "cumsum": Case(lax.cumsum),
    "scatter-add": scatter(lax.scatter_add),
    # one of the inputs
    "reduce_max": Case(lambda x: lax.reduce_max(x, (0,))),
    "reduce_min": Case(lambda x: lax.reduce_min(x, (0,))),
    "reduce_window_max": Case(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, **WINDOW)),
    "reduce_window_min": Case(lambda x: lax.reduce_window(x, jnp.inf, lax.min, **WINDOW)),
    "sort": Case(lax.sort, lambda x, y: jnp.stack(lax.sort((x, y), num_keys=1))),
    "top_k": Case(lambda x: lax.top_k(x, 2)[0]),
    "approx_top_k": Case(lambda x: lax.approx_max_k(x, 2)[0]),
    "cummax": Case(lax.cummax),
    "cummin": Case(lax.cummin),
    # integers and truth values
    "stop_gradient": Case(lax.stop_gradient),
    "argmax": Case(lambda x: back(lax.argmax(x, 0, jnp.int32))),
    "argmin": Case(lambda x: back(lax.argmin(x, 0, jnp.int32))),
    "reduce_and": Case(each(lax.reduce_and)),
    "reduce_or": Case(each(lax.reduce_or)),
    "reduce_xor": Case(each(lax.reduce_xor)),
    "iota": Case(lambda x: x * lax.iota(x.dtype, 3)),
    # random numbers
    "random_seed": Case(lambda x: back(jax.random.bits(key(x)))),
    "random_bits": Case(lambda x: back(jax.random.bits(key(x)))),
    "random_split": Case(lambda x: back(jax.random.bits(jax.random.split(key(x))[0]))),
    "random_fold_in": Case(lambda x: back(jax.random.bits(jax.random.fold_in(key(x), 1)))),
    "random_gamma": Case(lambda x: jax.random.gamma(jax.random.key(0), x)),
    "rng_uniform": Case(lambda x: lax.rng_uniform(x[0, 0], 2.0, (3,))),
    "rng_bit_generator": Case(
        lambda x: back(lax.rng_bit_generator(lax.reshape(word(x), (9,))[:4], (3,))[1])
    ),
    "threefry2x32": Case(lambda x: back(jp.threefry2x32_p.bind(*[word(x)] * 4)[0])),
    # reductions and windows without a rule
    "reduce_prod": Case(lambda x: lax.reduce_prod(x, (0,))),
    "reduce": Case(lambda x: lax.reduce(x, like(0.0, x), lambda a, b: a * b + a, (0,))),
    "reduce_window": Case(
        lambda x: lax.reduce_window(x, like(1.0, x), lambda a, b: a * b + a, **WINDOW)
    ),
    "cumprod": Case(lax.cumprod),
    "cumlogsumexp": Case(lax.cumlogsumexp),
    "scatter-sub": scatter(lax.scatter_sub),
    "scatter-mul": Case(
        lambda x: lax.scatter_mul(x, INDEX, like(C, x)[:2], SCATTER),
        lambda x, y: lax.scatter_mul(x, INDEX, y[:2], SCATTER),
    ),
    "scatter-min": scatter(lax.scatter_min),
    "scatter-max": scatter(lax.scatter_max),
    "select_and_gather_add": Case(
        lambda x: jp.select_and_gather_add_p.bind(
            x,
            like(C, x),
            select_prim=jp.ge_p,
            base_dilation=(1, 1),
            window_dilation=(1, 1),
            **WINDOW,
        )
    ),
    "select_and_scatter_add": Case(
        lambda x: jp.select_and_scatter_add_p.bind(
            x[:, :2], like(C, x), select_prim=jp.ge_p, **WINDOW
        )
    ),
    "select_and_scatter": Case(combined),
    # complex numbers
    "complex": Case(lambda x: lax.real(lax.complex(x, x))),
    "real": Case(lambda x: lax.real(lax.complex(x, x))),
    "imag": Case(lambda x: lax.imag(lax.complex(x, x))),
    "conj": Case(lambda x: lax.real(lax.conj(x))),
    "fft": Case(lambda x: lax.real(jnp.fft.rfft(x))),
    # linear algebra
    "cholesky": Case(lambda x: lax.linalg.cholesky(x, symmetrize_input=False)),
    "eig": Case(lambda x: lax.real(lax.linalg.eig(x)[0])),
    "eigh": Case(lambda x: lax.linalg.eigh(x, symmetrize_input=False)[1]),
    "hessenberg": Case(lambda x: lax.linalg.hessenberg(x)[0]),
    "householder_product": Case(lambda x: lax.linalg.householder_product(x, x[0])),
    "lu": Case(lambda x: lax.linalg.lu(x)[0]),
    "qr": Case(lambda x: lax.linalg.qr(x)[0]),
    "schur": Case(lambda x: lax.linalg.schur(x)[0]),
    "svd": Case(lambda x: lax.linalg.svd(x, compute_uv=False)),
    "triangular_solve": Case(lambda x: lax.linalg.triangular_solve(like(C, x), x, left_side=True)),
    "tridiagonal": Case(lambda x: lax.linalg.tridiagonal(x)[1]),
    "tridiagonal_solve": Case(
        lambda x: lax.linalg.tridiagonal_solve(*[like(C[0], x)] * 3, x),
    ),
    "custom_linear_solve": Case(
        lambda x: lax.custom_linear_solve(lambda v: like(C, x) @ v, x, lambda _, b: b)
    ),
    # calls
    "jit": Case(jax.jit(jnp.tanh)),
    "call": Case(call(jp.call_p)),
    "closed_call": Case(call(jp.closed_call_p)),
    "eval_jaxpr": Case(call(jp.call_p)),
    "remat2": Case(jax.checkpoint(jnp.tanh)),
    "composite": Case(lax.composite(jnp.tanh, "tests.tanh")),
    "custom_jvp_call": Case(jax.nn.relu, jnp.logaddexp),
    "custom_vjp_call": Case(backwards),
    "custom_lin": Case(lambda x: jax.linearize(backwards, jnp.ones_like(x))[1](x)),
    # control flow
    "scan": Case(lambda x: lax.scan(lambda c, v: (c * 2 + v, c), x[0], x)[1]),
    "cond": Case(lambda x: lax.cond(x.sum() > 0.5, jnp.tanh, jnp.exp, x)),
    "while": Case(lambda x: lax.while_loop(lambda v: v.sum() < 9, lambda v: 2 * v, x)),
    # devices
    "shard_map": Case(sharded(jnp.tanh)),
    "psum": Case(sharded(lambda x: lax.psum(x, "d"), outside=None, check=False)),
    "psum_invariant": Case(sharded(lambda x: lax.psum(x, "d"), outside=None)),
    "pmax": Case(sharded(lambda x: lax.pmax(x, "d"), outside=None)),
    "pmin": Case(sharded(lambda x: lax.pmin(x, "d"), outside=None)),
    "all_gather": Case(sharded(lambda x: lax.all_gather(x, "d", tiled=True))),
    "all_gather_invariant": Case(
        sharded(lambda x: parallel.all_gather_invariant(x, "d", tiled=True), outside=None)
    ),
    "all_to_all": Case(sharded(lambda x: lax.all_to_all(x, "d", 0, 0, tiled=True))),
    "ragged_all_to_all": Case(
        sharded(
            lambda x: lax.ragged_all_to_all(
                x, x, *[np.array([n], np.int32) for n in (0, 3, 0, 3)], axis_name="d"
            ),
            check=False,
        )
    ),
    "ppermute": Case(sharded(lambda x: lax.ppermute(x, "d", [(0, 0)]))),
    "reduce_scatter": Case(sharded(lambda x: lax.psum_scatter(x, "d", tiled=True))),
    "pvary": Case(sharded(lambda x: lax.pcast(x, "d", to="varying"), inside=None)),
    "axis_index": Case(sharded(lambda x: x * lax.axis_index("d"))),
    # effects
    "get": Case(lambda x: jax.new_ref(x)[...]),
    "swap": Case(written),
    "pure_callback": Case(
        lambda x: jax.pure_callback(np.tanh, jax.ShapeDtypeStruct(x.shape, x.dtype), x)
    ),
    "create_token": Case(lambda x: (jp.after_all_p.bind(jp.create_token_p.bind()), x)[1]),
    "after_all": Case(lambda x: (jp.after_all_p.bind(jp.create_token_p.bind()), x)[1]),
    "empty2": Case(
        lambda x: x + jp.empty2_p.bind(dtype=x.dtype, memory_space=jax.memory.Space.Device)
    ),
}


class Row(NamedTuple):
    """What the page says of a primitive."""

    what: str
    one: str
    several: str = ""


REFUSED = "refused"
NOTHING = "nothing flows"
CONSTANT = "a constant"
LOOKED_THROUGH = "looked through"
MOVED = "goes along"
INSIDE = "is explained inside"


CALLS = {**_compat.TRANSPARENT, **_compat.CUSTOM_DERIVATIVE}


def exported() -> set[str]:
    """The names of the primitives that JAX exports."""
    return {p.name for p in vars(jp).values() if isinstance(p, jex.Primitive)}


def used(jaxpr: Any) -> Iterator[str]:
    """The primitives in a jaxpr, and in those that it holds."""
    for eqn in _compat.open_jaxpr(jaxpr)[0].eqns:
        yield eqn.primitive.name
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from used(inner)


def occurs(name: str) -> bool:
    """Whether the installed JAX writes the primitive in the function that is to use it."""
    try:
        return name in used(jax.make_jaxpr(CASES[name].one)(jnp.asarray(X)))
    except (AttributeError, KeyError):
        return False  # a function of lax, or a parameter, that this version does not have


def outcome(name: str, f: Function, *args: Any) -> str:
    """What becomes of the relevance that has to cross the primitive in `f(*args)`."""

    def crossing(*values: Any) -> Any:
        return f(*values)

    argnums = tuple(range(len(args)))
    rules: dict[Any, Any] = {}
    try:
        plan = jxp.lrp(crossing, argnums=argnums).plan(*args)
        graph, rules = plan.graph, {row.layer: row.rule for row in plan}
    except NotAnalyzableError as error:
        if re.search(rf"`{re.escape(name)}` at primitives_page\.py:\d+", str(error)):
            return REFUSED
        assert str(error).startswith("no relevance can reach"), error
        graph = trace(crossing, *args, argnums=argnums)
    split = primitives.lookup(name).role is primitives.Role.SPLIT  # is read as slices
    nodes = [n for n in graph.program.walk() if n.primitive == ("slice" if split else name)]
    for step in graph.all_steps:
        if not set(nodes).isdisjoint(step.nodes):
            if step.kind in RULELESS:
                return MOVED if step.kind == "Structure" else INSIDE
            what = step.kind if step.op in (name, "") else f"{step.kind} ({step.op})"
            return f"{what}: {describe(rules[step])}"
    if any(v in graph.flow.active for n in nodes for v in n.inputs):
        return NOTHING
    return CONSTANT if nodes or name not in CALLS else LOOKED_THROUGH


def what(name: str) -> str:
    """What the table says that a primitive is."""
    row = primitives.lookup(name)
    if row.kind is not Kind.UNKNOWN:
        return row.kind.value
    if name in CALLS:
        return "a call of a function"
    return "control flow" if name in ("scan", "cond", "shard_map") else "—"


def measured() -> dict[str, Row]:
    """The rows of the primitives that the installed JAX has."""
    rows = {}
    with jax.enable_x64(True):
        for name, case in CASES.items():
            if occurs(name):
                found = [outcome(name, case.one, jnp.asarray(X))]
                if case.several is not None:
                    found.append(outcome(name, case.several, jnp.asarray(X), jnp.asarray(Y)))
                rows[name] = Row(what(name), *found)
    return rows


HEAD = """# Primitives

What becomes of relevance at every primitive of JAX: all that `jax.extend.core.primitives` exports,
and more. Written by `python tests/pages/primitives_page.py`, from the plan of a small function
for each; `tests/graph/test_primitives.py` traces them again, checks their maps in float64, and that
nothing is differentiated that is not in a table. Primitives that the JAX it runs on does not have
keep their line.

- *Affine (scale): Pass()* and the like: the layer it is in (alone, here), and the rule that this
  has by default. Affine layers get their rule from the composite where they have a kernel.
- *{moved}*: relevance goes where the values came from.
- *{nothing}*: its result depends on the input only through a decision, and counts as a constant.
- *{constant}*: it has no operand that depends on the input.
- *{through}*: its body is read as if it stood in the function.
- *{inside}*: a loop, a branch or a mesh of devices, which holds layers of its own.
- *{refused}*: `NotAnalyzableError` names it and the line. `unknown="gradient"`, or a rule of your
  own for `kind("Unknown")`, is a way out, but not for `while` and `swap`.

| primitive | what it is | one operand carries relevance | several do |
| --- | --- | --- | --- |
"""


def markdown(rows: dict[str, Row]) -> str:
    lines = [f"| {' | '.join((f'`{name}`', *row))} |\n" for name, row in sorted(rows.items())]
    words = {"moved": MOVED, "nothing": NOTHING, "constant": CONSTANT, "refused": REFUSED}
    head = HEAD.format(through=LOOKED_THROUGH, inside=INSIDE, **words)
    return head + "".join(lines)


def recorded() -> dict[str, Row]:
    """The rows on the page."""
    text = PAGE.read_text() if PAGE.exists() else ""
    return {
        name: Row(*row.split(" | ")) for name, row in re.findall(r"\| `(\S+)` \| (.*) \|", text)
    }


if __name__ == "__main__":
    PAGE.write_text(markdown(recorded() | measured()))
