"""Traced functions that explainers share: each is kept for as long as its function lives.

`jxp.lrp(f, rule)(x)`, written twice, is two explainers of one function. The second finds what the
first one planned and compiled, by the function, the method with its options, and the shapes.
"""

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import jax

from jaxplain.transforms.traced import Traced

#: How many traced functions one function keeps: a flood of shapes or options drops the oldest.
MOST = 64

_lock = threading.Lock()
_kept: dict[int, tuple[Any, "OrderedDict[Hashable, Traced]"]] = {}
_alive: "weakref.WeakValueDictionary[Hashable, Traced]" = weakref.WeakValueDictionary()


def find(f: Any, key: Hashable) -> Traced | None:
    """What was kept for a function, or for another model of the same structure."""
    with _lock:
        found = _of(f).get(key)
        if found is None and is_model(f):
            found = _alive.get(key)
        return found


def keep(f: Any, key: Hashable, traced: Traced) -> None:
    """Keeps a traced function for as long as `f` lives."""
    with _lock:
        kept = _of(f)
        kept[key] = traced
        kept.move_to_end(key)
        if len(kept) > MOST:
            kept.popitem(last=False)
        if is_model(f):
            _alive[key] = traced


def is_model(f: Any) -> bool:
    """Whether a function is a pytree: its arrays are arguments, the rest is part of the key."""
    return not jax.tree_util.treedef_is_leaf(jax.tree.structure(f))


def _of(f: Callable[..., Any]) -> "OrderedDict[Hashable, Traced]":
    """What is kept for a function; nothing where nobody can tell how long it lives."""
    owner = getattr(f, "_jaxplain_owner", f)  # of a framework's model, the user's own object
    number = id(owner)
    if number not in _kept:
        try:
            alive = weakref.ref(owner, partial(_forget, _kept, number))
        except TypeError:
            return OrderedDict()
        _kept[number] = alive, OrderedDict()
    return _kept[number][1]


def _forget(kept: dict[int, Any], number: int, _: Any) -> None:
    kept.pop(number, None)
