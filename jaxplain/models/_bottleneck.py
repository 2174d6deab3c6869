"""The inverted bottleneck of MobileNetV2 and its descendants."""

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp


class ConvNorm(nn.Module):
    """A convolution without bias, BatchNorm with running statistics and, mostly, ReLU6.

    Attributes:
        epsilon: What BatchNorm adds to the variance.
        symmetric: Whether a stride of 2 pads both sides alike, as PyTorch does, or "SAME".
    """

    features: int
    epsilon: float
    symmetric: bool
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    activate: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images (B, H, W, C) to (B, H / stride, W / stride, features)."""
        x = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            self.stride,
            padding=self.kernel // 2 if self.symmetric else "SAME",
            feature_group_count=self.groups,
            use_bias=False,
            name="conv",
        )(x)
        x = nn.BatchNorm(use_running_average=True, epsilon=self.epsilon, name="norm")(x)
        return nn.relu6(x) if self.activate else x


class Bottleneck(nn.Module):
    """Expand, convolve each channel, project, and add the input where it fits.

    Attributes:
        layer: Makes a `ConvNorm`.
    """

    layer: Callable[..., ConvNorm]
    features: int
    kernel: int
    stride: int
    expansion: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images (B, H, W, C) to (B, H / stride, W / stride, features)."""
        channels = x.shape[-1]
        width = self.expansion * channels
        depthwise = partial(self.layer, kernel=self.kernel, stride=self.stride, groups=width)
        y = self.layer(width, name="expand")(x) if self.expansion > 1 else x
        y = depthwise(width, name="depthwise")(y)
        y = self.layer(self.features, activate=False, name="project")(y)
        return x + y if self.stride == 1 and self.features == channels else y


class Classifier(nn.Module):
    """A stem, inverted bottlenecks, and a head for the 1000 classes of ImageNet.

    Attributes:
        epsilon: As in `ConvNorm`.
        symmetric: As in `ConvNorm`.
        stages: Of the blocks of each stage: their number, the kernel, the stride of the first one,
            the expansion and the features.
    """

    epsilon: ClassVar[float]
    symmetric: ClassVar[bool]
    stages: ClassVar[tuple[tuple[int, int, int, int, int], ...]]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map preprocessed images (B, 224, 224, 3) to the logits (B, 1000) of the classes."""
        layer = partial(ConvNorm, epsilon=self.epsilon, symmetric=self.symmetric)
        x = layer(32, kernel=3, stride=2, name="stem")(x)
        names = (f"block{i}" for i in count())
        for blocks, kernel, stride, expansion, features in self.stages:
            for i in range(blocks):
                block = partial(Bottleneck, layer, features, kernel, expansion=expansion)
                x = block(stride=1 if i else stride, name=next(names))(x)
        x = layer(1280, name="head")(x)
        return nn.Dense(1000, name="classifier")(jnp.mean(x, axis=(1, 2)))
