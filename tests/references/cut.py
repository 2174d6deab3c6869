"""Copy the reference arrays that the tests read: ``python cut.py FOLDER_OF_ALL_REFERENCES``."""

import sys
from pathlib import Path

import numpy as np

CAPTUM = ("Saliency", "Saliency@abs=False", "InputXGradient", "GuidedBackprop", "Deconvolution")
INNVESTIGATE = tuple(
    "lrp." + name
    for name in (
        *(f"sequential_preset_{preset}" for preset in ("a", "b", "a_flat", "b_flat")),
        *("z", "epsilon@0.25", "z_plus", "alpha_2_beta_1_IB", "w_square", "flat"),
    )
)
PEERS = {
    "mlp": ("zennit", "captum", "inn2", "inn1", "fit256"),
    "cnn": ("zennit", "captum", "inn1", "fit256"),
    "cnn_bn": ("zennit", "captum"),
    "dilated": ("zennit", "captum"),
}


def wanted(kind: str, key: str) -> bool:
    method = key.rpartition("/")[0]
    match kind:
        case "captum":
            return method in CAPTUM
        case "inn2":
            return method in INNVESTIGATE
        case "inn1":
            return method.startswith("pattern")
        case "zennit":
            return not method.startswith("nocanon/")
    return True


def main(folder: str) -> None:
    for model, peers in PEERS.items():
        for kind in ("model", *peers):
            name = f"{model}.{kind}.npz"
            with np.load(Path(folder) / name) as archive:
                kept = {key: archive[key] for key in archive.files if wanted(kind, key)}
            np.savez_compressed(Path(__file__).with_name(name), **kept)


if __name__ == "__main__":
    main(sys.argv[1])
