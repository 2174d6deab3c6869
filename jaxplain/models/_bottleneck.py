"""The inverted bottleneck of MobileNetV2 and its descendants."""

from typing import Any

import flax.linen as nn
import jax


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
    """Expand, convolve each channel, project, and add the input where it fits."""

    features: int
    epsilon: float
    symmetric: bool
    kernel: int
    stride: int
    expansion: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images (B, H, W, C) to (B, H / stride, W / stride, features)."""
        channels = x.shape[-1]
        width = self.expansion * channels

        def layer(features: int, name: str, **options: Any) -> ConvNorm:
            return ConvNorm(features, self.epsilon, self.symmetric, name=name, **options)

        y = layer(width, "expand")(x) if self.expansion > 1 else x
        y = layer(width, "depthwise", kernel=self.kernel, stride=self.stride, groups=width)(y)
        y = layer(self.features, "project", activate=False)(y)
        return x + y if self.stride == 1 and self.features == channels else y
