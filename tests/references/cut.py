"""Copy the reference arrays that the tests read: ``python cut.py FOLDER_OF_ALL_REFERENCES``."""

import sys
from pathlib import Path

import numpy as np

GRADIENTS = ("Saliency", "Saliency@abs=False", "InputXGradient", "GuidedBackprop", "Deconvolution")
DEEP_LIFT = ("DeepLift", "DeepLift@baseline", "DeepLiftShap@8baselines")
INNVESTIGATE = tuple(
    "lrp." + name
    for name in (
        *(f"sequential_preset_{preset}" for preset in ("a", "b", "a_flat", "b_flat")),
        *("z", "epsilon@0.25", "z_plus", "alpha_2_beta_1_IB", "w_square", "flat"),
    )
)


def wanted(kind: str, key: str) -> bool:
    method = key.rpartition("/")[0]
    match kind:
        case "captum":
            return method in (*GRADIENTS, *DEEP_LIFT) or key == "baselines"
        case "inn1":
            return method == "deep_lift.wrapper"
        case "inn2":
            return method in INNVESTIGATE
        case "zennit":
            return not method.startswith("nocanon/")
    return True


def main(folder: str) -> None:
    for model in ("mlp", "cnn", "cnn_bn", "dilated"):
        kinds = ["model", "zennit", "captum"]
        kinds += ["inn2"] if model == "mlp" else []
        kinds += ["inn1"] if model != "dilated" else []  # iNNvestigate 1 refuses its layers
        for kind in kinds:
            name = f"{model}.{kind}.npz"
            with np.load(Path(folder) / name) as archive:
                kept = {key: archive[key] for key in archive.files if wanted(kind, key)}
            np.savez_compressed(Path(__file__).with_name(name), **kept)


if __name__ == "__main__":
    main(sys.argv[1])
