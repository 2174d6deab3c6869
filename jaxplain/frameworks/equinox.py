"""Equinox."""

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain.arguments import by_path
from jaxplain.extras import package
from jaxplain.frameworks import checks
from jaxplain.frameworks.model import Arrays, Call, Model, bound, named


def from_equinox(
    module: Any,
    state: Any = None,
    *,
    method: str | Callable[..., Any] | None = None,
    batched: bool = False,
    **kwargs: Any,
) -> Model:
    """Makes an Equinox module a function that can be explained, in inference mode.

    Args:
        module: an `equinox.Module`, in whatever mode: `equinox.nn.inference_mode` of it is called.
        state: its `equinox.nn.State`, for a module with BatchNorm and the like. It is passed after
            the inputs, and the module returns its output and a state.
        method: the method to call, `__call__` by default: a name, or a function of the module.
        batched: whether the module takes whole batches. By default it takes one example, as those
            of `equinox.nn` do, and is mapped over the leading axis of every input.
        **kwargs: passed to every call, the same for every example: `key=None`, say.

    Returns:
        A pytree that is callable on batches of inputs. Layers are named by the paths of their
        parameters: "layers/0".

    Raises:
        TypeError: `module` is no Equinox module, one of shapes without values, or one with state
            that is not given; when it is called, that the call changes the state.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> module = eqx.nn.MLP(4, 3, width_size=5, depth=1, key=jax.random.key(0))
        >>> explain = jxp.lrp(jxp.from_equinox(module))
        >>> print(explain(jnp.ones((2, 4)), target=1).shape)
        (2, 4)
        >>> print([layer.name for layer in explain.plan(jnp.ones((2, 4))).layers])
        ['layers/0', 'layers/rectifier', 'layers/1']
    """
    eqx = package("equinox", 'from_equinox needs equinox: pip install "jaxplain[equinox]"')
    if isinstance(module, tuple) and module and isinstance(module[0], eqx.Module):
        raise TypeError("pass them as two arguments: from_equinox(module, state)")
    if not isinstance(module, eqx.Module):
        raise TypeError(f"from_equinox needs an instance of equinox.Module, got {named(module)}")
    name = f"from_equinox({type(module).__name__})"
    if not isinstance(state, eqx.nn.State | None):
        raise TypeError(f"state must be an equinox.nn.State, got {named(state)}")
    places = by_path(module, is_leaf=lambda v: isinstance(v, eqx.nn.StateIndex))
    indices = {p: v for p, v in places.items() if isinstance(v, eqx.nn.StateIndex)}
    if indices and state is None:
        raise TypeError(
            f"{name} needs the module's state (of BatchNorm, say): from_equinox(module, state), as "
            "equinox.nn.make_with_state returns them"
        )
    module = eqx.nn.inference_mode(module)
    leaves, tree = jax.tree.flatten((module, state))
    paths = [*by_path(module), *_state_paths(indices, state)]
    by_paths = dict(zip(paths, leaves, strict=True))
    checks.initialised(name, by_paths)
    module_arrays = {path: leaf for path, leaf in by_paths.items() if eqx.is_array(leaf)}

    def call(_: None, arrays: Arrays, *inputs: Any) -> Any:
        def one(*inputs: Any) -> Any:
            model, state = jax.tree.unflatten(tree, (by_paths | arrays).values())
            function = bound(model, method)
            if state is None:
                return function(*inputs, **kwargs)
            before = by_path(state)  # a state is used up when it is changed
            returned = function(*inputs, state, **kwargs)
            if not isinstance(returned, tuple) or not isinstance(returned[-1], eqx.nn.State):
                raise TypeError(f"{name} was given a state: it must return (output, state)")
            output, after = returned
            checks.unchanged(name, before, by_path(after))
            return output

        try:
            return one(*inputs) if batched else jax.vmap(one)(*inputs)
        except Exception as error:
            function, states = bound(module, method), () if state is None else (state,)
            missing = _missing(function, (*inputs, *states), kwargs)
            if missing is None and states and _missing(function, inputs, kwargs) is not None:
                error.add_note(f"{name} takes no state: leave it out, from_equinox(module)")
            elif missing and "key" in missing:
                error.add_note(
                    "give it where the model is made: from_equinox(module, key=None), which does "
                    "in inference mode, or a key where the module splits it"
                )
            elif not missing and not batched and _is_unbatched(one, inputs):
                shapes = ", ".join(str(jnp.shape(v)) for v in jax.tree.leaves(inputs))
                error.add_note(
                    f"{name} takes one example and is mapped over the leading axis of what it is "
                    f"given (here {shapes}): give a batch, x[None] for one example; or "
                    "batched=True for a module that takes batches itself"
                )
            raise

    static = {path: leaf for path, leaf in by_paths.items() if path not in module_arrays}
    same = Call(call, "equinox", tree, static, method, batched, kwargs)
    return Model(name, same, lambda: (None, module_arrays), module)


def _missing(
    function: Callable[..., Any], inputs: Sequence[Any], options: Arrays
) -> set[str] | None:
    """The arguments that a call lacks; None where it has some that the function does not take."""
    try:
        expected = signature(function)
        given = expected.bind_partial(*inputs, **options).arguments
    except (TypeError, ValueError):  # ValueError: it has no signature
        return None
    needed = (p for p in expected.parameters.values() if p.default is p.empty)
    return {p.name for p in needed if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)} - {*given}


def _is_unbatched(one: Callable[..., Any], inputs: Sequence[Any]) -> bool:
    """Whether inputs have no leading axis to be mapped over, or are what a module itself takes."""
    leading = {jnp.shape(v)[:1] for v in jax.tree.leaves(inputs)}
    if leading == {()} or len(leading) > 1:
        return True
    try:
        jax.eval_shape(one, *inputs)
    except Exception:
        return False
    return True


def _state_paths(indices: Arrays, state: Any) -> list[str]:
    """The places in the module of the leaves of its state."""
    leaves, tree = jax.tree.flatten(state)
    paths = [f"state/{i}" for i in range(len(leaves))]
    numbered = jax.tree.unflatten(tree, range(len(leaves)))
    for path, index in indices.items():
        for place, number in by_path(numbered.get(index)).items():
            paths[number] = f"{path}/{place}".rstrip("/")
    return paths
