"""The rules once more, for one affine map written out as a matrix, in NumPy and float64.

Nothing here knows a layer type, JAX or the library: ``a`` is the ``(out, in)`` matrix of the map
``z = a @ x + b``, ``x`` its input and ``r`` the relevance that arrives at ``z``, all flattened.
Every function returns the relevance of ``x``. ``bias=False`` leaves ``b`` out of the denominators
(the gate of `gamma` still looks at the map's true output).
"""

import numpy as np


def _positive(u):
    return np.where(u > 0, u, 0.0)


def _negative(u):
    return np.where(u < 0, u, 0.0)


def _ratio(r, z, eps):
    """``r`` over the stabilised ``z``; a denominator that is exactly zero passes nothing on."""
    size = eps(z) if callable(eps) else eps
    denominator = z + np.where(z >= 0, 1.0, -1.0) * size
    zero = denominator == 0
    return np.where(zero, 0.0, r / np.where(zero, 1.0, denominator))


def epsilon(a, b, x, r, *, eps=1e-6, bias=True):
    z = a @ x + (b if bias else 0.0)
    return x * (a.T @ _ratio(r, z, eps))


def z(a, b, x, r, *, bias=True):
    return epsilon(a, b, x, r, eps=0.0, bias=bias)


def norm(a, b, x, r, *, eps=1e-6):
    return epsilon(a, b, x, r, eps=eps)


def alpha_beta(a, b, x, r, *, alpha=2.0, beta=1.0, eps=1e-6, bias=True):
    a_pos, a_neg, x_pos, x_neg = _positive(a), _negative(a), _positive(x), _negative(x)
    b = b if bias else np.zeros_like(b)
    activator = _ratio(r, a_pos @ x_pos + a_neg @ x_neg + _positive(b), eps)
    inhibitor = _ratio(r, a_neg @ x_pos + a_pos @ x_neg + _negative(b), eps)
    excited = x_pos * (a_pos.T @ activator) + x_neg * (a_neg.T @ activator)
    inhibited = x_pos * (a_neg.T @ inhibitor) + x_neg * (a_pos.T @ inhibitor)
    return alpha * excited - beta * inhibited


def alpha_beta_whole_bias(a, b, x, r, *, alpha=2.0, beta=1.0, eps=0.0):
    a_pos, a_neg, x_pos, x_neg = _positive(a), _negative(a), _positive(x), _negative(x)
    activator = _ratio(r, a_pos @ x_pos + a_neg @ x_neg + b, eps)
    inhibitor = _ratio(r, a_neg @ x_pos + a_pos @ x_neg + b, eps)
    excited = x_pos * (a_pos.T @ activator) + x_neg * (a_neg.T @ activator)
    inhibited = x_pos * (a_neg.T @ inhibitor) + x_neg * (a_pos.T @ inhibitor)
    return alpha * excited - beta * inhibited


def z_plus_fast(a, b, x, r):
    return x * (_positive(a).T @ _ratio(r, _positive(a) @ x, 0.0))


def sign(a, b, x, r, *, mu=0.0):
    return np.where(x < mu, -1.0, 1.0) * (a.T @ _ratio(r, a @ x + b, 0.0))


def z_plus(a, b, x, r, *, eps=1e-6, bias=True):
    return alpha_beta(a, b, x, r, alpha=1.0, beta=0.0, eps=eps, bias=bias)


def gamma(a, b, x, r, *, gamma=0.25, eps=1e-6, bias=True):
    out = a @ x + b
    a_pos, a_neg = a + gamma * _positive(a), a + gamma * _negative(a)
    x_pos, x_neg = _positive(x), _negative(x)
    b = b if bias else np.zeros_like(b)
    z_pos = a_pos @ x_pos + a_neg @ x_neg + b + gamma * _positive(b)
    z_neg = a_neg @ x_pos + a_pos @ x_neg + b + gamma * _negative(b)
    s_pos = np.where(out > 0, _ratio(r, z_pos, eps), 0.0)
    s_neg = np.where(out < 0, _ratio(r, z_neg, eps), 0.0)
    return x_pos * (a_pos.T @ s_pos + a_neg.T @ s_neg) + x_neg * (a_neg.T @ s_pos + a_pos.T @ s_neg)


def z_box(a, b, x, r, *, low, high, eps=1e-6):
    low, high = np.broadcast_to(low, x.shape), np.broadcast_to(high, x.shape)
    a_pos, a_neg = _positive(a), _negative(a)
    s = _ratio(r, a @ x - a_pos @ low - a_neg @ high, eps)
    return x * (a.T @ s) - low * (a_pos.T @ s) - high * (a_neg.T @ s)


def w_square(a, b, x, r, *, eps=1e-6, bias=False):
    square = a**2
    return square.T @ _ratio(r, square.sum(1) + (b**2 if bias else 0.0), eps)


def flat(connected, r, *, eps=1e-6):
    """``connected``: 1 where an output reads an input, whatever the weight there, else 0."""
    return connected.T @ _ratio(r, connected.sum(1), eps)


def gradient(a, r):
    return a.T @ r
