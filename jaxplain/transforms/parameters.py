"""The relevance of parameters."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp

from jaxplain.composites import Composite, Match, kernel, kind
from jaxplain.graph.layer import Layer
from jaxplain.matches import Where
from jaxplain.parameter_messages import ParameterBatch, Share, parameter_batches
from jaxplain.rules import Epsilon, Norm, Rule
from jaxplain.spelling import checked_options
from jaxplain.targets import Target
from jaxplain.transforms import trees
from jaxplain.transforms.explainer import Explainer
from jaxplain.transforms.lrp import lrp
from jaxplain.transforms.method import Method
from jaxplain.transforms.traced import Traced


@checked_options
def parameter_relevance(
    f: Callable[..., Any], rule: Rule | Composite = Epsilon(1e-6), *, argnum: int = 1
) -> Callable[..., Any]:
    """How much of the output each weight carries: the relevance that flows through it.

    These are the messages of `lrp(f)`, summed by weight instead of by input: at each of its layers
    the relevance of the output is shared out among the layer's weights, under the layer's rule and
    with its inputs held constant. For a kernel w_ij under LRP-epsilon this is
    R_ij = sum of x_i w_ij R_j / z_j over all positions, layers and iterations that use it, so that
    the weights of one layer add up to what it hands on. A bias or a gain gets its share of the sum
    that it is in, under LRP-epsilon whatever the rule. Each array of parameters is explained on its
    own, with the others constant; explaining them together, as `lrp(f, argnums=1)` does, shares the
    relevance out between layers instead.

    What is made of parameters alone (a normalised kernel, a product of two, a learned initial
    state) gets its relevance likewise, and hands it back by `lrp` of each array, under LRP-epsilon
    in kernels.

    Args:
        f: the function: `f(x, params) -> logits`.
        rule: as for `lrp`.
        argnum: which argument holds the parameters. The messages are those to the first of the
            other arguments; where there is none that the output depends on, those to each array.

    Returns:
        A function of the arguments of `f` (and `target=`) that returns a tree like the parameters,
        in units of the output. All arrays share one backward pass, but for those that go into one
        constant (as the gain and the variance of a BatchNorm do), which take one each.

    Raises:
        NotAnalyzableError: the output does not depend on a parameter; relevance would have to
            cross an operation that has no rule; or the rule of a kernel treats inputs otherwise
            than weights (ZBox, WSquare, Sign).
        TypeError: a parameter is not floating.

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
    composite = lrp(f, rule).method.composite
    alone = _before(composite, (_SCALE_OF_INPUT, Norm()))

    def share_in_layer(layer: Layer, rule: Rule) -> Share:
        own = [(kernel, rule)] * layer.is_kernel
        return _share(_before(composite, *own, (kind("Affine"), Norm())))

    # no layers of lrp(f), nor first ones
    share_in_constant = _share(_before(alone, (kernel, Epsilon())))
    known: WeakKeyDictionary[Traced, tuple[ParameterBatch, ...]] = WeakKeyDictionary()

    @cache
    def explainer_of(number: int) -> Explainer:
        return lrp(f, composite, argnums=number)

    @cache
    def explainer_of_leaf(number: int) -> Explainer:
        return lrp(partial(_with_leaf, f, argnum, number), alone)

    def explain(*args: Any, target: Target = None) -> Any:
        def batches(traced: Traced) -> tuple[ParameterBatch, ...]:
            if traced not in known:
                graph, inputs = traced.plan.graph, traced.argument(args, argnum)
                known[traced] = parameter_batches(graph, inputs, share_in_layer, share_in_constant)
            return known[traced]

        leaves, tree = jax.tree.flatten(args[argnum])
        other = explainer_of(1 if argnum % len(args) == 0 else 0)
        if len(args) > 1 and other.depends(*args):
            relevance = other.parameter_messages(batches, *args, target=target)
        else:
            relevance = [
                explainer_of_leaf(i)(leaf, *args, target=target) for i, leaf in enumerate(leaves)
            ]
        return jax.tree.unflatten(tree, relevance)

    return explain


def _before(composite: Composite, *entries: tuple[Match, Rule]) -> Composite:
    """The composite behind other entries."""
    entries = (*entries, *composite.entries)
    return Composite(entries, name=composite.name, base=composite.base, strict=False)


def _share(composite: Composite) -> Share:
    """Shares relevance as `lrp` does."""
    method = Method(composite)

    def share(
        function: Callable[..., jax.Array], values: Sequence[jax.Array], r: jax.Array
    ) -> Sequence[jax.Array]:
        argnums = tuple(range(len(values)))
        explain = Explainer(function, method=method, argnums=argnums, logits=False)
        if not explain.depends(*values):  # as thresholds do, they only decide
            return [jnp.zeros_like(v) for v in values]
        shares: Sequence[jax.Array] = explain(*values, target=lambda _: r)
        return shares

    return share


def _is_scale_of_input(layer: Layer) -> bool:
    return layer.op == "scale" and all(v.producer is None for v in layer.inputs)


#: A bias is one term of a sum: it gets its share, not all that passes.
_SCALE_OF_INPUT = Where(_is_scale_of_input, "scale or addition of the parameter")


def _with_leaf(f: Callable[..., Any], argnum: int, number: int, leaf: Any, *args: Any) -> Any:
    """`f` with another array in the place of one of its parameters."""
    leaves, tree = jax.tree.flatten(args[argnum])
    leaves[number] = leaf
    return f(*trees.replaced(args, argnum, jax.tree.unflatten(tree, leaves)))
