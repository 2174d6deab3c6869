"""The command line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jaxplain as jxp
from jaxplain.cli import METHODS, SHOWN, main
from jaxplain.models import photographs
from jaxplain.transforms.wrapper import Wrapper


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "coffee.png"
    Image.fromarray(photographs.photograph("coffee")).save(path)
    return path


@pytest.mark.slow
@pytest.mark.optimized
def test_explain_writes_a_picture_and_tells_what_it_saw(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "maps.png"
    command = ["explain", str(photo), "--method", "epsilon-plus-flat", "--target", "espresso"]
    assert main([*command, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "95.1%  espresso" in printed
    assert "EpsilonPlusFlat: 93 layers" in printed
    assert "48 x convolution    ZPlus()" in printed
    picture = np.asarray(Image.open(out).convert("RGB"))
    assert min(picture.shape[:2]) > 200
    assert picture.std() > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "nowhere.png"], "there is no file nowhere.png"),
        (["explain", "{text}"], "is not an image"),
        (
            ["explain", "{photo}", "--method", "epsilom"],
            "no method is called 'epsilom'; try epsilon",
        ),
        (["explain", "{photo}", "--target", "espreso"], "no class is called 'espreso'"),
        (["explain", "{photo}", "--target", "1000"], "class 1000 is not one of 0 to 999"),
        (["explain", "{photo}", "--out", "nowhere/a.png"], "there is no folder nowhere"),
        (["explain", "{photo}", "--out", "a.txt"], "give a name that ends in .png"),
        (["explain", "."], "directory"),
        (["demo", "--method", "lrp"], "no method is called 'lrp'"),
    ],
)
def test_a_mistake_gets_one_line_and_code_2(
    arguments: list[str],
    message: str,
    photo: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(photo.parent)
    Path("text.png").write_text("no image")
    assert main([a.format(photo=photo, text="text.png") for a in arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_every_method_of_the_command_line_makes_an_explainer() -> None:
    assert set(SHOWN) <= set(METHODS)
    for _, make in METHODS.values():
        assert isinstance(make(lambda x: x, -1.0, 1.0), jxp.Explainer | Wrapper)
