"""Dtypes of the arithmetic of rules."""

from functools import reduce
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxplain.graph.ir import Var


def wide(*dtypes: Any) -> Any:
    """The dtype of the arithmetic of rules: the widest of `dtypes`, at least float32."""
    return reduce(np.promote_types, dtypes, np.dtype(np.float32))


def is_half(var: Var) -> bool:
    """Whether a value is of a floating dtype below float32."""
    return var.floating and jnp.finfo(var.aval.dtype).bits < 32
