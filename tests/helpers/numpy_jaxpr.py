"""Evaluates what JAX traces in numpy: for arrays of a few numbers that run once.

XLA takes some fifty milliseconds to compile one operation for one shape, numpy needs microseconds.
What numpy has no word for is left to JAX.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxplain import _compat

#: How often which primitive was left to JAX.
left_to_jax: Counter[str] = Counter()


def run(f: Callable[..., Any], *args: Any) -> Any:
    """`f(*args)`, a tree of numpy arrays."""
    closed, tree = jax.make_jaxpr(f, return_shape=True)(*args)
    jaxpr, consts = _compat.open_jaxpr(closed)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(args)]
    with np.errstate(all="ignore"):
        found = _evaluate(jaxpr, list(map(np.asarray, consts)), leaves)
    return jax.tree.unflatten(jax.tree.structure(tree), found)


def _evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    env |= dict(zip(jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Any:
        if isinstance(atom, _compat.Literal):
            return np.asarray(atom.val, atom.aval.dtype)
        return env[atom]

    for eqn in jaxpr.eqns:
        outputs = _equation(eqn, [read(v) for v in eqn.invars])
        for var, value in zip(eqn.outvars, outputs, strict=True):
            env[var] = value
    return [read(v) for v in jaxpr.outvars]


def _equation(eqn: Any, values: list[Any]) -> Sequence[Any]:
    name = eqn.primitive.name
    container = (_compat.TRANSPARENT | _compat.CUSTOM_DERIVATIVE).get(name)
    if container is not None:
        jaxpr, consts = _compat.body(eqn, container)
        return _evaluate(jaxpr, list(map(np.asarray, consts)), values)
    flow = _compat.control_flow(eqn)
    if flow is not None:
        return (_scan if flow.kind == "Loop" else _branch)(flow, values, eqn)
    if name in SEVERAL:
        return SEVERAL[name](*values, **eqn.params)
    if name in ONE:
        value = np.asarray(ONE[name](*values, **eqn.params))
        aval = eqn.outvars[0].aval
        if value.shape != aval.shape:
            value = np.broadcast_to(value, aval.shape)
        return [value.astype(aval.dtype, copy=False)]
    left_to_jax[name] += 1
    return [np.asarray(v) for v in _compat.bind(eqn, values)]


def _scan(flow: Any, values: list[Any], eqn: Any) -> list[Any]:
    ((jaxpr, consts),) = flow.bodies
    consts = list(map(np.asarray, consts))
    kept = flow.fixed + flow.carried
    fixed, carry, scanned = values[: flow.fixed], values[flow.fixed : kept], values[kept:]
    rows: list[Any] = [None] * flow.length
    for i in reversed(range(flow.length)) if flow.reverse else range(flow.length):
        outputs = _evaluate(jaxpr, consts, [*fixed, *carry, *(v[i] for v in scanned)])
        carry, rows[i] = outputs[: flow.carried], outputs[flow.carried :]
    stacked = [np.stack(column) for column in zip(*rows, strict=True)]
    return [*carry, *stacked]


def _branch(flow: Any, values: list[Any], eqn: Any) -> list[Any]:
    which = int(np.clip(int(values[0]), 0, len(flow.bodies) - 1))
    jaxpr, consts = flow.bodies[which]
    return _evaluate(jaxpr, list(map(np.asarray, consts)), values[1:])


# Primitives


def _plain(f: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays that needs no parameters."""
    return lambda *values, **_: f(*values)


def _erf(x: Any) -> Any:
    return np.vectorize(math.erf, otypes=[float])(x) if x.size else x


def _erfc(x: Any) -> Any:
    return np.vectorize(math.erfc, otypes=[float])(x) if x.size else x


def _dot(a: Any, b: Any, *, dimension_numbers: Any, **_: Any) -> Any:
    (ca, cb), (ba, bb) = dimension_numbers
    names = iter(range(a.ndim + b.ndim))
    of_a: list[Any] = [None] * a.ndim
    of_b: list[Any] = [None] * b.ndim
    for pairs in (zip(ba, bb, strict=True), zip(ca, cb, strict=True)):
        for i, j in pairs:
            of_a[i] = of_b[j] = next(names)
    batch = [of_a[i] for i in ba]
    free_a = [i for i in range(a.ndim) if of_a[i] is None]
    free_b = [i for i in range(b.ndim) if of_b[i] is None]
    for i in free_a:
        of_a[i] = next(names)
    for i in free_b:
        of_b[i] = next(names)
    out = [*batch, *(of_a[i] for i in free_a), *(of_b[i] for i in free_b)]
    return np.einsum(a, of_a, b, of_b, out)


def _broadcast(x: Any, *_: Any, shape: Any, broadcast_dimensions: Any, **__: Any) -> Any:
    inner = [1] * len(shape)
    for size, axis in zip(x.shape, broadcast_dimensions, strict=True):
        inner[axis] = size
    return np.broadcast_to(x.reshape(inner), shape)


def _pad(x: Any, value: Any, *, padding_config: Any) -> Any:
    shape = [
        low + high + n + max(n - 1, 0) * inside
        for n, (low, high, inside) in zip(x.shape, padding_config, strict=True)
    ]
    inner = [
        low + high + n + max(n - 1, 0) * inside - min(low, 0) - min(high, 0)
        for n, (low, high, inside) in zip(x.shape, padding_config, strict=True)
    ]
    found = np.full(inner, value, x.dtype)
    places = tuple(
        slice(max(low, 0), max(low, 0) + n + max(n - 1, 0) * inside, inside + 1)
        for n, (low, _, inside) in zip(x.shape, padding_config, strict=True)
    )
    found[places] = x
    cut = tuple(
        slice(max(-low, 0), max(-low, 0) + n)
        for n, (low, _, _) in zip(shape, padding_config, strict=True)
    )
    return found[cut]


def _slice(x: Any, *, start_indices: Any, limit_indices: Any, strides: Any) -> Any:
    steps = strides or [1] * x.ndim
    return x[tuple(map(slice, start_indices, limit_indices, steps))]


def _dynamic_slice(x: Any, *starts: Any, slice_sizes: Any) -> Any:
    begin = [
        int(np.clip(int(s), 0, n - k)) for s, n, k in zip(starts, x.shape, slice_sizes, strict=True)
    ]
    return x[tuple(slice(b, b + k) for b, k in zip(begin, slice_sizes, strict=True))]


def _dynamic_update_slice(x: Any, update: Any, *starts: Any) -> Any:
    begin = [
        int(np.clip(int(s), 0, n - k))
        for s, n, k in zip(starts, x.shape, update.shape, strict=True)
    ]
    found = x.copy()
    found[tuple(slice(b, b + k) for b, k in zip(begin, update.shape, strict=True))] = update
    return found


def _select(which: Any, *cases: Any) -> Any:
    if which.dtype == bool:
        return np.where(which, cases[1], cases[0])
    return np.choose(which, cases)


def _reduce(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, axes, **_: f(x, axis=tuple(axes))


def _cumulative(f: Any) -> Callable[..., Any]:
    def run(x: Any, *, axis: int, reverse: bool) -> Any:
        x = np.flip(x, axis) if reverse else x
        found = f.accumulate(x, axis=axis)
        return np.flip(found, axis) if reverse else found

    return run


def _split(x: Any, *, sizes: Any, axis: int) -> Any:
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def _arg(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, *, axes, **_: f(x, axis=axes[0])


def _integer_pow(x: Any, *, y: int, **_: Any) -> Any:
    return x**y if y >= 0 else 1 / x**-y


def _windows(x: Any, dimensions: Any, strides: Any, padding: Any, fill: Any) -> Any:
    x = _pad(x, fill, padding_config=[(low, high, 0) for low, high in padding])
    view = np.lib.stride_tricks.sliding_window_view(x, dimensions)
    return view[tuple(slice(None, None, s) for s in strides)]


def _pooling(f: Callable[..., Any], fill: float) -> Callable[..., Any]:
    def run(
        x: Any, *, window_dimensions: Any, window_strides: Any, padding: Any, base_dilation: Any,
        window_dilation: Any,
    ) -> Any:  # fmt: skip
        dilated = [(0, 0, d - 1) for d in base_dilation]
        x = _pad(x, fill, padding_config=dilated)
        assert all(d == 1 for d in window_dilation)
        view = _windows(x, window_dimensions, window_strides, padding, fill)
        return f(view, axis=tuple(range(x.ndim, 2 * x.ndim)))

    return run


def _conv(
    x: Any, kernel: Any, *, window_strides: Any, padding: Any, lhs_dilation: Any,
    rhs_dilation: Any, dimension_numbers: Any, feature_group_count: int, batch_group_count: int,
    **_: Any,
) -> Any:  # fmt: skip
    spec = dimension_numbers
    x, kernel = x.transpose(spec.lhs_spec), kernel.transpose(spec.rhs_spec)  # NC..., OI...
    if batch_group_count > 1:
        parts = np.split(x, batch_group_count, 0)
        x = np.concatenate(parts, 1)
        feature_group_count = batch_group_count
    config = [(0, 0, 0)] * 2
    config += [(*p, d - 1) for p, d in zip(padding, lhs_dilation, strict=True)]
    x = _pad(_pad(x, 0, padding_config=[(0, 0, i) for _, _, i in config]), 0,
             padding_config=[(low, high, 0) for low, high, _ in config])  # fmt: skip
    kernel = _pad(kernel, 0, padding_config=[(0, 0, 0)] * 2 + [(0, 0, d - 1) for d in rhs_dilation])
    space = tuple(range(2, x.ndim))
    view = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], space)
    view = view[(slice(None), slice(None), *(slice(None, None, s) for s in window_strides))]
    groups = feature_group_count
    batch, channels, *rest = view.shape
    outputs, inputs, *size = kernel.shape
    view = view.reshape(batch, groups, channels // groups, *rest)
    kernel = kernel.reshape(groups, outputs // groups, inputs, *size)
    rank = len(space)
    where = list(range(10, 10 + rank))
    within = list(range(20, 20 + rank))
    found = np.einsum(
        view, [0, 1, 2, *where, *within], kernel, [1, 3, 2, *within], [0, 1, 3, *where]
    )  # fmt: skip
    found = found.reshape(batch, outputs, *found.shape[3:])
    return found.transpose(np.argsort(spec.out_spec))


def _to_winners(
    r: Any, x: Any, *, select_prim: Any, window_dimensions: Any, window_strides: Any, padding: Any
) -> Any:
    """What arrives at the maxima (or minima) of windows, at the first of each."""
    best = -np.inf if select_prim.name == "ge" else np.inf
    places = np.broadcast_to(np.arange(x.size).reshape(x.shape), x.shape)
    view, index = (
        _windows(v, window_dimensions, window_strides, padding, fill)
        for v, fill in ((x, best), (places, -1))
    )
    view, index = (v.reshape(*r.shape, -1) for v in (view, index))
    winner = (np.argmax if best < 0 else np.argmin)(view, -1)[..., None]
    found = np.zeros(x.size, r.dtype)
    np.add.at(found, np.take_along_axis(index, winner, -1)[..., 0], r)
    return found.reshape(x.shape)


def _logistic(x: Any, **_: Any) -> Any:
    return 1 / (1 + np.exp(-x))


ONE: dict[str, Callable[..., Any]] = {
    **{
        name: _plain(f)
        for name, f in {
            "add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply,
            "div": np.divide, "neg": np.negative, "max": np.maximum, "min": np.minimum,
            "exp": np.exp, "exp2": np.exp2, "log": np.log, "log1p": np.log1p, "expm1": np.expm1,
            "tanh": np.tanh, "sin": np.sin, "cos": np.cos, "sqrt": np.sqrt, "cbrt": np.cbrt,
            "log2": np.log2, "one_minus_square": lambda x: 1 - x * x,
            "rsqrt": lambda x: 1 / np.sqrt(x), "abs": np.abs, "square": np.square, "pow": np.power,
            "sign": np.sign, "round": np.round, "floor": np.floor, "ceil": np.ceil,
            "gt": np.greater, "lt": np.less, "ge": np.greater_equal, "le": np.less_equal,
            "eq": np.equal, "ne": np.not_equal, "and": np.bitwise_and, "or": np.bitwise_or,
            "xor": np.bitwise_xor, "is_finite": np.isfinite, "select_n": _select, "erf": _erf,
            "erfc": _erfc, "stop_gradient": lambda x: x, "copy": lambda x: x, "copy_p": lambda x: x,
            "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
            "rem": np.fmod, "convert_element_type": lambda x: x, "reduce_precision": lambda x: x,
            "optimization_barrier": lambda x: x, "pvary": lambda x: x,
            "dynamic_update_slice": _dynamic_update_slice,
        }.items()
    },
    "not": lambda x: ~x,
    "logistic": _logistic,
    "integer_pow": _integer_pow,
    "dot_general": _dot,
    "conv_general_dilated": _conv,
    "broadcast_in_dim": _broadcast,
    "reshape": lambda x, *, new_sizes, dimensions, **_: (
        x if dimensions is None else x.transpose(dimensions)
    ).reshape(new_sizes),
    "squeeze": lambda x, *, dimensions: np.squeeze(x, tuple(dimensions)),
    "transpose": lambda x, *, permutation: x.transpose(permutation),
    "rev": lambda x, *, dimensions: np.flip(x, tuple(dimensions)),
    "concatenate": lambda *xs, dimension: np.concatenate(xs, dimension),
    "pad": _pad,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "iota": lambda *_, dtype, shape, dimension, **__: np.arange(shape[dimension]).reshape(
        [-1 if i == dimension else 1 for i in range(len(shape))]
    ),
    "reduce_sum": _reduce(np.sum),
    "reduce_max": _reduce(np.max),
    "reduce_min": _reduce(np.min),
    "reduce_prod": _reduce(np.prod),
    "reduce_and": _reduce(np.all),
    "reduce_or": _reduce(np.any),
    "argmax": _arg(np.argmax),
    "argmin": _arg(np.argmin),
    "cumsum": _cumulative(np.add),
    "cummax": _cumulative(np.maximum),
    "cumprod": _cumulative(np.multiply),
    "reduce_window_sum": _pooling(np.sum, 0.0),
    "select_and_scatter_add": _to_winners,
    "stack": lambda *xs, axis: np.stack(xs, axis),
    "empty2": lambda *, dtype, **_: np.zeros((), dtype),
    "reduce_window_max": _pooling(np.max, -np.inf),
}  # fmt: skip
SEVERAL: dict[str, Callable[..., Any]] = {
    "split": _split,
    "optimization_barrier": lambda *values: values,
}
