"""Makes whole_networks.zennit.npz: zennit's maps of VGG16 and ResNet50, with torch in float64.

    pip install torch==2.13.0 && pip install --no-deps zennit==0.5.1 && pip install pillow click
    python tests/references/zennit_networks.py

zennit merges BatchNorm into the convolutions; the residual sums are its Sum modules, as its
canonizer for torchvision's ResNets makes them. BatchNorm has no epsilon here: zennit 0.5.1 merges
it and then divides by sqrt(1 + epsilon) once more.
"""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import whole_networks as networks
from torch import nn

# zennit imports torchvision for two classes, which nothing here is an instance of.
for name in ("torchvision", "torchvision.models", "torchvision.models.resnet"):
    sys.modules.setdefault(name, ModuleType(name))
for name in ("Bottleneck", "BasicBlock"):
    setattr(sys.modules["torchvision.models.resnet"], name, type(name, (), {}))

from zennit.attribution import Gradient  # noqa: E402
from zennit.canonizers import SequentialMergeBatchNorm  # noqa: E402
from zennit.composites import EpsilonAlpha2Beta1, EpsilonPlusFlat  # noqa: E402
from zennit.layer import Sum  # noqa: E402

COMPOSITES = {"EpsilonPlusFlat": EpsilonPlusFlat, "EpsilonAlpha2Beta1": EpsilonAlpha2Beta1}


def convolution(weights: networks.Weights, name: str, stride: int = 1) -> nn.Sequential:
    """A convolution with symmetric padding, with its BatchNorm or its bias."""
    kernel = torch.from_numpy(weights[f"{name}/kernel"]).permute(3, 2, 0, 1)
    outputs, inputs, size, _ = kernel.shape
    bias = weights.get(f"{name}/bias")
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=bias is not None)
    layer.weight.data = kernel.contiguous()
    if bias is not None:
        layer.bias.data = torch.from_numpy(bias)
        return nn.Sequential(layer)
    norm = nn.BatchNorm2d(outputs, eps=0.0)
    norm.weight.data = torch.from_numpy(weights[f"{name}/scale"])
    norm.bias.data = torch.from_numpy(weights[f"{name}/shift"])
    norm.running_mean = torch.from_numpy(weights[f"{name}/mean"])
    norm.running_var = torch.from_numpy(weights[f"{name}/variance"])
    return nn.Sequential(layer, norm)


def dense(weights: networks.Weights, name: str) -> nn.Linear:
    kernel = torch.from_numpy(weights[f"{name}/kernel"])
    layer = nn.Linear(*kernel.shape)
    layer.weight.data, layer.bias.data = (
        kernel.T.contiguous(),
        torch.from_numpy(weights[f"{name}/bias"]),
    )
    return layer


class ChannelsLastFlatten(nn.Module):
    """Flattens as NHWC networks do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


class Block(nn.Module):
    def __init__(self, weights: networks.Weights, name: str, stride: int, projects: bool):
        super().__init__()
        self.branch = nn.Sequential(
            *convolution(weights, f"{name}.1"),
            nn.ReLU(),
            *convolution(weights, f"{name}.2", stride),
            nn.ReLU(),
            *convolution(weights, f"{name}.3"),
        )
        shortcut = convolution(weights, f"{name}.shortcut", stride) if projects else nn.Identity()
        self.shortcut = shortcut
        self.sum, self.relu = Sum(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.sum(torch.stack([self.shortcut(x), self.branch(x)], dim=-1)))


def vgg16(weights: networks.Weights) -> nn.Module:
    layers: list[nn.Module] = []
    for i, features in enumerate(networks.VGG):
        layers += [*convolution(weights, f"conv{i}"), nn.ReLU()] if features else [nn.MaxPool2d(2)]
    layers.append(ChannelsLastFlatten())
    for i in range(len(networks.VGG_DENSE)):
        layers += [dense(weights, f"dense{i}"), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def resnet50(weights: networks.Weights) -> nn.Module:
    return nn.Sequential(
        *convolution(weights, "stem", 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        *(Block(weights, name, stride, p) for name, _, _, stride, p in networks.blocks()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        dense(weights, "dense"),
    )


def main() -> None:
    torch.set_default_dtype(torch.float64)
    x = torch.from_numpy(networks.image()).permute(0, 3, 1, 2)
    found = {}
    for network, build in {"vgg16": vgg16, "resnet50": resnet50}.items():
        model = build(networks.weights(network)).eval()
        logits = model(x).detach()
        found[f"{network}/logits"] = logits.numpy()
        label = int(logits.argmax())
        for name, composite in COMPOSITES.items():
            rules = composite(canonizers=[SequentialMergeBatchNorm()])
            seed = torch.eye(networks.CLASSES)[[label]] * logits
            with Gradient(model=model, composite=rules) as attributor:
                _, heat = attributor(x.clone(), seed)
            kept = networks.summary(heat[0].permute(1, 2, 0).numpy())
            found |= {f"{network}/{name}/{key}": value for key, value in kept.items()}
            print(network, name, float(logits[0, label]), float(heat.sum()), kept["largest"])
    single = {key: np.asarray(value, np.float32) for key, value in found.items()}
    np.savez_compressed(Path(__file__).with_name("whole_networks.zennit.npz"), **single)


if __name__ == "__main__":
    main()
