"""A jaxpr is read as layers by what it means, in whatever spelling it was written."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import zoo
from jaxplain.graph import trace


def layers_of(f, *args):
    return trace(f, *args).layers


def kinds(f, *args):
    return [layer.kind for layer in layers_of(f, *args)]


@pytest.mark.parametrize("name", zoo.ACTIVATIONS)
def test_activation(name):
    model = zoo.between_dense(zoo.ACTIVATIONS[name])
    assert kinds(model.f, *model.args) == ["Affine", "Activation", "Affine"]


@pytest.mark.parametrize(
    ("f", "op"),
    [
        (lambda z: z * (z > 0), "rectifier"),
        (lambda z: jnp.where(z > 0, z, 0.1 * z), "rectifier"),
        (lambda z: jnp.where(z > 0, z * z, 0), "elementwise"),
        (lambda z: jnp.where(z > 1, 1 / z, z), "elementwise"),
    ],
)
def test_a_rectifier_is_made_of_straight_lines(f, op):
    w = zoo.normal(4, 6)
    assert layers_of(lambda x: f(x @ w), zoo.normal(2, 4))[-1].op == op


@pytest.mark.parametrize("name", zoo.GATES)
def test_gate(name):
    g, between = zoo.GATES[name]
    model = zoo.between_dense(g)
    assert kinds(model.f, *model.args) == ["Affine", *between, "Affine"]


@pytest.mark.parametrize("name", zoo.NORMALIZATIONS)
def test_normalization(name):
    model = zoo.between_dense(zoo.NORMALIZATIONS[name]())
    found = layers_of(model.f, *model.args)
    assert [layer.kind for layer in found] == ["Affine", "Normalization", "Affine"]
    assert found[0].op == found[2].op == "dense"


@pytest.mark.parametrize("name", zoo.SOFTMAXES)
def test_softmax(name):
    g, op = zoo.SOFTMAXES[name]
    model = zoo.between_dense(g)
    found = layers_of(model.f, *model.args)
    assert [layer.kind for layer in found] == ["Affine", "Softmax", "Affine"]
    assert found[1].op == op


@pytest.mark.parametrize("name", zoo.SOFTMAXES)
def test_softmax_at_the_end(name):
    g, op = zoo.SOFTMAXES[name]
    w, b = zoo.normal(4, 6), zoo.normal(6)
    found = layers_of(lambda x: g(x @ w + b), zoo.normal(2, 4))
    assert [layer.kind for layer in found] == ["Affine", "Softmax"]
    assert found[-1].op == op


@pytest.mark.parametrize("name", zoo.ATTENTIONS)
def test_attention(name):
    model = zoo.ATTENTIONS[name]()
    assert tuple(kinds(model.f, *model.args)) == model.kinds


@pytest.mark.parametrize("name", ["plain", *zoo.CNNS])
def test_cnn(name):
    f, x, _ = zoo.CNNS[name]() if name in zoo.CNNS else zoo.cnn_plain()
    found = layers_of(f, x)
    assert tuple(layer.kind for layer in found) == zoo.CNN_KINDS
    assert {i: found[i].op for i in zoo.CNN_OPS} == zoo.CNN_OPS
    assert found[2].op in ("reduce_window_max", "max")


@pytest.mark.parametrize("name", zoo.BLOCKS)
def test_block(name):
    model = zoo.BLOCKS[name]()
    assert tuple(kinds(model.f, *model.args)) == model.kinds


def test_lone_batch_norms_are_scales():
    model = zoo.dense_net_block()
    found = layers_of(model.f, *model.args)
    assert {i: found[i].op for i in zoo.DENSE_NET_OPS} == zoo.DENSE_NET_OPS


def test_lstm_of_linen():
    """linen interleaves its gates: the layers are what is asked, not their order."""
    model = zoo.lstm_cell_linen()
    assert sorted(kinds(model.f, *model.args)) == sorted(model.kinds)


@pytest.mark.parametrize("name", ["transformer", "squeeze_excite", "dense_net", "lstm"])
def test_jit_inside_changes_nothing(name):
    model = zoo.BLOCKS[name]()
    assert tuple(kinds(jax.jit(model.f), *model.args)) == model.kinds


@pytest.mark.parametrize("name", ["llama", "squeeze_excite", "lstm"])
def test_layers_are_numbered_in_order_and_know_their_line(name):
    """What a library's own jitted function does is written where the user calls it."""
    model = zoo.BLOCKS[name]()
    found = layers_of(model.f, *model.args)
    assert [layer.index for layer in found] == list(range(len(found)))
    first = model.f.__code__.co_firstlineno
    for layer in found:
        file, line = layer.location.split(":")
        assert file == "zoo.py", layer
        # Helpers of the model are written above it, in the same function.
        assert first - 40 < int(line) < first + 40, layer


def test_linen_layers_carry_the_names_of_their_modules():
    found = layers_of(*zoo.cnn_linen()[:2])
    for i, name in {0: "conv1", 3: "conv2", 6: "conv3", 9: "dense"}.items():
        assert name in found[i].name


W, B = zoo.normal(4, 6, seed=200), zoo.normal(6, seed=201)
U, V = zoo.normal(6, 4, seed=202), zoo.normal(6, 3, seed=203)
KERNEL = zoo.normal(3, 3, 3, 5, seed=204)


def convolve(x, kernel=KERNEL, **options):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout, **options)


def weight_norm(x):
    return x @ (W / jnp.linalg.norm(W, axis=0) * B)


def several_consumers(x):
    z = x @ W + B
    return jnp.tanh(z) @ V + jax.nn.sigmoid(z) @ V


def depthwise_separable(x):
    x = convolve(x, KERNEL[:, :, :1, :3], feature_group_count=3)
    return convolve(x, KERNEL[:1, :1]) + B[:5]


def linear_attention(s):
    """The denominator is no scale of the numerator: a quotient of two things, not a norm."""
    q, k, v = (jax.nn.elu(s @ w) + 1 for w in (W[:, :2], W[:, 2:4], W[:, 4:]))
    return (q @ (k.T @ v)) / (q @ k.sum(0))[:, None]


def dropout_at_rest(x):
    from flax import linen

    h = linen.Dropout(0.5, deterministic=True).apply({}, jax.nn.relu(x @ W))
    return h @ V


SMALL = {
    # function: (shape of the input, kinds, ops of the Affines)
    "weight_norm": (weight_norm, (2, 4), "Affine", "dense"),
    "array_offset_is_a_bias": (
        lambda x: jax.nn.relu(x @ W + B),
        (2, 4),
        "Affine Activation",
        "dense",
    ),
    "number_offset_is_the_activations": (
        lambda x: jax.nn.relu(x @ W + 0.5),
        (2, 4),
        "Affine Activation",
        "dense",
    ),
    "input_normalization": (
        lambda x: jnp.tanh(((x - B[:4]) / 2) @ W),
        (2, 4),
        "Affine Activation",
        "dense",
    ),
    "position": (lambda x: jnp.tanh(x + B), (2, 6), "Affine Activation", "scale"),
    "position_before_dense": (lambda x: (x + B) @ U, (2, 6), "Affine", "dense"),
    "low_rank": (lambda x: x @ W @ U, (2, 4), "Affine Affine", "dense dense"),
    "einsum_of_three": (
        lambda x: jnp.einsum("bi,ij,jk->bk", x, W, V),
        (2, 4),
        "Affine Affine",
        "dense dense",
    ),
    "product_and_sum": (lambda x: (x[:, :, None] * W).sum(1) + B, (2, 4), "Affine", "dense"),
    "mean_subtraction": (
        lambda x: x @ W - (x @ W).mean(-1, keepdims=True),
        (2, 4),
        "Affine Affine Merge",
        "dense sum",
    ),
    "several_consumers": (
        several_consumers,
        (2, 4),
        "Affine Activation Activation Affine",  # the sum of two kernels is one layer
        "dense dense",
    ),
    "residual_with_convolutions": (
        lambda x: convolve(x) + jnp.tanh(convolve(x)) @ U[:5, :1],
        (1, 4, 4, 3),
        "Affine Activation Affine Merge",
        "convolution dense",
    ),
    "depthwise_separable": (
        depthwise_separable,
        (1, 4, 4, 3),
        "Affine Affine",
        "convolution convolution",
    ),
    "patches": (
        lambda x: lax.conv_general_dilated_patches(
            x, (2, 2), (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        (1, 4, 4, 3),
        "",
        "",
    ),
    "transposed": (
        lambda x: lax.conv_transpose(x, KERNEL, (2, 2), "SAME"),
        (1, 4, 4, 3),
        "Affine",
        "convolution",
    ),
    "bilinear_resize": (
        lambda x: jax.image.resize(x, (8, 8), "bilinear"),
        (4, 4),
        "Affine Affine",  # one per axis
        "filter filter",
    ),
    # What the function spells out is no kernel, however it is applied.
    "window": (lambda x: (x * jnp.hanning(4)).sum(-1), (2, 4), "Affine", "filter"),
    "window_of_a_product": (
        lambda x: (x * B[:4] * jnp.hanning(4)).sum(-1),
        (2, 4),
        "Affine",
        "dense",
    ),
    "differences": (lambda x: x @ (jnp.eye(4) - jnp.eye(4, k=1)), (2, 4), "Affine", "filter"),
    "random_weights": (
        lambda x: x @ jax.random.normal(jax.random.key(0), (4, 6)),
        (2, 4),
        "Affine",
        "dense",
    ),
    "sum_of_filters": (
        lambda x: jax.image.resize(x, (2, 6), "linear") + x @ W,
        (2, 4),
        "Affine Affine Merge",
        "filter dense",
    ),
    "cumulative": (
        lambda x: jnp.tanh(jnp.cumsum(x, -1)),
        (2, 4),
        "Affine Activation",
        "cumulative",
    ),
    # A dot_general that contracts nothing is a scale.
    "einsum_without_sum": (lambda x: jnp.einsum("bi,i->bi", x @ W, B), (2, 4), "Affine", "dense"),
    "structure": (
        lambda x: jnp.concatenate([x[:, ::-1].T.reshape(2, 4), jnp.zeros((2, 2))], -1) @ V,
        (2, 4),
        "Affine",
        "dense",
    ),
    "sort": (lambda x: jnp.sort(x @ W, -1)[:, -3:], (2, 4), "Affine Selection", "dense"),
    "top_k": (lambda x: lax.top_k(x @ W, 2)[0], (2, 4), "Affine Selection", "dense"),
    "median": (lambda x: jnp.sort(x @ W, -1)[:, 3], (2, 4), "Affine Selection", "dense"),
    "linear_attention": (
        linear_attention,
        (5, 4),
        "Affine Activation Affine Activation Affine Activation Matmul Matmul Affine Matmul Product",
        "dense dense dense sum",
    ),
    "attention_pooling": (
        lambda x: (jax.nn.softmax(x @ B[:4])[:, None] * x).sum(0) @ W,
        (5, 4),
        "Affine Softmax Product Affine Affine",
        "dense sum dense",
    ),
    "dropout_at_rest": (dropout_at_rest, (2, 4), "Affine Activation Affine", "dense dense"),
}


@pytest.mark.parametrize("name", SMALL)
def test_decisions(name):
    f, shape, expected, ops = SMALL[name]
    found = layers_of(f, zoo.normal(*shape))
    assert [layer.kind for layer in found] == expected.split()
    assert [layer.op for layer in found if layer.kind == "Affine"] == ops.split()
