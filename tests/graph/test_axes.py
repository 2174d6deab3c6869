"""Along which axis of the input the axes of a value run."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, nn

from jaxplain.graph import trace

X = jnp.ones((2, 8, 6, 3))
KERNEL = jnp.ones((3, 3, 3, 5))


def convolved(x: Any, layout: str = "NHWC") -> Any:
    return lax.conv_general_dilated(
        x, KERNEL, (2, 1), "SAME", dimension_numbers=(layout, "HWIO", layout)
    )


CASES: dict[str, tuple[Callable[[Any], Any], tuple[int | None, ...]]] = {
    "convolution": (convolved, (0, 1, 2, None)),
    "channels first inside": (
        lambda x: convolved(x.transpose(0, 3, 1, 2), "NCHW"),
        (0, None, 1, 2),
    ),
    "activation and pooling": (
        lambda x: nn.gelu(
            lax.reduce_window(convolved(x), 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        ),
        (0, 1, 2, None),
    ),
    "mean": (lambda x: convolved(x).mean((1, 2)), (0, None)),
    "mean, kept": (lambda x: convolved(x).mean((1, 2), keepdims=True), (0, None, None, None)),
    "patches": (lambda x: x.reshape(2, 4, 2, 3, 2, 3) @ jnp.ones((3, 4)), (0, *[None] * 5)),
    "merged": (lambda x: convolved(x).reshape(2, -1, 5), (0, None, None)),
    "dense": (lambda x: x @ jnp.ones((3, 4)), (0, 1, 2, None)),
    "contracted": (lambda x: jnp.einsum("bhwc,hk->bwck", x, jnp.ones((8, 2))), (0, 2, 3, None)),
    "attention": (lambda x: jnp.einsum("bhwc,bhvc->bhwv", x, x), (0, 1, 2, 2)),
    "residual": (lambda x: x + (x @ jnp.ones((3, 3))), (0, 1, 2, 3)),
    "outer": (lambda x: x[:, :, None] * x[:, None], (0, 1, 1, 2, 3)),
    "joined": (lambda x: jnp.concatenate([x, x], 1), (0, 1, 2, 3)),
    "chosen": (lambda x: x[:, jnp.array([1, 0])], (None, None, None, None)),
    "one more": (lambda x: x[None], (None, 0, 1, 2, 3)),
}


@pytest.mark.parametrize("case", CASES)
def test_labels(case: str) -> None:
    f, wanted = CASES[case]
    graph = trace(f, X)
    assert graph.axes.of(graph.explained_outputs[0]) == wanted


def test_examples_are_what_convolutions_take_for_their_batch() -> None:
    assert trace(convolved, X).axes.examples == {0}
    last = trace(lambda x: convolved(x.transpose(3, 0, 1, 2)), jnp.ones((8, 6, 3, 2)))
    assert last.axes.examples == {3}
    assert last.axes.of(last.explained_outputs[0]) == (3, 0, 1, None)


@pytest.mark.parametrize("seed", range(20))
def test_reshapes_keep_what_numpy_keeps(seed: int) -> None:
    """An axis is kept where the value's index along it is that of one axis before."""
    rng = np.random.default_rng(seed)
    before = tuple(rng.choice([1, 2, 3, 4], size=4))
    factors = [int(f) for n in before for f in ([2, 2] if n == 4 else [n])]
    cuts = sorted(rng.choice(len(factors) + 1, size=2))
    groups = factors[: cuts[0]], factors[cuts[0] : cuts[1]], factors[cuts[1] :]
    after = tuple(int(np.prod(g)) for g in groups)
    graph = trace(lambda x: x.reshape(after), jnp.ones(before))
    labels = graph.axes.of(graph.explained_outputs[0])
    for axis, label in enumerate(labels):
        if label is not None:
            index = np.broadcast_to(
                np.arange(before[label]).reshape([-1 if i == label else 1 for i in range(4)]),
                before,
            )
            along = np.arange(after[axis]).reshape([-1 if i == axis else 1 for i in range(3)])
            np.testing.assert_array_equal(index.reshape(after), np.broadcast_to(along, after))


def test_a_transpose_keeps_axes_of_size_one() -> None:
    graph = trace(lambda x: x.transpose(2, 0, 1) * 2.0, jnp.ones((1, 3, 4)))
    assert graph.axes.of(graph.explained_outputs[0]) == (2, 0, 1)


def test_layers_know_their_examples() -> None:
    batch = trace(lambda x: nn.relu(x.mean(1).T.T @ jnp.ones((3, 4))), jnp.ones((2, 5, 3)))
    assert all(layer.examples == (0, 0) for layer in batch.layers)
    single = trace(lambda x: nn.relu(x @ jnp.ones((3, 4))).sum(0), jnp.ones((5, 3)))
    assert all(layer.examples == () for layer in single.layers)
