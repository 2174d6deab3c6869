"""Grad-CAM: a layer's channels, weighted by their mean gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import jax

from jaxplain.graph import Graph, Layer
from jaxplain.plan import LayerSpec, Plan
from jaxplain.spelling import checked_options
from jaxplain.targets import Target
from jaxplain.transforms import trees
from jaxplain.transforms.explainer import Explainer
from jaxplain.transforms.gradient import gradient, guided_backprop
from jaxplain.transforms.wrapper import Base, Wrapper

Resize = Literal["nearest", "linear"]


@dataclass(frozen=True, eq=False)
class GradCam(Wrapper):
    """See `grad_cam`; the base is the gradient."""

    layer: LayerSpec | None
    channel_axis: int | None = None
    relu: bool = True
    resize: Resize | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.argnums, int):
            raise TypeError(
                f"Grad-CAM explains one argument: argnums is an int, not {self.argnums}"
            )
        known = get_args(Resize)
        if self.resize not in (None, *known):
            raise ValueError(f"resize must be None or one of {known}, got {self.resize!r}")

    def check(self, args: Sequence[Any], target: Target) -> None:
        """The layer must have space, and the input too if the map is resized."""
        plan = self.traced(*args).plan
        layer = self._layer(plan)
        _, space = self._axes(layer, plan.graph)
        if self.resize is None:
            return
        if len(plan.graph.explained) != 1:
            raise ValueError("resize needs one explained array: leave it out")
        labels = [plan.graph.axes.of(layer.output)[i] for i in space if layer.output.shape[i] > 1]
        if None in labels or len(set(labels)) < len(labels):
            raise ValueError(
                f"resize cannot tell which axes of the input those of {layer.name!r}, of shape "
                f"{layer.output.shape}, run along: leave resize out and spread the map yourself"
            )

    def attribute(self, base: Base, args: Sequence[Any], target: Target, key: Any) -> Any:
        """See `grad_cam`."""
        assert isinstance(base, Explainer)
        plan = base.traced(*args).plan
        layer = self._layer(plan)
        (activation,) = base.activations(*args, layers=layer.name).values()
        # for "all" there is an axis in front, hence all axes are counted from the end
        slope = replace(base, stop=layer.name)(*args, target=target)
        channel, space = self._axes(layer, plan.graph)
        behind = tuple(i - activation.ndim for i in space)
        weights = slope.mean(behind, keepdims=True)
        cam = trees.scaled(weights, activation).sum(channel - activation.ndim, keepdims=True)
        cam = jax.nn.relu(cam) if self.relu else cam
        if self.resize is None:
            return cam
        (x,) = jax.tree.leaves(trees.explained(args, self.argnums))
        return _spread(cam, plan.graph.axes.of(layer.output), channel, x, self.resize)

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
        behind = [v for v in plan.layers if v.kind == "Activation" and v.inputs == end.outputs]
        return behind[0] if behind else end

    def _axes(self, layer: Layer, graph: Graph) -> tuple[int, tuple[int, ...]]:
        """The axis of a layer's output that counts channels, and those of space.

        Raises:
            ValueError: it cannot be told, or there is no space.
        """
        shape, labels = layer.output.shape, graph.axes.of(layer.output)
        output = f"the output of layer {layer.name!r}, of shape {shape},"
        batch = graph.axes.examples | ({0} if graph.batched else set())
        examples = {i for i, v in enumerate(labels) if v in batch}
        if graph.batched and not examples:
            raise ValueError(f"{output} has no axis that counts the input's examples")
        if self.channel_axis is None:
            channels = [i for i, n in enumerate(shape) if labels[i] is None and n > 1]
            if len(channels) != 1:
                raise ValueError(f"which axis of {output} counts channels? Give channel_axis")
            (channel,) = channels
        elif -len(shape) <= self.channel_axis < len(shape):
            channel = self.channel_axis % len(shape)
        else:
            raise ValueError(f"{output} has no axis {self.channel_axis} (channel_axis)")
        space = tuple(i for i in range(len(shape)) if i != channel and i not in examples)
        if not space:
            raise ValueError(
                f"Grad-CAM needs a layer with axes of space, as (B, H, W, C) has; {output} has none"
            )
        return channel, space


def _spread(
    cam: jax.Array, labels: Sequence[int | None], channel: int, x: jax.Array, method: Resize
) -> jax.Array:
    """A map over the input's space, its axes where the input has them.

    Args:
        cam: the map, with the axes of a layer's output behind any others.
        labels: along which axes of the input those run.
        channel: the one of them that counted channels.
        x: the input.
        method: of interpolation.
    """
    front = cam.ndim - len(labels)
    kept = [i for i, v in enumerate(labels) if v is not None and i != channel]
    places = {labels[i]: k for k, i in enumerate(kept)}
    order = [places[v] for v in range(x.ndim) if v in places]
    cam = cam.reshape(*cam.shape[:front], *(cam.shape[front + i] for i in kept))
    cam = cam.transpose(*range(front), *(front + k for k in order))
    sizes = [n if i in places else 1 for i, n in enumerate(x.shape)]
    spread = [n for i, n in enumerate(x.shape) if i in places]
    cam = jax.image.resize(cam, (*cam.shape[:front], *spread), method, antialias=False)
    return cam.reshape(*cam.shape[:front], *sizes)


@dataclass(frozen=True, eq=False)
class GuidedGradCam(Wrapper):
    """See `guided_grad_cam`; the base is guided backpropagation."""

    cam: GradCam

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cam.resize is None:
            raise ValueError('guided Grad-CAM needs a map in the input\'s space: resize="linear"')

    def check(self, args: Sequence[Any], target: Target) -> None:
        """As Grad-CAM."""
        self.cam.check(args, target)

    def attribute(self, base: Base, args: Sequence[Any], target: Target, key: Any) -> Any:
        """See `guided_grad_cam`."""
        return trees.scaled(base(*args, target=target), self.cam(*args, target=target))

    @property
    def dynamic(self) -> Any:
        """See `Wrapper`."""
        return self.base.dynamic, self.cam.dynamic

    def combine(self, dynamic: Any) -> "GuidedGradCam":
        """See `Wrapper`."""
        base, cam = dynamic
        return GuidedGradCam(self.base.combine(base), self.cam.combine(cam))


@checked_options
def grad_cam(
    f: Callable[..., Any],
    layer: LayerSpec | None = None,
    *,
    relu: bool = True,
    resize: Resize | None = None,
    channel_axis: int | None = None,
    argnums: int = 0,
    logits: bool = False,
) -> GradCam:
    """Grad-CAM: max(0, sum_c w_c A_c), with w_c the mean of df_k/dA_c over the layer's space.

    Args:
        f: the function to explain: `f(x, *args) -> scores`.
        layer: the layer whose output A is weighted, as `Explainer.start` names one. None: the last
            convolution, behind its activation.
        relu: whether negative values are cut.
        resize: "nearest" or "linear": stretch the map over the input's space, in the input's
            layout; None: the layer's.
        channel_axis: the axis of A that counts channels; None: the one that runs along no axis of
            the input. The others are space, but for that of examples.
        argnums: which argument is explained.
        logits: differentiate before a trailing softmax.

    Returns:
        An explainer: called with the arguments of `f` (and `target=`), it returns a map in the
        shape of A (or of the input, in its space) with one channel.

    Raises:
        ValueError: no layer or several match, the layer has no space, its channels cannot be told,
            or (for `resize`) along which axes of the input it runs.

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


@checked_options
def guided_grad_cam(
    f: Callable[..., Any],
    layer: LayerSpec | None = None,
    *,
    resize: Resize = "nearest",
    channel_axis: int | None = None,
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
