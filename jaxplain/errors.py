"""Errors that speak of the user's model."""

from collections.abc import Sequence

from jaxplain.graph.layers import Layer


class NotAnalyzableError(Exception):
    """Relevance would have to cross an operation that no rule is known for."""


def not_analyzable(layers: Sequence[Layer]) -> NotAnalyzableError:
    """The error for layers without a rule."""
    lines = []
    for layer in layers[:5]:
        what = f"`{layer.main.primitive}`"
        if layer.kind in ("Loop", "Branch"):
            what += " (control flow)"
        lines.append(
            f"  {what} at {layer.source or 'unknown place'} (layer {layer.index}: {layer.name})"
        )
    if len(layers) > 5:
        lines.append(f"  and {len(layers) - 5} more")
    return NotAnalyzableError(
        "relevance would have to cross operations that no rule is known for:\n"
        + "\n".join(lines)
        + "\nWays out: give them a rule of your own in a composite, e.g. "
        "Composite([(kind('Unknown'), MyRule())]) with 'Unknown' in MyRule.kinds; rewrite them "
        "with known operations; put jax.lax.stop_gradient around them if they are not to be "
        'explained; or pass unknown="gradient" to differentiate them as written (relevance is then '
        "not conserved)."
    )
