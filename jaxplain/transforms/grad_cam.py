"""Grad-CAM: a layer's channels, weighted by their mean gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax

from jaxplain import targets
from jaxplain.graph import Layer
from jaxplain.plan import LayerSpec, Plan
from jaxplain.targets import Target
from jaxplain.transforms.explainer import Explainer
from jaxplain.transforms.gradient import gradient, guided_backprop
from jaxplain.transforms.wrapper import Base, Wrapper, explained, scaled

Resize = Literal["nearest", "linear"]


@dataclass(frozen=True, eq=False)
class GradCam(Wrapper):
    """See `grad_cam`; the base is the gradient."""

    layer: LayerSpec | None
    channel_axis: int = -1
    relu: bool = True
    resize: Resize | None = None

    def check(self, args: Sequence[Any], target: Target) -> None:
        """The layer must have space, and the input too if the map is resized."""
        traced = self.traced(*args)
        layer = self._layer(traced.plan)
        batched = targets.counts_examples(traced.heads, traced.explained)
        rank = len(layer.exit.shape)
        if not -rank <= self.channel_axis < rank:
            raise ValueError(
                f"layer {layer.name!r} has rank {rank}, got channel_axis={self.channel_axis}"
            )
        space = self._space(rank, batched)
        if not space:
            raise ValueError(
                f"Grad-CAM needs a layer with axes of space, such as (B, H, W, C); the output of "
                f"{layer.name!r} has shape {layer.exit.shape}"
            )
        if self.resize is None:
            return
        shapes = [v.shape for v in traced.explained]
        if len(shapes) != 1 or len(shapes[0]) != rank:
            raise ValueError(
                f"resize needs one input of the layer's rank {rank}, got shapes {shapes}: leave "
                "resize out and spread the map yourself"
            )

    def attribute(self, base: Base, args: Sequence[Any], target: Target, key: Any) -> Any:
        """See `grad_cam`."""
        assert isinstance(base, Explainer)
        traced = base.traced(*args)
        name = self._layer(traced.plan).name
        (activation,) = base.activations(*args, layers=name).values()
        slope = replace(base, stop=name)(*args, target=target)  # for "all", with an axis in front
        batched = targets.counts_examples(traced.heads, traced.explained)
        space = self._space(activation.ndim, batched)
        weights = slope.mean(space, keepdims=True)
        channel = self.channel_axis % activation.ndim - activation.ndim
        found = scaled(weights, activation).sum(channel, keepdims=True)
        found = jax.nn.relu(found) if self.relu else found
        if self.resize is None:
            return found
        x = explained(args, self.argnums)
        shape = list(found.shape)
        for axis in space:
            shape[axis] = x.shape[axis]
        return jax.image.resize(found, shape, self.resize, antialias=False)

    def _layer(self, plan: Plan) -> Layer:
        if self.layer is not None:
            return plan.find_one(self.layer)
        convolutions = [layer for layer in plan.layers if layer.op == "convolution"]
        if not convolutions:
            raise ValueError(
                "Grad-CAM found no convolution: give the layer whose output is weighted, one of "
                f"{', '.join(layer.name for layer in plan.layers)}"
            )
        end = convolutions[-1]
        behind = [v for v in plan.layers if v.kind == "Activation" and v.sources == end.exits]
        return behind[0] if behind else end

    def _space(self, rank: int, batched: bool) -> tuple[int, ...]:
        """The axes that count neither examples nor channels, from the end."""
        channel = self.channel_axis % rank
        return tuple(axis - rank for axis in range(int(batched), rank) if axis != channel)


@dataclass(frozen=True, eq=False)
class GuidedGradCam(Wrapper):
    """See `guided_grad_cam`; the base is guided backpropagation."""

    cam: GradCam

    def check(self, args: Sequence[Any], target: Target) -> None:
        """As Grad-CAM."""
        self.cam.check(args, target)

    def attribute(self, base: Base, args: Sequence[Any], target: Target, key: Any) -> Any:
        """See `guided_grad_cam`."""
        return scaled(base(*args, target=target), self.cam(*args, target=target))

    @property
    def held(self) -> Any:
        """What is passed at run time, as a pytree."""
        return self.base.held, self.cam.held

    def holding(self, held: Any) -> "GuidedGradCam":
        """The same method with other run-time values."""
        base, cam = held
        return GuidedGradCam(self.base.holding(base), self.cam.holding(cam))


def grad_cam(
    f: Callable[..., Any],
    layer: LayerSpec | None = None,
    *,
    relu: bool = True,
    resize: Resize | None = None,
    channel_axis: int = -1,
    argnums: int = 0,
    logits: bool = False,
) -> GradCam:
    """Grad-CAM: max(0, sum_c w_c A_c), with w_c the mean of df_k/dA_c over the layer's space.

    Args:
        f: the function to explain: `f(x, *args) -> scores`.
        layer: the layer whose output A is weighted, as `Explainer.start` names one. None: the last
            convolution, behind its activation.
        relu: whether negative values are cut.
        resize: "nearest" or "linear": stretch the map over the input's space; None: the layer's.
        channel_axis: the axis of A that counts channels. The others are space, but for a leading
            one that the input and the output share: examples.
        argnums: which argument is explained.
        logits: differentiate before a trailing softmax.

    Returns:
        An explainer: called with the arguments of `f` (and `target=`), it returns a map in the
        shape of A (or of the input, in its space) with one channel.

    Raises:
        ValueError: no layer or several match, the layer has no space, or the input has not as many
            axes as the layer and `resize` is given.

    References:
        Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
        Localization", ICCV 2017.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> kernel, head = jnp.ones((1, 2, 2)), jnp.eye(2)
        >>> def f(x):
        ...     h = jax.lax.conv_general_dilated(
        ...         x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
        ...     return jax.nn.relu(h).mean(1) @ head
        >>> print(jxp.grad_cam(f)(jnp.arange(6.0).reshape(1, 3, 2)).ravel())
        [0.33333334 1.6666667  3.        ]
    """
    base = gradient(f, argnums=argnums, logits=logits)
    return GradCam(base, layer, channel_axis, relu, resize)


def guided_grad_cam(
    f: Callable[..., Any],
    layer: LayerSpec | None = None,
    *,
    resize: Resize = "nearest",
    channel_axis: int = -1,
    argnums: int = 0,
    logits: bool = False,
) -> GuidedGradCam:
    """Guided Grad-CAM: guided backpropagation times Grad-CAM, stretched over the input's space.

    Args:
        f: the function to explain: `f(x, *args) -> scores`.
        layer: as for `grad_cam`.
        resize: how the map is stretched.
        channel_axis: as for `grad_cam`.
        argnums: which argument is explained.
        logits: differentiate before a trailing softmax.

    Returns:
        An explainer: attributions in the shape of the input.

    Raises:
        ValueError: as `grad_cam`.

    References:
        Selvaraju et al., ICCV 2017.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> kernel, head = jnp.ones((1, 2, 2)), jnp.eye(2)
        >>> def f(x):
        ...     h = jax.lax.conv_general_dilated(
        ...         x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
        ...     return jax.nn.relu(h).sum(1) @ head
        >>> print(jxp.guided_grad_cam(f)(jnp.arange(4.0).reshape(1, 2, 2)).ravel())
        [1. 1. 5. 5.]
    """
    cam = grad_cam(
        f, layer, resize=resize, channel_axis=channel_axis, argnums=argnums, logits=logits
    )
    return GuidedGradCam(guided_backprop(f, argnums=argnums, logits=logits), cam)
