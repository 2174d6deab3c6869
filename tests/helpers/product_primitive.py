"""A matrix product that is a primitive of its own, as another library might bring one.

It has its own derivative, transpose and batching, and is not lowered to a dot product: jaxplain
knows it by the one call of `register_primitive` below.
"""

from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax.interpreters import ad, batching, mlir

import jaxplain as jxp

product_p = jex.Primitive("tests_product")


def product(a: Any, b: Any) -> Any:
    """sum_j a_ij b_jk."""
    return product_p.bind(a, b)


def _spelled_out(a: Any, b: Any) -> Any:
    return jnp.sum(a[..., :, :, None] * b[..., None, :, :], -2)


def _abstract(a: Any, b: Any) -> Any:
    return jax.core.ShapedArray((*a.shape[:-1], b.shape[-1]), a.dtype)


def _derivative(primals: Any, tangents: Any) -> tuple[Any, Any]:
    (a, b), (da, db) = primals, map(ad.instantiate_zeros, tangents)
    return product(a, b), product(da, b) + product(a, db)


def _transposed(cotangent: Any, a: Any, b: Any) -> tuple[Any, Any]:
    if ad.is_undefined_primal(a):
        return product(cotangent, jnp.swapaxes(b, -1, -2)), None
    return None, product(jnp.swapaxes(a, -1, -2), cotangent)


def _batched(operands: Any, axes: Any) -> tuple[Any, int]:
    size = next(v.shape[axis] for v, axis in zip(operands, axes, strict=True) if axis is not None)
    front = [
        jnp.broadcast_to(v, (size, *v.shape)) if axis is None else jnp.moveaxis(v, axis, 0)
        for v, axis in zip(operands, axes, strict=True)
    ]
    return product(*front), 0


product_p.def_impl(_spelled_out)
product_p.def_abstract_eval(_abstract)
ad.primitive_jvps[product_p] = _derivative
ad.primitive_transposes[product_p] = _transposed
batching.primitive_batchers[product_p] = _batched
mlir.register_lowering(product_p, mlir.lower_fun(_spelled_out, multiple_results=False))

jxp.register_primitive("tests_product", "mixing", ("factor", "factor"))
