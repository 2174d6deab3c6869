"""How the package is built: imports go one way, and no file is long.

Imports inside of functions and for type checkers count as any other: what needs a name to be
understood depends on it.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "jaxplain"
LONGEST = 450

#: From the bottom up: a place imports from its own line and from those above it.
ORDER = (
    {
        "_compat",
        "errors",
        "arguments",
        "by_value",
        "extras",
        "tables",
        "npz",
        "origins",
        "spelling",
        "unrolling",
    },
    {"graph"},
    {"affine"},
    {"rules"},
    {"matches"},
    {"composites"},
    {"plan", "notes", "ledger"},
    {"interpreter", "control_flow", "probes", "finite", "parameter_messages"},
    {"targets", "patterns"},
    {"transforms"},
    {"concepts"},
    {"analyzer"},
    {"frameworks", "models", "plot"},
    {""},  # the public face
    {"cli"},
    {"__main__"},
)

#: Places that are imported by these alone, besides themselves.
IMPORTED_BY = {"frameworks": {"", "cli", "models"}, "models": {"cli"}, "plot": {"", "cli"}}

#: Places that import nothing else of the package but `extras`: they see arrays.
APART = {"models", "plot"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(module: str) -> set[str]:
    """The modules of the package that a module imports, wherever in its file."""
    path = FILES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*(above if node.level else ()), *filter(None, [node.module])])
            names = {f"{base}.{alias.name}" for alias in node.names}
            imported |= {name if name in FILES else base for name in names}
    return {name for name in imported if name in FILES} - {module}


IMPORTS = {module: imports(module) for module in FILES}


def place(module: str) -> str:
    """The file or folder below `jaxplain` that a module is in; "" for the public face."""
    return module.split(".")[1] if "." in module else ""


def test_every_import_is_seen() -> None:
    assert "jaxplain.models.photographs" in IMPORTS["jaxplain.cli"]  # inside of a function
    assert "jaxplain.plot._matplotlib" in IMPORTS["jaxplain.plot.ledger"]  # relative
    assert "jaxplain.transforms.lrp" in IMPORTS["jaxplain.transforms.bilrp"]
    assert {place(module) for module in FILES} == set().union(*ORDER)


def needed(module: str) -> set[str]:
    """The modules that a module imports, directly or through others."""
    found: set[str] = set()
    stack = [module]
    while stack:
        new = IMPORTS[stack.pop()] - found
        found |= new
        stack += new
    return found


def test_no_import_goes_round_in_a_circle() -> None:
    assert not [module for module in FILES if module in needed(module)]


def test_imports_go_one_way() -> None:
    level = {name: i for i, places in enumerate(ORDER) for name in places}
    upward = [
        f"{module} imports {other}"
        for module, others in IMPORTS.items()
        for other in sorted(others)
        if level[place(other)] > level[place(module)]
    ]
    assert not upward


@pytest.mark.parametrize("name", sorted(IMPORTED_BY))
def test_what_stands_apart_is_imported_by_few(name: str) -> None:
    by = {place(m) for m, others in IMPORTS.items() if name in map(place, others)}
    assert by <= {name, *IMPORTED_BY[name]}


@pytest.mark.parametrize("name", sorted(APART))
def test_what_stands_apart_sees_arrays(name: str) -> None:
    seen = {place(o) for m, others in IMPORTS.items() if place(m) == name for o in others}
    assert seen <= {name, "extras"}


def test_no_file_is_long() -> None:
    lines = {module: len(path.read_text().splitlines()) for module, path in FILES.items()}
    assert not {module: count for module, count in lines.items() if count > LONGEST}
