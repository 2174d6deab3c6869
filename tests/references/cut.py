"""Copy the reference arrays that the tests read: ``python cut.py FOLDER_OF_ALL_REFERENCES``."""

import sys
from pathlib import Path

import numpy as np

PEERS = {
    "mlp": ("zennit", "captum", "inn2", "inn1", "fit256"),
    "cnn": ("zennit", "captum", "inn2", "inn1", "fit256"),
    "cnn_bn": ("zennit", "captum", "inn2", "inn1"),
    "dilated": ("zennit", "captum", "inn2", "inn1"),
}
# Its random draws are captum's own, or its definition is another: see docs/methods.md.
CAPTUM_LEFT_OUT = ("GradientShap@stdev0_seed0", "FeatureAblation", "LRP@")
# iNNvestigate's BatchNorm is another function: see README.md. Left are the gradients.
WITH_BATCH_NORM = ("gradient", "guided_backprop", "deconvnet", "input_t_gradient")
WITH_BATCH_NORM += ("integrated_gradients", "gradient.baseline", "input", "deep_lift.wrapper")


def wanted(model: str, kind: str, key: str) -> bool:
    method = key.rpartition("/")[0]
    match kind:
        case "captum":
            return not method.startswith(CAPTUM_LEFT_OUT)
        case "inn1" | "inn2" if model == "cnn_bn":
            return method in WITH_BATCH_NORM
        case "zennit":
            return not method.startswith("nocanon/")
    return True


def main(folder: str) -> None:
    for model, peers in PEERS.items():
        for kind in ("model", *peers):
            name = f"{model}.{kind}.npz"
            with np.load(Path(folder) / name) as archive:
                kept = {key: archive[key] for key in archive.files if wanted(model, kind, key)}
            np.savez_compressed(Path(__file__).with_name(name), **kept)


if __name__ == "__main__":
    main(sys.argv[1])
