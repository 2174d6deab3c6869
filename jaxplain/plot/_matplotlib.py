"""The one door to matplotlib, which is optional."""

from typing import Any

from jaxplain.extras import package


def require(name: str) -> Any:
    """``matplotlib.<name>``, a submodule or an attribute.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    missing = 'this needs matplotlib, which is not installed: pip install "jaxplain[plot]"'
    matplotlib = package("matplotlib", missing)
    if hasattr(matplotlib, name):
        return getattr(matplotlib, name)
    return package(f"matplotlib.{name}", missing)
