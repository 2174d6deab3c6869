"""Occlusion: what the output loses when a window of the input is hidden."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from jaxplain import _compat, targets
from jaxplain.arguments import check_count
from jaxplain.spelling import checked_options
from jaxplain.targets import Target
from jaxplain.transforms import baselines, trees
from jaxplain.transforms.gradient import gradient
from jaxplain.transforms.wrapper import Base, Wrapper


@dataclass(frozen=True, eq=False)
class Occlusion(Wrapper):
    """See `occlusion`; the base says what is explained, its attribution is not used."""

    window: tuple[int, ...]
    strides: tuple[int, ...]
    baseline: Any = 0.0
    batch_size: int = 8
    arrays: ClassVar[tuple[str, ...]] = ("baseline",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self.batch_size, "batch_size")
        if len(self.window) != len(self.strides):
            raise ValueError(
                f"window and strides must be of one length, got {self.window} and {self.strides}"
            )
        for size in (*self.window, *self.strides):
            check_count(size, "every entry of window and strides")
        if not isinstance(self.argnums, int):
            raise TypeError(f"occlusion hides one argument: argnums is {self.argnums}")

    def check(self, args: Sequence[Any], target: Target) -> None:
        """The window must fit the input, and the output its examples."""
        x = trees.explained(args, self.argnums)
        if not hasattr(x, "shape"):
            raise TypeError("occlusion hides windows of one array, got a tree of them")
        if callable(target):
            raise TypeError(
                'occlusion compares outputs: target must be None, an int, an array or "all"'
            )
        lead, window = _split(x.shape, self.window)
        if lead is None or any(size > n for size, n in zip(self.window, window, strict=True)):
            raise ValueError(f"a window of {self.window} does not fit an input of {x.shape}")
        baselines.check(self.baseline, x)
        output = self.traced(*args).output
        if output.shape[: len(lead)] != lead:
            raise ValueError(
                f"the leading axes {lead} of the input, before those of the window, must be "
                f"leading axes of the output, which has shape {output.shape}"
            )

    def attribute(self, base: Base, args: Sequence[Any], target: Target, key: Any) -> Any:
        """See `occlusion`."""
        x = trees.explained(args, self.argnums)
        hidden = baselines.resolve(self.baseline, x)
        lead, sizes = _split(x.shape, self.window)
        axes = list(zip(sizes, self.window, self.strides, strict=True))
        steps = [math.ceil((n - size) / stride) + 1 for n, size, stride in axes]

        def score(x: Any) -> Any:
            chosen = targets.select(base.outputs(*trees.replaced(args, self.argnums, x)), target)
            classes = 1 if isinstance(target, str) else 0
            return trees.widened(chosen).sum(tuple(range(classes + len(lead), chosen.ndim)))

        def lost(place: Any) -> Any:
            inside = jnp.ones((), bool)
            for axis, (n, size, stride) in enumerate(axes):
                others = [i for i in range(len(axes)) if i != axis]
                position = jnp.expand_dims(jnp.arange(n), others)
                start = place[axis] * stride
                inside = inside & (position >= start) & (position < start + size)
            here = _compat.placed(jnp.broadcast_to(inside, x.shape), x)
            difference = whole - score(jnp.where(here, hidden, x))
            spread = difference.reshape(difference.shape + (1,) * len(sizes))
            mask = inside.astype(spread.dtype)
            return trees.scaled(spread, mask), mask

        whole = score(x)
        places = np.stack([v.ravel() for v in np.indices(steps)], 1)
        losses, count = trees.total(lost, jnp.asarray(places), self.batch_size)
        return trees.narrowed(trees.scaled(losses, 1 / jnp.where(count == 0, 1, count)), x)


def _split(shape: tuple[int, ...], window: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    """The axes before those of the window (None if there are too few), and those."""
    rest = len(shape) - len(window)
    return (shape[:rest] if rest >= 0 else None), shape[max(rest, 0) :]


@checked_options
def occlusion(
    f: Callable[..., Any],
    window: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    *,
    baseline: Any = 0.0,
    batch_size: int = 8,
    argnums: int = 0,
    logits: bool = False,
) -> Occlusion:
    """Occlusion: how much the selected output falls when a window of the input is hidden.

    A window slides over the trailing axes of the input and what is inside is replaced by the
    baseline. An input's attribution is the fall f(x) - f(x with the window hidden), averaged over
    the windows that hold it. The last window of an axis may reach over the edge; inputs that no
    window holds (strides larger than the window) get 0.

    Args:
        f: the function to explain: `f(x, *args) -> scores`.
        window: the window's size along the trailing axes of x, such as (8, 8, 3) for images
            (B, H, W, 3) or (H, W, 3); the axes before are examples, hidden alike, and must be
            leading axes of the output. An int is one axis.
        strides: how far the window moves; by default its size, so that windows tile the input.
        baseline: what hidden inputs become: a number, an array that broadcasts to x, or a function
            of x.
        batch_size: how many windows are evaluated at a time.
        argnums: which argument is explained.
        logits: compare outputs before a trailing softmax.

    Returns:
        An explainer: called with the arguments of `f` (and `target=`), it returns attributions in
        the shape of x, in units of the output.

    Raises:
        TypeError: several arrays are explained, or `target` is a callable.
        ValueError: the window does not fit.

    References:
        Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> f = lambda x: x @ jnp.array([[1.0], [2.0], [3.0]])
        >>> print(jxp.occlusion(f, window=2, strides=1)(jnp.ones((1, 3))))
        [[3. 4. 5.]]
    """
    size = _sizes(window)
    step = size if strides is None else _sizes(strides)
    return Occlusion(gradient(f, argnums=argnums, logits=logits), size, step, baseline, batch_size)


def _sizes(given: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(given) if isinstance(given, Sequence) else (given,)
