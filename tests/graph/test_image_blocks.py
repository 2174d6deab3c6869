"""The blocks of image networks: read as what they are, and explained as their definition says.

A block is written once, in steps whose author says what each is: an affine map, an activation, a
product. As a plain function jaxplain has to find that out itself; on a `Tape` every step is
explained by hand, the affine ones by the oracle on their matrix (examples and positions included).
Float64 throughout.
"""

import functools
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxplain as jxp
import oracle
import zoo
from comparing import assert_same, together
from jaxplain import composites
from jaxplain.composites import Composite, first, kernel
from jaxplain.graph import trace
from jaxplain.rules import AlphaBeta, Epsilon, Flat, WSquare, ZBox

Array = Any
Block = Callable[[Any, Array], Array]


pytestmark = pytest.mark.usefixtures("float64")


# The two ways to run a block


class Plain:
    """As a user writes it."""

    def affine(self, op: str, f: Callable[..., Array], *xs: Array) -> Array:
        return f(*xs)

    def activation(self, f: Callable[..., Array], x: Array, op: str = "") -> Array:
        return f(x)

    def normalization(self, f: Any, frozen: Any, statistic: Any, x: Array) -> Array:
        return f(x)

    def selection(self, f: Callable[..., Array], x: Array) -> Array:
        return f(x)

    def move(self, f: Callable[..., Array], *xs: Array) -> Array:
        return f(*xs)

    def merge(self, a: Array, b: Array) -> Array:
        return a + b

    def product(self, value: Array, gate: Array) -> Array:
        return value * gate


def matrix(f: Callable[..., Array], xs: tuple[Array, ...]) -> tuple[np.ndarray, np.ndarray, Array]:
    """A and b of an affine map of all entries of all its inputs, and its output.

    f at 0 and at the unit vectors.
    """
    shapes = [x.shape for x in xs]
    cuts = np.cumsum([x.size for x in xs])

    def entry(v: Array) -> Array:
        parts = jnp.split(v, cuts[:-1])
        return f(*(p.reshape(shape) for p, shape in zip(parts, shapes, strict=True))).ravel()

    basis = np.concatenate([np.zeros((1, cuts[-1])), np.eye(cuts[-1])])
    values, y = jax.jit(lambda basis, xs: (jax.vmap(entry)(basis), f(*xs)))(basis, xs)
    b, *columns = np.asarray(values)
    return np.stack(columns, 1) - b[:, None], b, y


def flat(*xs: Array) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in xs])


class Tape:
    """Runs a block and keeps how to explain it.

    Attributes:
        kinds: what each step is.
        steps: for each, its inputs, its output, and the relevance of the inputs as a function of
            that of the output and the kernels' rule.
    """

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.steps: list[tuple[tuple[Array, ...], Array, Callable[..., np.ndarray]]] = []
        self._below_kernel: set[int] = set()

    def affine(self, op: str, f: Callable[..., Array], *xs: Array) -> Array:
        a, b, y = matrix(f, xs)
        x = flat(*xs)
        first = op in ("dense", "convolution") and not self._reached(xs)

        def explain(r: np.ndarray, rule: Callable[..., np.ndarray]) -> np.ndarray:
            if op == "scale":
                return r
            if op not in ("dense", "convolution"):
                return oracle.norm(a, b, x, r)
            return rule(a, b, x, r, first)

        return self._step(f"Affine {op}", xs, y, explain, op in ("dense", "convolution"))

    def activation(self, f: Callable[..., Array], x: Array, op: str = "rectifier") -> Array:
        return self._step(f"Activation {op}", (x,), f(x), lambda r, rule: r)

    def normalization(self, f: Any, frozen: Any, statistic: Any, x: Array) -> Array:
        """`frozen(x, statistic(x))` is affine in x for a given statistic."""
        held, y = jax.jit(lambda x: (statistic(x), f(x)))(x)
        a, b, as_frozen = matrix(lambda x: frozen(x, held), (x,))
        np.testing.assert_allclose(y, as_frozen, rtol=0, atol=1e-6)
        explain = lambda r, rule: oracle.norm(a, b, flat(x), r)  # noqa: E731
        return self._step("Normalization", (x,), y, explain)

    def selection(self, f: Callable[..., Array], x: Array) -> Array:
        slopes, y = jax.jit(lambda x: (jax.jacobian(f)(x), f(x)))(x)
        a = np.reshape(slopes, (-1, x.size))
        assert set(np.unique(a)) == {0, 1} and (a.sum(1) == 1).all(), "a tie"
        return self._step("Selection", (x,), y, lambda r, rule: a.T @ r)

    def move(self, f: Callable[..., Array], *xs: Array) -> Array:
        a, _, y = matrix(f, xs)
        return self._step("", xs, y, lambda r, rule: a.T @ r)

    def merge(self, a: Array, b: Array) -> Array:
        def explain(r: np.ndarray, rule: Any) -> np.ndarray:
            eye = np.eye(a.size)
            return oracle.norm(np.concatenate([eye, eye], 1), 0.0, flat(a, b), r)

        return self._step("Merge", (a, b), a + b, explain)

    def product(self, value: Array, gate: Array) -> Array:
        def explain(r: np.ndarray, rule: Any) -> np.ndarray:
            halves = r.reshape(value.shape) / 2
            axes = tuple(i for i, n in enumerate(gate.shape) if n != value.shape[i])
            return flat(halves, halves.sum(axes, keepdims=True))

        return self._step("Product", (value, gate), value * gate, explain)

    def _reached(self, xs: tuple[Array, ...]) -> bool:
        return any(id(x) in self._below_kernel for x in xs)

    def _step(
        self, kind: str, xs: tuple[Array, ...], y: Array, explain: Any, kernel: bool = False
    ) -> Array:
        if kind:
            self.kinds.append(kind)
        self.steps.append((xs, y, explain))
        if kernel or self._reached(xs):
            self._below_kernel.add(id(y))
        return y

    def relevance(self, x: Any, output: Any, seed: Any, rule: Callable[..., np.ndarray]) -> Any:
        """The relevance of a tree x, when the tree `output` starts with that of `seed`."""
        arrived: dict[int, np.ndarray] = {}

        def add(value: Array, r: np.ndarray) -> None:
            arrived[id(value)] = arrived.get(id(value), 0.0) + np.ravel(r)

        jax.tree.map(add, output, seed)
        for xs, y, explain in reversed(self.steps):
            if id(y) in arrived:
                parts = explain(arrived[id(y)], rule)
                cuts = np.cumsum([v.size for v in xs])[:-1]
                for value, r in zip(xs, np.split(parts, cuts), strict=True):
                    add(value, r)
        return jax.tree.map(lambda v: arrived[id(v)].reshape(v.shape), x)


# The blocks

BLOCKS: dict[str, tuple[Block, Any]] = {}
IMAGE = (2, 4, 4, 3)


def block(*shape: int, x: Any = None, name: str = "") -> Callable[[Block], Block]:
    """Registers a block with the input's shape, or a function that makes the input."""

    def register(f: Block) -> Block:
        BLOCKS[name or f.__name__] = f, x or (lambda: zoo.normal(*(shape or IMAGE), seed=1))
        return f

    return register


def convolution(
    features: int,
    channels: int = 3,
    size: int = 3,
    seed: int = 0,
    bias: bool = True,
    **options: Any,
) -> Callable[[Array], Array]:
    groups = options.get("feature_group_count", 1)
    w = zoo.normal(size, size, channels // groups, features, seed=seed) / size
    b = zoo.normal(features, seed=seed + 1) if bias else 0
    strides, padding = options.pop("strides", (1, 1)), options.pop("padding", "SAME")

    def f(x: Array) -> Array:
        layout = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=layout, **options)
        return y + b

    return f


def batch_norm(features: int, seed: int = 0) -> Callable[[Array], Array]:
    mean, shift, gain = (zoo.normal(features, seed=seed + i) for i in (2, 3, 4))
    variance = 0.5 + jnp.abs(zoo.normal(features, seed=seed + 5))
    return lambda x: (x - mean) * (lax.rsqrt(variance + 1e-3) * gain) + shift


def dense(inputs: int, outputs: int, seed: int = 0) -> Callable[[Array], Array]:
    w, b = zoo.normal(inputs, outputs, seed=seed + 6), zoo.normal(outputs, seed=seed + 7)
    return lambda x: x @ w + b


def global_mean(x: Array) -> Array:
    return x.mean((1, 2))


def pool(kind: str, padding: str = "VALID", size: int = 2) -> Callable[[Array], Array]:
    window = (1, size, size, 1)

    def maximum(x: Array) -> Array:
        return lax.reduce_window(x, -jnp.inf, lax.max, window, window, padding)

    def mean(x: Array) -> Array:
        total = lax.reduce_window(x, 0.0, lax.add, window, window, padding)
        count = lax.reduce_window(jnp.ones_like(x), 0.0, lax.add, window, window, padding)
        return total / count

    return maximum if kind == "max" else mean


def then(*fs: Callable[[Array], Array]) -> Callable[[Array], Array]:
    def f(x: Array) -> Array:
        for g in fs:
            x = g(x)
        return x

    return f


# Gates


@block()
def squeeze_excite(t, x):
    x = t.activation(jax.nn.silu, t.affine("convolution", convolution(6), x), "elementwise")
    s = t.affine("sum", global_mean, x)
    s = t.activation(jax.nn.relu, t.affine("dense", dense(6, 2), s))
    s = t.activation(jax.nn.sigmoid, t.affine("dense", dense(2, 6), s), "logistic")
    return t.product(x, t.move(lambda s: s[:, None, None], s))


@block()
def squeeze_excite_by_convolutions(t, x):
    """As in MobileNetV3: a hard sigmoid, a mean that keeps its axes, a hard swish behind."""
    x = t.activation(jax.nn.relu, t.affine("convolution", convolution(6), x))
    s = t.affine("sum", lambda x: x.mean((1, 2), keepdims=True), x)
    s = t.activation(jax.nn.relu, t.affine("convolution", convolution(2, 6, 1), s))
    s = t.affine("convolution", convolution(6, 2, 1, seed=8), s)
    s = t.activation(jax.nn.hard_sigmoid, s, "elementwise")
    x = t.activation(jax.nn.hard_swish, t.product(x, s), "elementwise")
    return t.affine("convolution", convolution(4, 6, 1), x)


@block()
def spatial_attention(t, x):
    """A gate per position, from the mean and the maximum over channels (CBAM)."""
    x = t.affine("convolution", convolution(6), x)
    mean = t.affine("sum", lambda x: x.mean(-1, keepdims=True), x)
    peak = t.selection(lambda x: x.max(-1, keepdims=True), x)
    gate = t.move(lambda *xs: jnp.concatenate(xs, -1), mean, peak)
    gate = t.activation(
        jax.nn.sigmoid, t.affine("convolution", convolution(1, 2), gate), "logistic"
    )
    return t.product(x, gate)


# Convolutions


@block()
def depthwise_separable(t, x):
    """As in MobileNet, with a multiplier of two and BatchNorm behind both."""
    depthwise = convolution(6, feature_group_count=3)
    x = t.affine("convolution", then(depthwise, batch_norm(6)), x)
    x = t.activation(jax.nn.relu6, x)
    x = t.affine("convolution", then(convolution(4, 6, 1), batch_norm(4)), x)
    return t.activation(jax.nn.relu6, x)


@block()
def separable_keras(t, x):
    layer = keras_layer("SeparableConv2D", filters=4, kernel_size=3, padding="same")
    depthwise, pointwise, bias = layer.weights

    def first(x):
        return lax.conv_general_dilated(
            x,
            depthwise.value.reshape(3, 3, 1, 3),
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=3,
        )

    if isinstance(t, Plain):
        return layer(x)
    y = t.affine("convolution", first, x)
    return t.affine("convolution", lambda y: y @ pointwise.value[0, 0] + bias.value, y)


@block()
def inverted_residual(t, x):
    y = t.affine("convolution", then(convolution(6, 3, 1), batch_norm(6)), x)
    y = t.activation(jax.nn.hard_swish, y, "elementwise")
    depthwise = convolution(6, 6, feature_group_count=6)
    y = t.affine("convolution", then(depthwise, batch_norm(6)), y)
    y = t.activation(jax.nn.hard_swish, y, "elementwise")
    return t.merge(x, t.affine("convolution", then(convolution(3, 6, 1), batch_norm(3)), y))


@block()
def inception(t, x):
    """Four branches, one behind an average that does not count the padding."""
    a = t.activation(jax.nn.relu, t.affine("convolution", convolution(2, 3, 1), x))
    b = t.activation(jax.nn.relu, t.affine("convolution", convolution(2, 3, 1, seed=10), x))
    b = t.activation(jax.nn.relu, t.affine("convolution", convolution(3, 2, 3), b))
    c = t.affine("pooling", pool("mean", "SAME", 3), x)
    c = t.move(lambda c: jnp.repeat(jnp.repeat(c, 2, 1), 2, 2), c)
    c = t.activation(jax.nn.relu, t.affine("convolution", convolution(2, 3, 1, seed=20), c))
    x = t.move(lambda *xs: jnp.concatenate(xs, -1), a, b, c)
    return t.affine("convolution", convolution(3, 7, 1), x)


def transposed_lax(x):
    w, b = zoo.normal(3, 3, 3, 2, seed=30), zoo.normal(2, seed=31)
    return lax.conv_transpose(x, w, (2, 2), "SAME") + b


def linen_module(name: str, *args: Any, **options: Any) -> Callable[[Array], Array]:
    from flax import linen

    module = getattr(linen, name)(*args, **options)

    def f(x: Array) -> Array:
        variables = jax.eval_shape(module.init, jax.random.key(0), x)
        leaves, tree = jax.tree.flatten(variables)
        values = [zoo.normal(*v.shape, seed=40 + i) for i, v in enumerate(leaves)]
        return module.apply(jax.tree.unflatten(tree, values), x)

    return f


def keras_layer(name: str, build: tuple[Any, ...] = (None, *IMAGE[1:]), **options: Any) -> Any:
    layer = getattr(zoo._keras().layers, name)(**options)
    layer.build(build)
    for i, weight in enumerate(layer.weights):
        weight.assign(zoo.normal(*weight.shape, seed=50 + i))
    return layer


def nnx_transposed(x):
    from flax import nnx

    layer = nnx.ConvTranspose(3, 2, (3, 3), (2, 2), rngs=nnx.Rngs(0))
    layer.kernel.set_value(zoo.normal(3, 3, 3, 2, seed=60))
    layer.bias.set_value(zoo.normal(2, seed=61))
    return layer(x)


def equinox_transposed(x):
    import equinox as eqx

    layer = eqx.nn.ConvTranspose2d(3, 2, 3, 2, padding=1, key=jax.random.key(0))
    return jax.vmap(layer)(x.transpose(0, 3, 1, 2))


TRANSPOSED: dict[str, Callable[[], Callable[[Array], Array]]] = {
    "lax": lambda: transposed_lax,
    "linen": lambda: linen_module("ConvTranspose", 2, (3, 3), (2, 2)),
    "nnx": lambda: nnx_transposed,
    "keras": lambda: keras_layer("Conv2DTranspose", filters=2, kernel_size=3, strides=2),
    "equinox": lambda: equinox_transposed,
}

for spelling, make in TRANSPOSED.items():

    @block(name=f"transposed_{spelling}")
    def transposed(t, x, make=make):
        x = t.activation(jax.nn.relu, t.affine("convolution", convolution(3), x))
        return t.activation(jax.nn.relu, t.affine("convolution", make(), x))


# Normalisation


@block()
def dense_net(t, x):
    """BatchNorm, relu, convolution: nothing takes the BatchNorm; and an average behind it."""
    x = t.affine("convolution", convolution(4), x)
    y = t.activation(jax.nn.relu, t.affine("scale", batch_norm(4), x))
    y = t.affine("convolution", convolution(3, 4, seed=70), y)
    x = t.move(lambda *xs: jnp.concatenate(xs, -1), x, y)
    x = t.activation(jax.nn.relu, t.affine("scale", batch_norm(7), x))
    return t.affine("pooling", pool("mean"), t.affine("convolution", convolution(3, 7, 1), x))


@block()
def batch_norm_behind_relu(t, x):
    """It belongs to the convolution that reads it, whose padding comes after it."""
    x = t.activation(jax.nn.relu, t.affine("convolution", convolution(4), x))
    return t.affine("convolution", then(batch_norm(4), convolution(3, 4, seed=80)), x)


@block()
def batch_norm_behind_relu_before_maximum(t, x):
    """As in cifar_vgg and CREPE: nothing but the maximum reads it."""
    x = t.activation(jax.nn.elu, t.affine("convolution", convolution(4), x), "elementwise")
    x = t.selection(pool("max"), t.affine("scale", batch_norm(4), x))
    return t.affine("convolution", convolution(3, 4, 1, seed=90), x)


def grouped(axes: tuple[int, ...], groups: int, epsilon: float, gain: Any, shift: Any) -> Any:
    """A normalisation over `axes` of (N, H, W, groups, C / groups), and its statistic."""

    def centred(x: Array) -> Array:
        x = x.reshape(*x.shape[:-1], groups, -1)
        return x - x.mean(axes, keepdims=True)

    def statistic(x: Array) -> Array:
        return 1 / jnp.sqrt((centred(x) ** 2).mean(axes, keepdims=True) + epsilon)

    def frozen(x: Array, s: Array) -> Array:
        return (centred(x) * s).reshape(x.shape) * gain + shift

    return frozen, statistic


def linen_norm(name: str, **options: Any) -> Callable[[Array], Array]:
    return linen_module(name, **options)


def equinox_group_norm(x: Array) -> Array:
    import equinox as eqx

    layer = eqx.nn.GroupNorm(2, 4)
    layer = eqx.tree_at(lambda m: (m.weight, m.bias), layer, (GAIN(), SHIFT()))
    return jax.vmap(layer)(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)


def GAIN() -> Array:  # linen orders its parameters by name: bias, scale
    return zoo.normal(4, seed=41)


def SHIFT() -> Array:
    return zoo.normal(4, seed=40)


def keras_norm(name: str, **options: Any) -> Any:
    layer = keras_layer(name, (None, 4, 4, 4), **options)
    for weight, value in zip(layer.weights, (GAIN(), SHIFT()), strict=True):
        weight.assign(value)
    return layer


POSITIONS, CHANNELS, ALL = (1, 2, 4), (4,), (1, 2, 3, 4)
NORMS: dict[str, tuple[Callable[[], Callable[[Array], Array]], tuple[int, ...], int, float]] = {
    "group_linen": (lambda: linen_norm("GroupNorm", num_groups=2), POSITIONS, 2, 1e-6),
    "group_keras": (lambda: keras_norm("GroupNormalization", groups=2), POSITIONS, 2, 1e-3),
    "group_equinox": (lambda: equinox_group_norm, POSITIONS, 2, 1e-5),
    "instance_linen": (lambda: linen_norm("InstanceNorm"), POSITIONS, 4, 1e-6),
    "instance_keras": (lambda: keras_norm("GroupNormalization", groups=-1), POSITIONS, 4, 1e-3),
    "layer_linen": (lambda: linen_norm("LayerNorm"), CHANNELS, 1, 1e-6),
    "layer_linen_everywhere": (
        lambda: linen_norm("LayerNorm", reduction_axes=(1, 2, 3)),
        ALL,
        1,
        1e-6,
    ),
    "layer_keras": (lambda: keras_norm("LayerNormalization"), CHANNELS, 1, 1e-3),
}

for spelling, (make, axes, groups, epsilon) in NORMS.items():

    @block(name=f"norm_{spelling}")
    def norm(t, x, make=make, axes=axes, groups=groups, epsilon=epsilon):
        x = t.affine("convolution", convolution(4), x)
        x = t.normalization(make(), *grouped(axes, groups, epsilon, GAIN(), SHIFT()), x)
        x = t.activation(jax.nn.relu, x)
        return t.affine("convolution", convolution(3, 4, seed=95), x)


# Activations


def keras_prelu(x):
    layer = zoo._keras().layers.PReLU(shared_axes=[1, 2])
    layer.build((None, 4, 4, 4))
    layer.weights[0].assign(jnp.full((1, 1, 4), 0.3))
    return layer(x)


ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], str]] = {
    "relu6": (jax.nn.relu6, "rectifier"),
    "hard_swish": (jax.nn.hard_swish, "elementwise"),
    "leaky_relu": (jax.nn.leaky_relu, "rectifier"),
    "prelu_linen": (linen_module("PReLU"), "rectifier"),
    "prelu_keras": (keras_prelu, "rectifier"),
}

for spelling, (g, name) in ACTIVATIONS.items():

    @block(name=f"activation_{spelling}")
    def activation(t, x, g=g, name=name):
        x = t.affine("convolution", then(convolution(4), batch_norm(4)), x)
        x = t.activation(g, x, name)
        return t.affine("convolution", convolution(3, 4, seed=100), x)


# Pooling


POOLS: dict[str, tuple[str, Callable[[], Callable[[Array], Array]]]] = {
    "mean": ("sum", lambda: global_mean),
    "mean_linen": ("pooling", lambda: linen_pool("avg_pool")),
    "mean_keras": ("sum", lambda: keras_layer("GlobalAveragePooling2D")),
    "max": ("max", lambda: lambda x: x.max((1, 2))),
    "max_linen": ("max", lambda: linen_pool("max_pool")),
    "max_keras": ("max", lambda: keras_layer("GlobalMaxPooling2D")),
}


def linen_pool(name: str) -> Callable[[Array], Array]:
    from flax import linen

    return lambda x: getattr(linen, name)(x, (4, 4))[:, 0, 0]


for spelling, (what, make) in POOLS.items():

    @block(name=f"global_{spelling}")
    def global_pool(t, x, what=what, make=make):
        x = t.affine("convolution", convolution(4), x)
        x = t.activation(jax.nn.leaky_relu, x)
        x = t.selection(make(), x) if what == "max" else t.affine(what, make(), x)
        return t.affine("dense", dense(4, 3), x)


# Sizes


def resized(method: str, *size: int) -> Callable[[Array], Array]:
    return lambda x: jax.image.resize(x, (x.shape[0], *size, x.shape[3]), method)


def keras_resized(method: str, *size: int) -> Callable[[Array], Array]:
    options = {"interpolation": method, "antialias": True}
    return lambda x: keras_layer("Resizing", height=size[0], width=size[1], **options)(x)


RESIZES: dict[str, tuple[Callable[..., Any], int]] = {
    "linear_up": (partial(resized, "linear"), 6),
    "linear_down": (partial(resized, "linear"), 3),
    "cubic": (partial(resized, "cubic"), 6),
    "lanczos3": (partial(resized, "lanczos3"), 3),
    "lanczos5": (partial(resized, "lanczos5"), 6),
    "keras": (partial(keras_resized, "bicubic"), 3),
}

for spelling, (make, size) in RESIZES.items():

    @block(name=f"resize_{spelling}")
    def resize(t, x, make=make, size=size):
        """Filters, no kernels, rows first: the first layer is the convolution behind them."""
        if isinstance(t, Plain):
            x = make(size, size)(x)
        else:
            x = t.affine("filter", make(size, 4), x)
            x = t.affine("filter", make(size, size), x)
        return t.affine("convolution", convolution(2), x)


@block()
def upsampling(t, x):
    """Copies: relevance is added up. The filter between two convolutions stays a layer."""
    x = t.activation(jax.nn.relu, t.affine("convolution", convolution(2), x))
    x = t.move(resized("nearest", 6, 8), x)
    x = t.affine("convolution", convolution(2, 2), x)
    x = t.move(keras_layer("UpSampling2D", size=(1, 2)), x)
    return t.affine(
        "convolution", convolution(2, 2, 1), t.affine("filter", resized("linear", 3, 16), x)
    )


def shuffled(x: Array) -> Array:
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, 2 * h, 2 * w, c // 4)


def unshuffled(x: Array) -> Array:
    n, h, w, c = x.shape
    x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h // 2, w // 2, 4 * c)


@block()
def pixel_shuffle(t, x):
    x = t.affine("convolution", then(unshuffled, convolution(8, 12, 1)), x)
    x = t.activation(jax.nn.relu, x)
    x = t.affine("convolution", then(convolution(8, 8), shuffled), x)
    return t.affine("convolution", convolution(2, 2), t.activation(jax.nn.relu, x))


@block()
def patches(t, x):
    """A convolution spelled as patches and a dot product, as unfolding does."""

    def unfold(x):
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated_patches(
            x, (2, 2), (2, 2), "VALID", dimension_numbers=layout
        )

    x = t.move(unfold, x)
    return t.activation(jax.nn.relu, t.affine("dense", dense(12, 4), x))


# Several inputs and outputs


@block()
def u_net(t, x):
    """Logits for every pixel."""
    a = t.activation(jax.nn.relu, t.affine("convolution", convolution(3), x))
    b = t.selection(pool("max"), t.affine("convolution", convolution(3), a))
    b = t.activation(jax.nn.relu, t.affine("convolution", convolution(4, seed=120), b))
    w = zoo.normal(2, 2, 4, 3, seed=121)
    b = t.affine("convolution", lambda b: lax.conv_transpose(b, w, (2, 2), "SAME"), b)
    y = t.move(lambda *xs: jnp.concatenate(xs, -1), a, b)
    return t.affine("convolution", convolution(5, 6, 1), y)


@block(
    x=lambda: {
        "image": zoo.normal(*IMAGE, seed=1),
        "depth": zoo.normal(2, 4, 4, 1, seed=2),
        "pose": zoo.normal(2, 4, seed=3),
    }
)
def several(t, x):
    """Inputs and outputs by name, at different places of the network."""
    a = t.affine("convolution", convolution(3), x["image"])
    b = t.affine("convolution", convolution(3, 1, seed=130), x["depth"])
    y = t.activation(jax.nn.relu, t.merge(a, b))
    pixels = t.affine("convolution", convolution(2, 3, 1), y)
    features = t.affine("sum", global_mean, y)
    features = t.move(lambda *xs: jnp.concatenate(xs, -1), features, x["pose"])
    return {"pixels": pixels, "label": t.affine("dense", dense(7, 3), features)}


# The tests


def everywhere(output: Any) -> Any:
    """Some of every output, of both signs."""
    return jax.tree.map(
        lambda y: jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape), output
    )


def flat_then_alpha_beta(a: Any, b: Any, x: Any, r: Any, first: bool) -> np.ndarray:
    return oracle.flat((a != 0).astype(float), r) if first else oracle.alpha_beta(a, b, x, r)


def alpha_beta(a: Any, b: Any, x: Any, r: Any, first: bool) -> np.ndarray:
    return oracle.alpha_beta(a, b, x, r)


# Where it matters which layer is the first.
FLAT = re.compile("resize|patches|upsampling|pixel")

# Keras takes means in float32, whatever the network is in.
SINGLE = {name for name in BLOCKS if re.search("(norm|mean)_.*keras", name)}


@functools.cache
def taped(name: str) -> tuple[Tape, Any, Any]:
    f, make = BLOCKS[name]
    x = make()
    tape = Tape()
    return tape, x, f(tape, x)


@pytest.mark.parametrize("name", BLOCKS)
def test_layers(name: str) -> None:
    """What they are, in the order of execution."""
    tape, x, _ = taped(name)
    found = trace(partial(BLOCKS[name][0], Plain()), x).layers
    assert list(map(spelled, found)) == tape.kinds


def spelled(layer: Any) -> str:
    return f"{layer.kind} {layer.op}" if layer.kind in ("Affine", "Activation") else layer.kind


@pytest.mark.parametrize("name", BLOCKS)
def test_maps_and_ledgers(name: str) -> None:
    tape, x, output = taped(name)
    rules: list[Any] = [(kernel, AlphaBeta(2, 1))]
    rule = alpha_beta
    if FLAT.match(name):
        rules, rule = [(first, Flat()), *rules], flat_then_alpha_beta
    explain = jxp.lrp(partial(BLOCKS[name][0], Plain()), Composite(rules))
    told = together(
        {
            "map": partial(explain, target=everywhere),
            "ledger": partial(explain.ledger, target=everywhere),
        },
        x,
    )
    found = jax.tree.leaves(told["map"])
    expected = jax.tree.leaves(tape.relevance(x, output, everywhere(output), rule))
    for leaf, wanted in zip(found, expected, strict=True):
        error = np.abs(leaf - wanted).max() / np.abs(wanted).max()
        assert error < (1e-5 if name in SINGLE else 1e-10)
    assert told["ledger"].error() < (1e-7 if name in SINGLE else 1e-12)


MODIFIED = [name for name in BLOCKS if name.startswith("activation_")]
MODIFIED += ["squeeze_excite_by_convolutions", "u_net", "several", "norm_group_linen"]


@pytest.mark.parametrize("name", MODIFIED)
def test_gradients(name: str) -> None:
    """The gradient is that of the function, the modified ones are finite."""
    f, make = BLOCKS[name]
    f, x = partial(f, Plain()), make()

    def by_jax(x: Any) -> Any:
        output, pullback = jax.vjp(f, x)
        return pullback(everywhere(output))[0]

    methods = (jxp.gradient, jxp.guided_backprop, jxp.deconvnet)
    asked = {method: partial(method(f), target=everywhere) for method in methods}
    found = together({"by JAX": by_jax, **asked}, x)
    close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12)
    jax.tree.map(close, found[jxp.gradient], found["by JAX"])
    for method in (jxp.guided_backprop, jxp.deconvnet):
        for leaf in jax.tree.leaves(found[method]):
            assert np.isfinite(leaf).all() and leaf.any()


def test_a_pixels_targets_are_summed_up() -> None:
    """Every pixel has its own class; "all" has them all, and they add up."""
    f, make = BLOCKS["u_net"]
    x = make()
    explain = jxp.lrp(partial(f, Plain()), Epsilon(0.01))
    output = f(Plain(), x)
    best = output.argmax(-1)
    labels = jnp.arange(best.size).reshape(best.shape) % 5
    assert best.shape == IMAGE[:-1]
    close = partial(np.testing.assert_allclose, rtol=0, atol=1e-9)
    close(explain(x), explain(x, target=best))
    hot = jax.nn.one_hot(labels, 5, dtype=output.dtype)
    close(explain(x, target=labels), explain(x, target=lambda y: y * hot))
    every = explain(x, target="all")
    assert every.shape == (5, *IMAGE)
    close(every.sum(0), explain(x, target=lambda y: y))


def test_a_resize_before_the_first_convolution_leaves_flat_to_it() -> None:
    """What Flat spreads in the convolution's windows the filters share by value."""
    f = partial(BLOCKS["resize_linear_up"][0], Plain())
    row = jxp.lrp(f, composites.EpsilonPlusFlat()).plan(zoo.normal(*IMAGE)).rows
    assert [(r.layer.op, type(r.rule).__name__) for r in row] == [
        ("filter", "Norm"),
        ("filter", "Norm"),
        ("convolution", "Flat"),
    ]


PIXELS = [Epsilon(), AlphaBeta(2, 1), Flat(), WSquare(), ZBox(-3, 3)]


def assert_same_maps(f: Any, other: Any) -> None:
    """By every rule in the first convolution too, with a ledger that closes."""
    x = zoo.normal(*IMAGE, seed=1)
    asked = {}
    for rule in PIXELS:
        explain = jxp.lrp(f, Composite([(first, rule)]))
        assert [layer.op for layer in explain.plan(x).layers] == ["convolution", "rectifier", "sum"]
        asked["found", rule] = partial(explain, target=everywhere)
        asked["ledger", rule] = partial(explain.ledger, target=everywhere)
        asked["expected", rule] = partial(
            jxp.lrp(other, Composite([(first, rule)])), target=everywhere
        )
    told = together(asked, x)
    for rule in PIXELS:
        assert_same(told["found", rule], told["expected", rule])
        assert told["ledger", rule].error() < 1e-12


def test_patches_and_a_dense_layer_are_a_convolution() -> None:
    """With Flat in the first layer too, and on black pixels: cutting patches out moves values."""
    w, b = zoo.normal(2, 2, 3, 4, seed=140), zoo.normal(4, seed=141)
    layout = ("NHWC", "HWIO", "NHWC")

    def unfolded(x):
        x = lax.conv_general_dilated_patches(x, (2, 2), (1, 1), "VALID", dimension_numbers=layout)
        return jax.nn.relu(x @ w.transpose(2, 0, 1, 3).reshape(12, 4) + b)

    def direct(x):
        x = lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=layout)
        return jax.nn.relu(x + b)

    x = np.maximum(zoo.normal(*IMAGE, seed=1), 0)
    rules = (Epsilon(), AlphaBeta(2, 1), Flat(), ZBox(0, 3))
    asked = {
        (f, r): partial(jxp.lrp(f, r), target=everywhere) for f in (unfolded, direct) for r in rules
    }
    told = together(asked, x)
    for rule in rules:
        expected = told[direct, rule]
        assert_same(told[unfolded, rule], expected)
        if isinstance(rule, Flat | ZBox):
            assert np.abs(np.where(x == 0, expected, 0)).max() > 0


@pytest.mark.parametrize("mode", ["reflect", "symmetric", "edge", "wrap"])
def test_batchnorm_before_a_padded_convolution_is_part_of_it(mode: str) -> None:
    """However it is padded: what every padded entry gets is what padding first would give it."""
    scale, offset = zoo.normal(3, seed=150), zoo.normal(3, seed=151)
    norm = lambda x: x * scale + offset  # noqa: E731
    pad = partial(jnp.pad, pad_width=((0, 0), (1, 1), (1, 1), (0, 0)), mode=mode)
    net = lambda x: jax.nn.relu(convolution(4, padding="VALID")(x)).mean((1, 2))  # noqa: E731
    assert_same_maps(lambda x: net(pad(norm(x))), lambda x: net(norm(pad(x))))


def test_channels_may_be_normalised_one_by_one() -> None:
    """As many do who turn RGB into BGR; the bounds of ZBox are those of the image."""
    mean, scale = zoo.normal(3, seed=152), np.array([0.5, -2.0, 3.0])
    net = lambda x: jax.nn.relu(convolution(4)(x)).mean((1, 2))  # noqa: E731

    def split(x: Any) -> Any:
        parts = jnp.split(x, 3, -1)
        return net(jnp.concatenate([(parts[i] - mean[i]) / scale[i] for i in (2, 1, 0)], -1))

    def stacked(x: Any) -> Any:
        return net(jnp.stack([(x[..., i] - mean[i]) / scale[i] for i in (2, 1, 0)], -1))

    def at_once(x: Any) -> Any:
        return net(((x - mean) / scale)[..., ::-1])

    assert_same_maps(split, at_once)
    assert_same_maps(stacked, at_once)
