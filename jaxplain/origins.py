"""Where equations were written: in the user's code, or in a library that it calls."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import jax

from jaxplain._compat import Eqn, Jaxpr

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_MODELS = _HERE + "models" + os.sep  # a user's model as any other
_STANDARD_LIBRARY = (os.path.dirname(os.__file__) + os.sep, sys.prefix + os.sep + "bin")


def _folders(*packages: str) -> tuple[str, ...]:
    """Where packages are installed; nothing is imported."""
    specs = filter(None, map(importlib.util.find_spec, packages))
    return tuple(f"{where}{os.sep}" for s in specs for where in s.submodule_search_locations or ())


_JAX = _folders("jax", "jaxlib")
_FRAMEWORKS = _folders("flax", "equinox", "keras", "haiku", "optax", "jaxtyping")
_LIBRARIES = (*_JAX, *_FRAMEWORKS)
_EQUINOX_LOOPS = tuple(os.path.join(f, "internal", "_loop", "") for f in _folders("equinox"))
_FOREIGN = (*_LIBRARIES, *_folders("numpy"))


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


def is_library(jaxpr: Jaxpr) -> bool:
    """Whether a jitted function was written in JAX or a neural network library.

    Its equations may remember an earlier call: the user's line is that of the call. What is
    jitted by a library's own decorator, such as `eqx.filter_jit`, is the user's.
    """
    where = getattr(jaxpr.debug_info, "func_filename", None) or ""
    if where.startswith(_FRAMEWORKS):
        return not any(_is_called_back(eqn, where) for eqn in jaxpr.eqns)
    return where.startswith(_JAX)


def _is_called_back(eqn: Eqn, file: str) -> bool:
    """Whether an equation was made by the user's code that a library's file called."""
    frames = _frames(eqn)
    inner = list(takewhile(lambda frame: frame.file_name != file, frames))
    return len(inner) < len(frames) and any(_is_users(frame.file_name) for frame in inner)


def scopes(eqn: Eqn) -> tuple[str, ...]:
    """The named scopes around an equation (a module path).

    Without transforms, einsum specs, Equinox's scopes, which name classes and not modules, and
    linen's `cell.scan_fn` around `cell`.
    """
    stack = eqn.source_info.name_stack.stack
    names = [scope.name for scope in stack if type(scope).__name__ == "Scope"]
    names = [n for n in names if n and "->" not in n and not n.startswith("eqx.nn.")]
    after = (*names[1:], "")
    return tuple(n for n, inner in zip(names, after, strict=False) if n.split(".")[:-1] != [inner])


def source_line(*eqns: Eqn) -> str:
    """`file.py:line` of the user's code that made an equation ("" when unknown).

    The innermost frame outside of JAX, the neural network libraries and jaxplain itself; when
    there is none, the innermost frame of such a library, as `flax/…/linear.py:422`.

    Args:
        eqns: the equation and the loops around it, the innermost first: what a body remembers ends
            where its loop begins.
    """
    frames = [frame for eqn in eqns for frame in _frames(eqn)]
    for frame in frames:
        if _is_users(frame.file_name):
            return f"{os.path.basename(frame.file_name)}:{frame.line_num}"
    for frame in frames:
        if frame.file_name.startswith(_FRAMEWORKS):
            return f"{_in_package(frame.file_name)}:{frame.line_num}"
    return ""


def is_equinox_loop(eqn: Eqn) -> bool:
    """Whether the user's code called a while loop of Equinox, which made an equation."""
    called = takewhile(lambda frame: not _is_users(frame.file_name), _frames(eqn))
    return any(frame.file_name.startswith(_EQUINOX_LOOPS) for frame in called)


def _frames(eqn: Eqn) -> Sequence[Any]:
    """Where an equation was made, the innermost frame first."""
    traceback: Any = eqn.source_info.traceback
    return () if traceback is None else traceback.frames


def _is_users(file: str) -> bool:
    """Whether a file is the user's: of neither a library, Python nor jaxplain itself."""
    if file.startswith(("<", _STANDARD_LIBRARY[1], *_LIBRARIES)):
        return False
    if file.startswith(_STANDARD_LIBRARY[0]) and "site-packages" not in file:
        return False
    return not file.startswith(_HERE) or file.startswith(_MODELS)


def _in_package(file: str) -> str:
    """A library's file behind the name of the library, what is between left out."""
    folder = next(folder for folder in _FRAMEWORKS if file.startswith(folder))
    package, *between, name = (os.path.basename(folder[:-1]), *file[len(folder) :].split(os.sep))
    return "/".join([package, *["…"] * bool(between), name])
