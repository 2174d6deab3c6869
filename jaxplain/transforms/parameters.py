"""The relevance of parameters."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax

from jaxplain.composites import Composite, Match
from jaxplain.graph.layers import Layer
from jaxplain.rules import Epsilon, Norm, Rule
from jaxplain.targets import Target
from jaxplain.transforms.explainer import Explainer
from jaxplain.transforms.lrp import lrp


def parameter_relevance(
    f: Callable[..., Any], rule: Rule | Composite = Epsilon(1e-6), *, argnum: int = 1
) -> Callable[..., Any]:
    """How much of the output each weight carries: the relevance that flows through it.

    For a kernel w_ij under LRP-epsilon this is R_ij = sum over positions of x_i w_ij R_j / z_j: the
    messages of `lrp(f)`, summed by weight instead of by input, so that the weights of one layer
    add up to what it hands on. A bias gets its share of the sum that it is a term of, under
    LRP-epsilon whatever the rule. Each array of parameters is explained on its own, with the others
    constant; explaining them together, as `lrp(f, argnums=1)` does, shares the relevance out
    between layers instead.

    Args:
        f: the function: `f(x, params) -> logits`.
        rule: as for `lrp`.
        argnum: which argument holds the parameters.

    Returns:
        A function of the arguments of `f` (and `target=`) that returns a tree like the parameters,
        in units of the output. Each array costs a backward pass down to its layer; under one
        `jax.jit` they share what they have in common.

    Raises:
        NotAnalyzableError: the output does not depend on a parameter, or relevance would have to
            cross an operation that has no rule.

    References:
        Yeom et al., "Pruning by explaining: a novel criterion for deep neural network pruning",
        Pattern Recognition 2021.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> f = lambda x, params: x @ params["w"] + params["b"]
        >>> params = {"w": jnp.array([[1.0], [2.0]]), "b": jnp.array([3.0])}
        >>> explain = jxp.parameter_relevance(f, jxp.rules.Z())
        >>> print(explain(jnp.ones((1, 2)), params)["w"].ravel())
        [1. 2.]
    """
    composite = _with_addends(lrp(f, rule).composite)

    @cache
    def explainer(number: int) -> Explainer:
        return lrp(partial(_of_leaf, f, argnum, number), composite)

    def explain(*args: Any, target: Target = None) -> Any:
        leaves, tree = jax.tree.flatten(args[argnum])
        found = [explainer(i)(leaf, *args, target=target) for i, leaf in enumerate(leaves)]
        return jax.tree.unflatten(tree, found)

    return explain


def _with_addends(composite: Composite) -> Composite:
    """A bias is one term of a sum: it gets its share, not all that passes."""
    entries = [(Match(_is_scale_of_input, "scale or addition of the parameter"), Norm())]
    return Composite(
        [*entries, *composite.entries], name=composite.name, base=composite.base, strict=False
    )


def _is_scale_of_input(layer: Layer) -> bool:
    return layer.op == "scale" and all(v.producer is None for v in layer.sources)


def _of_leaf(f: Callable[..., Any], argnum: int, number: int, leaf: Any, *args: Any) -> Any:
    """`f` as a function of one array of its parameters."""
    leaves, tree = jax.tree.flatten(args[argnum])
    leaves[number] = leaf
    changed = list(args)
    changed[argnum] = jax.tree.unflatten(tree, leaves)
    return f(*changed)
