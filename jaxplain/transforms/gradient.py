"""The gradient and its modifications."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Unpack

import jax.numpy as jnp

from jaxplain.arguments import check_choice
from jaxplain.composites import DECONVNET, GRADIENT, GUIDED, Composite
from jaxplain.spelling import checked_options
from jaxplain.transforms.explainer import Explainer, Options
from jaxplain.transforms.method import gradient_method

Postprocess = Literal["abs", "square"] | None


def _unchanged(gradient: Any) -> Any:
    return gradient


def _magnitude(gradient: Any) -> Any:
    return jnp.abs(gradient)


def _squared(gradient: Any) -> Any:
    return jnp.square(gradient)


_AFTER: dict[Any, Callable[[Any], Any]] = {
    None: _unchanged,
    "abs": _magnitude,
    "square": _squared,
}


@checked_options
def gradient(
    f: Callable[..., Any],
    *,
    postprocess: Postprocess = None,
    logits: bool = False,
    **options: Unpack[Options],
) -> Explainer:
    """The gradient of the selected output with respect to the input: `jax.grad`, per example.

    Args:
        f: the function to explain: `f(x, *args) -> scores`.
        postprocess: "abs" or "square" for the magnitude (saliency) or the square of the gradient.
        logits: differentiate before a trailing softmax.
        **options: `argnums`, `with_output`, `capture`, `start`, `stop`, `check_finite`: see
            `Explainer`.

    Returns:
        An explainer: called with the arguments of `f` (and `target=`), it returns the gradient in
        the shape of the explained argument, in output units per input unit.

    Raises:
        ValueError: `postprocess` is unknown.

    References:
        Simonyan et al., "Deep Inside Convolutional Networks", ICLR workshop 2014.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> print(jxp.gradient(lambda x: x**2)(jnp.array([1.0, 3.0])))
        [0. 6.]
    """
    return _explainer(f, GRADIENT, logits, options, _postprocess(postprocess))


@checked_options
def input_times_gradient(
    f: Callable[..., Any],
    *,
    postprocess: Postprocess = None,
    logits: bool = False,
    **options: Unpack[Options],
) -> Explainer:
    """The input times the gradient: x * df_k/dx, in units of the output.

    Args:
        f: the function to explain: `f(x, *args) -> scores`.
        postprocess: as for `gradient`, before the product.
        logits: differentiate before a trailing softmax.
        **options: `argnums`, `with_output`, `capture`, `start`, `stop`, `check_finite`: see
            `Explainer`.

    Returns:
        An explainer, as `gradient`.

    References:
        Shrikumar et al., "Not Just a Black Box", 2016.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> print(jxp.input_times_gradient(lambda x: x**2)(jnp.array([1.0, 3.0])))
        [ 0. 18.]
    """
    after = _postprocess(postprocess, times_input=True)
    return _explainer(f, GRADIENT, logits, options, after)


@checked_options
def deconvnet(
    f: Callable[..., Any], *, logits: bool = False, **options: Unpack[Options]
) -> Explainer:
    """Deconvnet: the gradient, with every rectifier applied to the backward signal instead.

    At a rectifier (ReLU, ReLU6, leaky ReLU: activations made of straight lines) the backward pass
    is max(R, 0); everywhere else it is the gradient. Max-pooling sends to the winner.

    Args:
        f: the function to explain: `f(x, *args) -> scores`.
        logits: start before a trailing softmax.
        **options: `argnums`, `with_output`, `capture`, `start`, `stop`, `check_finite`: see
            `Explainer`.

    Returns:
        An explainer, as `gradient`.

    References:
        Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> f = lambda x: -jax.nn.relu(x)
        >>> print(jxp.deconvnet(f)(jnp.array([1.0, 2.0]), target=0))
        [0. 0.]
    """
    return _explainer(f, DECONVNET, logits, options)


@checked_options
def guided_backprop(
    f: Callable[..., Any], *, logits: bool = False, **options: Unpack[Options]
) -> Explainer:
    """Guided backpropagation: the gradient, with negative signals cut at every rectifier.

    At a rectifier (ReLU, ReLU6, leaky ReLU: activations made of straight lines) the backward pass
    is f'(x) max(R, 0); everywhere else it is the gradient.

    Args:
        f: the function to explain: `f(x, *args) -> scores`.
        logits: start before a trailing softmax.
        **options: `argnums`, `with_output`, `capture`, `start`, `stop`, `check_finite`: see
            `Explainer`.

    Returns:
        An explainer, as `gradient`.

    References:
        Springenberg et al., "Striving for Simplicity: The All Convolutional Net", ICLR 2015.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> f = lambda x: jax.nn.relu(x) @ jnp.array([1.0, -1.0])[:, None]
        >>> print(jxp.guided_backprop(f)(jnp.array([[1.0, 2.0]])))
        [[1. 0.]]
    """
    return _explainer(f, GUIDED, logits, options)


def _postprocess(postprocess: Postprocess, times_input: bool = False) -> Callable[[Any, Any], Any]:
    check_choice(postprocess, "postprocess", list(_AFTER))
    return partial(_finished, _AFTER[postprocess], times_input)


def _finished(after: Callable[[Any], Any], times_input: bool, x: Any, gradient: Any) -> Any:
    return x * after(gradient) if times_input else after(gradient)


def _explainer(
    f: Callable[..., Any],
    composite: Composite,
    logits: bool,
    options: Options,
    postprocess: Callable[[Any, Any], Any] | None = None,
) -> Explainer:
    method = gradient_method(composite, postprocess=postprocess)
    return Explainer(f, method=method, logits=logits, unknown="gradient", **options)
