"""Packages that only some networks need, and the files inside of installed ones."""

from importlib import metadata
from pathlib import Path
from typing import Any

from jaxplain import extras


def package(name: str) -> Any:
    """Import a package of the extra `networks`.

    Raises:
        ImportError: It is not installed.
    """
    hint = 'pip install "jaxplain[networks]"'
    return extras.package(name, f"the package {name} is not installed; get it with {hint}")


def data_file(distribution: str, path: str) -> Path:
    """Locate a file that an installed distribution ships, without importing it.

    Args:
        distribution: Name of the distribution on PyPI.
        path: The file, relative to the folder the distribution is installed in.

    Returns:
        Where the file is.

    Raises:
        ImportError: The distribution is not installed, or this version of it lacks the file.
    """
    hint = 'pip install "jaxplain[demo]"'
    try:
        installed = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        message = f"the package {distribution} is not installed; get it with {hint}"
        raise ModuleNotFoundError(message) from None
    file = Path(str(installed.locate_file(path)))
    if not file.is_file():
        message = f"{distribution} {installed.version} has no {path}; the version of {hint} does"
        raise ImportError(message)
    return file
