"""Recurrent networks: cells, directions, masks, states, linear recurrences, in every spelling."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import lax
from jax.nn import sigmoid, softplus

import jaxplain as jxp
import zoo
from comparing import assert_same, together
from jaxplain import composites, rules
from jaxplain.composites import Composite, kernel, kind, op
from zoo import draw

keras = zoo._keras()

#: The gates of a cell take nothing.
SIGNAL = Composite([(kind("Product"), rules.SignalTake()), (kernel, rules.Epsilon(1e-3))])

#: Without stabilisers, which stand at other places in other spellings.
_SUMS = [(kernel, rules.Z()), (kind("Merge") | op("sum", "linear"), rules.Norm(0))]
EXACT = Composite([(kind("Product"), rules.SignalTake()), *_SUMS], strict=False)
EVEN = Composite(_SUMS, strict=False)


pytestmark = pytest.mark.usefixtures("keras_float64")


def assert_closed(ledger: Any) -> None:
    """At every step, and over all of them."""
    assert ledger.error() < 1e-12
    left = np.sum(ledger.output) - np.sum(ledger.inputs) - np.sum(ledger.absorbed)
    assert abs(left) < 1e-12 * np.max(ledger.flow)


# --------------------------------------------------------------------------------------------------
# Cells, and how they are run along the first axis.

Run = Callable[..., Any]


def scanned(cell: Any, carry: Any, xs: Any, reverse: bool = False) -> Any:
    return lax.scan(cell, carry, xs, reverse=reverse)


def unrolled(cell: Any, carry: Any, xs: Any, reverse: bool = False) -> Any:
    steps = range(len(jax.tree.leaves(xs)[0]))
    ys = []
    for t in reversed(steps) if reverse else steps:
        carry, y = cell(carry, jax.tree.map(lambda v, t=t: v[t], xs))
        ys.append(y)
    return carry, jnp.stack(ys[::-1] if reverse else ys)


class Weights(NamedTuple):
    """Of all gates side by side; `c` is what the state's candidate has for itself."""

    W: Any
    U: Any
    b: Any
    c: Any = 0.0


def weights(gates: int, features: int = 3, size: int = 4, seed: int = 0) -> Weights:
    shapes = ((features, gates * size), (size, gates * size), (gates * size,), (size,))
    return Weights(*(draw(*shape, seed=seed) for shape in shapes))


def lstm(p: Weights, carry: Any, x: Any) -> Any:
    h, c = carry
    i, f, g, o = jnp.split(x @ p.W + h @ p.U + p.b, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
    h = sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def gru(p: Weights, h: Any, x: Any, after: bool = True) -> Any:
    (xr, xz, xn), (u, v, w) = jnp.split(x @ p.W + p.b, 3, axis=-1), jnp.split(p.U, 3, axis=-1)
    r, z = sigmoid(xr + h @ u), sigmoid(xz + h @ v)
    n = jnp.tanh(xn + (r * (h @ w + p.c) if after else (r * h) @ w))
    h = (1 - z) * n + z * h
    return h, h


def min_gru(p: Weights, h: Any, x: Any) -> Any:
    z, candidate = jnp.split(x @ p.W + p.b, 2, axis=-1)
    z = sigmoid(z)
    h = (1 - z) * h + z * candidate
    return h, h


LSTM, GRU, MIN_GRU, SECOND = weights(4), weights(3), weights(2), weights(4, features=4, seed=1)
HEAD = draw(4, 3, seed=7)
X = draw(2, 3, 3, seed=8)
ZEROS = np.zeros((2, 4))


def time_major(x: Any) -> Any:
    return x.swapaxes(0, 1)


def last(run: Run, x: Any) -> Any:
    return run(partial(lstm, LSTM), (ZEROS, ZEROS), time_major(x))[0][0] @ HEAD


def sequences(run: Run, x: Any) -> Any:
    hs = run(partial(lstm, LSTM), (ZEROS, ZEROS), x)[1]  # time is already the first axis
    return hs.mean(0) @ HEAD


def stacked(run: Run, x: Any) -> Any:
    _, hs = run(partial(lstm, LSTM), (ZEROS, ZEROS), time_major(x))
    return run(partial(lstm, SECOND), (ZEROS, ZEROS), hs)[0][0] @ HEAD


def bidirectional(run: Run, x: Any) -> Any:
    xs, p = time_major(x), weights(4, seed=2)
    (forward, _), _ = run(partial(lstm, LSTM), (ZEROS, ZEROS), xs)
    (backward, _), _ = run(partial(lstm, p), (ZEROS, ZEROS), xs, reverse=True)
    return jnp.concatenate([forward, backward], -1) @ draw(8, 3)


LENGTHS = np.array([1, 3])


def masked(run: Run, x: Any) -> Any:
    """What is behind a sequence's end changes nothing."""

    def cell(carry: Any, step: Any) -> Any:
        x, goes_on = step
        new, _ = lstm(LSTM, carry, x)
        carry = jax.tree.map(partial(jnp.where, goes_on[:, None]), new, carry)
        return carry, carry[0]

    goes_on = np.arange(3)[:, None] < LENGTHS
    return run(cell, (jnp.asarray(ZEROS),) * 2, (time_major(x), jnp.asarray(goes_on)))[0][0] @ HEAD


def from_a_state(run: Run, inputs: Any) -> Any:
    x, h, c = inputs
    return run(partial(lstm, LSTM), (h, c), time_major(x))[0][0] @ HEAD


def gru_from_a_state(run: Run, inputs: Any, after: bool = True) -> Any:
    x, h = inputs
    return run(partial(gru, GRU, after=after), h, time_major(x))[0] @ HEAD


def smallest(run: Run, x: Any) -> Any:
    return run(partial(min_gru, MIN_GRU), ZEROS, time_major(x))[0] @ HEAD


STATE = (draw(2, 4, seed=3), draw(2, 4, seed=4))
MODELS: dict[str, tuple[Callable[[Run, Any], Any], Any]] = {
    "lstm": (last, X),
    "time-major sequences": (sequences, time_major(X)),
    "stacked": (stacked, X),
    "bidirectional": (bidirectional, X),
    "masked": (masked, X),
    "initial state": (from_a_state, (X, *STATE)),
    "gru": (partial(gru_from_a_state, after=False), (X, STATE[0])),
    "gru, reset after": (gru_from_a_state, (X, STATE[0])),
    "min gru": (smallest, X),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_loop_is_its_steps(name: str) -> None:
    model, x = MODELS[name]
    rule = SIGNAL if "sequences" not in name else rules.AlphaBeta(2, 1)
    f = partial(model, scanned)
    explain, written = jxp.lrp(f, rule), jxp.lrp(partial(model, unrolled), rule)

    found = together(
        {
            "loop": partial(explain, target=1),
            "ledger": partial(explain.ledger, target=1),
            "steps": partial(written, target=1),
            "gradient": partial(jxp.gradient(f), target=1),
            "by JAX": jax.grad(lambda x: f(x)[:, 1].sum()),
        },
        x,
    )
    assert_same(found["loop"], found["steps"])
    assert_same(found["gradient"], found["by JAX"], 1e-13)
    assert_closed(found["ledger"])


@pytest.mark.parametrize("name", MODELS)
def test_gates_take_nothing(name: str) -> None:
    """Of the kernels, whose columns are gate by gate, only those of candidates take some."""
    model, x = MODELS[name]
    explain = jxp.lrp(partial(model, scanned), SIGNAL, capture=kernel | op("logistic"))
    _, captured = explain(x, target=1)
    layers = [layer for layer in explain.plan(x).layers if layer.name in captured]
    assert not any(np.any(captured[layer.name]) for layer in layers if not layer.is_kernel)
    inner = [captured[layer.name] for layer in layers if layer.is_kernel and not layer.last]
    flows = [np.any(block) for r in inner for block in np.split(r, r.shape[-1] // 4, axis=-1)]
    candidates = 2 if "gru, " in f"{name}, " and "min" not in name else 1  # one of x, one of h
    candidates *= 2 if name in ("stacked", "bidirectional") else 1
    assert sum(flows) == candidates and len(flows) >= 2 * candidates


def test_steps_behind_the_end_take_nothing() -> None:
    found = jxp.lrp(partial(masked, scanned), SIGNAL)(X, target=1)
    for r, length in zip(found, LENGTHS, strict=True):
        assert np.all(np.any(r[:length], -1)) and not np.any(r[length:])
    for row, length in enumerate(LENGTHS):
        alone = jxp.lrp(partial(last, scanned), SIGNAL)(X[:, :length], target=1)
        assert_same(found[row, :length], alone[row])


def test_an_initial_state_may_be_a_constant() -> None:
    """What it would take is booked, and nobody else's."""

    def f(x: Any, h: Any, c: Any) -> Any:
        return from_a_state(scanned, (x, h, c))

    every = jxp.lrp(f, SIGNAL, argnums=(0, 1, 2))(X, *STATE, target=1)
    ledger = jxp.lrp(f, SIGNAL).ledger(X, *STATE, target=1)
    assert_same(jxp.lrp(f, SIGNAL)(X, *STATE, target=1), every[0])
    assert_same(ledger.constants.sum(), every[1].sum() + every[2].sum())


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_the_bias_of_a_state_is_a_constant_in_the_first_step_when_unrolled(bias: float) -> None:
    w, r, u, v = draw(4, 3), draw(4, 3, seed=1), draw(3, 3, seed=2), bias * draw(3, seed=3)

    def net(x: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            return jnp.tanh(x @ w + sigmoid(x @ r) * (h @ u + v)), None

        return lax.scan(step, jnp.zeros(3), x)[0]

    x = draw(5, 4)
    scanned, unrolled = (jxp.lrp(f, EVEN)(x, target=1) for f in (net, jxp.unroll(net)))
    assert_same(scanned[1:], unrolled[1:])
    differ = np.abs(scanned[0] - unrolled[0]).max() > 1e-3 * np.abs(unrolled[0]).max()
    assert differ == (bias != 0)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_presets(name: str) -> None:
    model, x = MODELS[name]
    names = (
        "EpsilonPlus EpsilonPlusFlat EpsilonAlpha2Beta1 EpsilonAlpha2Beta1Flat ExcitationBackprop "
        "DeepTaylor SequentialPresetA SequentialPresetB SequentialPresetAFlat SequentialPresetBFlat"
    )
    presets = [getattr(composites, name)() for name in names.split()]
    presets.append(composites.EpsilonGammaBox(-4.0, 4.0))
    f = partial(model, scanned)
    found = jax.jit(lambda x: [jxp.lrp(f, preset)(x, target=1) for preset in presets])(x)
    assert all(np.isfinite(r).all() and np.any(r) for r in jax.tree.leaves(found))


# --------------------------------------------------------------------------------------------------
# By hand.


def share(x: Any, A: Any, z: Any, R: Any, epsilon: float) -> Any:
    """R_i = sum_j x_i A_ij R_j / (z_j + epsilon sgn(z_j))."""
    return x * (A @ (R / (z + epsilon * np.where(z < 0, -1, 1))))


def by_hand(p: Weights, head: Any, x: Any, target: int, epsilon: float) -> Any:
    """LRP of an LSTM's class score as Arras et al. 2017 define it, in NumPy, for one sequence."""
    steps, size = len(x), len(p.U)
    h, c = np.zeros((steps + 1, size)), np.zeros((steps + 1, size))
    z, kept, new = np.zeros((steps, 4 * size)), np.zeros((steps, size)), np.zeros((steps, size))
    for t in range(steps):
        z[t] = x[t] @ p.W + h[t] @ p.U + p.b
        zi, zf, zg, zo = np.split(z[t], 4)
        i, f, o = (1 / (1 + np.exp(-v)) for v in (zi, zf, zo))
        kept[t], new[t] = f * c[t], i * np.tanh(zg)
        c[t + 1] = kept[t] + new[t]
        h[t + 1] = o * np.tanh(c[t + 1])

    score = h[-1] @ head
    R = np.where(np.arange(len(score)) == target, score, 0.0)
    R_h, R_c, R_x = share(h[-1], head, score, R, epsilon), np.zeros(size), np.zeros_like(x)
    for t in reversed(range(steps)):
        R_c = R_c + R_h  # of h = o tanh(c), the gate takes nothing
        one, cell = np.eye(size), c[t + 1]
        R_g = share(new[t], one, cell, R_c, epsilon)
        R_c = share(kept[t], one, cell, R_c, epsilon)
        R_z = np.concatenate([np.zeros(2 * size), R_g, np.zeros(size)])
        R_x[t] = share(x[t], p.W, z[t], R_z, epsilon)
        R_h = share(h[t], p.U, z[t], R_z, epsilon)
    return R_x


@pytest.mark.parametrize("epsilon", [1e-3, 0.1])
def test_an_lstm_by_hand(epsilon: float) -> None:
    rule = Composite(
        [
            (kind("Product"), rules.SignalTake()),
            (kernel, rules.Epsilon(epsilon)),
            (kind("Merge"), rules.Norm(epsilon)),
        ]
    )
    found = jxp.lrp(partial(last, scanned), rule)(X, target=jnp.array([1, 2]))
    for r, x, target in zip(found, X, (1, 2), strict=True):
        assert_same(r, by_hand(LSTM, HEAD, x, target, epsilon))


# --------------------------------------------------------------------------------------------------
# Linear recurrences h_t = a_t h_{t-1} + b_t, the same in three spellings.


def loop(a: Any, b: Any) -> Any:
    def step(h: Any, ab: Any) -> Any:
        h = ab[0] * h + ab[1]
        return h, h

    return lax.scan(step, jnp.zeros_like(b[0]), (a, b))[1]


def tree(a: Any, b: Any) -> Any:
    def join(left: Any, right: Any) -> Any:
        return left[0] * right[0], right[0] * left[1] + right[1]

    return lax.associative_scan(join, (a, b))[1]


def steps(a: Any, b: Any) -> Any:
    hs = [b[0]]
    for t in range(1, len(b)):
        hs.append(a[t] * hs[-1] + b[t])
    return jnp.stack(hs)


SPELLINGS = (loop, tree, steps)
INPUT, OUTPUT, DECAY = draw(3, 4, seed=1), draw(4, 2, seed=2), -np.exp(draw(4, seed=3))
SEQUENCE = draw(5, 3, seed=9)


def state_space(run: Any, x: Any) -> Any:
    """S4D with real states: the decay is a constant."""
    b = x @ INPUT
    return run(jnp.broadcast_to(np.exp(DECAY), b.shape), b)[-1] @ OUTPUT


def gated(run: Any, x: Any) -> Any:
    a = sigmoid(x @ draw(3, 4, seed=4))
    return run(a, (1 - a) * (x @ INPUT))[-1] @ OUTPUT


def selective(run: Any, x: Any, decay: Any = None) -> Any:
    """As Mamba: the input decides how long it stays, and what is read."""
    step = softplus(x @ draw(3, 4, seed=4))
    h = run(jnp.exp(step * -jnp.exp(draw(4, seed=3))), step * (x @ INPUT))
    return jax.nn.silu(h * (x @ draw(3, 4, seed=5)))[-1] @ OUTPUT


@pytest.mark.slow
@pytest.mark.parametrize("model", [state_space, gated, selective])
def test_linear_recurrences(model: Any) -> None:
    """Even halves for gate and state follow the tree of products; what signals take does not."""
    asked: dict[Any, Any] = {}
    for run in SPELLINGS:
        f = partial(model, run)
        for composite in (EXACT, EVEN):
            asked[run, composite] = partial(jxp.lrp(f, composite), target=1)
        asked[run, "ledger"] = partial(jxp.lrp(f, EXACT).ledger, target=1)
        asked[run, "gradient"] = partial(jxp.gradient(f), target=1)
        asked[run, "by JAX"] = jax.grad(lambda x, f=f: f(x)[1])
    found = together(asked, SEQUENCE)
    assert all(np.isfinite(found[run, c]).all() for run in SPELLINGS for c in (EXACT, EVEN))
    for composite in (EXACT, EVEN):
        assert_same(found[loop, composite], found[steps, composite])
        if composite is EXACT or model is state_space:
            assert_same(found[loop, composite], found[tree, composite])
    for run in (loop, tree):
        assert_closed(found[run, "ledger"])
        assert_same(found[run, "gradient"], found[run, "by JAX"], 1e-13)


def test_the_decay_of_a_state_space_is_a_gate() -> None:
    for run in (loop, tree):
        explain = jxp.lrp(partial(selective, run), EXACT, capture=op("exp"))
        for relevance in explain(SEQUENCE, target=1)[1].values():
            assert not np.any(relevance)


# --------------------------------------------------------------------------------------------------
# As frameworks have them.


def drawn(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    values = [jnp.asarray(draw(*np.shape(v), seed=i)) for i, v in enumerate(leaves)]
    return jax.tree.unflatten(structure, values)


def params_of(module: linen.Module) -> Any:
    return drawn(jax.eval_shape(module.init, jax.random.key(0), X)["params"])


def fill(layer: Any) -> Any:
    """Gives a Keras layer weights, and returns them."""
    values = drawn([v.value for v in layer.trainable_variables])
    layer.set_weights(values)
    return values


def side_by_side(*arrays: Any) -> Any:
    return jnp.concatenate(arrays, axis=-1)


def linen_gru() -> tuple[Any, Weights]:
    module = linen.RNN(linen.GRUCell(4, param_dtype=float))
    params = params_of(module)
    cell = params["cell"]
    W, U = (side_by_side(*(cell[v + g]["kernel"] for g in "rzn")) for v in "ih")
    b = side_by_side(*(cell[f"i{g}"]["bias"] for g in "rzn"))
    return jxp.from_linen(module, {"params": params}), Weights(W, U, b, cell["hn"]["bias"])


def nnx_gru() -> tuple[Any, Weights]:
    rngs = nnx.Rngs(0)
    cell = nnx.GRUCell(3, 4, param_dtype=float, rngs=rngs)
    nnx.update(cell, drawn(nnx.state(cell, nnx.Param)))
    W, U = cell.dense_i.kernel[...], cell.dense_h.kernel[...]
    return jxp.from_nnx(nnx.RNN(cell, rngs=rngs)), Weights(W, U, cell.dense_i.bias[...])


class EquinoxGRU(eqx.Module):
    cell: eqx.nn.GRUCell

    def __call__(self, x: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            h = self.cell(x, h)
            return h, h

        return lax.scan(step, jnp.zeros(4), x)[1]


def equinox_gru() -> tuple[Any, Weights]:
    """A bias behind the split of a kernel's output is no part of the kernel, and takes nothing."""
    cell = drawn(eqx.nn.GRUCell(3, 4, key=jax.random.key(0)))
    cell = eqx.tree_at(lambda cell: cell.bias_n, cell, jnp.zeros(4))
    p = Weights(cell.weight_ih.T, cell.weight_hh.T, cell.bias, cell.bias_n)
    return jxp.from_equinox(EquinoxGRU(cell)), p


def keras_gru(after: bool) -> tuple[Any, Weights]:
    layer = keras.layers.GRU(4, return_sequences=True, reset_after=after)
    model = keras.Sequential([keras.Input((3, 3)), layer])
    W, U, b = (side_by_side(*(jnp.split(v, 3, -1)[k] for k in (1, 0, 2))) for v in fill(layer))
    if after:  # the state has a bias of its own
        both = side_by_side(b.sum(0)[:8], b[0, 8:])
        return jxp.from_keras(model), Weights(W, U, both, b[1, 8:])
    return jxp.from_keras(model), Weights(W, U, b)


GRUS = {
    "linen": linen_gru,
    "nnx": nnx_gru,
    "equinox": equinox_gru,
    "keras": partial(keras_gru, True),
    "keras, reset before": partial(keras_gru, False),
}


@pytest.mark.slow
@pytest.mark.parametrize("framework", GRUS)
def test_a_gru_in_every_framework(framework: str) -> None:
    """Some write `n + z (h - n)` for `(1 - z) n + z h`: the same but for stabilisers."""
    f, p = GRUS[framework]()
    cell = partial(gru, p, after="before" not in framework)

    def plain(x: Any) -> Any:
        return scanned(cell, ZEROS, time_major(x))[1].swapaxes(0, 1)

    assert_closed(assert_as_plain(f, plain))


def assert_as_plain(f: Any, plain: Any) -> Any:
    """The ledger of the framework's."""

    def explain(f: Any, x: Any) -> Any:
        maps = jxp.lrp(f, EXACT, with_output=True)(x, target=1)
        return *maps, jxp.gradient(f)(x, target=1)

    found = together(
        {
            "f": partial(explain, f.__call__),
            "plain": partial(explain, plain),
            "ledger": partial(jxp.lrp(f, EXACT).ledger, target=1),
        },
        X,
    )
    assert_same(found["f"], found["plain"])
    return found["ledger"]


def of_flax(cell: Callable[[str], Any]) -> Weights:
    W, U = (side_by_side(*(cell(v + g)["kernel"] for g in "ifgo")) for v in "ih")
    return Weights(W, U, side_by_side(*(cell(f"h{g}")["bias"] for g in "ifgo")))


def linen_bidirectional() -> tuple[Any, Any]:
    cells = (linen.LSTMCell(4, param_dtype=float) for _ in range(2))
    module = linen.Bidirectional(*map(linen.RNN, cells))
    params = params_of(module)
    found = [of_flax(params[f"{way}_rnn"]["cell"].__getitem__) for way in ("forward", "backward")]
    return jxp.from_linen(module, {"params": params}), found


def nnx_bidirectional() -> tuple[Any, Any]:
    rngs = nnx.Rngs(0)
    cells = [nnx.LSTMCell(3, 4, param_dtype=float, rngs=rngs) for _ in range(2)]
    for seed, cell in enumerate(cells):
        nnx.update(cell, jax.tree.map(lambda v, s=seed: v + s, drawn(nnx.state(cell, nnx.Param))))
    module = nnx.Bidirectional(*(nnx.RNN(cell, rngs=rngs) for cell in cells), rngs=rngs)
    found = []
    for cell in cells:
        state = nnx.to_pure_dict(nnx.state(cell, nnx.Param))
        found.append(of_flax(lambda name, s=state: s["if_" if name == "if" else name]))
    return jxp.from_nnx(module), found


def keras_bidirectional() -> tuple[Any, Any]:
    layer = keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True))
    model = keras.Sequential([keras.Input((3, 3)), layer])
    values = fill(layer)
    return jxp.from_keras(model), [Weights(*values[:3]), Weights(*values[3:])]


BIDIRECTIONAL = {
    "linen": linen_bidirectional,
    "nnx": nnx_bidirectional,
    "keras": keras_bidirectional,
}


@pytest.mark.slow
@pytest.mark.parametrize("framework", BIDIRECTIONAL)
def test_both_directions_in_every_framework(framework: str) -> None:
    f, (p, q) = BIDIRECTIONAL[framework]()

    def plain(x: Any) -> Any:
        start, xs = (ZEROS, ZEROS), time_major(x)
        both = [
            scanned(partial(lstm, way), start, xs, reverse)[1]
            for way, reverse in ((p, False), (q, True))
        ]
        return jnp.concatenate(both, -1).swapaxes(0, 1)

    assert_as_plain(f, plain)


class WithLengths(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        cell = linen.LSTMCell(4, param_dtype=float, name="cell")
        carry, _ = linen.RNN(cell, return_carry=True)(x, seq_lengths=LENGTHS)
        return carry[1] @ HEAD


def linen_lengths() -> tuple[Any, Weights]:
    module = WithLengths()
    params = params_of(module)
    return jxp.from_linen(module, {"params": params}), of_flax(params["cell"].__getitem__)


def keras_lengths() -> tuple[Any, Weights]:
    layer = keras.layers.LSTM(4)
    inputs = keras.Input((3, 3)), keras.Input((3,), dtype="bool")
    model = keras.Model(inputs, layer(inputs[0], mask=inputs[1]) @ jnp.asarray(HEAD))
    p, f = Weights(*fill(layer)), jxp.from_keras(model)
    return lambda x: f([x, jnp.arange(3) < LENGTHS[:, None]]), p


@pytest.mark.parametrize("framework", ["linen", "keras"])
def test_lengths_in_every_framework(framework: str) -> None:
    f, p = {"linen": linen_lengths, "keras": keras_lengths}[framework]()
    ends = np.arange(2), LENGTHS - 1

    def plain(x: Any) -> Any:
        hs = scanned(partial(lstm, p), (ZEROS, ZEROS), time_major(x))[1]
        return hs.swapaxes(0, 1)[ends] @ HEAD

    assert_as_plain(f, plain)
