"""Flax linen."""

from collections.abc import Mapping
from typing import Any

import jax

from jaxplain.by_value import ByValue
from jaxplain.extras import package
from jaxplain.frameworks.model import named


@jax.tree_util.register_pytree_node_class
class LinenModel:
    """A bound linen module: callable on its inputs, a pytree of its variables.

    Being a pytree, its arrays are run-time arguments of every explainer: an updated model is never
    explained with its old weights.
    """

    def __init__(self, variables: Any, call: "_Call"):
        self.variables = variables
        self._call = call
        self._jaxplain_owner = call.module

    def __call__(self, *inputs: Any) -> Any:
        """`module.apply(variables, *inputs)`."""
        return self._call(self.variables, *inputs)

    def replace(self, variables: Any) -> "LinenModel":
        """The same module with other variables."""
        return LinenModel(variables, self._call)

    def tree_flatten(self) -> tuple[tuple[Any], Any]:
        """The variables are the leaves."""
        return (self.variables,), self._call

    @classmethod
    def tree_unflatten(cls, call: "_Call", children: tuple[Any]) -> "LinenModel":
        """Rebuilds the model from its variables."""
        return cls(children[0], call)

    def __repr__(self) -> str:
        return f"from_linen({self._call.module!r})"


class _Call(ByValue):
    """The static part of a model, compared by content: modules may hold unhashable fields."""

    def __init__(self, module: Any, method: Any, kwargs: Mapping[str, Any]):
        self.module, self.method, self.kwargs = module, method, kwargs

    def __call__(self, variables: Any, *inputs: Any) -> Any:
        return self.module.apply(variables, *inputs, method=self.method, **self.kwargs)


def from_linen(module: Any, variables: Any, *, method: Any = None, **kwargs: Any) -> LinenModel:
    """Makes a Flax linen module and its variables a function that can be explained.

    Args:
        module: a `flax.linen.Module`, not bound.
        variables: what `module.init` returned, or a trained version of it: a mapping with
            "params" and the other collections.
        method: the method to call, `__call__` by default.
        **kwargs: passed to every call: say `train=False` or `deterministic=True` here, so that
            dropout and BatchNorm are in evaluation mode.

    Returns:
        A pytree that is callable on the module's inputs.

    Raises:
        TypeError: `module` is no linen module, `variables` no mapping of collections, or
            `mutable=` asks for what training changes.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> x = jnp.ones((1, 4))
        >>> module = nn.Dense(3)
        >>> model = jxp.from_linen(module, module.init(jax.random.key(0), x))
        >>> print(jxp.lrp(model)(x, target=1).shape)
        (1, 4)
    """
    nn = package("flax.linen", 'from_linen needs flax: pip install "jaxplain[flax]"')
    if not isinstance(module, nn.Module):
        raise TypeError(f"from_linen needs an instance of flax.linen.Module, got {named(module)}")
    if not isinstance(variables, Mapping) or not all(isinstance(k, str) for k in variables):
        raise TypeError(
            "variables must be a mapping of collections such as {'params': ...}, as module.init "
            f"returns it; got {type(variables).__name__}"
        )
    if kwargs.get("mutable"):
        raise TypeError(
            f"from_linen explains what the module predicts: leave mutable={kwargs['mutable']} out, "
            "and pass train=False, deterministic=True or what else the module calls it"
        )
    return LinenModel(dict(variables), _Call(module, method, kwargs))
