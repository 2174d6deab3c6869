"""Layer-wise relevance propagation."""

from collections.abc import Callable
from typing import Any, Unpack

from jaxplain import composites
from jaxplain.composites import Composite
from jaxplain.rules import Epsilon, Rule
from jaxplain.spelling import checked_options
from jaxplain.transforms.explainer import Explainer, Options
from jaxplain.transforms.method import Method


@checked_options
def lrp(
    f: Callable[..., Any],
    rule: Rule | Composite = Epsilon(1e-6),
    *,
    unknown: str = "error",
    **options: Unpack[Options],
) -> Explainer:
    """Layer-wise relevance propagation: the output, redistributed layer by layer to the input.

    The backward pass starts from the value of the selected output and sends it back through each
    layer by the layer's rule. A trailing softmax is left out: logits are explained.

    Args:
        f: the function to explain: `f(x, *args) -> logits`.
        rule: a composite, or one rule for every kernel layer (dense and convolution); the other
            layers then follow the base map (see `jaxplain.composites.BASE`).
        unknown: "error": refuse operations that have no rule. "gradient": differentiate them as
            written, and say so in the plan.
        **options: `argnums`, `with_output`, `capture`, `start`, `stop`, `check_finite`: see
            `Explainer`.

    Returns:
        An explainer: called with the arguments of `f` (and `target=`), it returns relevance in the
        shape of the explained argument, in units of the output.

    Raises:
        TypeError: `rule` is neither a rule nor a composite.

    References:
        Bach et al., "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise
        Relevance Propagation", PLOS ONE 2015.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxplain as jxp
        >>> w = jnp.array([[1.0, 2.0], [-1.0, 1.0]])
        >>> explain = jxp.lrp(lambda x: jax.nn.relu(x @ w), jxp.rules.Z())
        >>> print(explain(jnp.array([[3.0, 1.0]]), target=1))
        [[6. 1.]]
    """
    if isinstance(rule, type) or getattr(rule, "__module__", "") == composites.__name__:
        kind, name = (
            "class" if isinstance(rule, type) else "function",
            getattr(rule, "__name__", ""),
        )
        if name:
            raise TypeError(f"rule is the {kind} {name}; give what it makes: {name}()")
    if isinstance(rule, Rule):
        composite = composites.of_kernels(rule)
    elif isinstance(rule, Composite):
        composite = rule
    else:
        named = isinstance(rule, str)
        hint = f'; for names: jaxplain.create_analyzer("lrp.{rule}", f)' if named else ""
        raise TypeError(f"rule must be a rule or a composite, got {rule!r}{hint}")
    return Explainer(f, method=Method(composite), unknown=unknown, **options)
