"""The command line: what a real ImageNet classifier sees in photographs.

python -m jaxplain demo                 the shipped photographs, six methods
python -m jaxplain explain PHOTO        a photograph of your own
"""

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jaxplain as jxp
from jaxplain import composites
from jaxplain.transforms.explainer import Explainer
from jaxplain.transforms.wrapper import Base, call

#: Makes the explainer of a model whose inputs have a range.
Make = Callable[[Any, float, float], Base]


def _of(method: Callable[..., Base], *arguments: Any, **options: Any) -> Make:
    return lambda f, low, high: method(f, *arguments, **options)


#: Method names, the label of their column, and how to make them for a model and its input range.
METHODS: dict[str, tuple[str, Make]] = {
    "gradient": ("Gradient", _of(jxp.gradient)),
    "input_times_gradient": ("Input × Gradient", _of(jxp.input_times_gradient)),
    "deconvnet": ("Deconvnet", _of(jxp.deconvnet)),
    "guided_backprop": ("Guided Backprop", _of(jxp.guided_backprop)),
    "smoothgrad": ("SmoothGrad", _of(jxp.smoothgrad, samples=16)),
    "integrated_gradients": ("Integrated Gradients", _of(jxp.integrated_gradients, steps=16)),
    "grad_cam": ("Grad-CAM", _of(jxp.grad_cam, resize="linear")),
    "guided_grad_cam": ("Guided Grad-CAM", _of(jxp.guided_grad_cam, resize="linear")),
    "occlusion": ("Occlusion", _of(jxp.occlusion, (28, 28, 3), (14, 14, 3))),
    "deep_lift": ("DeepLIFT", _of(jxp.deep_lift)),
    "deep_taylor": ("Deep Taylor", lambda f, low, high: jxp.deep_taylor(f, low=low, high=high)),
    "epsilon": ("LRP-ε", _of(jxp.lrp)),
    "epsilon_plus": ("EpsilonPlus", _of(jxp.lrp, composites.EpsilonPlus())),
    "epsilon_plus_flat": ("EpsilonPlusFlat", _of(jxp.lrp, composites.EpsilonPlusFlat())),
    "epsilon_alpha2_beta1": ("EpsilonAlpha2Beta1", _of(jxp.lrp, composites.EpsilonAlpha2Beta1())),
    "epsilon_alpha2_beta1_flat": (
        "EpsilonAlpha2Beta1Flat",
        _of(jxp.lrp, composites.EpsilonAlpha2Beta1Flat()),
    ),
    "epsilon_gamma_box": (
        "EpsilonGammaBox",
        lambda f, low, high: jxp.lrp(f, composites.EpsilonGammaBox(low, high)),
    ),
    "excitation_backprop": ("ExcitationBackprop", _of(jxp.lrp, composites.ExcitationBackprop())),
    "sequential_preset_a_flat": ("PresetAFlat", _of(jxp.lrp, composites.SequentialPresetAFlat())),
    "sequential_preset_b_flat": ("PresetBFlat", _of(jxp.lrp, composites.SequentialPresetBFlat())),
}

SHOWN = tuple(
    "gradient input_times_gradient guided_backprop "
    "epsilon epsilon_plus_flat epsilon_alpha2_beta1_flat".split()
)
PHOTOGRAPHS = ("chelsea", "coffee", "flower", "camera", "rocket", "motorcycle_left")
_TOP = 5


class UserError(Exception):
    """A mistake in the command, told in one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code (2 when the command is at fault)."""
    options = _parser().parse_args(argv)
    try:
        options.run(options)
    except (UserError, ImportError) as error:  # an ImportError names the extra to install
        print(f"jaxplain: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxplain",
        description="What EfficientNet-Lite0, trained on ImageNet, sees in photographs.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="explain the photographs that ship with the demo extra")
    demo.set_defaults(run=_demo)
    explain = commands.add_parser("explain", help="explain a photograph of your own")
    explain.add_argument("photo", metavar="PHOTO", help="an image file")
    explain.add_argument(
        "--target", help="the class to explain, by name or index (default: the most likely)"
    )
    explain.set_defaults(run=_explain)
    for command, default in ((demo, "jaxplain-demo.png"), (explain, "jaxplain-explain.png")):
        command.add_argument(
            "--method",
            action="append",
            metavar="NAME",
            help=f"a method; may be repeated. One of: {', '.join(METHODS)}",
        )
        command.add_argument("--out", default=default, help="the picture to write (%(default)s)")
    return parser


def _demo(options: argparse.Namespace) -> None:
    from jaxplain.models import photographs

    methods, out = _methods(options.method), _output(options.out)
    images = [photographs.photograph(name) for name in PHOTOGRAPHS]
    _run(images, PHOTOGRAPHS, methods, None, out)


def _explain(options: argparse.Namespace) -> None:
    from jaxplain.models import imagenet, photographs

    methods, out = _methods(options.method), _output(options.out)
    target = None
    try:
        if options.target is not None:
            target = imagenet.class_index(options.target)
        image = photographs.read(options.photo)
    except FileNotFoundError:
        raise UserError(f"there is no file {options.photo}") from None
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from None
    _run([image], (Path(options.photo).stem,), methods, target, out)


def _run(
    images: list[Any], names: Sequence[str], methods: Sequence[str], target: int | None, out: Path
) -> None:
    import jax
    import numpy as np
    from tqdm import tqdm

    from jaxplain import plot
    from jaxplain.models import efficientnet_lite0 as network
    from jaxplain.models import imagenet

    model = jxp.from_linen(*network.load())
    x = np.stack([network.preprocess(image) for image in images])
    logits = jax.jit(lambda model, x: model(x))(model, x)
    classes = imagenet.class_names()
    probabilities = np.asarray(jax.nn.softmax(logits))
    explained = []
    for name, row in zip(names, probabilities, strict=True):
        best = np.argsort(row)[::-1][:_TOP]
        print(f"{name}:")
        for k in best:
            print(f"  {row[k]:6.1%}  {classes[k]}")
        chosen = int(best[0]) if target is None else target
        if target is not None:
            print(f"  explained: {classes[chosen]} ({row[chosen]:.1%})")
        explained.append(f"{classes[chosen]} {row[chosen]:.0%}")

    maps: dict[str, Any] = {}
    progress = tqdm(methods, unit="method", disable=None)
    for method in progress:
        label, make = METHODS[method]
        progress.set_description(label)
        explain = make(model, network.LOW, network.HIGH)
        maps[label] = np.asarray(call(explain, (x,), target, jax.random.key(0)))
    if isinstance(explain, Explainer):
        print(f"\nThe plan of the last method in short:\n{explain.plan(x).summary()}")

    pictures = [network.display(image) for image in images]
    figure = plot.grid(pictures, maps, row_labels=explained, percentile=99.5)
    plot.save(figure, out)
    print(f"\nwrote {out}")


def _methods(names: Sequence[str] | None) -> tuple[str, ...]:
    if names is None:
        return SHOWN
    known = []
    for name in names:
        key = name.lower().replace("-", "_")
        if key not in METHODS:
            close = difflib.get_close_matches(key, METHODS, n=3, cutoff=0.5) or list(METHODS)
            raise UserError(f"no method is called {name!r}; try {', '.join(close)}")
        known.append(key)
    return tuple(dict.fromkeys(known))


def _output(name: str) -> Path:
    out = Path(name)
    if not out.parent.is_dir():
        raise UserError(f"there is no folder {out.parent} to write {out.name} to")
    if out.suffix.lower() not in (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".webp"):
        raise UserError(f"cannot write a picture to {out}: give a name that ends in .png")
    return out
