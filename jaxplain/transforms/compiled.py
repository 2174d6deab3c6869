"""A traced function, compiled once for each of its computations: attribution, ledger, ..."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from jaxplain import finite, targets
from jaxplain.errors import DELETED
from jaxplain.targets import Target
from jaxplain.transforms.evaluation import Evaluation
from jaxplain.transforms.traced import Traced


@dataclass(frozen=True)
class Call:
    """A traced function, and the arrays of one call.

    Attributes:
        traced: the function.
        constants: the arrays that the function closes over.
        inputs: the arrays of the model and of the arguments.
        state: see `Explainer.state`.
    """

    traced: Traced
    constants: list[Any]
    inputs: list[Any]
    state: Any

    def compute(
        self,
        compute: Callable[..., Any],
        *options: Any,
        target: Target = None,
        masks: Mapping[int, jax.Array] = {},
    ) -> Any:
        """The result of a method of `Evaluation` at these arrays.

        Args:
            compute: the method.
            *options: its arguments, which must have a hash.
            target: the target, checked.
            masks: see `Traced.check_masks`.

        Raises:
            TypeError: there are only shapes.
            RuntimeError: an array was deleted.
        """
        if any(isinstance(v, jax.ShapeDtypeStruct) for v in self.inputs):
            raise TypeError("a jax.ShapeDtypeStruct holds no values: only plan() takes one")
        if any(map(_is_deleted, (*self.constants, *self.inputs))):
            raise RuntimeError(DELETED)
        kind, index = targets.static(target)
        arrays = (self.constants, self.inputs, self.state, index, dict(masks))
        with self.traced.mesh():
            return _jitted(self.traced, compute)(*arrays, kind=kind, options=options)

    def check_finite(self) -> None:
        """Raises FloatingPointError where a network is asked to be finite and is not."""
        if self.traced.spec.check_finite:
            flags = self.compute(Evaluation.is_finite)
            finite.check(finite.places(self.traced.plan), flags)


def _is_deleted(value: Any) -> bool:
    concrete = isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer)
    return concrete and value.is_deleted()


def _jitted(traced: Traced, compute: Callable[..., Any]) -> Callable[..., Any]:
    """A method of `Evaluation` as a function of arrays, under its name in logs and profiles."""
    if compute not in traced.jitted:

        def run(*arrays: Any, kind: Any, options: tuple[Any, ...]) -> Any:
            return compute(Evaluation(traced, kind, *arrays), *options)

        run.__name__ = compute.__name__
        traced.jitted[compute] = jax.jit(run, static_argnames=("kind", "options"))
    return traced.jitted[compute]
