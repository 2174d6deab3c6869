"""Real networks are few, slow and loaded once; jaxplain promotes nothing implicitly.

Those whose weights have not been fetched are skipped, but in continuous integration (CI is set).

Tests compile far more than they compute: XLA leaves its expensive optimisations out, but where a
test is marked as `optimized`.
"""

import gc
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache, wraps
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np
import pytest

import jaxplain as jxp
from jaxplain import _compat
from jaxplain.models._weights import WEIGHTS, weights_file
from jaxplain.transforms.explainer import Explainer
from jaxplain.transforms.wrapper import Wrapper

#: Scripts that need other frameworks.
collect_ignore_glob = ["references/*.py"]

#: The files that take longest.
LONG = {"test_layout_fuzz", "test_properties", "test_applications", "test_analyzer"}
LONG |= {"test_references", "test_versions", "test_networks", "test_notebooks", "test_recurrent"}

#: Halve what compiling costs. The second is gone, and fatal, since jaxlib 0.11.
_CHEAP = ["--xla_cpu_parallel_codegen_split_count=1"]
_DEVICES = ["--xla_force_host_platform_device_count=8"]
if version("jaxlib").startswith("0.10."):
    _CHEAP.append("--xla_cpu_use_fusion_emitters=false")


def pytest_configure() -> None:
    given = os.environ.get("XLA_FLAGS", "")  # read when the first array is made
    flags = [flag for flag in (*_CHEAP, *_DEVICES) if flag not in given]
    os.environ["XLA_FLAGS"] = " ".join([given, *flags])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--models", type=int, default=60, help="how many random models to draw")
    parser.addoption("--layouts", type=int, default=60, help="how many random layouts to draw")


def pytest_collection_finish() -> None:
    """What frameworks and tests consist of stays: nobody needs to look through it for garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    optimized = item.get_closest_marker("optimized") is not None
    jax.config.update("jax_disable_most_optimizations", not optimized)
    return (yield)


@cache
def unavailable(network: str) -> str:
    """Why a network whose weights are fetched cannot be loaded here; nothing where it can."""
    try:
        path = weights_file(network)
    except (ImportError, FileNotFoundError) as error:
        return str(error)
    reader = {".h5": "h5py", ".hdf5": "h5py", ".onnx": "onnx"}.get(path.suffix)
    return f"{reader} is not installed" if reader and not find_spec(reader) else ""


@pytest.hookimpl(tryfirst=True)  # before markers are selected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        network = item.name.removeprefix("jaxplain.models.")
        example = isinstance(item, pytest.DoctestItem) and network in WEIGHTS
        if example or {"load", "lite0"} & {*getattr(item, "fixturenames", ())}:
            item.add_marker(pytest.mark.slow)
        if example and not os.environ.get("CI"):
            item.add_marker(
                pytest.mark.skipif(bool(unavailable(network)), reason=unavailable(network))
            )
    # long files first: with --no-loadscope-reorder no worker is left alone with one at the end
    items.sort(key=lambda item: item.path.stem not in LONG)


@cache
def _loaded(network: str) -> Any:
    return jxp.from_linen(*importlib.import_module(f"jaxplain.models.{network}").load())


@pytest.fixture
def load() -> Callable[[str], Any]:
    """Loads a network whose weights are fetched, as a model."""

    def load(network: str) -> Any:
        if reason := unavailable(network):
            (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
        return _loaded(network)

    return load


@pytest.fixture(scope="session")
def lite0() -> Any:
    """EfficientNet-Lite0 with its ImageNet weights."""
    from jaxplain.models import efficientnet_lite0

    return jxp.from_linen(*efficientnet_lite0.load())


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _keras_precision() -> Iterator[None]:
    """A test that has Keras compute in float64 leaves it as it was."""
    yield
    if "keras" in sys.modules:
        config = sys.modules["keras"].config
        config.set_floatx("float32")
        config.set_dtype_policy("float32")


@pytest.fixture
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture
def keras_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything in float64, Keras too: on JAX it takes means and moments in at most float32."""
    import zoo

    types = zoo._keras().src.backend.common.dtypes
    monkeypatch.setitem(types.BIT64_TO_BIT32_DTYPE, "float64", "float64")
    with jax.enable_x64(True):
        zoo._keras()  # in that precision
        yield


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
