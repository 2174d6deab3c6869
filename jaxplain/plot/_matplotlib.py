"""The one door to matplotlib, which is optional."""

from __future__ import annotations

import importlib
from typing import Any


def require(name: str) -> Any:
    """``matplotlib.<name>``, a submodule or an attribute.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError as error:
        raise ImportError(
            'this needs matplotlib, which is not installed: pip install "jaxplain[plot]"'
        ) from error
    if hasattr(matplotlib, name):
        return getattr(matplotlib, name)
    return importlib.import_module(f"matplotlib.{name}")
