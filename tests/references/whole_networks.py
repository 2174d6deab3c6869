"""VGG16 and ResNet50 with random weights, the same in every framework: NumPy only.

Activations are NHWC, kernels HWIO. Paddings are symmetric and written out, as torch pads; ResNet50
strides in the 3 x 3 convolutions.
"""

import numpy as np

SIZE = 64
CLASSES = 10
NETWORKS = ("vgg16", "resnet50")
VGG = [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0]  # 0: maximum
VGG_DENSE = [4096, 4096, CLASSES]
STAGES = [(64, 3), (128, 4), (256, 6), (512, 3)]  # of ResNet50: width and number of blocks

Weights = dict[str, np.ndarray]


def image() -> np.ndarray:
    """The input, (1, SIZE, SIZE, 3), of both signs."""
    return np.random.default_rng(1).normal(0.2, 1, (1, SIZE, SIZE, 3))


def weights(network: str) -> Weights:
    """`<layer>/kernel`, `/bias`, and for BatchNorm `/scale`, `/shift`, `/mean`, `/variance`."""
    rng = np.random.default_rng(NETWORKS.index(network))
    return _vgg16(rng) if network == "vgg16" else _resnet50(rng)


def blocks() -> list[tuple[str, int, int, int, bool]]:
    """ResNet50's blocks: name, width, inputs, stride, and whether the shortcut is a convolution."""
    found, inputs = [], 64
    for stage, (width, count) in enumerate(STAGES):
        for block in range(count):
            stride = 2 if stage and not block else 1
            found.append((f"{stage}.{block}", width, inputs, stride, block == 0))
            inputs = 4 * width
    return found


def _kernel(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)


def _vgg16(rng: np.random.Generator) -> Weights:
    found, inputs, size = {}, 3, SIZE
    for i, features in enumerate(VGG):
        if features:
            found[f"conv{i}/kernel"] = _kernel(rng, 3, 3, inputs, features)
            found[f"conv{i}/bias"] = rng.normal(0, 0.1, features)
            inputs = features
        else:
            size //= 2
    inputs *= size**2
    for i, features in enumerate(VGG_DENSE):
        found[f"dense{i}/kernel"] = _kernel(rng, inputs, features)
        found[f"dense{i}/bias"] = rng.normal(0, 0.1, features)
        inputs = features
    return found


def _resnet50(rng: np.random.Generator) -> Weights:
    found: Weights = {}

    def convolution(name: str, size: int, inputs: int, features: int, gain: float = 1) -> None:
        found[f"{name}/kernel"] = _kernel(rng, size, size, inputs, features)
        sign = np.where(rng.uniform(size=features) < 0.1, -1, 1)  # a merged scale may be negative
        found[f"{name}/scale"] = gain * sign * rng.uniform(0.5, 1.5, features)
        for key in ("shift", "mean"):
            found[f"{name}/{key}"] = rng.normal(0, 0.2, features)
        found[f"{name}/variance"] = rng.uniform(0.5, 2, features)

    convolution("stem", 7, 3, 64)
    for name, width, inputs, _, projects in blocks():
        convolution(f"{name}.1", 1, inputs, width)
        convolution(f"{name}.2", 3, width, width)
        convolution(f"{name}.3", 1, width, 4 * width, gain=0.5)
        if projects:
            convolution(f"{name}.shortcut", 1, inputs, 4 * width)
    found["dense/kernel"] = _kernel(rng, 4 * STAGES[-1][0], CLASSES)
    found["dense/bias"] = rng.normal(0, 0.1, CLASSES)
    return found


def summary(heat: np.ndarray) -> dict[str, np.ndarray]:
    """What is kept of a map (SIZE, SIZE, C): its largest entry, sums over blocks and a crop."""
    step = SIZE // 8
    return {
        "largest": np.abs(heat).max(),
        "blocks": heat.reshape(8, step, 8, step, -1).sum((1, 3)),
        "crop": heat[24:40, 24:40],
    }
