"""Real networks are few and loaded once; jaxplain promotes nothing implicitly.

Tests compile far more than they compute: XLA leaves its expensive optimisations out, but where a
test is marked as `optimized`.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import numpy as np
import pytest

import jaxplain as jxp
from jaxplain import _compat
from jaxplain.transforms.explainer import Explainer
from jaxplain.transforms.wrapper import Wrapper

#: Made the arrays beside them, with other libraries.
collect_ignore_glob = ["references/*.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--models", type=int, default=600, help="how many random models to draw")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    optimized = item.get_closest_marker("optimized") is not None
    jax.config.update("jax_disable_most_optimizations", not optimized)
    return (yield)


@pytest.fixture(scope="session")
def lite0() -> Any:
    """EfficientNet-Lite0 with its ImageNet weights."""
    from jaxplain.models import efficientnet_lite0

    return jxp.from_linen(*efficientnet_lite0.load())


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever jaxplain computes promotes no dtype and no rank; the models it explains may."""

    def under(dtypes: str, ranks: str, f: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(f)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with jax.numpy_dtype_promotion(dtypes), jax.numpy_rank_promotion(ranks):
                return f(*args, **kwargs)

        return wrapped

    methods = [
        (Explainer, v) for v in ("__call__", "plan", "ledger", "activations", "outputs", "read")
    ]
    for owner, name in [*methods, (Wrapper, "__call__")]:
        monkeypatch.setattr(owner, name, under("strict", "raise", getattr(owner, name)))
    monkeypatch.setattr(_compat, "trace", under("standard", "allow", _compat.trace))
