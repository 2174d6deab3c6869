"""What JAX moves is known to `_compat.py` alone; no tracer leaks from any transformation."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from jaxplain.rules import AlphaBeta, Epsilon, Flat

PACKAGE = Path(jxp.__file__).parent
#: Names that JAX moves between versions: everything but what its documentation calls public.
MOVING = ("jax._src", "jax.extend", "jax.interpreters", "jax.core")
#: `isinstance(x, jax.core.Tracer)` is documented.
ALLOWED = {"jax.core", "jax.core.Tracer"}
#: The parameters of the equations of containers.
CONTAINER_PARAMETERS = {"jaxpr", "call_jaxpr", "branches", "cond_jaxpr", "body_jaxpr", "ft_in"}


def _moving(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        elif (
            isinstance(node, ast.Subscript)
            and ast.unparse(node.value).endswith("params")
            and getattr(node.slice, "value", None) in CONTAINER_PARAMETERS
        ):
            yield ast.unparse(node)
        for name in names:
            if name.startswith(MOVING) and name not in ALLOWED:
                yield name


def test_only_compat_knows_what_jax_moves() -> None:
    found = {
        str(path.relative_to(PACKAGE)): sorted(set(_moving(ast.parse(path.read_text()))))
        for path in PACKAGE.rglob("*.py")
    }
    assert {file for file, names in found.items() if names} == {"_compat.py"}, found


W = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)
V = jnp.asarray(np.random.default_rng(1).normal(size=(6, 3)), jnp.float32)
X = jnp.asarray(np.random.default_rng(2).normal(size=(5, 4)), jnp.float32)


def f(x: Any, w: Any = W) -> Any:
    h = jax.checkpoint(lambda x: jax.nn.gelu(x @ w))(x)
    return jax.nn.softmax(h + jnp.square(h)) @ V


@pytest.mark.slow
@pytest.mark.versions
@pytest.mark.parametrize(
    "explain",
    [jxp.lrp(f, rule) for rule in (Epsilon(), AlphaBeta(), Flat())] + [jxp.gradient(f)],
    ids=lambda e: e.method.composite.name,
)
def test_no_tracer_leaks_through_any_transformation(explain: Any) -> None:
    """A leaked tracer raises at once under `jax.checking_leaks`."""
    x = X[:2]
    with jax.checking_leaks():
        expected = explain(x, target=1)
        every = explain(x, target="all")
        jitted = jax.jit(lambda x, k: explain(x, target=k))(x, 1)
        mapped = jax.vmap(lambda v: explain(v, target=1))(x)
        jax.grad(lambda x: jnp.square(explain(x, target=1)).sum())(x)
        scanned = jax.lax.scan(lambda c, v: (c, explain(v, target=1)), 0, x)[1]
    for found in (every[1], jitted, mapped, scanned):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.versions
def test_no_tracer_leaks_through_training_and_ledgers() -> None:
    explain = jxp.lrp(f, capture="elementwise", check_finite=False)

    def loss(w: Any) -> Any:
        relevance, captured = explain(X[:2], w, target=1)
        return jnp.square(relevance).sum() + sum(jnp.sum(v) for v in captured.values())

    with jax.checking_leaks():
        assert np.isfinite(jax.jit(jax.grad(loss))(W)).all()
        ledger = jxp.lrp(f).ledger(X[:2], per_example=True)
    assert ledger.error() < 1e-5
