"""The relevance of parameters."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp

from jaxplain.composites import Composite, Match, kernel, kind
from jaxplain.graph.layers import Layer
from jaxplain.parameter_messages import ParameterBatch, Share, parameter_batches
from jaxplain.rules import Epsilon, Norm, Rule
from jaxplain.targets import Target
from jaxplain.transforms.compiled import Compiled
from jaxplain.transforms.explainer import Explainer
from jaxplain.transforms.lrp import lrp


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
    composite = lrp(f, rule).composite
    alone = _before(composite, (_SCALE_OF_INPUT, Norm()))

    def among(layer: Layer, rule: Rule) -> Share:
        entries = [(kernel, rule)] * layer.is_kernel
        return _share(_before(composite, *entries, (kind("Affine"), Norm())))

    back = _share(_before(alone, (kernel, Epsilon())))  # no layers of lrp(f), nor first ones
    known: WeakKeyDictionary[Compiled, tuple[ParameterBatch, ...]] = WeakKeyDictionary()

    @cache
    def explainer(explained: int) -> Explainer:
        return lrp(f, composite, argnums=explained)

    @cache
    def of_leaf(number: int) -> Explainer:
        return lrp(partial(_of_leaf, f, argnum, number), alone)

    def explain(*args: Any, target: Target = None) -> Any:
        def weights(compiled: Compiled) -> tuple[ParameterBatch, ...]:
            if compiled not in known:
                inputs = compiled.inputs(args, argnum)
                known[compiled] = parameter_batches(compiled.plan.graph, inputs, among, back)
            return known[compiled]

        leaves, tree = jax.tree.flatten(args[argnum])
        other = explainer(1 if argnum % len(args) == 0 else 0)
        if len(args) > 1 and other.depends(*args):
            found = other.weights(weights, *args, target=target)
        else:
            found = [of_leaf(i)(leaf, *args, target=target) for i, leaf in enumerate(leaves)]
        return jax.tree.unflatten(tree, found)

    return explain


def _before(composite: Composite, *entries: tuple[Match, Rule]) -> Composite:
    """The composite behind other entries."""
    entries = (*entries, *composite.entries)
    return Composite(entries, name=composite.name, base=composite.base, strict=False)


def _share(composite: Composite) -> Share:
    """Shares relevance out as `lrp` does."""

    def share(
        function: Callable[..., jax.Array], values: Sequence[jax.Array], r: jax.Array
    ) -> Sequence[jax.Array]:
        explain = Explainer(
            function, composite, relevance=True, argnums=tuple(range(len(values))), logits=False
        )
        if not explain.depends(*values):  # as thresholds do, they only decide
            return [jnp.zeros_like(v) for v in values]
        found: Sequence[jax.Array] = explain(*values, target=lambda _: r)
        return found

    return share


def _is_scale_of_input(layer: Layer) -> bool:
    return layer.op == "scale" and all(v.producer is None for v in layer.inputs)


#: A bias is one term of a sum: it gets its share, not all that passes.
_SCALE_OF_INPUT = Match(_is_scale_of_input, "scale or addition of the parameter")


def _of_leaf(f: Callable[..., Any], argnum: int, number: int, leaf: Any, *args: Any) -> Any:
    """`f` as a function of one array of its parameters."""
    leaves, tree = jax.tree.flatten(args[argnum])
    leaves[number] = leaf
    changed = list(args)
    changed[argnum] = jax.tree.unflatten(tree, leaves)
    return f(*changed)
