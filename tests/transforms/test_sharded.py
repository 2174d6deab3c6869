"""Batches whose sharding is part of their type: an axis of the mesh is explicit."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import jax
import numpy as np
import pytest
from jax import lax, nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxplain as jxp
from zoo import draw

KERNEL, W, V, X = draw(3, 3, 2, 4), draw(4, 6), draw(6, 3), draw(4, 5, 5, 2)


@pytest.fixture(scope="module")
def mesh() -> Iterator[Any]:
    yield jax.make_mesh((2,), ("d",), axis_types=(AxisType.Explicit,), devices=jax.devices()[:2])


def network(x: Any) -> Any:
    layout = ("NHWC", "HWIO", "NHWC")
    h = lax.conv_general_dilated(
        x, KERNEL.astype(x.dtype), (1, 1), "SAME", dimension_numbers=layout
    )
    return nn.relu(nn.relu(h).mean((1, 2)) @ W.astype(x.dtype)) @ V.astype(x.dtype)


METHODS: dict[str, Any] = {
    "lrp": lambda x: jxp.lrp(network)(x),
    "every class": lambda x: jxp.lrp(network)(x, target="all"),
    "captured": lambda x: jxp.lrp(network, capture="convolution")(x, target=1)[1]["convolution"],
    "grad_cam": lambda x: jxp.grad_cam(network)(x, target=1),
    "integrated_gradients": lambda x: jxp.integrated_gradients(jxp.gradient(network))(x, target=1),
    "smoothgrad": lambda x: jxp.smoothgrad(jxp.gradient(network), samples=4)(
        x, target=1, key=jax.random.key(0)
    ),
    "occlusion": lambda x: jxp.occlusion(network, window=(2, 2, 2))(x, target=1),
}


@pytest.mark.parametrize("told", [True, False], ids=["set_mesh", "by its type"])
@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str, told: bool, mesh: Any) -> None:
    x = jax.numpy.asarray(X, "float32")
    wanted = METHODS[name](x)
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("d")))
    with jax.set_mesh(mesh) if told else nullcontext():
        found = METHODS[name](sharded)
    np.testing.assert_allclose(found, wanted, atol=1e-6 * float(np.abs(wanted).max()))


def test_one_explainer_for_sharded_and_single_arrays(mesh: Any) -> None:
    x, explain = jax.numpy.asarray(X, "float32"), jxp.lrp(network)
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("d")))
    maps = [explain(v, target=1) for v in (sharded, x, sharded)]
    for found in maps:
        np.testing.assert_allclose(found, maps[1], atol=1e-6)
