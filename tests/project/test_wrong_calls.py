"""Wrong calls: the right error, before any compute, from the right line."""

import logging
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from jaxplain.composites import Composite, any_layer, kind, op
from jaxplain.rules import Epsilon, Flat, Pass
from jaxplain.transforms import shared
from wrong_calls import CASES, PAGE, f, labels, markdown, notes, w, x

OURS = (str(Path(jxp.__file__).parent), str(Path(__file__).parents[1]))

# What shows only in values: JAX says so when the program is given them, or they are computed.
LATE = {"deleted_weights", "donated_input", "samples_that_are_not_finite"}


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """The functions that XLA compiles meanwhile."""
    found: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.extend(re.findall(r"Compiling jit\((\w+)\)", record.getMessage()))

    shared._kept.clear()  # or what other calls compiled would not be compiled again
    listener, logger = Listener(), logging.getLogger("jax")
    logger.addHandler(listener)
    with jax.log_compiles():
        yield found
    logger.removeHandler(listener)


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_call(name: str, compiled: list[str]) -> None:
    case = CASES[name]
    with pytest.raises(case.error) as caught:
        case.call()
    assert caught.type is case.error
    assert re.search(case.message, "\n".join([str(caught.value), *notes(caught.value)]))
    last = traceback.extract_tb(caught.tb)[-1]
    assert last.filename.startswith(OURS), f"ends in {last.filename}:{last.lineno}"
    if name not in LATE:
        assert not {"attribution", "ledger", "activations"} & set(compiled)


def test_a_right_call_is_seen_to_compute(compiled: list[str]) -> None:
    jxp.lrp(f)(x)
    assert "attribution" in compiled


def test_there_are_many() -> None:
    assert len(CASES) >= 100


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == markdown(), "run `python tests/pages/wrong_calls.py`"


def test_the_models_own_error_is_left_alone() -> None:
    mine = ValueError("mine")

    def g(x: Any) -> Any:
        raise mine

    with pytest.raises(ValueError) as caught:
        jxp.lrp(g)(x)
    assert caught.value is mine and not notes(mine)
    assert traceback.extract_tb(caught.tb)[-1].name == "g"


def test_a_model_in_a_folder_named_like_a_library() -> None:
    names: dict[str, Any] = {"w": w}
    exec(compile("def net(x):\n    return x @ w", "/home/me/jax/flax/net.py", "exec"), names)
    assert jxp.lrp(names["net"]).plan(x).layers[0].location == "net.py:2"
    with pytest.raises(TypeError) as caught:
        jxp.lrp(names["net"])(x[:, :3])
    assert traceback.extract_tb(caught.tb)[-1].name == "net"


def test_the_whole_traceback_on_request() -> None:
    before = jax.config.jax_traceback_filtering
    jax.config.update("jax_traceback_filtering", "off")
    try:
        with pytest.raises(TypeError) as caught:
            jxp.lrp(f)(x[:, :3])
    finally:
        jax.config.update("jax_traceback_filtering", before)
    assert not traceback.extract_tb(caught.tb)[-1].filename.startswith(OURS)


# Calls that look wrong and are right


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64])
def test_labels_of_any_integer_dtype(dtype: Any) -> None:
    def wide(x: Any) -> Any:
        return jnp.tile(f(x), 70)  # 210 classes: more than an int8 holds

    plain = jxp.lrp(wide)(x, target=100 + labels)
    given = (100 + labels).astype(dtype)
    np.testing.assert_array_equal(jxp.lrp(wide)(x, target=given), plain)
    traced = jax.jit(lambda k: jxp.lrp(wide)(x, target=k))(given)
    np.testing.assert_allclose(traced, plain, rtol=1e-5)


def test_argnums_as_numpy_integers() -> None:
    plain = jxp.lrp(f)(x)
    np.testing.assert_array_equal(jxp.lrp(f, argnums=np.int64(0))(x), plain)
    np.testing.assert_array_equal(jxp.lrp(lambda a, b: f(b), argnums=-1)(0.0, x), plain)


def test_an_empty_batch() -> None:
    assert jxp.lrp(f)(x[:0]).shape == (0, 4)
    assert jxp.lrp(f)(x[:0], target="all").shape == (3, 0, 4)


def test_a_jitted_model_that_donates_keeps_the_input() -> None:
    given = jnp.array(x)
    donor = jax.jit(f, donate_argnums=0)
    np.testing.assert_array_equal(jxp.lrp(donor)(given), jxp.lrp(f)(x))
    assert not given.is_deleted()


def test_a_model_closed_over_tracers() -> None:
    found = jax.jit(lambda w: jxp.lrp(lambda x: x @ w)(x, target=0))(w)
    np.testing.assert_allclose(found, jxp.lrp(lambda x: x @ w)(x, target=0), rtol=1e-6)


# Entries of composites


def test_presets_may_hold_more_than_a_model_needs() -> None:
    reasons = [row.reason for row in jxp.lrp(f, jxp.composites.EpsilonPlusFlat()).plan(x)]
    assert reasons == ["first", "base", "kernel & op('dense')"]


def test_a_composite_for_many_models() -> None:
    entries = [(op("convolution"), Flat()), (op("dense"), Epsilon(0.1))]
    plan = jxp.lrp(f, Composite(entries, strict=False)).plan(x)
    assert [row.rule for row in plan] == [Epsilon(0.1), Pass(), Epsilon(0.1)]


def test_an_entry_whose_layers_all_went_to_others_is_no_error() -> None:
    entries = [(op("dense"), Epsilon(0.1)), (op("dense"), Flat()), (kind("Activation"), Pass())]
    plan = jxp.lrp(f, Composite([*entries, (any_layer, Flat())])).plan(x)
    assert [row.reason for row in plan] == ["op('dense')", "kind('Activation')", "op('dense')"]
