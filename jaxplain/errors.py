"""Errors that speak of the user's model."""

import functools
import re
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from jaxplain import origins

_P = ParamSpec("_P")
_T = TypeVar("_T")

_EVALUATION = (
    "give the model in evaluation mode: from_linen(module, variables, train=False) or "
    "deterministic=True for Flax linen, from_nnx(model) or model.eval() for nnx, "
    "from_equinox(model) or eqx.nn.inference_mode(model) for Equinox, from_keras(model) for Keras"
)
_TRACED = (
    "the function is traced as by jax.jit, its values are not known yet: use jax.numpy instead of "
    "numpy, jnp.where or jax.lax.cond instead of `if`, and neither float() nor int()"
)

DELETED = (
    "an argument or a weight was deleted: donated to a jitted function, perhaps (donate_argnums): "
    "explain before, or give it a copy"
)

#: Advice for well-known errors of JAX and its libraries, by a pattern in "Type: message".
_ADVICE = (
    ("InvalidRngError|requires a key|from a different trace level", _EVALUATION),
    ("ModifyScopeVariableError", _EVALUATION),
    (
        "unbound axis name",
        "the function reads other examples through an axis that it names, as BatchNorm does in "
        "training mode: give it in evaluation mode (from_equinox(model, state), or "
        "eqx.nn.inference_mode(model), for Equinox)",
    ),
    ("CallCompactUnboundModule", "make it a function first: jxp.from_linen(module, variables)"),
    (
        "ScopeCollectionNotFound",
        "from_linen needs all collections, as module.init returns them: "
        "{'params': ..., 'batch_stats': ...}",
    ),
    ("ScopeParamShapeError", "the weights belong to inputs of another shape"),
    ("Concretization|TracerBool|TracerInteger|TracerArray|NonConcreteBoolean", _TRACED),
    (
        "UnexpectedTracerError",
        "an argument, or an array that the function closes over, was kept from inside a jax "
        "transformation that has ended",
    ),
    (
        "Array has been deleted",
        DELETED,
    ),
)


def readable(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Errors inside `function` end in the user's code, and well-known ones say what to do.

    The error itself stays what it is, in type and message; advice is added as a note.
    """

    @functools.wraps(function)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            origins.end_in_user_code(error)
            text = f"{type(error).__name__}: {error}"
            advice = next((what for known, what in _ADVICE if re.search(known, text)), None)
            if advice and advice not in getattr(error, "__notes__", ()):
                error.add_note(advice)
            raise

    return wrapper


def join_some(texts: Iterable[str], most: int = 5) -> str:
    """Texts without repetition, the first `most` of them: "a, b and 7 more"."""
    texts = list(dict.fromkeys(texts))
    rest = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + rest


class NotAnalyzableError(Exception):
    """Relevance would have to cross an operation that no rule is known for."""


class CutOffError(NotAnalyzableError):
    """The output does not depend on what is explained, or only through discrete operations."""
