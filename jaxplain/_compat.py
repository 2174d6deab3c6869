"""The moving parts of JAX: everything that has changed, or may change, between JAX versions.

No other file imports `jax.extend`, binds a primitive or reads the parameters of a container.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex_core
import jax.numpy as jnp
from jax.extend import source_info_util

Jaxpr = jex_core.Jaxpr
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
}

#: Functions with a derivative of their own, and the parameter that holds their primal.
CUSTOM_DERIVATIVE = {
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "call_hi_primitive": "_prim",  # custom_vjp with jax_custom_vjp3, and primitives in Python
}

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_MODELS = _HERE + "models" + os.sep  # a user's model as any other


def _folders(*packages: str) -> tuple[str, ...]:
    """Where packages are installed; nothing is imported."""
    specs = filter(None, map(importlib.util.find_spec, packages))
    return tuple(f"{where}{os.sep}" for s in specs for where in s.submodule_search_locations or ())


_JAX = _folders("jax", "jaxlib")
_LIBRARIES = (*_JAX, *_folders("flax", "equinox", "keras", "haiku", "optax", "jaxtyping"))
_FOREIGN = (*_LIBRARIES, *_folders("numpy"))
_STANDARD_LIBRARY = (os.path.dirname(os.__file__) + os.sep, sys.prefix + os.sep + "bin")


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


def spelled(value: Any) -> str:
    """What a value is, for messages: "float32[5, 4]", "str", "ndarray of dtype object"."""
    known = aval(value)
    if known is not None:
        return f"{known.dtype}{list(known.shape)}"
    dtype = f" of dtype {value.dtype}" if hasattr(value, "dtype") else ""
    return f"{type(value).__name__}{dtype}"


def end_in_user_code(error: BaseException) -> None:
    """Cuts the frames of JAX and other libraries off the end of an error's traceback.

    What is left ends in the user's code, or in jaxplain where the user's is not to blame. As JAX's
    own filter it does nothing when `jax_traceback_filtering` is off.
    """
    frame, last = error.__traceback__, None
    while frame is not None:
        file = frame.tb_frame.f_code.co_filename
        standard = file.startswith(_STANDARD_LIBRARY[0]) and "site-packages" not in file
        if not standard and not file.startswith(_FOREIGN):
            last = frame
        frame = frame.tb_next
    filtering = jax.config.jax_traceback_filtering  # type: ignore[attr-defined]
    if last is not None and filtering != "off":
        last.tb_next = None


def open_jaxpr(jaxpr: Any) -> tuple[Jaxpr, Sequence[Any]]:
    """Splits an open or closed jaxpr into the jaxpr and the values of its constants."""
    if hasattr(jaxpr, "jaxpr"):  # a ClosedJaxpr up to JAX 0.10
        return jaxpr.jaxpr, jaxpr.consts
    return jaxpr, getattr(jaxpr, "consts", ())


def body(eqn: Eqn, parameter: str) -> tuple[Jaxpr, Sequence[Any]]:
    """The jaxpr (and its constants) that a container equation holds."""
    inner = eqn.params[parameter]
    if hasattr(inner, "expand"):
        avals = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in inner.in_avals_flat]
        inner = jax.make_jaxpr(inner.expand)(*jax.tree.unflatten(inner.in_tree, avals))
    return open_jaxpr(inner)


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
    stack = source_info_util.current_name_stack()
    if name:
        stack = stack.extend(name)
    with source_info_util.user_context(eqn.source_info.traceback, name_stack=stack), _context(eqn):
        outputs = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(params))
    return list(outputs) if eqn.primitive.multiple_results else [outputs]


def _context(eqn: Eqn) -> Any:
    return eqn.ctx.manager


def is_library(jaxpr: Jaxpr) -> bool:
    """Whether a jitted function was written in JAX or a neural network library.

    Its equations may remember an earlier call: the user's line is that of the call.
    """
    where = getattr(jaxpr.debug_info, "func_filename", None) or ""
    return where.startswith(_LIBRARIES)


def scopes(eqn: Eqn) -> tuple[str, ...]:
    """The named scopes around an equation (a module path).

    Without transforms, einsum specs, and Equinox's scopes, which name classes and not modules.
    """
    stack = eqn.source_info.name_stack.stack
    names = [scope.name for scope in stack if type(scope).__name__ == "Scope"]
    return tuple(n for n in names if n and "->" not in n and not n.startswith("eqx.nn."))


def source_line(eqn: Eqn) -> str:
    """`file.py:line` of the user's code that made the equation ("" when unknown).

    The innermost frame outside of JAX, the neural network libraries and jaxplain itself; when
    there is none, the innermost frame outside of JAX and jaxplain.
    """
    traceback = eqn.source_info.traceback
    if traceback is None:
        return ""
    fallback = ""
    for frame in traceback.frames:
        file = frame.file_name
        if file.startswith(_HERE) and not file.startswith(_MODELS):
            continue
        if file.startswith(("<", _STANDARD_LIBRARY[1])):
            continue
        if file.startswith(_JAX):
            continue
        where = f"{os.path.basename(file)}:{frame.line_num}"
        if file.startswith(_LIBRARIES):
            fallback = fallback or where
            continue
        if file.startswith(_STANDARD_LIBRARY[0]) and "site-packages" not in file:
            continue
        return where
    return fallback
