"""DeepLIFT: how the multiplier of a layer's output becomes those of its inputs.

A multiplier m says how much of the explained difference a value's difference from its baseline
makes: it makes m (x - x0). Every rule here conserves, sum m_x (x - x0) = m_z (z - z0).
The method gives each layer its inputs at the baseline, as `LayerView.state`. Affine layers, merges
and structure need no rule of their own: their gradient does it.
"""

from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxplain.graph.layer import Layer
from jaxplain.graph.primitives import MAXIMA, MINIMA
from jaxplain.rules.base import Arrays, LayerView, Rule, plus, reduced
from jaxplain.rules.split import Contributions


@dataclass(frozen=True)
class Rescale(Rule):
    """m_x = m_z (z - z0) / (x - x0); the derivative where that is the same to rounding.

    References:
        Shrikumar et al., "Learning Important Features Through Propagating Activation Differences",
        ICML 2017.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"Activation"})

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        (a,), (a0,), z0 = x, _baseline(layer, x), _output(layer, z)
        dx = jnp.broadcast_to(difference(a, a0), z.shape)
        slope = layer.jvp((jnp.ones_like(a),))
        return (reduced(r * _secant(difference(z, z0), dx, slope, z, z0), a),)


@dataclass(frozen=True)
class Switching(Rule):
    """Each factor's part of the difference, averaged over the orders of changing them.

    For z = a b this is m_a = m (b + b0) / 2, and alike for matrix products; for z = a / b it is
    m_b = -m (z / b0 + z0 / b) / 2 for the denominator.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"Product", "Matmul"})

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        x0 = _baseline(layer, x)
        here, there = layer.vjp(r), layer.vjp(r, at=x0)
        if layer.op == "quotient":
            # the derivatives are -z / b and -z0 / b0
            b, b0 = x[-1], x0[-1]
            here = (*here[:-1], here[-1] * (b / b0))
            there = (*there[:-1], there[-1] * (b0 / b))
        return tuple((g + g0) / 2 for g, g0 in zip(here, there, strict=True))


@dataclass(frozen=True)
class Winners(Rule):
    """A maximum changes from z0 to max(z, z0) by its winner in x, then to z by that in x0.

    The winner in x rose at least as much, and the winner in x0 fell at least as much, so that no
    multiplier exceeds that of the output. A minimum is a maximum upside down.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"Selection"})

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        x0, z0 = _baseline(layer, x), _output(layer, z)
        turn = jnp.maximum(z, z0) if layer.op in MAXIMA else jnp.minimum(z, z0)
        risen = layer.vjp(r * difference(turn, z0))
        fallen = layer.vjp(r * difference(z, turn), at=x0)
        return tuple(map(_quotient, plus(risen, fallen), map(difference, x, x0), layer.vjp(r)))

    def objection(self, layer: Layer) -> str:
        """The layer must be a maximum or a minimum."""
        if problem := super().objection(layer):
            return problem
        return "" if layer.op in MAXIMA | MINIMA else f"{self!r} is for maxima and minima"


@dataclass(frozen=True)
class LogMeans(Rule):
    """Softmax, with logarithmic means in the place of probabilities.

    The difference of two numbers is L(a, b) times that of their logarithms, for L their logarithmic
    mean. With S the sum of the exponentials e, exactly

        z_j - z0_j = L(z_j, z0_j) [u_j - u0_j - sum_i w_i (u_i - u0_i)],

        w_i = L(e_i, e0_i) / L(S, S0),

    as its gradient is z_j [u_j - sum_i z_i u_i]; w is not negative, and adds up to at most 1.
    `LayerView.state` holds the input at the baseline and the layer in exponents (see
    `affine.log_space`).
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"Softmax"})

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        (a,), (a0,), run = x, _baseline(layer, x), layer.state[1]
        there: list[jax.Array] = []  # the exponents at the baseline, sum by sum

        def noting(u: jax.Array, axes: tuple[int, ...]) -> jax.Array:
            there.append(u)
            return jax.nn.logsumexp(u, axes)

        exit0, exponential = run(a0, noting)
        sums = iter(there)
        exit_, back = jax.vjp(lambda v: run(v, lambda u, axes: _total(u, next(sums), axes))[0], a)
        return back(r * jnp.exp(_log_mean(exit_, exit0)) if exponential else r)


@dataclass(frozen=True)
class RevealCancel(Rule):
    """A linear layer and the activation f behind it; what raises z and what lowers it apart.

    With dz+ and dz- the sums of the positive and of the negative contributions A_ji (x_i - x0_i),

        m+ = m [f(z0 + dz+) - f(z0) + f(z0 + dz+ + dz-) - f(z0 + dz-)] / (2 dz+),

    m- alike, and input i gets sum_j A_ji m+_j over its positive contributions and sum_j A_ji m-_j
    over its negative ones. The activation itself passes its multiplier on. `LayerView.state` holds
    the inputs at the baseline and f.

    References:
        Shrikumar et al., "Learning Important Features Through Propagating Activation Differences",
        ICML 2017, section 3.5.3.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"Affine", "Merge"})
    needs_matrix_entries: ClassVar[bool] = True

    def relevance(self, layer: LayerView, x: Arrays, z: jax.Array, r: jax.Array) -> Arrays:
        """See the class."""
        f = layer.state[1]
        dx = tuple(map(difference, x, _baseline(layer, x)))
        up, down = Contributions(layer, dx, one_sided=False).totals()
        z0 = _output(layer, z)
        y0, raised, lowered, y = f(z0), f(z0 + up), f(z0 + down), f(z)
        slope = jax.vjp(f, z)[1](jnp.ones_like(y))[0]
        outputs = y0, raised, lowered, y
        plain = _secant(difference(y, y0), difference(z, z0), slope, *outputs)
        m_up = r * _secant((raised - y0 + y - lowered) / 2, up, plain, *outputs)
        m_down = r * _secant((lowered - y0 + y - raised) / 2, down, plain, *outputs)
        rises, falls = map(layer.signed().transpose, ((m_up, m_down), (m_down, m_up)))
        return tuple(map(_by_sign, dx, rises, falls))


def difference(x: jax.Array, x0: jax.Array) -> jax.Array:
    """x - x0; 0 for infinities that agree, as masks do."""
    return jnp.where(x == x0, 0, x - x0)


def _baseline(layer: LayerView, x: Arrays) -> Arrays:
    """The inputs at the baseline, in the dtypes of the rule's arithmetic."""
    return tuple(a.astype(b.dtype) for a, b in zip(layer.state[0], x, strict=True))


def _output(layer: LayerView, z: jax.Array) -> jax.Array:
    """The output at the baseline."""
    return layer.function(*layer.state[0]).astype(z.dtype)


def _quotient(change: jax.Array, dx: jax.Array, otherwise: Any) -> jax.Array:
    """change / dx; something else where nothing differs."""
    zero = dx == 0
    return jnp.where(zero, otherwise, change / jnp.where(zero, 1, dx))


def _secant(change: jax.Array, dx: jax.Array, slope: jax.Array, *outputs: jax.Array) -> jax.Array:
    """change / dx; the slope where it makes the same change of the outputs, to rounding.

    There the quotient would be the noise of a few last digits, or 0 / 0.
    """
    noise = 16 * jnp.finfo(change.dtype).eps * reduce(jnp.maximum, map(jnp.abs, outputs))
    finite = jnp.where(jnp.isfinite(slope), slope, 0)
    same = jnp.abs(slope * dx - change) < noise
    return jnp.where(same, finite, _quotient(change, dx, finite))


def _by_sign(dx: jax.Array, rises: jax.Array, falls: jax.Array) -> jax.Array:
    """One multiplier for inputs above their baseline, one for those below; their mean at it."""
    return jnp.where(dx > 0, rises, jnp.where(dx < 0, falls, (rises + falls) / 2))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _total(u: jax.Array, u0: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """log sum exp(u), whose derivative is the secant between u0 and u."""
    return jax.nn.logsumexp(u, axes)


def _total_backward(axes: tuple[int, ...], ends: Any, r: jax.Array) -> Any:
    u, u0 = ends
    sums = (jax.nn.logsumexp(v, axes, keepdims=True) for v in ends)
    w = jnp.exp(_log_mean(u, u0) - _log_mean(*sums))
    return w * jnp.expand_dims(r, axes), jnp.zeros_like(u0)


_total.defvjp(lambda u, u0, axes: (jax.nn.logsumexp(u, axes), (u, u0)), _total_backward)


def _log_mean(u: jax.Array, u0: jax.Array) -> jax.Array:
    """The logarithm of the logarithmic mean of exp(u) and exp(u0); -inf where one of them is 0."""
    distance = jnp.abs(difference(u, u0))
    near = distance == 0
    safe = jnp.where(near, 1, distance)
    return jnp.maximum(u, u0) + jnp.where(near, 0, jnp.log(-jnp.expm1(-safe) / safe))
