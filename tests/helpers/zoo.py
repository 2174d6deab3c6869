"""Small models in many spellings, each with the kinds of layers it must be read as.

Every model is built on demand, so that a framework is imported only where it is used, and in the
precision that is the default when it is built. The lists of kinds are written down from the
architectures, never from what the library answered.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Function = Callable[..., Any]


class Model(NamedTuple):
    """A function, its arguments (the first is explained) and the layers it consists of."""

    f: Function
    args: tuple[Any, ...]
    kinds: tuple[str, ...] = ()


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal numbers, the same for the same shape and seed."""
    return np.random.default_rng((seed, *shape)).normal(size=shape)


def normal(*shape: int, seed: int = 0) -> jax.Array:
    """`draw` in the default precision."""
    return jnp.asarray(draw(*shape, seed=seed))


def between_dense(g: Function, inputs: int = 4, features: int = 6, outputs: int = 3) -> Model:
    """``g`` between two dense layers with biases, on a batch of two."""
    x = normal(2, inputs, seed=1)
    w, b = normal(inputs, features, seed=2), normal(features, seed=3)
    inner = jax.eval_shape(g, jax.ShapeDtypeStruct((2, features), x.dtype))
    v, c = normal(inner.shape[-1], outputs, seed=4), normal(outputs, seed=5)
    return Model(lambda x: g(x @ w + b) @ v + c, (x,))


# --------------------------------------------------------------------------------------------------
# Activations: one Activation each.


def _prelu(z: Any) -> Any:
    slope = jnp.linspace(0.1, 0.4, z.shape[-1], dtype=z.dtype)
    return jnp.where(z >= 0, z, slope * z)


def _snake(z: Any) -> Any:
    frequency = jnp.linspace(0.5, 1.5, z.shape[-1], dtype=z.dtype)
    return z + jnp.sin(frequency * z) ** 2 / frequency


ACTIVATIONS: dict[str, Function] = {
    "relu": jax.nn.relu,
    "relu_maximum": lambda z: jnp.maximum(z, 0),
    "relu_where": lambda z: jnp.where(z > 0, z, 0),
    "relu_clip": lambda z: jnp.clip(z, min=0),
    "relu_product": lambda z: z * (z > 0),
    "leaky_relu": jax.nn.leaky_relu,
    "leaky_relu_maximum": lambda z: jnp.maximum(z, 0.1 * z),
    "prelu": _prelu,
    "elu": jax.nn.elu,
    "elu_expm1": lambda z: jnp.where(z > 0, z, jnp.expm1(jnp.minimum(z, 0))),
    "elu_exp": lambda z: jnp.where(z > 0, z, jnp.exp(jnp.minimum(z, 0)) - 1),
    "selu": jax.nn.selu,
    "celu": jax.nn.celu,
    "gelu_tanh": lambda z: jax.nn.gelu(z, approximate=True),
    "gelu_erf": lambda z: jax.nn.gelu(z, approximate=False),
    "silu": jax.nn.silu,
    "silu_division": lambda z: z / (1 + jnp.exp(-z)),
    "mish": jax.nn.mish,
    "softplus": jax.nn.softplus,
    "log_sigmoid": jax.nn.log_sigmoid,
    "hard_swish": jax.nn.hard_swish,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "relu6": jax.nn.relu6,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "softsign": jax.nn.soft_sign,
    "softcap": lambda z: 30 * jnp.tanh(z / 30),
    "quickgelu": lambda z: z * jax.nn.sigmoid(1.702 * z),
    "squareplus": lambda z: (z + jnp.sqrt(z * z + 4)) / 2,
    "snake": _snake,
    "square": lambda z: z**2,
    "square_product": lambda z: z * z,
    "x_plus_relu": lambda z: z + jax.nn.relu(z),
    "x_plus_square": lambda z: z + 0.1 * z**2,
    "x_tanh_exp": lambda z: z * jnp.tanh(jnp.exp(z)),
    "two_in_a_row": lambda z: jax.nn.silu(jax.nn.gelu(z)),
    "straight_through": lambda z: z + lax.stop_gradient(jnp.round(z) - z),
}


def _halves(z: Any) -> Any:
    return jnp.split(z, 2, axis=-1)


def _glu_slices(z: Any) -> Any:
    half = z.shape[-1] // 2
    return z[..., :half] * jax.nn.sigmoid(z[..., half:])


def _geglu(z: Any) -> Any:
    value, gate = _halves(z)
    return value * jax.nn.gelu(gate)


def _swiglu(z: Any) -> Any:
    gate, value = _halves(z)
    return jax.nn.silu(gate) * value


def _maxout(z: Any) -> Any:
    return z.reshape(*z.shape[:-1], 3, -1).max(-1)


# What stands between the two dense layers.
GATES: dict[str, tuple[Function, tuple[str, ...]]] = {
    "glu": (jax.nn.glu, ("Activation", "Product")),
    "glu_slices": (_glu_slices, ("Activation", "Product")),
    "geglu": (_geglu, ("Activation", "Product")),
    "swiglu": (_swiglu, ("Activation", "Product")),
    "bilinear": (lambda z: jnp.multiply(*_halves(z)), ("Product",)),
    "maxout": (_maxout, ("Selection",)),
    "maxout_maximum": (lambda z: jnp.maximum(*_halves(z)), ("Selection",)),
}


# --------------------------------------------------------------------------------------------------
# Normalisations: one Normalization each; what is left of scale and bias is in the following dense.


def _linen_norm(name: str, **options: Any) -> Function:
    from flax import linen

    module = getattr(linen, name)(**options)
    variables = module.init(jax.random.key(0), jnp.zeros((2, 6)))
    params = jax.tree.map(lambda v: v + normal(*v.shape, seed=6), variables.get("params", {}))
    return lambda z: module.apply({"params": params}, z)


def _nnx_norm(name: str, **options: Any) -> Function:
    from flax import nnx

    return getattr(nnx, name)(6, rngs=nnx.Rngs(0), **options)


def _equinox_norm(name: str, *args: Any, **options: Any) -> Function:
    import equinox

    return jax.vmap(getattr(equinox.nn, name)(*args, **options))


def _keras() -> Any:
    """Keras on JAX; what is built next computes in the default precision."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    precision = normal(1).dtype.name
    keras.config.set_floatx(precision)
    keras.config.set_dtype_policy(precision)
    return keras


def _keras_norm(name: str, **options: Any) -> Function:
    layer = getattr(_keras().layers, name)(**options)
    layer.build((None, 6))
    for weight in layer.weights:
        weight.assign(1 + draw(*weight.shape, seed=7))
    return layer


def _mean_variance(z: Any, axis: int = -1) -> tuple[Any, Any]:
    return z.mean(axis, keepdims=True), z.var(axis, keepdims=True)


def _layer_norm_division() -> Function:
    scale, bias = normal(6, seed=8), normal(6, seed=9)

    def g(z: Any) -> Any:
        mean, variance = _mean_variance(z)
        return (z - mean) / jnp.sqrt(variance + 1e-5) * scale + bias

    return g


def _layer_norm_folded() -> Function:
    scale, bias = normal(6, seed=8), normal(6, seed=9)

    def g(z: Any) -> Any:
        mean, variance = _mean_variance(z)
        inverse = scale * lax.rsqrt(variance + 1e-5)
        return z * inverse + (bias - mean * inverse)

    return g


def _rms_power() -> Function:
    scale = normal(6, seed=8)
    return lambda z: z * jnp.power(jnp.mean(z**2, -1, keepdims=True) + 1e-6, -0.5) * scale


def _rms_division() -> Function:
    scale = normal(6, seed=8)
    return lambda z: scale * (z / jnp.sqrt(jnp.mean(jnp.square(z), -1, keepdims=True) + 1e-6))


def _rms_float32() -> Function:
    """As in language models: the statistic in float32, whatever the model computes in."""
    scale = normal(6, seed=8)

    def g(z: Any) -> Any:
        wide = z.astype(jnp.float32)
        wide = wide * lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + 1e-6)
        return wide.astype(z.dtype) * scale

    return g


def _l2_dot(z: Any) -> Any:
    length = jnp.sqrt(jnp.einsum("bi,bi->b", z, z) + 1e-6)
    return z / length[:, None]


def _group_norm_reshape(z: Any) -> Any:
    groups = z.reshape(z.shape[0], 2, 3)
    mean, variance = _mean_variance(groups)
    return ((groups - mean) * lax.rsqrt(variance + 1e-6)).reshape(z.shape)


def _batch_norm_linen() -> Function:
    from flax import linen

    module = linen.BatchNorm(use_running_average=False)
    variables = module.init(jax.random.key(0), jnp.zeros((2, 6)))
    return lambda z: module.apply(variables, z, mutable=["batch_stats"])[0]


def _batch_norm_nnx() -> Function:
    from flax import nnx

    precision = normal(1).dtype
    layer = nnx.BatchNorm(6, use_running_average=False, param_dtype=precision, rngs=nnx.Rngs(0))
    layer.mean.set_value(jnp.zeros(6, precision))
    layer.var.set_value(jnp.ones(6, precision))
    definition, state = nnx.split(layer)
    return lambda z: nnx.merge(definition, state, copy=True)(z)


def _batch_norm_keras() -> Function:
    layer = _keras().layers.BatchNormalization()
    layer.build((None, 6))
    trained = [v.value for v in layer.trainable_variables]
    others = [v.value for v in layer.non_trainable_variables]
    return lambda z: layer.stateless_call(trained, others, z, training=True)[0]


def _batch_norm(z: Any) -> Any:
    mean, variance = _mean_variance(z, 0)
    return (z - mean) * lax.rsqrt(variance + 1e-5)


NORMALIZATIONS: dict[str, Callable[[], Function]] = {
    "layer_norm_linen": lambda: _linen_norm("LayerNorm"),
    "layer_norm_linen_two_pass": lambda: _linen_norm("LayerNorm", use_fast_variance=False),
    "layer_norm_linen_plain": lambda: _linen_norm("LayerNorm", use_scale=False, use_bias=False),
    "layer_norm_nnx": lambda: _nnx_norm("LayerNorm"),
    "layer_norm_equinox": lambda: _equinox_norm("LayerNorm", 6),
    "layer_norm_keras": lambda: _keras_norm("LayerNormalization"),
    "layer_norm_division": _layer_norm_division,
    "layer_norm_folded": _layer_norm_folded,
    "rms_norm_linen": lambda: _linen_norm("RMSNorm"),
    "rms_norm_nnx": lambda: _nnx_norm("RMSNorm"),
    "rms_norm_equinox": lambda: _equinox_norm("RMSNorm", 6),
    "rms_norm_keras": lambda: _keras_norm("RMSNormalization"),
    "rms_norm_power": _rms_power,
    "rms_norm_division": _rms_division,
    "rms_norm_float32": _rms_float32,
    "group_norm_linen": lambda: _linen_norm("GroupNorm", num_groups=2),
    "group_norm_nnx": lambda: _nnx_norm("GroupNorm", num_groups=2),
    "group_norm_equinox": lambda: _equinox_norm("GroupNorm", 2, 6),
    "group_norm_keras": lambda: _keras_norm("GroupNormalization", groups=2),
    "group_norm_reshape": lambda: _group_norm_reshape,
    "l1": lambda: lambda z: z / jnp.abs(z).sum(-1, keepdims=True),
    "l1_eps": lambda: lambda z: z / (jnp.abs(z).sum(-1, keepdims=True) + 1e-6),
    "l2_norm": lambda: lambda z: z / jnp.linalg.norm(z, axis=-1, keepdims=True),
    "l2_rsqrt": lambda: lambda z: z * lax.rsqrt((z * z).sum(-1, keepdims=True)),
    "l2_maximum": lambda: lambda z: z / jnp.maximum(jnp.sqrt((z**2).sum(-1, keepdims=True)), 1e-6),
    "l2_dot": lambda: _l2_dot,
    "l2_keras_minimum": lambda: _keras().ops.normalize,
    "max_abs": lambda: lambda z: z / jnp.abs(z).max(-1, keepdims=True),
    "standardize": lambda: jax.nn.standardize,
    "unit_keras": lambda: _keras_norm("UnitNormalization"),
    "batch_statistics": lambda: _batch_norm,
    "batch_statistics_linen": _batch_norm_linen,
    "batch_statistics_nnx": _batch_norm_nnx,
    "batch_statistics_keras": _batch_norm_keras,
}


# --------------------------------------------------------------------------------------------------
# Softmax: one Softmax each.

_MASK = np.array([True, True, False, True, False, True])


def _softmax_bare(z: Any) -> Any:
    e = jnp.exp(z)
    return e / e.sum(-1, keepdims=True)


def _softmax_live_maximum(z: Any) -> Any:
    e = jnp.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _softmax_reciprocal(z: Any) -> Any:
    e = jnp.exp(z - lax.stop_gradient(z.max(-1, keepdims=True)))
    return e * (1 / e.sum(-1, keepdims=True))


def _softmax_transposed(z: Any) -> Any:
    """The maximum is taken before a transpose, the sum after it."""
    top = z.max(-1)
    e = jnp.exp(z.T - top)
    return (e / e.sum(0)).T


def _log_softmax_bare(z: Any) -> Any:
    return z - jnp.log(jnp.exp(z).sum(-1, keepdims=True))


SOFTMAXES: dict[str, tuple[Function, str]] = {
    "plain": (jax.nn.softmax, "softmax"),
    "temperature": (lambda z: jax.nn.softmax(z / 2.5), "softmax"),
    "negative": (lambda z: jax.nn.softmax(-z), "softmax"),
    "mask_select": (lambda z: jax.nn.softmax(jnp.where(_MASK, z, -1e9)), "softmax"),
    "mask_additive": (
        lambda z: jax.nn.softmax(z + jnp.where(_MASK, 0.0, -1e9).astype(z.dtype)),
        "softmax",
    ),
    "mask_where": (lambda z: jax.nn.softmax(z, where=_MASK), "softmax"),
    "mask_infinite": (lambda z: jax.nn.softmax(jnp.where(_MASK, z, -jnp.inf)), "softmax"),
    "no_maximum": (_softmax_bare, "softmax"),
    "live_maximum": (_softmax_live_maximum, "softmax"),
    "reciprocal": (_softmax_reciprocal, "softmax"),
    "transposed": (_softmax_transposed, "softmax"),
    "first_axis": (lambda z: jax.nn.softmax(z, axis=0), "softmax"),
    "keras": (lambda z: _keras().ops.softmax(z), "softmax"),
    "log_softmax": (jax.nn.log_softmax, "log_softmax"),
    "log_softmax_bare": (_log_softmax_bare, "log_softmax"),
    "log_softmax_logsumexp": (
        lambda z: z - jax.nn.logsumexp(z, axis=-1, keepdims=True),
        "log_softmax",
    ),
}


# --------------------------------------------------------------------------------------------------
# Attention. Scales, masks and casts are inside the Softmax or an Affine, reshapes are not layers.

ATTENTION = ("Affine", "Affine", "Affine", "Matmul", "Softmax", "Matmul", "Affine")
_T, _D, _HEADS = 5, 8, 2


class _Projections(NamedTuple):
    q: Any
    k: Any
    v: Any
    out: Any
    bias: Any


def _projections() -> _Projections:
    heads = [normal(_D, _HEADS, _D // _HEADS, seed=20 + i) for i in range(3)]
    return _Projections(*heads, normal(_HEADS, _D // _HEADS, _D, seed=23), normal(_D, seed=24))


def _attention_plain(mask: str = "none") -> Model:
    p = _projections()
    causal = np.tril(np.ones((_T, _T), bool))

    def f(x: Any) -> Any:
        q, k, v = (jnp.einsum("btd,dhe->bhte", x, w) for w in (p.q, p.k, p.v))
        scores = jnp.einsum("bhte,bhse->bhts", q, k) * (_D // _HEADS) ** -0.5
        if mask == "select":
            scores = jnp.where(causal, scores, -jnp.inf)
        elif mask == "additive":
            scores = scores + jnp.where(causal, 0.0, -1e9).astype(x.dtype)
        values = jnp.einsum("bhts,bhse->bthe", jax.nn.softmax(scores), v)
        return jnp.einsum("bthe,hed->btd", values, p.out) + p.bias

    return Model(f, (normal(2, _T, _D, seed=25),), ATTENTION)


def _attention_jax(**options: Any) -> Model:
    p = _projections()

    def f(x: Any) -> Any:
        q, k, v = (jnp.einsum("btd,dhe->bthe", x, w) for w in (p.q, p.k, p.v))
        values = jax.nn.dot_product_attention(q, k, v, **options)
        return values.reshape(*x.shape[:-1], -1) @ p.out.reshape(-1, _D) + p.bias

    return Model(f, (normal(2, _T, _D, seed=25),), ATTENTION)


def _attention_linen(masked: bool = False) -> Model:
    from flax import linen

    module = linen.MultiHeadDotProductAttention(
        num_heads=_HEADS, bias_init=linen.initializers.normal(1.0)
    )
    x = normal(2, _T, _D, seed=25)
    variables = module.init(jax.random.key(0), x)
    mask = linen.make_causal_mask(x[..., 0]) if masked else None
    return Model(lambda x: module.apply(variables, x, mask=mask), (x,), ATTENTION)


def _attention_nnx() -> Model:
    from flax import nnx

    module = nnx.MultiHeadAttention(_HEADS, _D, decode=False, rngs=nnx.Rngs(0))
    return Model(lambda x: module(x), (normal(2, _T, _D, seed=25),), ATTENTION)


def _attention_equinox() -> Model:
    import equinox

    module = equinox.nn.MultiheadAttention(_HEADS, _D, use_output_bias=True, key=jax.random.key(0))
    f = jax.vmap(lambda x: module(x, x, x))
    return Model(f, (normal(2, _T, _D, seed=25),), ATTENTION)


def _attention_keras() -> Model:
    layer = _keras().layers.MultiHeadAttention(_HEADS, _D // _HEADS)
    layer.build((2, _T, _D), (2, _T, _D), (2, _T, _D))
    return Model(lambda x: layer(x, x), (normal(2, _T, _D, seed=25),), ATTENTION)


ATTENTIONS: dict[str, Callable[[], Model]] = {
    "plain": _attention_plain,
    "mask_select": lambda: _attention_plain("select"),
    "mask_additive": lambda: _attention_plain("additive"),
    "jax": _attention_jax,
    "jax_causal": lambda: _attention_jax(is_causal=True),
    "linen": _attention_linen,
    "linen_causal": lambda: _attention_linen(masked=True),
    "nnx": _attention_nnx,
    "equinox": _attention_equinox,
    "keras": _attention_keras,
}


# --------------------------------------------------------------------------------------------------
# One convolutional network, the same weights in every spelling:
# normalise, conv, BN, relu, max-pool, BN, conv, relu, avg-pool, conv, BN, relu, mean, dense.

CNN_KINDS = (
    "Affine",  # normalise, conv1, bn1
    "Activation",
    "Selection",
    "Affine",  # bn2, conv2
    "Activation",
    "Affine",  # the average pool stays a layer of its own: one mixing operation per layer
    "Affine",  # conv3, bn3
    "Activation",
    "Affine",  # mean over the positions
    "Affine",  # dense
)
CNN_OPS = {
    0: "convolution",
    3: "convolution",
    5: "pooling",
    6: "convolution",
    8: "sum",
    9: "dense",
}
CNN_INPUT = (2, 8, 8, 3)
_BN_EPSILON = 1e-3


def cnn_weights() -> dict[str, dict[str, np.ndarray]]:
    """Convolutions HWIO; the statistics of the batch normalisations are far from trivial."""
    weights: dict[str, dict[str, np.ndarray]] = {
        "input": {
            "mean": np.array([0.3, -0.2, 0.1]),
            "variance": np.array([0.5, 1.5, 2.0]),
        }
    }
    for i, (c_in, c_out) in enumerate([(3, 4), (4, 6), (6, 6)], 1):
        weights[f"conv{i}"] = {
            "kernel": draw(3, 3, c_in, c_out, seed=30 + i) / 3,
            "bias": draw(c_out, seed=40 + i),
        }
    for i, channels in enumerate([4, 4, 6], 1):
        weights[f"bn{i}"] = {
            "scale": draw(channels, seed=50 + i),  # of either sign
            "bias": draw(channels, seed=60 + i),
            "mean": draw(channels, seed=70 + i),
            "var": np.exp(draw(channels, seed=80 + i)),
        }
    weights["dense"] = {"kernel": draw(6, 5, seed=90), "bias": draw(5, seed=91)}
    return weights


class Spelling(NamedTuple):
    """``f`` of an input in its own layout; ``to_nhwc`` brings such an array back to NHWC."""

    f: Function
    x: jax.Array
    to_nhwc: Function = lambda r: r


def _cast(weights: Any, dtype: Any = None) -> Any:
    return jax.tree.map(lambda v: jnp.asarray(v, dtype or normal(1).dtype), weights)


def _cnn_input(dtype: Any = None) -> jax.Array:
    return jnp.asarray(draw(*CNN_INPUT, seed=99), dtype or normal(1).dtype)


def cnn_plain() -> Spelling:
    w = _cast(cnn_weights())

    def conv(x: Any, p: Any) -> Any:
        layout = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(x, p["kernel"], (1, 1), "SAME", dimension_numbers=layout)
        return y + p["bias"]

    def bn(x: Any, p: Any) -> Any:
        factor = p["scale"] / jnp.sqrt(p["var"] + _BN_EPSILON)
        return x * factor + (p["bias"] - p["mean"] * factor)

    def f(x: Any) -> Any:
        x = (x - w["input"]["mean"]) / jnp.sqrt(w["input"]["variance"])
        x = jax.nn.relu(bn(conv(x, w["conv1"]), w["bn1"]))
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        x = jax.nn.relu(conv(bn(x, w["bn2"]), w["conv2"]))
        x = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
        x = jax.nn.relu(bn(conv(x, w["conv3"]), w["bn3"]))
        return x.mean((1, 2)) @ w["dense"]["kernel"] + w["dense"]["bias"]

    return Spelling(f, _cnn_input())


def _linen_cnn(dtype: Any = None) -> tuple[Any, Any]:
    from flax import linen

    w = _cast(cnn_weights(), dtype)

    class CNN(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            def conv(features: int, name: str) -> Any:
                return linen.Conv(features, (3, 3), dtype=dtype, name=name)

            def bn(name: str) -> Any:
                return linen.BatchNorm(
                    use_running_average=True, epsilon=_BN_EPSILON, dtype=dtype, name=name
                )

            x = (x - w["input"]["mean"]) / jnp.sqrt(w["input"]["variance"])
            x = linen.relu(bn("bn1")(conv(4, "conv1")(x)))
            x = linen.max_pool(x, (2, 2), (2, 2))
            x = linen.relu(conv(6, "conv2")(bn("bn2")(x)))
            x = linen.avg_pool(x, (2, 2), (2, 2))
            x = linen.relu(bn("bn3")(conv(6, "conv3")(x)))
            return linen.Dense(5, dtype=dtype, name="dense")(x.mean((1, 2)))

    params = {name: dict(p) for name, p in w.items() if name != "input"}
    statistics = {
        name: {key: p.pop(key) for key in ("mean", "var")}
        for name, p in params.items()
        if name.startswith("bn")
    }
    return CNN(), {"params": params, "batch_stats": statistics}


def cnn_linen(dtype: Any = None) -> Spelling:
    module, variables = _linen_cnn(dtype)
    return Spelling(lambda x: module.apply(variables, x), _cnn_input(dtype))


def cnn_linen_jit() -> Spelling:
    module, variables = _linen_cnn()
    return Spelling(jax.jit(lambda x: module.apply(variables, x)), _cnn_input())


def cnn_vmap() -> Spelling:
    module, variables = _linen_cnn()
    return Spelling(jax.vmap(lambda x: module.apply(variables, x[None])[0]), _cnn_input())


def cnn_disable_jit() -> Spelling:
    module, variables = _linen_cnn()

    def f(x: Any) -> Any:
        with jax.disable_jit():
            return module.apply(variables, x)

    return Spelling(f, _cnn_input())


def cnn_bfloat16() -> Spelling:
    return cnn_linen(jnp.bfloat16)


def cnn_nnx() -> Spelling:
    from flax import nnx

    w = _cast(cnn_weights())

    class CNN(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            for i, (c_in, c_out, features) in enumerate([(3, 4, 4), (4, 6, 4), (6, 6, 6)], 1):
                setattr(self, f"conv{i}", nnx.Conv(c_in, c_out, (3, 3), rngs=rngs))
                bn = nnx.BatchNorm(
                    features, use_running_average=True, epsilon=_BN_EPSILON, rngs=rngs
                )
                setattr(self, f"bn{i}", bn)
            self.dense = nnx.Linear(6, 5, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = (x - w["input"]["mean"]) / jnp.sqrt(w["input"]["variance"])
            x = nnx.relu(self.bn1(self.conv1(x)))
            x = nnx.max_pool(x, (2, 2), (2, 2))
            x = nnx.relu(self.conv2(self.bn2(x)))
            x = nnx.avg_pool(x, (2, 2), (2, 2))
            x = nnx.relu(self.bn3(self.conv3(x)))
            return self.dense(x.mean((1, 2)))

    model = CNN(nnx.Rngs(0))
    for name, parameters in w.items():
        for key, value in parameters.items():
            if name != "input":
                getattr(getattr(model, name), key).set_value(value)
    return Spelling(lambda x: model(x), _cnn_input())


def cnn_equinox() -> Spelling:
    import equinox as eqx

    w = _cast(cnn_weights())
    key = jax.random.key(0)

    def conv(name: str) -> Any:
        kernel = w[name]["kernel"].transpose(3, 2, 0, 1)
        bias = w[name]["bias"][:, None, None]
        layer = eqx.nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1, key=key)
        return eqx.tree_at(lambda m: (m.weight, m.bias), layer, (kernel, bias))

    def bn(name: str) -> tuple[Any, Any]:
        p = w[name]
        layer, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
            p["mean"].size, axis_name="batch", eps=_BN_EPSILON, mode="batch", inference=True
        )
        layer = eqx.tree_at(lambda m: (m.weight, m.bias), layer, (p["scale"], p["bias"]))
        return layer, state.set(layer.batch_state_index, (p["mean"], p["var"]))

    convs = [conv(f"conv{i}") for i in (1, 2, 3)]
    bns = [bn(f"bn{i}") for i in (1, 2, 3)]
    max_pool, avg_pool = eqx.nn.MaxPool2d(2, 2), eqx.nn.AvgPool2d(2, 2)
    dense = eqx.tree_at(
        lambda m: (m.weight, m.bias),
        eqx.nn.Linear(6, 5, key=key),
        (w["dense"]["kernel"].T, w["dense"]["bias"]),
    )
    mean, std = (v[:, None, None] for v in (w["input"]["mean"], jnp.sqrt(w["input"]["variance"])))

    def apply_bn(x: Any, i: int) -> Any:
        layer, state = bns[i]
        return layer(x, state)[0]

    def f(x: Any) -> Any:
        x = (x - mean) / std
        x = jax.nn.relu(apply_bn(convs[0](x), 0))
        x = max_pool(x)
        x = jax.nn.relu(convs[1](apply_bn(x, 1)))
        x = avg_pool(x)
        x = jax.nn.relu(apply_bn(convs[2](x), 2))
        return dense(x.mean((1, 2)))

    return Spelling(
        jax.vmap(f, axis_name="batch"),
        _cnn_input().transpose(0, 3, 1, 2),
        lambda r: r.transpose(0, 2, 3, 1),
    )


def cnn_keras() -> Spelling:
    keras = _keras()
    w = cnn_weights()

    def bn(name: str) -> Any:
        return keras.layers.BatchNormalization(epsilon=_BN_EPSILON, name=name)

    def conv(features: int, name: str) -> Any:
        return keras.layers.Conv2D(features, 3, padding="same", name=name)

    model = keras.Sequential(
        [
            keras.Input(CNN_INPUT[1:]),
            keras.layers.Normalization(**w["input"]),
            conv(4, "conv1"),
            bn("bn1"),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(2),
            bn("bn2"),
            conv(6, "conv2"),
            keras.layers.ReLU(),
            keras.layers.AveragePooling2D(2),
            conv(6, "conv3"),
            bn("bn3"),
            keras.layers.ReLU(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(5, name="dense"),
        ]
    )
    for name, parameters in w.items():
        if name != "input":
            model.get_layer(name).set_weights(list(parameters.values()))
    return Spelling(lambda x: model(x, training=False), _cnn_input())


CNNS: dict[str, Callable[[], Spelling]] = {
    "linen": cnn_linen,
    "linen_jit": cnn_linen_jit,
    "vmap": cnn_vmap,
    "disable_jit": cnn_disable_jit,
    "bfloat16": cnn_bfloat16,
    "nnx": cnn_nnx,
    "equinox": cnn_equinox,
    "keras": cnn_keras,
}


# --------------------------------------------------------------------------------------------------
# Blocks of known architectures.


def transformer_block() -> Model:
    """Pre-LN, linen: LayerNorm scale and bias go to the dense layers behind them."""
    from flax import linen

    class Block(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            random = linen.initializers.normal(1.0)
            h = linen.LayerNorm(scale_init=random, bias_init=random)(x)
            x = x + linen.MultiHeadDotProductAttention(_HEADS, bias_init=random)(h)
            h = linen.LayerNorm(scale_init=random, bias_init=random)(x)
            h = linen.gelu(linen.Dense(2 * _D, bias_init=random)(h))
            return x + linen.Dense(_D, bias_init=random)(h)

    block, x = Block(), normal(2, _T, _D, seed=100)
    variables = block.init(jax.random.key(0), x)
    kinds = (
        "Normalization",  # its scale and bias are copied into q, k and v
        *ATTENTION,  # the output projection keeps its bias: it has one consumer, the Merge
        "Merge",
        "Normalization",
        "Affine",
        "Activation",
        "Affine",
        "Merge",
    )
    return Model(lambda x: block.apply(variables, x), (x,), kinds)


def llama_block() -> Model:
    """RMSNorm, RoPE, grouped-query attention, SwiGLU, no biases."""
    groups, heads, size, hidden = 2, 2, 4, 6
    width = groups * heads * size
    wq = normal(width, groups * heads * size, seed=110) / 4
    wk, wv = (normal(width, groups * size, seed=s) / 4 for s in (111, 112))
    wo = normal(groups * heads * size, width, seed=113) / 4
    gate, up, down = (normal(width, hidden, seed=s) for s in (114, 115, 116))
    g1, g2 = normal(width, seed=117), normal(width, seed=118)
    angles = np.arange(_T)[:, None] * 10.0 ** -np.arange(size // 2)
    cos, sin = (
        jnp.asarray(np.concatenate([v, v], -1)[:, None], g1.dtype)
        for v in (np.cos(angles), np.sin(angles))
    )

    def rms(x: Any, scale: Any) -> Any:
        return x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * scale

    def rope(x: Any) -> Any:
        first, second = jnp.split(x, 2, -1)
        return x * cos + jnp.concatenate([-second, first], -1) * sin

    def f(x: Any) -> Any:
        h = rms(x, g1)
        q = (h @ wq).reshape(_T, groups * heads, size)
        k = (h @ wk).reshape(_T, groups, size)
        v = (h @ wv).reshape(_T, groups, size)
        # Groups are an axis of their own, no key is repeated: whether repeating is a layer is
        # not asked here.
        q, k = rope(q).reshape(_T, groups, heads, size), rope(k)
        scores = jnp.einsum("tghd,sgd->ghts", q, k) / np.sqrt(size)
        scores = jnp.where(np.tril(np.ones((_T, _T), bool)), scores, -jnp.inf)
        values = jnp.einsum("ghts,sgd->tghd", jax.nn.softmax(scores), v)
        x = x + values.reshape(_T, -1) @ wo
        h = rms(x, g2)
        return x + (jax.nn.silu(h @ gate) * (h @ up)) @ down.T

    kinds = (
        "Normalization",
        *("Affine",) * 3,  # q, k, v
        *("Affine",) * 2,  # each RoPE is one joint affine layer without a kernel
        "Matmul",
        "Softmax",
        "Matmul",
        "Affine",
        "Merge",
        "Normalization",
        "Affine",  # gate
        "Activation",
        "Affine",  # up
        "Product",
        "Affine",
        "Merge",
    )
    return Model(f, (normal(_T, width, seed=119),), kinds)


def squeeze_excite() -> Model:
    """The gate is broadcast over positions: structure, not a layer."""
    kernel, bias = normal(3, 3, 3, 6, seed=120), normal(6, seed=121)
    w1, b1, w2, b2 = (
        normal(6, 2, seed=122),
        normal(2, seed=123),
        normal(2, 6, seed=124),
        normal(6, seed=125),
    )

    def f(x: Any) -> Any:
        x = lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.silu(x + bias)
        s = jax.nn.relu(x.mean((1, 2)) @ w1 + b1)
        return x * jax.nn.sigmoid(s @ w2 + b2)[:, None, None]

    kinds = (
        *("Affine", "Activation"),  # convolution
        "Affine",  # squeeze: the mean is mixing, so it is not part of the next dense
        *("Affine", "Activation") * 2,
        "Product",
    )
    return Model(f, (normal(2, 4, 4, 3, seed=126),), kinds)


def dense_net_block() -> Model:
    """BN-relu-conv with concatenation: nothing takes these BatchNorms, so they are layers."""
    w = cnn_weights()["bn1"]
    stem = normal(3, 3, 3, 4, seed=130)
    kernels = [normal(3, 3, 4, 4, seed=131), normal(3, 3, 8, 4, seed=132)]
    head, bias = normal(12, 5, seed=133), normal(5, seed=134)

    def conv(x: Any, kernel: Any) -> Any:
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def bn(x: Any) -> Any:
        repeats = x.shape[-1] // 4
        scale, shift, mean, var = (
            jnp.asarray(np.tile(w[key], repeats), x.dtype)
            for key in ("scale", "bias", "mean", "var")
        )
        return (x - mean) * (lax.rsqrt(var + _BN_EPSILON) * scale) + shift

    def f(x: Any) -> Any:
        x = conv(x, stem)
        for kernel in kernels:
            x = jnp.concatenate([x, conv(jax.nn.relu(bn(x)), kernel)], -1)
        return jax.nn.relu(bn(x)).mean((1, 2)) @ head + bias

    kinds = (
        "Affine",  # stem: read by a BatchNorm and a concatenation, so it ends here
        *("Affine", "Activation", "Affine") * 2,
        *("Affine", "Activation"),  # a BatchNorm behind a concatenation stays alone too
        "Affine",  # mean
        "Affine",  # head
    )
    return Model(f, (normal(2, 4, 4, 3, seed=135),), kinds)


DENSE_NET_OPS = {0: "convolution", 1: "scale", 3: "convolution", 4: "scale", 6: "convolution"} | {
    7: "scale",
    9: "sum",
    10: "dense",
}


def _cell_input() -> dict[str, jax.Array]:
    return {
        "x": normal(2, 3, seed=140),
        "h": normal(2, 4, seed=141),
        "c": normal(2, 4, seed=142),
    }


def lstm_cell() -> Model:
    """Input, hidden and cell state are all explained; the four gates are one dense layer."""
    w, u, b = normal(3, 16, seed=143), normal(4, 16, seed=144), normal(16, seed=145)

    def f(s: Any) -> Any:
        i, f, g, o = jnp.split(s["x"] @ w + s["h"] @ u + b, 4, -1)
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        return o * jnp.tanh(f * s["c"] + i * g)

    kinds = (
        "Affine",  # x W + h U + b: every term ends in its own dot, so it is one layer
        *("Activation",) * 4,
        *("Product",) * 2,
        "Merge",
        "Activation",
        "Product",
    )
    return Model(f, (_cell_input(),), kinds)


def lstm_cell_linen() -> Model:
    """One dense layer per gate and source."""
    from flax import linen

    cell = linen.LSTMCell(4, bias_init=linen.initializers.normal(1.0))
    s = _cell_input()
    variables = cell.init(jax.random.key(0), (s["c"], s["h"]), s["x"])
    kinds = (
        *("Affine", "Activation") * 4,
        *("Product",) * 2,
        "Merge",
        "Activation",
        "Product",
    )
    return Model(lambda s: cell.apply(variables, (s["c"], s["h"]), s["x"])[1], (s,), kinds)


def gru_cell() -> Model:
    w = [normal(3, 4, seed=s) for s in (150, 151, 152)]
    u = [normal(4, 4, seed=s) for s in (153, 154, 155)]
    b = [normal(4, seed=s) for s in (156, 157, 158, 159)]

    def f(s: Any) -> Any:
        x, h = s["x"], s["h"]
        reset = jax.nn.sigmoid(x @ w[0] + h @ u[0] + b[0])
        update = jax.nn.sigmoid(x @ w[1] + h @ u[1] + b[1])
        candidate = jnp.tanh((x @ w[2] + b[2]) + reset * (h @ u[2] + b[3]))
        return (1 - update) * candidate + update * h

    kinds = (
        *("Affine", "Activation") * 2,
        *("Affine", "Affine"),  # of x and of h: only the second is multiplied by the gate
        "Product",
        "Merge",
        "Activation",
        "Activation",  # 1 - update is a gate: as an Affine its 1 would absorb relevance
        *("Product",) * 2,
        "Merge",
    )
    s = _cell_input()
    return Model(f, ({"x": s["x"], "h": s["h"]},), kinds)


def highway() -> Model:
    wh, bh, wt, bt = (
        normal(4, 4, seed=160),
        normal(4, seed=161),
        normal(4, 4, seed=162),
        normal(4, seed=163),
    )

    def f(x: Any) -> Any:
        h = jax.nn.relu(x @ wh + bh)
        t = jax.nn.sigmoid(x @ wt + bt)
        return t * h + (1 - t) * x

    kinds = (
        *("Affine", "Activation") * 2,
        "Product",
        "Activation",  # 1 - t, as in the GRU
        "Product",
        "Merge",
    )
    return Model(f, (normal(2, 4, seed=164),), kinds)


def film() -> Model:
    """Features scaled and shifted by what another input says."""
    wx, bx = normal(3, 6, seed=170), normal(6, seed=171)
    wc, bc = normal(4, 12, seed=172), normal(12, seed=173)
    head = normal(6, 2, seed=174)

    def f(s: Any) -> Any:
        h = s["x"] @ wx + bx
        scale, shift = jnp.split(s["h"] @ wc + bc, 2, -1)
        return jax.nn.relu(scale * h + shift) @ head

    # The bias bx stays with its dense layer; scale and shift are two halves of one dense layer.
    kinds = ("Affine", "Affine", "Product", "Merge", "Activation", "Affine")
    s = _cell_input()
    return Model(f, ({"x": s["x"], "h": s["h"]},), kinds)


BLOCKS: dict[str, Callable[[], Model]] = {
    "transformer": transformer_block,
    "llama": llama_block,
    "squeeze_excite": squeeze_excite,
    "dense_net": dense_net_block,
    "lstm": lstm_cell,
    "gru": gru_cell,
    "highway": highway,
    "film": film,
}
