"""What explaining costs, in operations and bytes of the compiled program."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxplain as jxp
from benchmarks.networks import vgg16, vgg16_parameters

pytestmark = [pytest.mark.slow, pytest.mark.optimized]


def cost(f: Any, *args: Any) -> tuple[float, int]:
    """FLOPs and temporary bytes."""
    compiled = jax.jit(f).lower(*args).compile()
    return compiled.cost_analysis()["flops"], compiled.memory_analysis().temp_size_in_bytes


@pytest.fixture(scope="module")
def vgg() -> Any:
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params = jax.eval_shape(vgg16_parameters, jax.random.key(0))
    flops, temporaries = cost(
        lambda x, p: jax.grad(lambda x: vgg16(x, p)[:, 7].sum())(x), images, params
    )
    assert flops > 5e10  # forward and backward of VGG16
    return images, params, flops, temporaries


def test_epsilon_costs_what_the_gradient_costs(vgg: Any) -> None:
    images, params, flops, temporaries = vgg
    found = cost(lambda x, p: jxp.lrp(vgg16)(x, p, target=7), images, params)
    assert found[0] <= 1.02 * flops
    assert found[1] <= 1.2 * temporaries


def test_z_plus_of_a_relu_network_needs_one_more_pass(vgg: Any) -> None:
    images, params, flops, _ = vgg
    found = cost(lambda x, p: jxp.lrp(vgg16, jxp.rules.ZPlus())(x, p, target=7), images, params)
    assert found[0] <= 1.55 * flops


def test_gamma_needs_two_more_passes(vgg: Any) -> None:
    """One through |A| in either direction, whatever the signs of the inputs."""
    images, params, flops, _ = vgg
    found = cost(lambda x, p: jxp.lrp(vgg16, jxp.rules.Gamma())(x, p, target=7), images, params)
    assert found[0] <= 2.05 * flops


def test_gradient_is_free_of_overhead() -> None:
    params = jax.eval_shape(lambda k: vgg16_parameters(k, 0.125, 32, 10), jax.random.key(0))
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    plain = cost(lambda x, p: jax.grad(lambda x: vgg16(x, p)[:, 3].sum())(x), images, params)
    found = cost(lambda x, p: jxp.gradient(vgg16)(x, p, target=3), images, params)
    assert found[0] <= 1.001 * plain[0]


def test_batch_norm_is_folded_into_one_kernel() -> None:
    """z+ behind a BatchNorm of unknown sign costs what it costs without one."""

    def network(x: Any, p: Any, norm: bool) -> Any:
        for kernel, scale in p:
            x = jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x * scale if norm else x)
        return x.mean((1, 2))

    struct = jax.ShapeDtypeStruct
    params = [(struct((3, 3, 16, 16), jnp.float32), struct((16,), jnp.float32)) for _ in range(3)]
    images = struct((2, 16, 16, 16), jnp.float32)

    def flops(norm: bool) -> float:
        explain = jxp.lrp(lambda x, p: network(x, p, norm), jxp.rules.ZPlus())
        return cost(lambda x, p: explain(x, p, target=0), images, params)[0]

    assert flops(True) <= 1.05 * flops(False)
