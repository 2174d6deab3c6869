"""Errors that speak of the user's model."""

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from jaxplain import _compat

if TYPE_CHECKING:
    from jaxplain.graph.layer import Layer

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

#: What to do about well-known errors of JAX and its libraries, by a pattern in "Type: message".
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
        "an argument or a weight was donated to a jitted function (donate_argnums), or deleted: "
        "explain before, or give it a copy",
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
            _compat.end_in_user_code(error)
            spelled = f"{type(error).__name__}: {error}"
            advice = next((text for known, text in _ADVICE if re.search(known, spelled)), None)
            if advice and advice not in getattr(error, "__notes__", ()):
                error.add_note(advice)
            raise

    return wrapper


def listed(found: Iterable[str], most: int = 5) -> str:
    """Texts without repetition, the first of them where they are many."""
    texts = list(dict.fromkeys(found))
    rest = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + rest


class NotAnalyzableError(Exception):
    """Relevance would have to cross an operation that no rule is known for."""


class CutOffError(NotAnalyzableError):
    """The output does not depend on what is explained, or only through discrete operations."""


def not_analyzable(layers: "Sequence[Layer]") -> NotAnalyzableError:
    """The error for layers without a rule."""
    loops = [layer for layer in layers if layer.main.primitive == "while"]
    complexes = [layer for layer in layers if layer.is_complex]
    others = [layer for layer in layers if layer not in complexes]
    lines = [
        f"  `{layer.main.primitive}` at {_place(layer)} (layer {layer.index}: {layer.name})"
        for layer in others[:5]
    ]
    if len(others) > 5:
        lines.append(f"  and {len(others) - 5} more")
    if complexes:
        lines.append(
            f"  complex arithmetic at {listed(map(_place, complexes))}: write the real and the "
            "imaginary parts of these values as real arrays"
        )
    if loops:
        bounded = any(_compat.is_equinox_loop(layer.main.origins[0]) for layer in loops)
        lines.append(
            "How often a while_loop runs is known only when it does, and nothing can go backward "
            "through it: use jax.lax.scan, or jax.lax.fori_loop between bounds that are Python "
            "ints (for a loop that may end early, with jax.lax.cond inside)"
            + (', or Equinox\'s kind="bounded".' if bounded else ".")
        )
    return NotAnalyzableError(
        "relevance would have to cross operations that no rule is known for:\n"
        + "\n".join(lines)
        + "\nWays out: give them a rule of your own in a composite, e.g. "
        "Composite([(kind('Unknown'), MyRule())]) with 'Unknown' in MyRule.kinds; rewrite them "
        "with known operations; put jax.lax.stop_gradient around them if they are not to be "
        'explained; or pass unknown="gradient" to differentiate them as written (relevance is then '
        "not conserved)."
    )


def _place(layer: "Layer") -> str:
    return layer.location or "unknown place"
