"""Flax nnx."""

from collections.abc import Callable
from typing import Any

import jax

from jaxplain.arguments import by_path
from jaxplain.extras import package
from jaxplain.frameworks import checks
from jaxplain.frameworks.model import Arrays, Call, Model, bound, named


def from_nnx(
    module: Any, *, method: str | Callable[..., Any] | None = None, **kwargs: Any
) -> Model:
    """Makes a Flax nnx module a function that can be explained, in evaluation mode.

    A copy of the module is called, with dropout off and running averages in BatchNorm (what
    `module.eval()` sets): the module itself stays as it is. Its variables are read whenever it is
    explained.

    Args:
        module: a `flax.nnx.Module`, in whatever mode.
        method: the method to call, `__call__` by default: a name, or a function of the module.
        **kwargs: passed to every call: `train=False`, say, where the module asks for it.

    Returns:
        A pytree that is callable on the module's inputs. Layers are named by the paths of their
        parameters: "blocks/0/conv".

    Raises:
        TypeError: `module` is no nnx module, or one of shapes without values; when it is called,
            that the call changes the module's variables or is random.

    Example:
        >>> from flax import nnx
        >>> import jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> rngs = nnx.Rngs(0)
        >>> module = nnx.Sequential(nnx.Linear(4, 3, rngs=rngs), nnx.Dropout(0.5, rngs=rngs))
        >>> explain = jxp.lrp(jxp.from_nnx(module))
        >>> print(explain(jnp.ones((1, 4)), target=1).shape)
        (1, 4)
        >>> print([layer.name for layer in explain.plan(jnp.ones((1, 4))).layers])
        ['layers/0']
    """
    nnx = package("flax.nnx", 'from_nnx needs flax: pip install "jaxplain[flax]"')
    if not isinstance(module, nnx.Module):
        raise TypeError(f"from_nnx needs an instance of flax.nnx.Module, got {named(module)}")
    name = f"from_nnx({type(module).__name__})"

    def read(module: Any = module) -> tuple[Any, Arrays]:
        definition, state = nnx.split(module)
        return (definition, jax.tree.structure(state)), _variables(state)

    def call(structure: Any, arrays: Arrays, *inputs: Any) -> Any:
        definition, tree = structure

        def run(arrays: Arrays) -> tuple[Any, Any]:
            copy = nnx.merge(definition, jax.tree.unflatten(tree, arrays.values()))
            copy.eval()
            return copy, bound(copy, method)(*inputs, **kwargs)

        copy, output = run(arrays)
        counts = _variables(nnx.state(copy, nnx.RngCount)).keys()
        # Weights may be normalised in their place: the copy's.
        free = counts | _variables(nnx.state(copy, nnx.Param)).keys()

        def kept(arrays: Arrays) -> Arrays:
            return {path: v for path, v in arrays.items() if path not in free}

        def again(before: Arrays) -> Arrays:  # nnx.jit and nnx.remat return copies of everything
            return kept(read(run({**arrays, **before})[0])[1])

        after = read(copy)[1]
        checks.unchanged(name, kept(arrays), kept(after), again)
        drawn = {path: v for path, v in arrays.items() if path in counts and after[path] is not v}
        checks.not_random(name, drawn, lambda drawn: run({**arrays, **drawn})[1])
        return output

    checks.initialised(name, read()[1])
    return Model(name, Call(call, "nnx", method, kwargs), read, module)


def _variables(state: Any) -> Arrays:
    """The arrays of a state by the path of their variable."""
    return {path.removesuffix("/value"): array for path, array in by_path(state).items()}
