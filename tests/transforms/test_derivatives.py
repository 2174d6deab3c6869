"""What an explainer computes besides relevance has the derivative of the function."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, nn
from jax.sharding import Mesh, PartitionSpec

import jaxplain as jxp
from comparing import assert_same
from zoo import normal

pytestmark = pytest.mark.usefixtures("float64")


def network(x: Any) -> Any:
    h = nn.gelu(x @ normal(4, 6) + normal(6, seed=1))
    centred = h - h.mean(-1, keepdims=True)
    h = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3) * nn.relu(h)
    return nn.softmax(h) @ normal(6, 3, seed=2)


def recurrent(x: Any) -> Any:
    def step(h: Any, _: Any) -> Any:
        return nn.tanh(h @ normal(4, 4, seed=3)), None

    return lax.scan(step, x, length=3)[0] @ normal(4, 3, seed=4)


def explainers(f: Any) -> dict[str, Any]:
    return {
        "lrp": jxp.lrp(f, jxp.composites.EpsilonPlusFlat()),
        "gradient": jxp.gradient(f),
        "guided": jxp.guided_backprop(f),
        "deep_lift": jxp.deep_lift(f, jnp.zeros((2, 4))),
        "integrated_gradients": jxp.integrated_gradients(jxp.gradient(f), jnp.zeros((2, 4))),
    }


@pytest.mark.parametrize("name", explainers(network))
def test_outputs(name: str) -> None:
    x = normal(2, 4, seed=5)
    explain = explainers(network)[name]
    assert_same(explain.outputs(x), network(x))
    square = lambda f: lambda x: (f(x)[:, 1] ** 2).sum()  # noqa: E731
    assert_same(jax.grad(square(explain.outputs))(x), jax.grad(square(network))(x))
    assert_same(jax.jacfwd(explain.outputs)(x), jax.jacfwd(network)(x))


@pytest.mark.parametrize("f", [network, recurrent])
def test_activations(f: Any) -> None:
    x = normal(2, 4, seed=5)
    explain = jxp.lrp(f, jxp.rules.ZPlus())

    def of_last(x: Any) -> Any:
        *_, last = explain.activations(x, layers=lambda layer: layer.is_kernel).values()
        return last

    assert_same(of_last(x), f(x))
    assert_same(jax.jacrev(of_last)(x), jax.jacrev(f)(x))
    assert_same(jax.jacfwd(of_last)(x), jax.jacfwd(f)(x))


def test_gaps() -> None:
    """The gap of integrated gradients: what its sum misses of f(x) - f(x0), without a sign."""
    x, x0 = normal(2, 4, seed=5), jnp.zeros((2, 4))
    explain = jxp.integrated_gradients(jxp.gradient(network), x0, steps=3, with_gap=True)

    def gap(x: Any) -> Any:
        return explain(x, target=1)[1].sum()

    def expected(x: Any) -> Any:
        attribution = jxp.integrated_gradients(jxp.gradient(network), x0, steps=3)(x, target=1)
        return jnp.abs((network(x) - network(x0))[:, 1] - attribution.sum(-1)).sum()

    assert_same(gap(x), expected(x))
    assert_same(jax.grad(gap)(x), jax.grad(expected)(x))


# Inside of a shard_map, with its checks on


def whole(x: Any) -> Any:
    kernel, layout = normal(3, 3, 2, 4), ("NHWC", "HWIO", "NHWC")
    h = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
    h = lax.scan(lambda h, w: (nn.relu(h @ w), None), nn.relu(h), normal(2, 4, 4, seed=1))[0]
    return h.mean((1, 2)) @ normal(4, 3, seed=2)


SHARDED = {
    "capture": lambda x: jxp.lrp(whole, capture="convolution|dense")(x, target=1)[1],
    "stop": lambda x: jxp.lrp(whole, stop="convolution")(x, target=1),
    "masks": lambda x: jxp.lrp(whole)(x, target=1, masks={"convolution": jnp.arange(4.0)}),
    "grad_cam": lambda x: jxp.grad_cam(whole, layer="convolution")(x, target=1),
    "activations": lambda x: jxp.lrp(whole).activations(x, layers="convolution"),
    "smoothgrad": lambda x: jxp.integrated_gradients(jxp.lrp(whole), jnp.zeros(x.shape))(
        x, target=1
    ),
}


@pytest.mark.parametrize("name", SHARDED)
def test_inside_of_a_mesh(name: str) -> None:
    x, mesh = normal(4, 5, 5, 2), Mesh(np.array(jax.devices()[:2]), "d")
    found = jax.eval_shape(SHARDED[name], x)
    spec = jax.tree.map(lambda v: _examples(v.shape), found)
    sharded = jax.shard_map(SHARDED[name], mesh=mesh, in_specs=PartitionSpec("d"), out_specs=spec)
    jax.tree.map(assert_same, jax.jit(sharded)(x), SHARDED[name](x))


def _examples(shape: tuple[int, ...]) -> PartitionSpec:
    """The axis of the four examples is the mesh's; a layer of the loop has it behind another."""
    place = shape.index(4)
    return PartitionSpec(*[None] * place, "d")


def test_a_ledger_inside_of_a_mesh() -> None:
    x, mesh = normal(4, 5, 5, 2), Mesh(np.array(jax.devices()[:2]), "d")

    def columns(x: Any) -> Any:
        ledger = jxp.lrp(whole, jxp.rules.ZPlus()).ledger(x, target=1)
        return ledger.received, ledger.sent, ledger.stabilizer, ledger.output, ledger.inputs

    def summed(x: Any) -> Any:
        return jax.tree.map(lambda v: lax.psum(jnp.asarray(v), "d"), columns(x))

    specs = PartitionSpec("d"), PartitionSpec()
    sharded = jax.shard_map(summed, mesh=mesh, in_specs=specs[0], out_specs=specs[1])
    for found, wanted in zip(jax.jit(sharded)(x), columns(x), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-12)
