"""Explainers of one function, method and shape share what is compiled, and nothing goes stale."""

import copy
import gc
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import monitoring, nn

import jaxplain as jxp
from comparing import assert_same
from jaxplain.composites import Composite, EpsilonPlus, EpsilonPlusFlat, first, kind, name, op
from jaxplain.rules import Epsilon, Flat, Gamma, ZBox, ZPlus
from jaxplain.transforms import shared
from zoo import normal

_compiled: list[str] = []


@pytest.fixture(autouse=True, scope="module")
def _listening() -> Iterator[None]:
    def listen(event: str, duration: float, **_: Any) -> None:
        if "backend_compile" in event:
            _compiled.append(event)

    monitoring.register_event_duration_secs_listener(listen)
    yield


@contextmanager
def compiling(wanted: Callable[[int], bool]) -> Iterator[None]:
    """Fails where the number of programs that XLA compiles is not as wanted."""
    _compiled.clear()
    yield
    assert wanted(len(_compiled)), f"{len(_compiled)} programs compiled"


def nothing(count: int) -> bool:
    return count == 0


def something(count: int) -> bool:
    return count > 0


W, V, X = normal(4, 6), normal(6, 3), normal(2, 4)


def network(x: Any) -> Any:
    return nn.silu(x @ W) @ V


ONE_LINERS = {
    "lrp": lambda f: jxp.lrp(f, EpsilonPlusFlat()),
    "a composite": lambda f: jxp.lrp(
        f, Composite([(first | name("x"), Flat()), (op("dense"), Gamma(0.1))], strict=False)
    ),
    "bounds": lambda f: jxp.lrp(f, Composite([(first, ZBox(np.full(4, -3.0), np.full(4, 3.0)))])),
    "gradient": lambda f: jxp.gradient(f, postprocess="abs"),
    "input times gradient": jxp.input_times_gradient,
    "guided": jxp.guided_backprop,
    "deep taylor": jxp.deep_taylor,
    "captured": lambda f: jxp.lrp(f, capture=kind("Affine"), stop=name("dense$")),
}


@pytest.mark.parametrize("make", ONE_LINERS.values(), ids=ONE_LINERS)
def test_the_second_of_two_equal_explainers_compiles_nothing(make: Any) -> None:
    f = lambda x: network(x)  # noqa: E731
    with compiling(something):
        found = make(f)(X, target=1)
    with compiling(nothing):
        again = make(f)(X, target=1)
    jax.tree.map(np.testing.assert_array_equal, again, found)
    with compiling(nothing):
        make(f)(X, target=2)
    with compiling(something):
        make(f)(normal(3, 4), target=1)


def test_other_options_are_another_program() -> None:
    f = lambda x: network(x)  # noqa: E731
    boxes = [Composite([(first, ZBox(np.full(4, low), 9.0))]) for low in (-3.0, -9.0)]
    rules = (Epsilon(), Epsilon(0.5), ZPlus(), *boxes)
    maps = [jxp.lrp(f, rule)(X, target=0) for rule in rules]
    for i, one in enumerate(maps):
        assert all(np.abs(one - other).max() > 1e-6 for other in maps[:i])


def test_models_of_one_structure_share_and_keep_their_own_weights() -> None:
    module = linen.Sequential([linen.Dense(5), nn.relu, linen.Dense(3)])
    models = [jxp.from_linen(module, module.init(jax.random.key(i), X)) for i in range(2)]
    wanted = [jxp.lrp(partial(module.apply, m.variables))(X, target=0) for m in models]
    jxp.lrp(models[0])(X, target=0)
    with compiling(nothing):
        found = [jxp.lrp(m)(X, target=0) for m in models]
    for one, other in zip(found, wanted, strict=True):
        assert_same(one, other)


def test_what_a_function_closes_over_is_read_by_every_explainer() -> None:
    weights = {"w": W, "scale": 2.0, "flag": True}

    def f(x: Any) -> Any:
        h = x @ weights["w"] * weights["scale"]
        return nn.relu(h) if weights["flag"] else jnp.tanh(h)

    def checked() -> int:
        found = jxp.lrp(f)(X, target=1)
        frozen = dict(weights)
        assert_same(found, jxp.lrp(lambda x: _frozen(frozen, x))(X, target=1))
        return len(_compiled)

    checked()
    weights["w"] = W[:, ::-1]
    with compiling(lambda count: count == 1):  # that of the reference alone
        checked()
    weights["scale"] = 3.0
    checked()
    weights["flag"] = False
    checked()


def _frozen(weights: Any, x: Any) -> Any:
    h = x @ weights["w"] * weights["scale"]
    return nn.relu(h) if weights["flag"] else jnp.tanh(h)


@jax.tree_util.register_pytree_node_class
class Scaled:
    """A mutable model with a Python number, and a list, as leaves."""

    def __init__(self, w: Any, scale: float, tag: Any = None):
        self.w, self.scale, self.tag = w, scale, tag

    def __call__(self, x: Any) -> Any:
        return nn.relu(x @ self.w) * self.scale

    def tree_flatten(self) -> Any:
        return (self.w, self.scale), self.tag

    @classmethod
    def tree_unflatten(cls, tag: Any, children: Any) -> Any:
        return cls(*children, tag)


def test_a_number_that_changes_in_a_model_is_told_by_its_value() -> None:
    model = Scaled(W, 1.0)
    explain = jxp.lrp(model)
    for step in range(20):
        model.scale = float(step) + 0.5  # CPython uses the place of the last one again
        wanted = jxp.lrp(lambda x, s=model.scale: nn.relu(x @ W) * s)(X, target=2)
        assert_same(explain(X, target=2), wanted)
        assert_same(jxp.lrp(model)(X, target=2), wanted)
    model.scale = -0.0
    assert np.signbit(np.asarray(explain.outputs(X))).any()


def test_settings_of_jax_are_part_of_the_key() -> None:
    f = lambda x: network(x)  # noqa: E731
    explain = jxp.lrp(f)

    def precision() -> Any:
        return explain.traced(X).program.nodes[0].params["precision"]

    assert precision() is None
    with jax.default_matmul_precision("highest"):
        assert precision() is not None
    with jax.enable_x64(True):
        assert explain(jnp.asarray(X, jnp.float64), target=0).dtype == jnp.float64
    assert precision() is None


def test_a_thousand_models_leave_nothing_behind() -> None:
    def explain_one(i: int) -> None:
        w = W * (i + 1.0)
        jxp.lrp(lambda x: nn.relu(x @ w))(X, target=0)

    def explain_model(i: int) -> None:
        jxp.lrp(Scaled(W * (i + 1.0), 1.0, tag=i % 3))(X, target=0)

    client = jax.devices()[0].client
    explain_one(0)
    gc.collect()
    before = len(shared._kept), len(shared._alive), len(jax.live_arrays())
    executables = len(client.live_executables())
    for i in range(30):
        explain_one(i)
    for i in range(1000):
        explain_model(i)
    gc.collect()
    after = len(shared._kept), len(shared._alive), len(jax.live_arrays())
    assert all(now <= then for now, then in zip(after, before, strict=True))
    assert len(client.live_executables()) <= executables


def test_a_flood_of_shapes_keeps_the_newest() -> None:
    f = lambda x: x.sum(-1, keepdims=True)  # noqa: E731
    for size in range(1, shared.MOST + 10):
        jxp.lrp(f).plan(jnp.ones((1, size)))
    assert len(shared._of(f)) == shared.MOST


def test_equal_composites_and_rules_compare_equal() -> None:
    assert EpsilonPlus() == EpsilonPlus() and EpsilonPlus() != EpsilonPlus(0.5)
    assert EpsilonPlus() != EpsilonPlusFlat() and len({EpsilonPlus(), EpsilonPlus()}) == 1
    box, same = (ZBox(np.array([0.0, 1.0]), 2.0) for _ in range(2))
    assert box == same and hash(box) == hash(same)
    assert box != ZBox(np.array([0.0, 1.5]), 2.0) and box != Flat()
    assert op("dense") & ~name("head") == op("dense") & ~name("head")
    assert kind("Affine") != op("Affine")


@pytest.mark.parametrize("make", ONE_LINERS.values(), ids=ONE_LINERS)
def test_explainers_are_pickled_and_copied(make: Any) -> None:
    explain = make(network)
    wanted = explain(X, target=1)  # it has compiled something
    for other in (pickle.loads(pickle.dumps(explain)), copy.deepcopy(explain), copy.copy(explain)):
        jax.tree.map(assert_same, other(X, target=1), wanted)


def test_functions_that_no_pickle_holds_are_named() -> None:
    explain = jxp.lrp(lambda x: network(x))
    with pytest.raises(TypeError, match=r"<lambda> cannot be pickled.*of a module"):
        pickle.dumps(explain)
    assert_same(copy.deepcopy(explain)(X, target=1), explain(X, target=1))


def _weighted(weights: Any, output: Any) -> Any:
    return jnp.broadcast_to(weights, output.shape)


@pytest.mark.parametrize("make", [jxp.lrp, lambda f: jxp.smoothgrad(jxp.lrp(f), samples=2)])
def test_arrays_of_a_target_are_arguments(make: Any) -> None:
    """A function that a target is is traced once; the arrays of a `Partial` are read every time."""
    explain = make(lambda x: network(x))
    key = {"key": jax.random.key(0)} if not isinstance(explain, jxp.Explainer) else {}
    first = explain(X, target=jax.tree_util.Partial(_weighted, jnp.eye(3)[0]), **key)
    with compiling(nothing):
        second = explain(X, target=jax.tree_util.Partial(_weighted, jnp.eye(3)[2]), **key)
    for found, i in ((first, 0), (second, 2)):
        assert_same(found, explain(X, target=partial(_weighted, jnp.eye(3)[i]), **key))
