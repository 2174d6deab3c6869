"""Every primitive that JAX exports: what becomes of relevance there, in words and in numbers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose

import jaxplain as jxp
import oracle
import primitives_page as page
from comparing import together
from jaxplain.composites import Composite, any_layer
from jaxplain.errors import NotAnalyzableError
from jaxplain.graph import primitives
from jaxplain.graph.primitives import Kind
from jaxplain.graph.registration import REGISTERED
from jaxplain.rules import AlphaBeta, Epsilon, Pass, ZPlus
from zoo import normal

pytestmark = pytest.mark.usefixtures("float64")


#: What can become of relevance at the primitives of a class.
POSSIBLE = {
    Kind.DIAGONAL: {
        "Affine (scale)",
        "Merge (sum)",
        "Product (product)",
        "Product (quotient)",
    },
    Kind.STRUCTURAL: {page.MOVED, "Selection (select)"},
    Kind.MIXING: {"Merge (sum)", "Matmul"}
    | {f"Affine ({op})" for op in ("dense", "convolution", "pooling", "sum", "cumulative")}
    | {"Affine (linear)", page.REFUSED},
    Kind.ELEMENTWISE: {"Activation", "Activation (rectifier)", "Selection", page.REFUSED},
    Kind.SELECTION: {"Selection"},
    Kind.DISCRETE: {page.NOTHING, page.CONSTANT},
    Kind.UNKNOWN: {page.REFUSED, page.NOTHING, page.CONSTANT},
}
#: What holds a function.
HOLDS = {page.LOOKED_THROUGH, page.INSIDE, page.REFUSED, *POSSIBLE[Kind.ELEMENTWISE]}


def test_every_primitive_is_in_the_table_of_cases() -> None:
    assert page.exported() <= set(page.CASES)
    assert set(primitives.TABLE) - REGISTERED <= set(page.CASES)
    assert not [name for name in page.exported() if not page.occurs(name)]


def test_the_page_says_what_happens() -> None:
    rows = page.recorded()
    assert set(rows) == set(page.CASES)
    measured = page.measured()
    assert {name: rows[name] for name in measured} == measured
    assert page.PAGE.read_text() == page.markdown(rows)


def test_what_happens_is_possible_for_the_class() -> None:
    for name, row in page.recorded().items():
        cls = primitives.lookup(name).kind
        holds = row.what in ("a call of a function", "control flow")
        for found in filter(None, (row.one, row.several)):
            assert found.split(":")[0] in (HOLDS if holds else POSSIBLE[cls]), name


def crossed(several: bool) -> list[str]:
    """The primitives that relevance crosses, with one or several operands."""
    rows = page.recorded()
    found = {name: rows[name].several if several else rows[name].one for name in rows}
    stops = (page.REFUSED, page.NOTHING, page.CONSTANT, page.INSIDE, page.LOOKED_THROUGH, "")
    return sorted(name for name, what in found.items() if what not in stops)


def jacobian(f: Any, args: tuple[Any, ...]) -> Any:
    """The matrix of a function, row by row, as not all of JAX can vmap."""
    z, pullback = jax.vjp(f, *args)
    units = jnp.eye(z.size, dtype=z.dtype).reshape(z.size, *z.shape)
    return lax.map(lambda unit: ravel_pytree(pullback(unit))[0], units)


def flat(values: Any) -> np.ndarray:
    return np.concatenate([np.ravel(v) for v in jax.tree.leaves(values)])


@pytest.mark.parametrize(
    ("name", "several"), [(name, n) for n in (False, True) for name in crossed(n)]
)
def test_the_map(name: str, several: bool) -> None:
    """Against the matrix, the bias, and nothing else that the library knows."""
    if not page.occurs(name):
        assert name not in page.exported()
        return
    case, row = page.CASES[name], page.recorded()[name]
    f, what = (case.several, row.several) if several else (case.one, row.one)
    assert f is not None
    args = tuple(map(jnp.asarray, (page.X, page.Y)[: 1 + several]))
    argnums = tuple(range(len(args)))
    of = jax.eval_shape(f, *args)
    r = normal(*of.shape, seed=7)
    tolerance = 10 * float(jnp.finfo(of.dtype).eps)
    rules = {"default": Epsilon()}
    alpha_beta, unknown = Composite([(any_layer, AlphaBeta())]), "(linear)" in what
    if what.startswith(("Affine", "Merge")) and not what.endswith(": Pass()") and not unknown:
        rules["alpha-beta"] = alpha_beta

    def asked(rule: Any) -> Callable[..., Any]:
        explain = jxp.lrp(f, rule, argnums=argnums, with_output=True)
        seed = lambda _: r.astype(of.dtype)  # noqa: E731
        return lambda *args: (explain(*args, target=seed), explain.ledger(*args, target=seed))

    told = together(
        {
            "f": f,
            "twice": lambda *args: f(*(2 * v for v in args)),
            "jacobian": lambda *args: jacobian(f, args),
            **{key: asked(rule) for key, rule in rules.items()},
        },
        *args,
    )
    z = told["f"]

    def explained(rule: str = "default") -> np.ndarray:
        (output, found), ledger = told[rule]
        assert_allclose(output, z, rtol=1e-12)
        assert ledger.error() < tolerance
        return flat(found)

    def check(found: np.ndarray, expected: np.ndarray) -> None:
        assert np.abs(expected).max() > 0
        assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())

    x, out, r_flat = flat(args), np.ravel(z), np.ravel(r)
    if what.endswith(": Pass()"):
        return check(explained(), r_flat)
    if what.startswith("Product"):
        shares = (0.5, 0.5) if "product" in what else (1.0, 0.0)
        return check(explained(), np.concatenate([share * r_flat for share in shares]))
    matrix = told["jacobian"]
    if what.startswith("Matmul"):
        return check(explained(), oracle.epsilon(matrix, -out, x, r_flat) / 2)
    if what.startswith(("Affine", "Merge")):
        bias = out - matrix @ x
        assert_allclose(flat(told["twice"]), 2 * matrix @ x + bias, rtol=1e-12)
        check(explained(), oracle.epsilon(matrix, bias, x, r_flat))
        if unknown:  # of which no entry is known
            with pytest.raises(ValueError, match="needs the entries"):
                jxp.lrp(f, alpha_beta, argnums=argnums).plan(*args)
            return None
        return check(explained("alpha-beta"), oracle.alpha_beta(matrix, bias, x, r_flat))
    assert what == page.MOVED or what.startswith("Selection")
    assert np.isin(matrix, (0, 1)).all() and (matrix.sum(1) <= 1).all()
    moved = matrix.T @ np.asarray(r_flat, z.dtype).astype(float)
    return check(explained(), moved)


# What was silently wrong, or failed without saying why.


def test_a_mutable_array_that_is_written_to_is_refused() -> None:
    """Its reads would have seen what it held at first."""
    for explain in (jxp.lrp(page.written), jxp.gradient(page.written)):
        with pytest.raises(NotAnalyzableError, match=r"`swap` at primitives_page.py:\d+ writes"):
            explain(normal(2, 3), target=0)


def test_a_mutable_array_that_is_only_read_is_a_constant() -> None:
    w, x = normal(3, 4), normal(2, 3)
    ref = jax.new_ref(w)
    assert_allclose(jxp.lrp(lambda x: x @ ref[...])(x), jxp.lrp(lambda x: x @ w)(x), rtol=1e-12)


def test_what_a_key_sorts_is_no_part_of_the_key() -> None:
    values, w = normal(4, seed=1), normal(4, 3, seed=2)

    def f(x: Any) -> Any:
        return (x + lax.sort((x, values), num_keys=1)[1]) @ w

    x = normal(4)
    chosen = values[jnp.argsort(x)]
    for rule in (Epsilon(), ZPlus()):
        explain = jxp.lrp(f, rule)
        assert_allclose(
            explain(x, target=1), jxp.lrp(lambda x: (x + chosen) @ w, rule)(x, target=1), rtol=1e-10
        )
        assert explain.ledger(x, target=1).error() < 1e-12


@pytest.mark.parametrize("move", [lax.optimization_barrier, jax.device_put])
def test_signs_of_values_that_are_moved_together_are_their_own(move: Any) -> None:
    w = normal(3, 3, seed=3)

    def f(x: Any, y: Any, move: Any = move) -> Any:
        a, b = move((jax.nn.relu(x), y))
        return jnp.stack([a, b]) @ w

    x, y = normal(3), -jnp.abs(normal(3, seed=1))
    found, expected = (
        jxp.lrp(g, ZPlus(), argnums=(0, 1))(x, y, target=1)
        for g in (f, lambda x, y: f(x, y, lambda v: v))
    )
    assert_allclose(flat(found), flat(expected), rtol=1e-10)


def test_what_is_moved_together_with_a_norm_scales_on_its_own() -> None:
    def f(x: Any) -> Any:
        a, b = lax.optimization_barrier((x, x / jnp.sqrt(jnp.square(x).sum())))
        return a / jnp.exp(b)

    assert "Normalization" not in [r.layer.op for r in jxp.lrp(f).plan(normal(4)) if r.layer.index]
    x = normal(4)
    assert_allclose(jxp.lrp(f)(x, target=lambda z: z), f(x), rtol=1e-10)


@pytest.mark.parametrize(
    "join",
    [
        lambda s, x: s * x,
        lambda s, x: s / x,
        lambda s, x: x / s,
        lambda s, x: s + x,
        lambda s, x: x - s,
        jnp.maximum,
        lambda s, x: jnp.tanh(s) * x,
    ],
)
def test_a_scalar_is_as_good_as_an_array_of_one(join: Callable[..., Any]) -> None:
    w = normal(4, 3, seed=3)
    x = normal(4)

    scalar, array = (
        jxp.lrp(lambda x, shape=shape: join(x.mean().reshape(shape), x) @ w)(x, target=1)
        for shape in ((), (1,))
    )
    assert_allclose(scalar, array, rtol=1e-10)


def test_a_scalar_times_weights_is_repeated() -> None:
    u, w, x = normal(4, seed=1), normal(4, 3, seed=2), normal(3)
    for rule in (Epsilon(0.1), AlphaBeta()):
        rows = [
            [(row.layer.kind, row.layer.op) for row in jxp.lrp(f, rule).plan(x)]
            for f in (lambda x: (x[0] * u) @ w, lambda x: (x[:1] * u) @ w)
        ]
        assert rows[0] == rows[1]


def test_a_mean_over_its_terms_is_no_normalization() -> None:
    """The divisor is the input itself: it cannot count as a constant and as the input."""

    def f(x: Any) -> Any:
        return x.sum(keepdims=True) / x

    plan = jxp.lrp(f).plan(normal(4))
    assert [row.layer.kind for row in plan] == ["Affine", "Product"]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("running", "reduced"), [(lax.cummax, jnp.max), (lax.cummin, jnp.min)])
def test_ties_of_running_extrema_go_to_the_first(running: Any, reduced: Any, reverse: bool) -> None:
    x = jnp.array([1.0, 3.0, 3.0, 2.0, 3.0, 5.0, 5.0])
    r = normal(7)

    def spelled(x: Any) -> Any:
        return jnp.stack([reduced(x[i:] if reverse else x[: i + 1]) for i in range(7)])

    found, expected = (
        jxp.lrp(f)(x, target=lambda _: r) for f in (lambda x: running(x, reverse=reverse), spelled)
    )
    assert_allclose(found, expected, rtol=1e-12)


def test_constants_that_are_scattered_are_an_offset() -> None:
    w, b, x = normal(3, 4), normal(2, seed=1), normal(2, 3)
    at = np.array([1, 3])
    whole = jnp.zeros(4).at[at].set(b)
    for rule in (Epsilon(0.1), AlphaBeta()):
        found, expected = (
            jxp.lrp(f, rule)(x, target=1)
            for f in (lambda x: (x @ w).at[:, at].add(b), lambda x: x @ w + whole)
        )
        assert_allclose(found, expected, rtol=1e-10)
    (row,) = jxp.lrp(lambda x: x.at[at].add(b)).plan(normal(4))
    assert (row.layer.op, row.rule) == ("scale", Pass())


def test_a_bound_that_is_no_array_of_the_output_is_refused_by_name() -> None:
    def f(x: Any) -> Any:
        return lax.clamp(x[0], jnp.ones(3), 2.0)

    with pytest.raises(NotAnalyzableError, match=r"`clamp` at test_primitives.py:\d+"):
        jxp.lrp(f)(normal(3))
