"""Suggestions for misspelled names, and for options by the names that other libraries have."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypedDict, TypeVar, get_args

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: Options by their names in captum, zennit, shap, Quantus and iNNvestigate.
_ELSEWHERE = {
    "abs": "absolute",
    "augment_by_n": "samples",
    "background": "references",
    "baselines": "baseline",
    "baseline_fn": "baseline",
    "composite": "rule",
    "gradient_steps": "steps",
    "internal_batch_size": "batch_size",
    "method": "quadrature",
    "n_iter": "samples",
    "n_samples": "samples",
    "n_steps": "steps",
    "noise_level": "noise_scale",
    "noise_std": "noise_scale",
    "nsamples": "samples",
    "nt_samples": "samples",
    "perturbations_per_eval": "batch_size",
    "reference_inputs": "baseline",
    "return_convergence_delta": "with_gap",
    "shift_size": "strides",
    "sliding_window_shapes": "window",
    "stdev": "noise_scale",
    "stdevs": "noise_scale",
    "step": "steps",
    "stride": "strides",
}
#: Options that are given elsewhere, and where.
_NOT_HERE = {
    "attr_output": "a target is given in the call: explain(x, target=...)",
    "canonizers": "BatchNorm is part of its kernel without one: see explain.plan(x)",
    "label": "a target is given in the call: explain(x, target=...)",
    "target": "a target is given in the call: explain(x, target=...)",
}


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A question to end a message with; empty where no name is close."""
    by_lower_case = {known.lower(): known for known in names}
    matches = difflib.get_close_matches(name.lower(), by_lower_case, n=4, cutoff=0.5)
    close = [by_lower_case[key] for key in matches]
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def checked_options(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """A method whose unknown options are errors that name the right one."""
    known = _options(function)

    @functools.wraps(function)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        for name in kwargs:
            if name not in known:
                raise TypeError(f"{function.__name__} has no option {name!r}{_hint(name, known)}")
        return function(*args, **kwargs)

    return wrapper


def _hint(name: str, known: list[str]) -> str:
    if name in _NOT_HERE:
        return f"; {_NOT_HERE[name]}"
    other = _ELSEWHERE.get(name, "")
    there = f"; it has: {', '.join(known[1:])}"
    return f"; it is {other!r} here" if other in known else did_you_mean(name, known) or there


def _options(function: Callable[..., Any]) -> list[str]:
    """The names of a function's parameters, those of `**options: Unpack[Options]` too."""
    names = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not parameter.VAR_KEYWORD:
            names.append(name)
            continue
        (options,) = get_args(parameter.annotation) or (TypedDict,)
        names += getattr(options, "__annotations__", {})
    return names
