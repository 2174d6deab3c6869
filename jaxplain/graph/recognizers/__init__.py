"""Recognizers: each finds the operations that mean one thing, ending at a value.

`match(node, end, facts)` gives the core that ends at a value, an output of the node, or None. The
first core found counts, in the order of `RECOGNIZERS`. The docstring of each recognizer shows, as
jaxprs, operations that it takes and a near miss that it refuses.
"""

from jaxplain.graph.recognizers import (
    activation,
    complex_values,
    kernel,
    linear_subgraph,
    merge,
    moving_kernel,
    normalization,
    operation,
    softmax,
    sum_of_kernels,
    weighted_sum,
)

RECOGNIZERS = (
    complex_values.match,
    moving_kernel.match,
    softmax.match,
    activation.match,
    normalization.match,
    linear_subgraph.match,
    weighted_sum.match,
    kernel.match,
    sum_of_kernels.match,
    merge.match,
    operation.match,
)
