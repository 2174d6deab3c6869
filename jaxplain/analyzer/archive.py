"""Settings and fitted arrays as a file: npz, JSON inside, no pickle."""

import json
from collections.abc import Mapping
from dataclasses import fields
from os import PathLike
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxplain import npz, rules
from jaxplain.rules import Rule

VERSION = 1
_MAGIC = "jaxplain analyzer"


def encode(value: Any, arrays: dict[str, np.ndarray], where: str) -> Any:
    """A setting as JSON; arrays are put aside under a name.

    Raises:
        TypeError: it cannot be written: a function, or a rule that is not of jaxplain.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic) and value.dtype != jnp.bfloat16:
        return value.item()
    if isinstance(value, type) and issubclass(value, Rule):
        value = value()
    if hasattr(value, "__array__"):
        arrays[where] = np.asarray(value)
        if arrays[where].dtype == jnp.bfloat16:  # npz knows no bfloat16
            arrays[where] = arrays[where].astype(np.float32)
        return {"array": where}
    if isinstance(value, list | tuple):
        items = [encode(v, arrays, f"{where}/{i}") for i, v in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, Mapping):
        pairs = ((k, f"{where}/{_escaped(k)}") for k in value)
        return {"dict": [[k, encode(value[k], arrays, place)] for k, place in pairs]}
    if isinstance(value, Rule) and getattr(rules, type(value).__name__, None) is type(value):
        options = {f.name: getattr(value, f.name) for f in fields(value)}
        return {"rule": type(value).__name__, "options": encode(options, arrays, where)}
    raise TypeError(
        f"{where} holds {value!r}, which no file can hold: save what is given by a name, a number, "
        "an array or a rule of jaxplain.rules"
    )


def _escaped(key: str) -> str:
    """A part of an array's name: "a/b" is not "b" in "a"."""
    return key.replace("%", "%25").replace("/", "%2F")


def decode(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The inverse of `encode`."""
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "tuple" in value:
        return tuple(decode(v, arrays) for v in value["tuple"])
    if "list" in value:
        return [decode(v, arrays) for v in value["list"]]
    if "dict" in value:
        return {k: decode(v, arrays) for k, v in value["dict"]}
    return getattr(rules, value["rule"])(**decode(value["options"], arrays))


def write(path: str | PathLike[str], state: Mapping[str, Any]) -> None:
    """Writes a state of settings and arrays.

    Raises:
        TypeError: a setting cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(encode(dict(state), arrays, "analyzer"))
    with open(path, "wb") as file:
        np.savez_compressed(file, **{_MAGIC: np.asarray([str(VERSION), text])}, **arrays)  # type: ignore[arg-type]


def read(path: str | PathLike[str]) -> dict[str, Any]:
    """Reads a file that `write` wrote.

    Raises:
        ValueError: the file is incomplete, holds something else, or was written by a newer version.
        FileNotFoundError: there is no such file.
    """
    arrays = npz.read(path, "save_npz")
    if _MAGIC not in arrays:
        raise ValueError(f"{path} was not written by save_npz: it holds {sorted(arrays)[:4]}")
    try:
        version, text = map(str, arrays.pop(_MAGIC))
        if int(version) > VERSION:
            raise ValueError(
                f"{path} was written in format {version}; this jaxplain reads up to {VERSION}: "
                "update jaxplain"
            )
        state = dict(decode(json.loads(text), arrays))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if "update jaxplain" in str(error):
            raise
        raise ValueError(f"{path} is damaged: {error}") from error
    if missing := {"name", "compat", "options", "statistics"} - set(state):
        raise ValueError(f"{path} is damaged: it lacks {', '.join(sorted(missing))}")
    return state
