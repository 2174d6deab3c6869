"""Packages that only some functions need: the extras of an installation."""

import importlib
from typing import Any


def package(name: str, missing: str) -> Any:
    """Imports a package.

    Args:
        name: its name, or that of a module inside.
        missing: what to say where it is not installed.

    Raises:
        ImportError: it is not installed.
    """
    try:
        importlib.import_module(name.partition(".")[0])  # what is inside may be loaded without it
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(missing) from error
