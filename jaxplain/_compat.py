"""The moving parts of JAX: everything that has changed, or may change, between JAX versions.

No other file imports `jax.extend`, binds a primitive or reads the parameters of a container.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.extend.core as jex_core
import jax.numpy as jnp
from jax.extend import linear_util, source_info_util
from jax.interpreters.partial_eval import dce_jaxpr

Jaxpr = jex_core.Jaxpr
WrappedFun = linear_util.WrappedFun
Eqn = jex_core.JaxprEqn
Literal = jex_core.Literal
DropVar = jex_core.DropVar

#: Primitives whose body is evaluated as if it stood in the caller, and the parameter that holds it.
TRANSPARENT = {
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "call": "call_jaxpr",
    "remat2": "jaxpr",
    "eval_jaxpr": "call_jaxpr",
    "composite": "call_jaxpr",
}

#: The scope of a function whose loops are written out for the explanation.
UNROLLED = "jaxplain.unroll"

#: Of these, the one whose values are computed again in the backward pass.
REMAT = "remat2"

#: The primitives of functions with a custom derivative, and the parameter that holds their primal.
CUSTOM_DERIVATIVE = {
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "call_hi_primitive": "_prim",  # custom_vjp with jax_custom_vjp3, and primitives in Python
}

#: Primitives that hold functions of their own.
LOOKED_INTO = frozenset({*TRANSPARENT, *CUSTOM_DERIVATIVE, "scan", "cond", "shard_map"})


def trace(f: Callable[..., Any], *args: Any) -> tuple[Any, Any]:
    """Traces `f` to `(closed jaxpr, output tree of ShapeDtypeStruct)`, never from a cache.

    JAX caches jaxprs on the identity of the function, with the arrays it closed over: after an
    in-place update of a model, or inside another transformation, they would be stale.
    """
    return jax.make_jaxpr(lambda *a: f(*a), return_shape=True)(*args)


def aval(value: Any) -> Any:
    """The shape and dtype of anything that JAX takes for an array; None when it does not."""
    try:
        return jax.typeof(value)
    except (TypeError, ValueError):
        return None


def varying(value: Any) -> frozenset[str]:
    """The mesh axes along which a value, or what an abstract value stands for, may vary.

    There are none outside of `jax.shard_map`, and where it does not check.
    """
    known = value if hasattr(value, "manual_axis_type") else aval(value)
    return getattr(getattr(known, "manual_axis_type", None), "varying", frozenset())


def along(value: Any, axes: Iterable[str]) -> jax.Array:
    """The value as one that varies along mesh axes, though it may not."""
    missing = tuple(sorted(set(axes) - varying(value)))
    return jax.lax.pcast(value, missing, to="varying") if missing else value


def context() -> tuple[Any, ...]:
    """The settings, and the mesh, that a trace depends on."""
    settings = (getattr(jax.config, name, None) for name in _SETTINGS)
    return (*settings, jax.sharding.get_abstract_mesh())


_SETTINGS = (
    "jax_enable_x64 jax_default_matmul_precision jax_numpy_dtype_promotion jax_debug_nans "
    "jax_numpy_rank_promotion jax_default_prng_impl jax_threefry_partitionable jax_default_device"
).split()


def now() -> Any:
    """A context in which operations on known values run, whatever is being traced around it."""
    return jax.core.eval_context()


def zeros(like: Any, dtype: Any) -> jax.Array:
    """Zeros like what an abstract value stands for, in another dtype."""
    return along(placed(jnp.zeros(like.shape, dtype), like), varying(like))


def placed(value: jax.Array, like: Any) -> jax.Array:
    """The value, sharded as another array of its shape is, where shardings are part of types."""
    if not is_explicit():
        return value
    known = aval(like) if isinstance(like, jax.Array) else like
    return jax.sharding.reshard(value, known.sharding.spec)


def is_explicit() -> bool:
    """Whether arrays have shardings as part of their types: an axis of the mesh is explicit."""
    mesh: Any = jax.sharding.get_abstract_mesh()
    return bool(mesh.explicit_axes)


def mesh_of(avals: Iterable[Any]) -> Callable[[], Any] | None:
    """A context with the mesh of explicitly sharded arrays, for where none is set; else None."""
    shardings = (getattr(v, "sharding", None) for v in avals)
    meshes = [s.mesh for s in shardings if s is not None and s.mesh.explicit_axes]
    if not meshes or is_explicit():
        return None
    return partial(jax.sharding.use_abstract_mesh, meshes[0])


def mapped(function: Callable[..., Any], *args: Any) -> Any:
    """A function of each entry along the leading axis; one by one where arrays are sharded.

    `jax.vmap` merges axes, which explicit shardings do not allow.
    """
    if is_explicit():
        return jax.lax.map(lambda entry: function(*entry), args)
    return jax.vmap(function)(*args)


def retyped(like: Any, dtype: Any) -> Any:
    """The abstract value of an array in another dtype."""
    known = aval(like)
    return known.update(dtype=jnp.dtype(dtype), weak_type=False)


def open_jaxpr(jaxpr: Any) -> tuple[Jaxpr, Sequence[Any]]:
    """Splits an open or closed jaxpr into the jaxpr and the values of its constants."""
    if hasattr(jaxpr, "jaxpr"):  # a ClosedJaxpr up to JAX 0.10
        return jaxpr.jaxpr, jaxpr.consts
    return jaxpr, getattr(jaxpr, "consts", ())


def pruned(jaxpr: Jaxpr) -> Jaxpr:
    """The jaxpr without what its outputs do not need, also inside of loops and branches."""
    return dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)[0]


def body(eqn: Eqn, parameter: str) -> tuple[Jaxpr, Sequence[Any]]:
    """The jaxpr (and its constants) that a container equation holds."""
    inner = eqn.params["jaxpr" if parameter not in eqn.params else parameter]  # up to JAX 0.10
    if hasattr(inner, "expand"):
        avals = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in inner.in_avals_flat]
        inner = jax.make_jaxpr(inner.expand)(*jax.tree.unflatten(inner.in_tree, avals))
    return open_jaxpr(inner)


def inside(eqn: Eqn) -> list[Jaxpr]:
    """The jaxprs among an equation's parameters."""
    leaves = [v for p in eqn.params.values() for v in (p if isinstance(p, tuple | list) else (p,))]
    return [open_jaxpr(v)[0] for v in leaves if hasattr(v, "eqns") or hasattr(v, "jaxpr")]


def without_jit(body: tuple[Jaxpr, Sequence[Any]]) -> tuple[Jaxpr, Sequence[Any]]:
    """A jaxpr (and its constants) without a jit around all of it."""
    jaxpr, _ = body
    for eqn in jaxpr.eqns:
        ends = eqn.invars == jaxpr.invars and eqn.outvars == jaxpr.outvars
        if ends and eqn.primitive.name == "jit":
            return open_jaxpr(eqn.params["jaxpr"])
    return body


@dataclass(frozen=True)
class ControlFlow:
    """The operands of a control flow equation, and its bodies.

    Attributes:
        kind: "Loop", "Branch" or "Shards".
        bodies: the jaxprs (with their constants) that it holds.
        selectors: how many operands only choose between them; the others go in, in this order:
        fixed: how many go in as they are,
        carried: how many go in first, and come out of every iteration into the next one,
        scanned: how many go in slice by slice.
        length: the number of iterations; None where there are none.
        reverse: whether the last slice comes first.
    """

    kind: str
    bodies: tuple[tuple[Jaxpr, Sequence[Any]], ...]
    selectors: int
    fixed: int
    carried: int
    scanned: int
    length: int | None
    reverse: bool = False


def control_flow(eqn: Eqn) -> ControlFlow | None:
    """The control flow of a scan, cond or shard_map; None for other equations."""
    params, operands = eqn.params, len(eqn.invars)
    if eqn.primitive.name == "scan":
        if "ft_in" in params:
            fixed, carried, _ = (len(list(tree)) for tree in params["ft_in"].unpack())
        else:  # up to JAX 0.10
            fixed, carried = params["num_consts"], params["num_carry"]
        body = open_jaxpr(params["jaxpr"])
        scanned = operands - fixed - carried
        length, reverse = params["length"], params["reverse"]
        return ControlFlow("Loop", (body,), 0, fixed, carried, scanned, length, reverse)
    if eqn.primitive.name == "cond":
        branches = tuple(map(open_jaxpr, params["branches"]))
        return ControlFlow("Branch", branches, 1, operands - 1, 0, 0, None)
    if eqn.primitive.name == "shard_map":
        return ControlFlow("Shards", (open_jaxpr(params["jaxpr"]),), 0, operands, 0, 0, None)
    return None


def deciding(eqn: Eqn) -> int:
    """How many operands only decide how often a loop of unknown length runs: the first ones."""
    return int(eqn.params.get("cond_nconsts", 0))


def primitive_name(eqn: Eqn) -> str:
    """The name of an equation's primitive; under `vmap`, of the one that Equinox batches."""
    name = eqn.primitive.name
    return name if name != "vprim" else eqn.params["prim"].name


def writes(eqn: Eqn) -> bool:
    """Whether an equation changes an array in place."""
    return any(type(e).__name__ in ("WriteEffect", "AccumEffect") for e in eqn.effects)


def rematerialize(eqn: Eqn, function: Callable[[], Any]) -> Any:
    """Calls a function under `jax.checkpoint`, as a remat equation does its body."""
    options = {key: eqn.params[key] for key in ("prevent_cse", "policy")}
    return jax.checkpoint(function, **options)()


def scan(eqn: Eqn, body: Callable[..., Any], carry: Any, scanned: Any) -> Any:
    """`jax.lax.scan` as a scan equation does it."""
    options = {key: eqn.params[key] for key in ("length", "reverse", "unroll")}
    return jax.lax.scan(body, carry, scanned, **options)


def shard(eqn: Eqn, body: Callable[..., Any], operands: Any, hung: Any, outside: Any) -> Any:
    """`jax.shard_map` as an equation does it, with more operands and outputs.

    Args:
        eqn: the equation.
        body: called with what a device has of the operands and of the arrays hung in; returns its
            outputs, and what is read out.
        operands: the operands.
        hung: a pair of the arrays hung in and their specs, a prefix of their tree.
        outside: the specs of what is read out.
    """
    params = eqn.params
    arrays, specs = hung
    mapped = jax.shard_map(
        body,
        mesh=params["mesh"],
        in_specs=(list(params["in_specs"]), specs),
        out_specs=(list(params["out_specs"]), outside),
        check_vma=params["check_vma"],
        axis_names=_manual(eqn),
    )
    return mapped(operands, arrays)


def shard_axes(eqn: Eqn, local: Any) -> tuple[str, ...]:
    """The mesh axes along which a value inside of a shard_map may differ."""
    differs = varying(local) if eqn.params["check_vma"] else _manual(eqn)
    return tuple(axis for axis in eqn.params["mesh"].axis_names if axis in differs)


def shard_count(eqn: Eqn, local: Any) -> int:
    """How many values there are of one inside of a shard_map."""
    return math.prod(eqn.params["mesh"].shape[axis] for axis in shard_axes(eqn, local))


def mesh(eqn: Eqn) -> str:
    """The mesh of a shard_map, for people: "d=4, m=2"."""
    shape = eqn.params["mesh"].shape
    return ", ".join(f"{axis}={shape[axis]}" for axis in shape if axis in _manual(eqn))


def every_shard(eqn: Eqn, value: Any) -> jax.Array:
    """A value that is the same on all devices, as one that may differ."""
    return along(value, _manual(eqn)) if eqn.params["check_vma"] else value


def share(value: jax.Array, like: jax.Array) -> jax.Array:
    """A value's part on each device where another one varies: they add up to the value."""
    missing = varying(like) - varying(value)
    return along(value / math.prod(map(jax.lax.axis_size, missing)), missing) if missing else value


def _manual(eqn: Eqn) -> set[str]:
    params = eqn.params
    return set(params["manual_axes"] if "manual_axes" in params else params["newly_manual_axes"])


def shape(atom: Any) -> tuple[int, ...]:
    """The shape of a variable or literal."""
    return tuple(atom.aval.shape)


def boolean(atom: Any) -> bool:
    """Whether a variable or literal holds truth values."""
    return atom.aval.dtype == bool


def floating(atom: Any) -> bool:
    """Whether a variable or literal is of a real or complex floating dtype."""
    return jnp.issubdtype(atom.aval.dtype, jnp.inexact)


def bind(
    eqn: Eqn, values: Sequence[Any], name: str = "", dtype: Any = None, linear: bool = False
) -> list[Any]:
    """Evaluates one equation on `values`; its outputs, always as a list.

    The user's traceback and the layer's name travel along, so that profiles and later errors speak
    of the user's code.

    Args:
        eqn: the equation.
        values: its operands.
        name: where it stands in the user's model.
        dtype: computed in this dtype whatever the equation says, and the operands. Kernels that
            multiply bfloat16 by bfloat16 go on to do so, and accumulate in it.
        linear: only the linear part: what a gather fills up with is zero.
    """
    params = eqn.params
    if linear and "fill_value" in params:
        params = params | {"fill_value": 0}
    if dtype is not None:
        typed = {k: dtype for k in ("preferred_element_type", "new_dtype") if k in params}
        own: list[Any] = [atom.aval for atom in eqn.invars]
        written = all(a.dtype == jnp.bfloat16 for a in own)
        still = any(value.dtype == jnp.bfloat16 for value in values)
        narrow = "preferred_element_type" in typed and written and still
        values = [
            jnp.asarray(value, jnp.bfloat16 if narrow else dtype) if floating(atom) else value
            for atom, value in zip(eqn.invars, values, strict=True)
        ]
        params = params | typed
    if eqn.primitive.name == "pvary":  # what a rule makes may vary already
        return [along(values[0], params["axes"])]
    if linear and eqn.primitive.name == "name":  # checkpoint_name, which has no transpose rule
        return list(values)
    axes = frozenset().union(*map(varying, values))
    if any(isinstance(value, jax.core.Tracer) for value in values):  # none among known values
        axes = axes.union(*(varying(atom.aval) for atom in eqn.invars))
    if axes:  # constants made by a rule vary along none
        values = [along(value, axes) for value in values]
    stack = source_info_util.current_name_stack()
    if name:
        stack = stack.extend(name)
    source = source_info_util.user_context(eqn.source_info.traceback, name_stack=stack)
    with source, eqn.ctx.manager:
        outputs = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(params))
    return list(outputs) if eqn.primitive.multiple_results else [outputs]
