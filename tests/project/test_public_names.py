"""What a user sees of the package: its names, and what objects print."""

import importlib
import inspect
import pkgutil
from types import ModuleType

import jax
import jax.numpy as jnp
import pytest

import jaxplain as jxp

PACKAGES = ["", ".analyzer", ".composites", ".frameworks", ".plot", ".rules", ".transforms"]
HIDING = {"input", "random"}  # with a star they would hide a builtin and a module


@pytest.mark.parametrize("name", PACKAGES)
def test_all_lists_what_is_public(name: str) -> None:
    module = importlib.import_module(f"jaxplain{name}")
    here = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_")
        and not isinstance(value, ModuleType)
        and getattr(value, "__module__", "jaxplain").startswith("jaxplain")
    }
    listed = set(module.__all__)
    assert all(hasattr(module, key) for key in listed)
    assert not HIDING & listed
    if name != ".composites":  # which also has helpers
        assert here - HIDING <= listed | {"TYPE_CHECKING"}


def test_help_and_completion_show_the_methods() -> None:
    text = "\n".join(inspect.getdoc(getattr(jxp, key)) or "" for key in jxp.__all__)
    assert "Layer-wise relevance propagation" in text
    shown = [name for name in dir(jxp) if not name.startswith("_")]
    assert {"lrp", "plot", "rules", "composites", "input"} <= set(shown)
    modules = {module.name for module in pkgutil.iter_modules(jxp.__path__)}
    assert set(shown) & modules <= {"composites", "plot", "rules"}
    assert jxp.plot.heatmap


def f(x: jax.Array) -> jax.Array:
    return jax.nn.relu(x) @ jnp.ones((3, 2))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (jxp.lrp(f), "Explainer(f, Epsilon())"),
        (jxp.lrp(f, argnums=0, stop="dense"), "Explainer(f, Epsilon(), stop='dense')"),
        (
            jxp.create_analyzer("lrp.epsilon", f, epsilon=0.1),
            "Analyzer('lrp.epsilon', f, epsilon=0.1)",
        ),
        (jxp.composites.kernel & ~jxp.composites.first, "kernel & ~first"),
    ],
)
def test_what_objects_print(value: object, text: str) -> None:
    assert str(value) == text
    assert len(repr(value)) < 200


def test_signatures_are_short() -> None:
    for name in jxp.__all__:
        value = getattr(jxp, name)
        error = isinstance(value, type) and issubclass(value, Exception)
        if callable(value) and not error:
            assert len(str(inspect.signature(value))) < 1000
