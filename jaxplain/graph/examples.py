"""Whether the leading axis of inputs and outputs counts examples."""

from collections.abc import Sequence
from typing import Any

import jax


def counts_examples(outputs: Any, inputs: Sequence[Any]) -> bool:
    """Whether the leading axis of the inputs counts examples: the output has it too.

    Args:
        outputs: the explained output, a tree of arrays or `jax.ShapeDtypeStruct`.
        inputs: the explained inputs, likewise.
    """
    sizes = {v.shape[:1] for v in (*jax.tree.leaves(outputs), *inputs)}
    ranks = [v.ndim for v in jax.tree.leaves(outputs)]
    return len(sizes) == 1 and sizes != {()} and all(rank > 1 for rank in ranks)
