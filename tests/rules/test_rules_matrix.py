"""Every rule on every spelling of an affine layer, against the oracle on the layer's matrix.

The matrix and the bias come from the layer itself (its derivative and its value at zero); the
batch is part of the matrix, so that nothing is assumed about axes. For `Flat` the connectivity is
where the Jacobian of the same layer with a kernel of ones is not zero. All in float64.
"""

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.tree_util import tree_leaves, tree_map

import jaxplain as jxp
import oracle
from jaxplain.composites import Composite, any_layer
from jaxplain.rules import (
    AlphaBeta,
    AlphaBetaWholeBias,
    Epsilon,
    Flat,
    Gamma,
    Gradient,
    Norm,
    Sign,
    WSquare,
    Z,
    ZBox,
    ZPlus,
    ZPlusFast,
)
from product_primitive import product

TOLERANCE = 1e-10


pytestmark = pytest.mark.usefixtures("float64")


# Layers


@dataclass(frozen=True)
class Case:
    """A function of its inputs and a dictionary of parameters; kernels are the names in capitals.

    ``named`` layers get the rule by a composite: a bare rule is for layers with a kernel only.
    ``ones`` is the layer for the connectivity, where a kernel of ones does not give it.
    """

    f: Callable[..., Any]
    inputs: tuple[tuple[int, ...], ...]
    params: dict[str, tuple[int, ...]] = field(default_factory=dict)
    named: bool = False
    ones: Callable[..., Any] | None = None


CASES: dict[str, Case] = {}


def case(
    name: str,
    f: Callable[..., Any],
    *inputs: tuple[int, ...],
    named: bool = False,
    ones: Callable[..., Any] | None = None,
    **params: tuple[int, ...],
) -> None:
    assert name not in CASES
    CASES[name] = Case(f, inputs, params, named, ones)


def norm_rsqrt(x: Any, p: Any) -> Any:
    return (x - p["mean"]) * lax.rsqrt(p["var"] + 1e-3) * p["gamma"] + p["beta"]


def norm_folded(x: Any, p: Any) -> Any:
    scale = p["gamma"] * lax.rsqrt(p["var"] + 1e-3)
    return x * scale + (p["beta"] - p["mean"] * scale)


def norm_sqrt(x: Any, p: Any) -> Any:
    return p["gamma"] * ((x - p["mean"]) / jnp.sqrt(p["var"] + 1e-3)) + p["beta"]


def stats(features: int, *rest: int) -> dict[str, tuple[int, ...]]:
    return {name: (features, *rest) for name in ("mean", "var", "gamma", "beta")}


def conv(
    x: Any,
    w: Any,
    layout: tuple[str, str, str],
    stride: int = 1,
    padding: Any = "SAME",
    **kwargs: Any,
) -> Any:
    strides = (stride,) * (len(layout[0]) - 2)
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=layout, **kwargs)


def pool(x: Any, window: tuple[int, ...], strides: tuple[int, ...], padding: str) -> Any:
    def total(v: Any) -> Any:
        return lax.reduce_window(v, 0.0, lax.add, window, strides, padding)

    return total(x) / total(jnp.ones_like(x))


NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")
NLC, NCL = ("NLC", "LIO", "NLC"), ("NCL", "OIL", "NCL")
NDHWC, NCDHW = ("NDHWC", "DHWIO", "NDHWC"), ("NCDHW", "OIDHW", "NCDHW")

# fmt: off
# Dense.
case("dense", lambda x, p: x @ p["W"], (3, 5), W=(5, 4))
case("dense_bias", lambda x, p: x @ p["W"] + p["b"], (3, 5), W=(5, 4), b=(4,))
case("dense_bias_first_transposed", lambda x, p: p["b"] + x @ p["W"].T, (3, 5), W=(4, 5), b=(4,))
case("dense_one_example", lambda x, p: x @ p["W"] + p["b"], (5,), W=(5, 4), b=(4,))
case("dense_weight_left_vmapped",
     lambda x, p: jax.vmap(lambda v: p["W"] @ v + p["b"])(x), (3, 5), W=(4, 5), b=(4,))
case("einsum_bi_io", lambda x, p: jnp.einsum("bi,io->bo", x, p["W"]) + p["b"], (3, 5),
     W=(5, 4), b=(4,))
case("einsum_oi_bi", lambda x, p: jnp.einsum("oi,bi->bo", p["W"], x) + p["b"], (3, 5),
     W=(4, 5), b=(4,))
case("einsum_to_features_first", lambda x, p: jnp.einsum("bi,io->ob", x, p["W"]) + p["b"], (3, 5),
     W=(5, 4), b=(4, 1))
case("einsum_batched_kernels", lambda x, p: jnp.einsum("gbi,gio->gbo", x, p["W"]) + p["b"],
     (2, 3, 4), W=(2, 4, 3), b=(2, 1, 3))
case("dense_flatten_first", lambda x, p: x.reshape(x.shape[0], -1) @ p["W"] + p["b"], (2, 3, 2, 2),
     W=(12, 4), b=(4,))
case("dense_on_sequence", lambda x, p: x @ p["W"] + p["b"], (2, 3, 4), W=(4, 5), b=(5,))
case("dense_general_split_heads",
     lambda x, p: jnp.einsum("bld,dhk->blhk", x, p["W"]) + p["b"], (2, 3, 4), W=(4, 2, 3), b=(2, 3))
case("dense_general_merge_heads",
     lambda x, p: jnp.einsum("blhk,hkd->bld", x, p["W"]) + p["b"], (2, 3, 2, 3),
     W=(2, 3, 4), b=(4,))
case("dense_general_tensordot",
     lambda x, p: lax.dot_general(x, p["W"], (((1, 2), (1, 0)), ((), ()))) + p["b"], (2, 3, 4),
     W=(4, 3, 5), b=(5,))
case("dense_output_reshaped_transposed",
     lambda x, p: (x @ p["W"] + p["b"]).reshape(3, 2, 2).transpose(1, 0, 2), (3, 5),
     W=(5, 4), b=(4,))
case("dense_input_sliced_padded",
     lambda x, p: jnp.pad(x[:, ::2], ((0, 0), (1, 2))) @ p["W"] + p["b"], (3, 5), W=(6, 4), b=(4,))
case("mul_and_sum", lambda x, p: (x[:, :, None] * p["W"]).sum(1), (3, 5), W=(5, 4))
case("mul_and_sum_bias", lambda x, p: (x[:, :, None] * p["W"]).sum(1) + p["b"], (3, 5),
     W=(5, 4), b=(4,))
case("mul_and_sum_to_one", lambda x, p: (x * p["W"]).sum(-1, keepdims=True), (3, 5),
     named=True, W=(5,))

# Scales and signs around the kernel.
case("product_of_a_primitive_of_its_own", lambda x, p: product(x, p["W"]) + p["b"], (3, 5),
     W=(5, 4), b=(4,))
case("product_weight_left_scaled", lambda x, p: p["s"] * product(p["W"], x.T) + p["b"], (3, 5),
     W=(4, 5), s=(4, 1), b=(4, 1))
case("ragged_of_two_groups",
     lambda x, p: lax.ragged_dot(x * p["s"], p["W"], jnp.array([1, 2])) + p["b"], (3, 5),
     W=(2, 5, 4), s=(5,), b=(4,))
case("dense_negated", lambda x, p: p["b"] - x @ p["W"], (3, 5), W=(5, 4), b=(4,))
case("dense_scaled_by_number", lambda x, p: -0.5 * (x @ p["W"]) + p["b"], (3, 5), W=(5, 4), b=(4,))
case("dense_bias_then_divided", lambda x, p: (x @ p["W"] + p["b"]) / p["s"], (3, 5),
     W=(5, 4), b=(4,), s=(4,))
case("dense_input_normalised", lambda x, p: ((x - p["m"]) / p["s"]) @ p["W"] + p["b"], (3, 5),
     W=(5, 4), b=(4,), m=(5,), s=(5,))
case("dense_input_scaled_by_number", lambda x, p: (x / 2.0 - 1.0) @ p["W"] + p["b"], (3, 5),
     W=(5, 4), b=(4,))
case("dense_weight_normalised",
     lambda x, p: x @ (p["W"] * p["s"] / jnp.linalg.norm(p["W"], axis=0)) + p["b"], (3, 5),
     W=(5, 4), b=(4,), s=(4,), ones=lambda x, p: x @ p["W"])

case("dense_double_negation", lambda x, p: p["b"] - (p["m"] - x) @ p["W"], (3, 5),
     W=(5, 4), b=(4,), m=(5,))
case("dense_flattened_channels_scaled",
     lambda x, p: (x * p["s"] - p["m"]).reshape(2, -1) @ p["W"] + p["b"], (2, 3, 2, 2),
     W=(12, 4), b=(4,), s=(2,), m=(2,))
case("dense_input_scaled_per_example", lambda x, p: (x * p["s"]) @ p["W"] + p["b"], (3, 5),
     W=(5, 4), b=(4,), s=(3, 1))
case("dense_input_scaled_per_position", lambda x, p: (x * p["s"]) @ p["W"] + p["b"], (2, 3, 4),
     W=(4, 5), b=(5,), s=(3, 1))
case("dense_input_scaled_reversed", lambda x, p: (x * p["s"])[:, ::-1] @ p["W"] + p["b"], (3, 5),
     W=(5, 4), b=(4,), s=(5,))
case("dense_weight_left_scaled", lambda x, p: (p["s"] * (p["W"] @ x.T) + p["b"]).T, (3, 5),
     W=(4, 5), b=(4, 1), s=(4, 1))
case("dense_output_permuted_scaled",
     lambda x, p: (x @ p["W"] + p["b"])[:, jnp.array([2, 0, 3, 1])] * p["s"], (3, 5),
     W=(5, 4), b=(4,), s=(4,))
case("dense_output_split_in_heads_scaled",
     lambda x, p: (x @ p["W"]).reshape(2, 3, 2, 3) * p["s"] + p["b"], (2, 3, 4),
     W=(4, 6), b=(2, 3), s=(2, 1))
case("dense_general_merge_scaled_heads",
     lambda x, p: jnp.einsum("blhk,hkd->bld", x * p["s"], p["W"]) + p["b"], (2, 3, 2, 3),
     W=(2, 3, 4), b=(4,), s=(2, 1))
case("einsum_batched_kernels_scaled",
     lambda x, p: jnp.einsum("gbi,gio->gbo", x * p["s"], p["W"]) * p["gamma"] + p["b"], (2, 3, 4),
     W=(2, 4, 3), b=(2, 1, 3), s=(2, 1, 4), gamma=(2, 3, 1))
case("mul_and_sum_scaled",
     lambda x, p: ((x * p["s"])[:, :, None] * p["W"]).sum(1) * p["gamma"] + p["b"], (3, 5),
     W=(5, 4), b=(4,), s=(5,), gamma=(4,))

for spelling in (norm_rsqrt, norm_sqrt, norm_folded):
    kind = spelling.__name__
    case(f"dense_then_{kind}", lambda x, p, n=spelling: n(x @ p["W"] + p["b"], p), (3, 5),
         W=(5, 4), b=(4,), **stats(4))
    case(f"dense_after_{kind}", lambda x, p, n=spelling: n(x, p) @ p["W"] + p["b"], (3, 5),
         W=(5, 4), b=(4,), **stats(5))

# Convolutions.
case("conv1d_channels_last", lambda x, p: conv(x, p["W"], NLC) + p["b"], (2, 7, 2),
     W=(3, 2, 3), b=(3,))
case("conv1d_channels_first_strided", lambda x, p: conv(x, p["W"], NCL, 2, "VALID") + p["b"],
     (2, 2, 8), W=(3, 2, 3), b=(3, 1))
case("conv1d_causal_dilated",
     lambda x, p: conv(x, p["W"], NLC, padding=[(4, 0)], rhs_dilation=(2,)) + p["b"], (2, 6, 2),
     W=(3, 2, 3), b=(3,))
case("conv2d_no_bias", lambda x, p: conv(x, p["W"], NHWC), (2, 4, 5, 2), W=(3, 3, 2, 3))
case("conv2d_same", lambda x, p: conv(x, p["W"], NHWC) + p["b"], (2, 4, 5, 2),
     W=(3, 3, 2, 3), b=(3,))
case("conv2d_valid", lambda x, p: conv(x, p["W"], NHWC, padding="VALID") + p["b"], (2, 4, 5, 2),
     W=(3, 2, 2, 3), b=(3,))
case("conv2d_same_strided_asymmetric", lambda x, p: conv(x, p["W"], NHWC, 2) + p["b"], (2, 4, 5, 2),
     W=(3, 3, 2, 3), b=(3,))
case("conv2d_channels_first", lambda x, p: conv(x, p["W"], NCHW) + p["b"], (2, 2, 4, 5),
     W=(3, 2, 3, 3), b=(3, 1, 1))
case("conv2d_channels_first_vmapped",
     lambda x, p: jax.vmap(lambda v: conv(v[None], p["W"], NCHW)[0] + p["b"])(x), (2, 2, 4, 5),
     W=(3, 2, 3, 3), b=(3, 1, 1))
case("conv2d_dilated", lambda x, p: conv(x, p["W"], NHWC, rhs_dilation=(2, 2)) + p["b"],
     (2, 5, 5, 2), W=(3, 3, 2, 2), b=(2,))
case("conv2d_grouped", lambda x, p: conv(x, p["W"], NHWC, feature_group_count=2) + p["b"],
     (2, 4, 4, 4), W=(3, 3, 2, 4), b=(4,))
case("conv2d_depthwise", lambda x, p: conv(x, p["W"], NHWC, feature_group_count=3) + p["b"],
     (2, 4, 4, 3), W=(3, 3, 1, 6), b=(6,))
case("conv2d_depthwise_channels_first",
     lambda x, p: conv(x, p["W"], NCHW, feature_group_count=3) + p["b"], (2, 3, 4, 4),
     W=(3, 1, 3, 3), b=(3, 1, 1))
case("conv2d_pointwise", lambda x, p: conv(x, p["W"], NHWC) + p["b"], (2, 3, 3, 3),
     W=(1, 1, 3, 4), b=(4,))
case("conv2d_padded_by_hand",
     lambda x, p: conv(jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0))), p["W"], NHWC, padding="VALID")
     + p["b"], (2, 4, 4, 2), W=(3, 3, 2, 3), b=(3,))
case("conv3d", lambda x, p: conv(x, p["W"], NDHWC) + p["b"], (2, 3, 3, 3, 2),
     W=(2, 2, 3, 2, 2), b=(2,))
case("conv3d_channels_first_valid", lambda x, p: conv(x, p["W"], NCDHW, padding="VALID") + p["b"],
     (2, 2, 3, 3, 3), W=(2, 2, 2, 2, 2), b=(2, 1, 1, 1))
case("conv2d_transposed",
     lambda x, p: lax.conv_transpose(x, p["W"], (2, 2), "SAME", dimension_numbers=NHWC) + p["b"],
     (2, 3, 3, 2), W=(3, 3, 2, 2), b=(2,))
case("conv2d_transposed_valid_flipped",
     lambda x, p: lax.conv_transpose(x, p["W"], (2, 2), "VALID", dimension_numbers=NHWC,
                                     transpose_kernel=True) + p["b"],
     (2, 2, 3, 2), W=(3, 3, 3, 2), b=(3,))
case("conv1d_lhs_dilated",
     lambda x, p: conv(x, p["W"], NLC, padding=[(2, 2)], lhs_dilation=(3,)) + p["b"], (2, 4, 2),
     W=(3, 2, 3), b=(3,))
case("conv2d_flattened_after",
     lambda x, p: (conv(x, p["W"], NHWC, padding="VALID") + p["b"]).reshape(2, -1), (2, 3, 3, 2),
     W=(2, 2, 2, 3), b=(3,))

for spelling in (norm_rsqrt, norm_sqrt, norm_folded):
    kind = spelling.__name__
    case(f"conv2d_then_{kind}", lambda x, p, n=spelling: n(conv(x, p["W"], NHWC) + p["b"], p),
         (2, 4, 4, 2), W=(3, 3, 2, 3), b=(3,), **stats(3))
    case(f"conv2d_after_{kind}",  # the joint bias is another one at the padded border
         lambda x, p, n=spelling: conv(n(x, p), p["W"], NHWC) + p["b"],
         (2, 4, 4, 2), W=(3, 3, 2, 3), b=(3,), **stats(2))
case("conv2d_then_norm_channels_first",
     lambda x, p: norm_rsqrt(conv(x, p["W"], NCHW), p), (2, 2, 4, 4),
     W=(3, 2, 3, 3), **stats(3, 1, 1))
case("conv2d_depthwise_then_norm",
     lambda x, p: norm_rsqrt(conv(x, p["W"], NHWC, feature_group_count=2), p), (2, 4, 4, 2),
     W=(3, 3, 1, 4), **stats(4))
case("conv2d_transposed_then_norm",
     lambda x, p: norm_rsqrt(
         lax.conv_transpose(x, p["W"], (2, 2), "SAME", dimension_numbers=NHWC), p
     ), (2, 3, 3, 2), W=(3, 3, 2, 2), **stats(2))
case("conv2d_input_normalised_valid",
     lambda x, p: conv((x - p["m"]) / p["s"], p["W"], NHWC, padding="VALID") + p["b"],
     (2, 4, 4, 2), W=(3, 3, 2, 3), b=(3,), m=(2,), s=(2,))
case("conv2d_between_norms",
     lambda x, p: norm_sqrt(
         conv((x - p["m"]) * p["s"], p["W"], NHWC) + p["b"], p
     ), (2, 4, 4, 2), W=(3, 3, 2, 3), b=(3,), m=(2,), s=(2,), **stats(3))

case("conv2d_grouped_then_norm",
     lambda x, p: norm_rsqrt(conv(x, p["W"], NHWC, feature_group_count=2) + p["b"], p),
     (2, 4, 4, 4), W=(3, 3, 2, 4), b=(4,), **stats(4))
case("conv2d_grouped_after_norm",
     lambda x, p: conv(norm_rsqrt(x, p), p["W"], NHWC, feature_group_count=2) + p["b"],
     (2, 4, 4, 4), W=(3, 3, 2, 4), b=(4,), **stats(4))
case("conv2d_depthwise_after_norm",
     lambda x, p: conv(norm_rsqrt(x, p), p["W"], NHWC, feature_group_count=3) + p["b"],
     (2, 4, 4, 3), W=(3, 3, 1, 6), b=(6,), **stats(3))
case("conv2d_channels_first_after_norm",
     lambda x, p: conv(norm_sqrt(x, p), p["W"], NCHW) + p["b"], (2, 2, 4, 4),
     W=(3, 2, 3, 3), b=(3, 1, 1), **stats(2, 1, 1))
case("conv2d_transposed_after_norm",
     lambda x, p: lax.conv_transpose(
         norm_rsqrt(x, p), p["W"], (2, 2), "SAME", dimension_numbers=NHWC
     ) + p["b"], (2, 3, 3, 2), W=(3, 3, 2, 2), b=(2,), **stats(2))
case("conv2d_strided_dilated_after_norm",
     lambda x, p: conv(norm_rsqrt(x, p), p["W"], NHWC, 2, [(1, 2), (0, 3)], rhs_dilation=(2, 1))
     + p["b"], (2, 5, 5, 2), W=(2, 3, 2, 2), b=(2,), **stats(2))
case("conv2d_vmapped_after_and_then_norm",
     lambda x, p: jax.vmap(
         lambda v: norm_rsqrt(conv(((v - p["m"]) / p["s"])[None], p["W"], NHWC)[0] + p["b"], p)
     )(x), (2, 4, 4, 2), W=(3, 3, 2, 3), b=(3,), m=(2,), s=(2,), **stats(3))
case("conv2d_input_scaled_per_position",
     lambda x, p: conv(x * p["s"], p["W"], NHWC) + p["b"], (2, 4, 4, 2),
     W=(3, 3, 2, 3), b=(3,), s=(4, 4, 1))
case("conv2d_output_scaled_per_position",
     lambda x, p: (conv(x, p["W"], NHWC) + p["b"]) * p["s"], (2, 4, 4, 2),
     W=(3, 3, 2, 3), b=(3,), s=(4, 4, 1))
case("conv2d_flattened_then_scaled",
     lambda x, p: conv(x, p["W"], NHWC, padding="VALID").reshape(2, -1) * p["s"] + p["b"],
     (2, 3, 3, 2), W=(2, 2, 2, 3), b=(12,), s=(12,))
case("conv2d_to_channels_first_then_scaled",
     lambda x, p: conv(x, p["W"], NHWC).transpose(0, 3, 1, 2) * p["s"] + p["b"], (2, 4, 4, 2),
     W=(3, 3, 2, 3), b=(3, 1, 1), s=(3, 1, 1))
case("conv2d_padded_with_a_value",
     lambda x, p: conv(
         jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=0.7),
         p["W"], NHWC, padding="VALID",
     ) + p["b"], (2, 3, 3, 2), W=(3, 3, 2, 3), b=(3,))
case("conv1d_batch_groups",
     lambda x, p: conv(x, p["W"], NLC, batch_group_count=2) + p["b"], (4, 5, 2),
     W=(3, 2, 4), b=(4,))
case("conv1d_kernel_per_example",
     lambda x, p: jax.vmap(lambda v, w: conv(v, w, NLC))(x, p["W"]) + p["b"], (2, 2, 5, 2),
     W=(2, 3, 2, 3), b=(3,))

# Sums without a kernel.
case("average_pool", lambda x, p: pool(x, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"), (2, 4, 4, 2),
     named=True)
case("average_pool_same_without_padding_in_the_count",
     lambda x, p: pool(x, (1, 3, 3, 1), (1, 2, 2, 1), "SAME"), (2, 4, 5, 2), named=True)
case("average_pool_channels_first_overlapping",
     lambda x, p: pool(x, (1, 1, 3), (1, 1, 1), "SAME"), (2, 3, 6), named=True)
case("sum_pool", lambda x, p: lax.reduce_window(x, 0.0, lax.add, (1, 2, 1), (1, 2, 1), "VALID"),
     (2, 6, 2), named=True)
case("mean_over_space", lambda x, p: x.mean((1, 2)), (2, 3, 4, 2), named=True)
case("mean_over_last", lambda x, p: x.mean(-1, keepdims=True), (3, 5), named=True)
case("sum_over_sequence", lambda x, p: x.sum(1), (2, 4, 3), named=True)
case("average_pool_of_scaled",
     lambda x, p: pool(x * p["s"], (1, 2, 2, 1), (1, 2, 2, 1), "VALID") + p["b"], (2, 4, 4, 2),
     named=True, s=(2,), b=(2,))
case("mean_of_scaled", lambda x, p: (x * p["s"]).mean((1, 2)) + p["b"], (2, 4, 4, 2),
     named=True, s=(4, 1, 2), b=(2,))
case("cumulative_sum_of_scaled", lambda x, p: lax.cumsum(x * p["s"], 1, reverse=True), (3, 5),
     named=True, s=(5,))
case("lone_norm", norm_rsqrt, (3, 5), named=True, **stats(5))

# Several inputs, one layer: one bias, one stabiliser.
case("two_inputs_bias_last", lambda x, h, p: x @ p["W"] + h @ p["U"] + p["b"], (3, 4), (3, 5),
     W=(4, 4), U=(5, 4), b=(4,))
case("two_inputs_bias_inside", lambda x, h, p: x @ p["W"] + (h @ p["U"] + p["b"]), (3, 4), (3, 5),
     W=(4, 4), U=(5, 4), b=(4,))
case("two_inputs_bias_each", lambda x, h, p: (x @ p["W"] + p["c"]) + (h @ p["U"] + p["b"]),
     (3, 4), (3, 5), W=(4, 4), U=(5, 4), b=(4,), c=(4,))
case("two_inputs_difference", lambda x, h, p: x @ p["W"] - h @ p["U"] + p["b"], (3, 4), (3, 5),
     W=(4, 4), U=(5, 4), b=(4,))
case("two_inputs_concatenated",
     lambda x, h, p: jnp.concatenate([x, h], 1) @ p["W"] + p["b"], (3, 4), (3, 5),
     W=(9, 4), b=(4,))
case("two_inputs_scaled_after",
     lambda x, h, p: (x @ p["W"] + h @ p["U"] + p["b"]) * p["s"], (3, 4), (3, 5),
     W=(4, 4), U=(5, 4), b=(4,), s=(4,))
case("two_inputs_scaled_each",
     lambda x, h, p: (x * p["s"]) @ p["W"] + (h @ p["U"]) * p["gamma"] + p["b"], (3, 4), (3, 5),
     W=(4, 4), U=(5, 4), b=(4,), s=(4,), gamma=(4,))
case("two_inputs_broadcast", lambda x, h, p: x @ p["W"] + h @ p["U"] + p["b"], (3, 4), (5,),
     W=(4, 4), U=(5, 4), b=(4,))
case("three_inputs",
     lambda x, h, v, p: x @ p["W"] + (p["c"] - h @ p["U"]) - v @ p["V"] + p["b"],
     (3, 4), (3, 5), (3, 2), W=(4, 4), U=(5, 4), V=(2, 4), b=(4,), c=(4,))
# fmt: on


# Rules: the library's, and the oracle's as a function of (a, b, connected, x, r).

LOW, HIGH = -2.5, 3.0


def affine(name: str, **options: Any) -> Callable[..., np.ndarray]:
    rule = getattr(oracle, name)
    return lambda a, b, connected, x, r: rule(a, b, x, r, **options)


def relative(z: Any) -> Any:
    return 0.1 * abs(z)


RULES: dict[str, tuple[Any, Callable[..., np.ndarray]]] = {
    "z": (Z(), affine("z")),
    "z_nobias": (Z(bias=False), affine("z", bias=False)),
    "epsilon": (Epsilon(), affine("epsilon")),
    "epsilon_large": (Epsilon(0.5), affine("epsilon", eps=0.5)),
    "epsilon_large_nobias": (
        Epsilon(0.5, bias=False),
        affine("epsilon", eps=0.5, bias=False),
    ),
    "epsilon_function": (Epsilon(relative), affine("epsilon", eps=relative)),
    "gamma": (Gamma(), affine("gamma")),
    "gamma_large_nobias": (
        Gamma(1.5, epsilon=0.25, bias=False),
        affine("gamma", gamma=1.5, eps=0.25, bias=False),
    ),
    "alpha_beta": (AlphaBeta(), affine("alpha_beta")),
    "alpha_beta_3_2_large_nobias": (
        AlphaBeta(3, 2, epsilon=0.25, bias=False),
        affine("alpha_beta", alpha=3.0, beta=2.0, eps=0.25, bias=False),
    ),
    "z_plus": (ZPlus(), affine("z_plus")),
    "z_plus_fast": (ZPlusFast(), affine("z_plus_fast")),
    "alpha_beta_whole_bias": (
        AlphaBetaWholeBias(epsilon=0.25),
        affine("alpha_beta_whole_bias", eps=0.25),
    ),
    "sign": (Sign(), affine("sign")),
    "sign_of_mu": (Sign(0.5), affine("sign", mu=0.5)),
    "z_box": (ZBox(LOW, HIGH), affine("z_box", low=LOW, high=HIGH)),
    "w_square": (WSquare(), affine("w_square")),
    "w_square_bias": (WSquare(bias=True), affine("w_square", bias=True)),
    "flat": (Flat(0.5), lambda a, b, connected, x, r: oracle.flat(connected, r, eps=0.5)),
    "norm": (Norm(), affine("norm")),
    "gradient": (Gradient(), lambda a, b, connected, x, r: oracle.gradient(a, r)),
}


# The comparison.


def draw(name: str) -> tuple[list[np.ndarray], dict[str, np.ndarray], np.random.Generator]:
    """Inputs of both signs and parameters, some of each exactly zero where a zero is allowed."""
    layer = CASES[name]
    rng = np.random.default_rng(list(name.encode()))

    def thinned(shape: tuple[int, ...]) -> np.ndarray:
        return rng.normal(size=shape) * (rng.random(shape) > 0.2)

    inputs = [thinned(shape) for shape in layer.inputs]
    params = {}
    for key, shape in layer.params.items():
        if key in ("gamma", "s"):  # never zero, the first one negative
            value = rng.uniform(0.5, 1.5, shape)
            value[0] *= -1
        elif key == "var":
            value = rng.uniform(0.2, 2.0, shape)
        else:
            value = thinned(shape)
        params[key] = value
    return inputs, params, rng


@functools.cache
def probe(f: Callable[..., Any], *shapes: tuple[int, ...]) -> Callable[[Any], Any]:
    """``params -> (a, b)`` of the layer as ``a @ x + b``, ``x`` all inputs one after the other."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])

    def flattened(x: Any, params: Any) -> Any:
        return f(*map(jnp.reshape, jnp.split(x, ends[:-1]), shapes), params).ravel()

    @jax.jit
    def matrix(params: Any) -> Any:
        zero = jnp.zeros(ends[-1])
        units = jnp.eye(zero.size)  # one after the other: not all of JAX can be vmapped
        value, push = jax.linearize(lambda x: flattened(x, params), zero)
        return lax.map(push, units).T, value

    return matrix


def matrix(layer: Case, params: Any) -> tuple[np.ndarray, np.ndarray]:
    a, b = probe(layer.f, *layer.inputs)(params)
    return np.asarray(a), np.asarray(b)


def connectivity(layer: Case, params: dict[str, np.ndarray]) -> np.ndarray:
    ones = {key: np.ones_like(v) if key.isupper() else v for key, v in params.items()}
    a, _ = probe(layer.ones or layer.f, *layer.inputs)(ones)
    return (np.asarray(a) != 0).astype(float)


def explainer(layer: Case, rule: Any) -> Any:
    argnums = 0 if len(layer.inputs) == 1 else tuple(range(len(layer.inputs)))
    return jxp.lrp(
        layer.f, Composite([(any_layer, rule)]) if layer.named else rule, argnums=argnums
    )


def flatten(relevance: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in tree_leaves(relevance)])


@functools.cache
def maps(name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For every rule the library's map and the oracle's; one compilation per layer."""
    layer = CASES[name]
    inputs, params, rng = draw(name)
    a, b = matrix(layer, params)
    connected = connectivity(layer, params)
    x = flatten(inputs)
    r = rng.normal(size=b.shape)

    @jax.jit
    def found(inputs: Any, params: Any, r: Any) -> Any:
        return {
            key: explainer(layer, rule)(*inputs, params, target=lambda z: r.reshape(z.shape))
            for key, (rule, _) in RULES.items()
        }

    expected = {key: rule(a, b, connected, x, r) for key, (_, rule) in RULES.items()}
    relevance = found(inputs, params, r)
    for part, given in zip(tree_leaves(relevance["z"]), inputs, strict=True):
        assert part.shape == given.shape and part.dtype == given.dtype
    return {key: (flatten(relevance[key]), expected[key]) for key in RULES}


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.isfinite(expected).all() and np.abs(expected).max() > 0
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=TOLERANCE * max(1.0, np.abs(expected).max())
    )


#: Further spellings and layouts of layers that are asked without them.
FURTHER = set(
    "dense_one_example dense_weight_left_vmapped dense_on_sequence dense_general_tensordot "
    "dense_bias_then_divided dense_double_negation dense_output_permuted_scaled "
    "dense_output_split_in_heads_scaled dense_general_merge_scaled_heads dense_then_norm_sqrt "
    "dense_after_norm_sqrt dense_after_norm_folded einsum_bi_io einsum_oi_bi "
    "einsum_to_features_first mul_and_sum_to_one conv1d_channels_first_strided conv2d_valid "
    "conv2d_channels_first_vmapped conv2d_depthwise_channels_first conv3d_channels_first_valid "
    "conv2d_transposed_valid_flipped conv2d_then_norm_sqrt conv2d_after_norm_sqrt "
    "conv2d_then_norm_folded conv2d_then_norm_channels_first conv2d_depthwise_then_norm "
    "conv2d_grouped_after_norm conv2d_channels_first_after_norm conv2d_transposed_after_norm "
    "conv2d_strided_dilated_after_norm conv2d_flattened_then_scaled "
    "conv2d_to_channels_first_then_scaled average_pool_channels_first_overlapping "
    "two_inputs_bias_inside two_inputs_bias_each two_inputs_difference".split()
)
assert set(CASES) > FURTHER


def of_layers(names: Iterable[str]) -> Any:
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in FURTHER)) for name in names]
    )


@pytest.mark.parametrize("rule", RULES)
@of_layers(CASES)
def test_rule_equals_its_matrix_form(name: str, rule: str) -> None:
    assert_same(*maps(name)[rule])


@pytest.mark.parametrize("name", [name for name, c in CASES.items() if c.named and not c.params])
def test_layers_without_a_kernel_keep_the_base_rule(name: str) -> None:
    layer = CASES[name]
    inputs, params, rng = draw(name)
    a, b = matrix(layer, params)
    r = rng.normal(size=b.shape)
    relevance = jxp.lrp(layer.f, Flat())(*inputs, params, target=lambda z: r.reshape(z.shape))
    assert_same(flatten(relevance), oracle.norm(a, b, flatten(inputs), r))


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": jax.nn.relu,
    "relu_by_hand": lambda x: jnp.maximum(x, 0.0),
    "relu6": jax.nn.relu6,
    "sigmoid": jax.nn.sigmoid,
    "square": jnp.square,
    "cube": lambda x: x**3,
    "abs": jnp.abs,
    "negative_abs": lambda x: -jnp.abs(x),
    "softplus": jax.nn.softplus,
    "log_sigmoid": jax.nn.log_sigmoid,
    "tanh": jnp.tanh,
    "leaky_relu": jax.nn.leaky_relu,
    "leaky_relu_by_hand": lambda x: jnp.where(x > 0, x, 0.1 * x),
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "sine": jnp.sin,
    "relu_negated": lambda x: -2.0 * jax.nn.relu(x),
    "bounded_from_below": lambda x: jnp.maximum(x, -0.5),
    "clipped": lambda x: jnp.clip(x, -1.0, 1.0),
    "difference_of_relus": lambda x: jax.nn.relu(x) - jax.nn.relu(-x),
    "one_minus_exp": lambda x: 1.0 - jnp.exp(x),
    "inverse": lambda x: 1.0 / (x + 10.0) - 0.1,
}
SIGN_SPLITTING = ("alpha_beta", "gamma", "z_plus")


def assert_hidden_inputs_are_explained(name: str, act: Callable[[Any], Any]) -> None:
    """The layer behind an activation, which passes relevance on."""
    layer = CASES[name]
    inputs, params, rng = draw(name)
    a, b = matrix(layer, params)
    r = rng.normal(size=b.shape)
    hidden = flatten([act(v) for v in inputs])
    behind = replace(layer, f=lambda *xp: layer.f(*map(act, xp[:-1]), xp[-1]))

    @jax.jit
    def found(inputs: Any, params: Any) -> Any:
        return {
            key: explainer(behind, RULES[key][0])(
                *inputs, params, target=lambda z: r.reshape(z.shape)
            )
            for key in SIGN_SPLITTING
        }

    for key, relevance in found(inputs, params).items():
        assert_same(flatten(relevance), RULES[key][1](a, b, None, hidden, r))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_inputs_count_as_nonnegative_only_where_they_are(activation: str) -> None:
    """Half of a sign-splitting rule may be left out for a rectified input, for no other."""
    assert_hidden_inputs_are_explained("dense_bias", ACTIVATIONS[activation])


@pytest.mark.parametrize(
    "name",
    [
        "dense_input_normalised",
        "conv2d_same",
        "conv2d_after_norm_rsqrt",
        "conv2d_then_norm_sqrt",
        "conv2d_output_scaled_per_position",
        "two_inputs_scaled_each",
    ],
)
def test_rectified_inputs(name: str) -> None:
    assert_hidden_inputs_are_explained(name, jax.nn.relu)


@of_layers(name for name, c in CASES.items() if {"s", "gamma"} & c.params.keys())
def test_dead_halves_stay_dead_in_float32(name: str) -> None:
    """Inputs and weights are positive: every output has contributions of one sign only.

    The other half of a sign-splitting rule has a denominator of zero. A remainder of rounding in
    its place, divided by a stabiliser of the same size, would be relevance from nowhere.
    """
    layer = CASES[name]
    inputs, params, rng = draw(name)
    inputs = [np.abs(v).astype(np.float32) for v in inputs]
    for key, value in params.items():
        params[key] = (np.abs(value) if key.isupper() else value).astype(np.float32)
    a, b = matrix(layer, tree_map(np.float64, params))
    r = rng.normal(size=b.shape).astype(np.float32)

    @jax.jit
    def found(inputs: Any, params: Any) -> Any:
        return {
            key: explainer(layer, RULES[key][0])(
                *inputs, params, target=lambda z: r.reshape(z.shape)
            )
            for key in SIGN_SPLITTING
        }

    x = flatten(inputs).astype(np.float64)
    for key, relevance in found(inputs, params).items():
        expected = RULES[key][1](a, b, None, x, r.astype(np.float64))
        error = np.abs(flatten(relevance) - expected).max()
        assert error < 1e-4 * np.abs(expected).max(), key


@pytest.mark.parametrize("shape", ["element", "feature"])
@pytest.mark.parametrize(
    "name", ["dense_bias", "conv2d_same", "dense_input_normalised", "conv2d_after_norm_rsqrt"]
)
def test_box_with_bounds_per_element(name: str, shape: str) -> None:
    """Bounds are those of the layer's input, before a normalisation that belongs to the layer."""
    layer = CASES[name]
    inputs, params, rng = draw(name)
    (x,) = inputs
    bound = x.shape[1:] if shape == "element" else x.shape[-1:]
    low, high = rng.uniform(-4, -2, bound), rng.uniform(2, 4, bound)
    a, b = matrix(layer, params)
    r = rng.normal(size=b.shape)
    relevance = jxp.lrp(layer.f, ZBox(low, high))(x, params, target=lambda z: r.reshape(z.shape))
    bounds = {
        "low": np.broadcast_to(low, x.shape).ravel(),
        "high": np.broadcast_to(high, x.shape).ravel(),
    }
    assert_same(flatten(relevance), oracle.z_box(a, b, x.ravel(), r, **bounds))


@pytest.mark.parametrize("rule", ["epsilon", "z_plus", "alpha_beta", "flat"])
def test_a_sum_of_convolutions_is_split_before_its_branches(rule: str) -> None:
    """Not one layer: the sum shares out in proportion, then each branch by its own rule."""
    shapes, kernel = ((2, 4, 4, 2), (2, 4, 4, 3)), {"W": (3, 3, 2, 2), "U": (1, 1, 3, 2)}

    def branch(name: str) -> Callable[..., Any]:
        return lambda x, p: conv(x, p[name], NHWC)

    rng = np.random.default_rng(0)
    x, h = (rng.normal(size=shape) for shape in shapes)
    params = {key: rng.normal(size=shape) for key, shape in kernel.items()}
    r = rng.normal(size=(2, 4, 4, 2))
    relevance = jxp.lrp(
        lambda x, h, p: branch("W")(x, p) + branch("U")(h, p), RULES[rule][0], argnums=(0, 1)
    )(x, h, params, target=lambda z: r)

    outputs = [np.asarray(branch(k)(v, params)) for k, v in (("W", x), ("U", h))]
    total = sum(outputs)
    share = r / (total + np.where(total >= 0, 1e-6, -1e-6))
    for part, output, key, value in zip(relevance, outputs, "WU", (x, h), strict=True):
        layer = Case(branch(key), (value.shape,), {key: kernel[key]})
        a, b = matrix(layer, params)
        expected = RULES[rule][1](
            a, b, connectivity(layer, params), value.ravel(), (output * share).ravel()
        )
        assert_same(np.ravel(part), expected)


@pytest.mark.parametrize(
    "name", ["dense_bias", "conv2d_same", "conv2d_after_norm_sqrt", "two_inputs_bias_last"]
)
def test_explainer_needs_no_jit_around_it(name: str) -> None:
    layer = CASES[name]
    inputs, params, rng = draw(name)
    r = rng.normal(size=layer.f(*inputs, params).shape)
    relevance = explainer(layer, AlphaBeta())(*inputs, params, target=lambda z: r)
    a, b = matrix(layer, params)
    assert_same(flatten(relevance), oracle.alpha_beta(a, b, flatten(inputs), r.ravel()))
