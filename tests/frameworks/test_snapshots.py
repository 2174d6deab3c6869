"""What the layers of the frameworks are read as: a change in JAX or a framework fails by name.

`python tests/frameworks/test_snapshots.py` rewrites snapshots.json.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxplain.graph import trace

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
FILE = Path(__file__).with_name("snapshots.json")
KEY = jax.random.key(0)
IMAGE, TOKENS, VECTOR = jnp.ones((2, 8, 8, 4)), jnp.ones((2, 5, 8)), jnp.ones((2, 8))

Made = tuple[Callable[[Any], Any], Any]


def _linen(x: Any, make: Callable[[Any], Any], *more: Any) -> Made:
    from flax import linen

    module = make(linen)
    variables = module.init(KEY, *more, x)
    return (lambda x: module.apply(variables, *more, x)), x


def _linen_cell(name: str) -> Made:
    from flax import linen

    cell = getattr(linen, name)(features=6)
    carry = cell.initialize_carry(KEY, VECTOR.shape)
    variables = cell.init(KEY, carry, VECTOR)
    return (lambda x: cell.apply(variables, carry, x)[1]), VECTOR


def _nnx(x: Any, make: Callable[[Any, Any], Any]) -> Made:
    from flax import nnx

    return make(nnx, nnx.Rngs(0)), x


def _nnx_cell(name: str) -> Made:
    from flax import nnx

    cell = getattr(nnx, name)(8, 6, rngs=nnx.Rngs(0))
    carry = cell.initialize_carry(VECTOR.shape, nnx.Rngs(0))
    return (lambda x: cell(carry, x)[1]), VECTOR


def _equinox(x: Any, make: Callable[[Any], Any]) -> Made:
    import equinox

    return jax.vmap(make(equinox)), x


def _keras(x: Any, make: Callable[[Any], Any]) -> Made:
    from zoo import _keras as load

    layer = make(load().layers)
    layer(x)  # builds it
    return layer, x


def _function(x: Any, f: Callable[[Any], Any]) -> Made:
    return f, x


CHANNELS_FIRST = IMAGE.transpose(0, 3, 1, 2)
EVAL = {"use_running_average": True}

LAYERS: dict[str, Callable[[], Made]] = {
    "linen Dense": lambda: _linen(VECTOR, lambda nn: nn.Dense(6)),
    "linen DenseGeneral": lambda: _linen(TOKENS, lambda nn: nn.DenseGeneral((3, 4), axis=-1)),
    "linen Einsum": lambda: _linen(TOKENS, lambda nn: nn.Einsum((8, 6), "bti,io->bto")),
    "linen Conv": lambda: _linen(IMAGE, lambda nn: nn.Conv(6, (3, 3))),
    "linen Conv grouped": lambda: _linen(
        IMAGE, lambda nn: nn.Conv(8, (3, 3), feature_group_count=4)
    ),
    "linen Conv circular": lambda: _linen(IMAGE, lambda nn: nn.Conv(6, (3, 3), padding="CIRCULAR")),
    "linen ConvTranspose": lambda: _linen(
        IMAGE, lambda nn: nn.ConvTranspose(6, (3, 3), strides=(2, 2))
    ),
    "linen BatchNorm": lambda: _linen(IMAGE, lambda nn: nn.BatchNorm(**EVAL)),
    "linen LayerNorm": lambda: _linen(TOKENS, lambda nn: nn.LayerNorm()),
    "linen LayerNorm bfloat16": lambda: _linen(
        TOKENS.astype(jnp.bfloat16), lambda nn: nn.LayerNorm(dtype=jnp.bfloat16)
    ),
    "linen RMSNorm": lambda: _linen(TOKENS, lambda nn: nn.RMSNorm()),
    "linen GroupNorm": lambda: _linen(IMAGE, lambda nn: nn.GroupNorm(2)),
    "linen InstanceNorm": lambda: _linen(IMAGE, lambda nn: nn.InstanceNorm()),
    "linen MultiHeadAttention": lambda: _linen(
        TOKENS, lambda nn: nn.MultiHeadDotProductAttention(2)
    ),
    "linen LSTMCell": lambda: _linen_cell("LSTMCell"),
    "linen OptimizedLSTMCell": lambda: _linen_cell("OptimizedLSTMCell"),
    "linen GRUCell": lambda: _linen_cell("GRUCell"),
    "linen SimpleCell": lambda: _linen_cell("SimpleCell"),
    "linen PReLU": lambda: _linen(VECTOR, lambda nn: nn.PReLU()),
    "linen max_pool": lambda: _linen(
        IMAGE, lambda nn: nn.Sequential([lambda x: nn.max_pool(x, (2, 2), (2, 2))])
    ),
    "linen avg_pool": lambda: _linen(
        IMAGE, lambda nn: nn.Sequential([lambda x: nn.avg_pool(x, (2, 2), (2, 2))])
    ),
    "linen Dropout": lambda: _linen(VECTOR, lambda nn: nn.Dropout(0.5, deterministic=True)),
    "linen remat Dense": lambda: _linen(VECTOR, lambda nn: nn.remat(nn.Dense)(6)),
    "nnx Linear": lambda: _nnx(VECTOR, lambda nnx, r: nnx.Linear(8, 6, rngs=r)),
    "nnx Conv": lambda: _nnx(IMAGE, lambda nnx, r: nnx.Conv(4, 6, (3, 3), rngs=r)),
    "nnx ConvTranspose": lambda: _nnx(
        IMAGE, lambda nnx, r: nnx.ConvTranspose(4, 6, (3, 3), strides=(2, 2), rngs=r)
    ),
    "nnx BatchNorm": lambda: _nnx(IMAGE, lambda nnx, r: nnx.BatchNorm(4, **EVAL, rngs=r)),
    "nnx LayerNorm": lambda: _nnx(TOKENS, lambda nnx, r: nnx.LayerNorm(8, rngs=r)),
    "nnx RMSNorm": lambda: _nnx(TOKENS, lambda nnx, r: nnx.RMSNorm(8, rngs=r)),
    "nnx GroupNorm": lambda: _nnx(IMAGE, lambda nnx, r: nnx.GroupNorm(4, 2, rngs=r)),
    "nnx MultiHeadAttention": lambda: _nnx(
        TOKENS, lambda nnx, r: nnx.MultiHeadAttention(2, 8, decode=False, rngs=r)
    ),
    "nnx LSTMCell": lambda: _nnx_cell("LSTMCell"),
    "nnx GRUCell": lambda: _nnx_cell("GRUCell"),
    "equinox Linear": lambda: _equinox(VECTOR, lambda e: e.nn.Linear(8, 6, key=KEY)),
    "equinox Conv2d": lambda: _equinox(
        CHANNELS_FIRST, lambda e: e.nn.Conv2d(4, 6, 3, padding=1, key=KEY)
    ),
    "equinox ConvTranspose2d": lambda: _equinox(
        CHANNELS_FIRST, lambda e: e.nn.ConvTranspose2d(4, 6, 3, stride=2, key=KEY)
    ),
    "equinox LayerNorm": lambda: _equinox(VECTOR, lambda e: e.nn.LayerNorm(8)),
    "equinox RMSNorm": lambda: _equinox(VECTOR, lambda e: e.nn.RMSNorm(8)),
    "equinox GroupNorm": lambda: _equinox(CHANNELS_FIRST, lambda e: e.nn.GroupNorm(2, 4)),
    "equinox MultiheadAttention": lambda: _equinox(
        TOKENS, lambda e: (lambda m: lambda x: m(x, x, x))(e.nn.MultiheadAttention(2, 8, key=KEY))
    ),
    "equinox LSTMCell": lambda: _equinox(
        VECTOR,
        lambda e: (lambda m: lambda x: m(x, (jnp.ones(6), jnp.ones(6)))[0])(
            e.nn.LSTMCell(8, 6, key=KEY)
        ),
    ),
    "equinox GRUCell": lambda: _equinox(
        VECTOR, lambda e: (lambda m: lambda x: m(x, jnp.ones(6)))(e.nn.GRUCell(8, 6, key=KEY))
    ),
    "equinox MaxPool2d": lambda: _equinox(CHANNELS_FIRST, lambda e: e.nn.MaxPool2d(2, 2)),
    "equinox AvgPool2d": lambda: _equinox(CHANNELS_FIRST, lambda e: e.nn.AvgPool2d(2, 2)),
    "equinox AdaptiveAvgPool2d": lambda: _equinox(
        CHANNELS_FIRST, lambda e: e.nn.AdaptiveAvgPool2d(2)
    ),
    "equinox PReLU": lambda: _equinox(VECTOR, lambda e: e.nn.PReLU()),
    "keras Dense": lambda: _keras(VECTOR, lambda k: k.Dense(6, activation="relu")),
    "keras Conv2D": lambda: _keras(IMAGE, lambda k: k.Conv2D(6, 3, padding="same")),
    "keras Conv2DTranspose": lambda: _keras(IMAGE, lambda k: k.Conv2DTranspose(6, 3, strides=2)),
    "keras DepthwiseConv2D": lambda: _keras(IMAGE, lambda k: k.DepthwiseConv2D(3)),
    "keras SeparableConv2D": lambda: _keras(IMAGE, lambda k: k.SeparableConv2D(6, 3)),
    "keras BatchNormalization": lambda: _keras(IMAGE, lambda k: k.BatchNormalization()),
    "keras LayerNormalization": lambda: _keras(TOKENS, lambda k: k.LayerNormalization()),
    "keras RMSNormalization": lambda: _keras(TOKENS, lambda k: k.RMSNormalization()),
    "keras GroupNormalization": lambda: _keras(IMAGE, lambda k: k.GroupNormalization(2)),
    "keras MaxPooling2D": lambda: _keras(IMAGE, lambda k: k.MaxPooling2D(2)),
    "keras AveragePooling2D": lambda: _keras(IMAGE, lambda k: k.AveragePooling2D(2)),
    "keras GlobalAveragePooling2D": lambda: _keras(IMAGE, lambda k: k.GlobalAveragePooling2D()),
    **{
        f"jax.nn {name}": lambda name=name: _function(VECTOR, getattr(jax.nn, name))
        for name in (
            "relu relu6 leaky_relu elu selu celu gelu silu mish softplus sigmoid hard_sigmoid "
            "hard_silu soft_sign log_sigmoid squareplus hard_tanh tanh glu softmax log_softmax "
            "logsumexp standardize"
        ).split()
    },
    "jax.nn gelu exact": lambda: _function(VECTOR, lambda x: jax.nn.gelu(x, approximate=False)),
    "jax.nn dot_product_attention": lambda: _function(
        jnp.ones((2, 5, 2, 4)), lambda x: jax.nn.dot_product_attention(x, x, x, is_causal=True)
    ),
}


def sequence(name: str) -> list[str]:
    """The kinds and operations of a layer, as jaxplain reads it."""
    f, x = LAYERS[name]()
    return [" ".join(filter(None, (v.kind, v.op))) for v in trace(f, x).layers]


@pytest.mark.parametrize("name", LAYERS)
def test_a_frameworks_layer_is_read_as_it_was(name: str) -> None:
    assert sequence(name) == json.loads(FILE.read_text())[name]


def test_every_snapshot_has_its_layer() -> None:
    assert list(json.loads(FILE.read_text())) == list(LAYERS)


if __name__ == "__main__":
    rows = (f"  {json.dumps(name)}: {json.dumps(sequence(name))}" for name in LAYERS)
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n")
