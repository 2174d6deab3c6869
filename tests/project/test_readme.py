"""README's examples, run from top to bottom in one namespace."""

import contextlib
import io
import re
import sys
from pathlib import Path
from types import ModuleType

import jax.numpy as jnp
import pytest

from jaxplain.models import crepe_tiny

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```(python|text)\n(.*?)```", README, re.S)


def fetched() -> bool:
    try:
        crepe_tiny.load()
    except FileNotFoundError:
        return False
    return True


@pytest.mark.slow
def test_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They run, and print what stands behind them."""
    monkeypatch.chdir(tmp_path)
    example = ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", example)
    example.__dict__.update(f=jnp.matmul, x=jnp.ones((2, 4)), params=jnp.ones((4, 3)))
    printed, has_weights = "", fetched()
    for language, code in BLOCKS:
        if language == "text":
            assert [line.rstrip() for line in printed.splitlines()] == code.splitlines()
        elif has_weights or "crepe_tiny" not in code:
            with contextlib.redirect_stdout(io.StringIO()) as told:
                exec(compile(code, "example.py", "exec"), example.__dict__)
            printed = told.getvalue()
    assert {k[-7:]: v.shape for k, v in example.kernels.items()}["lstm/ig"] == (12, 4, 16)
    assert not has_weights or example.relevance.shape == (101, 1024)
    assert Path("maps.png").stat().st_size > 1000
