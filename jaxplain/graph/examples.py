"""Whether the leading axis counts examples: a guess from sizes."""

from collections.abc import Sequence
from typing import Any

import jax


def counts_examples(outputs: Any, explained: Sequence[Any]) -> bool:
    """Whether the leading axis of the explained arrays counts examples: all have it in one size.

    Args:
        outputs: the explained outputs, a tree of arrays or `jax.ShapeDtypeStruct`.
        explained: the explained inputs, likewise.
    """
    sizes = {v.shape[:1] for v in (*jax.tree.leaves(outputs), *explained)}
    ranks = [v.ndim for v in jax.tree.leaves(outputs)]
    return len(sizes) == 1 and sizes != {()} and all(rank > 1 for rank in ranks)
