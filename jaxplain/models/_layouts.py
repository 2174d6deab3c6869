"""From the names and layouts of PyTorch and Keras to the variables of a Flax linen module."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from jaxplain.models._packages import package

Place = Callable[[str], tuple[str, ...]]
"""From the name of a layer in a file to its place in the module."""

_KERAS = {
    "kernel": ("params", "kernel"),
    "bias": ("params", "bias"),
    "gamma": ("params", "scale"),
    "beta": ("params", "bias"),
    "moving_mean": ("batch_stats", "mean"),
    "moving_variance": ("batch_stats", "var"),
}


def from_torch(tensors: Mapping[str, np.ndarray], place: Place) -> dict[str, Any]:
    """The variables that a `state_dict` holds."""
    flat = {}
    for name, tensor in tensors.items():
        layer, _, leaf = name.rpartition(".")
        path = place(layer)
        match leaf, tensor.ndim:  # what is left out, num_batches_tracked, only matters in training
            case "weight", 1:
                flat["params", *path, "scale"] = tensor
            case "weight", _:  # (out, in, *space) to (*space, in, out)
                flat["params", *path, "kernel"] = np.moveaxis(tensor, (0, 1), (-1, -2))
            case "bias", _:
                flat["params", *path, "bias"] = tensor
            case "running_mean", _:
                flat["batch_stats", *path, "mean"] = tensor
            case "running_var", _:
                flat["batch_stats", *path, "var"] = tensor
    return variables(flat)


def from_keras(path: str | os.PathLike[str], place: Place) -> dict[str, Any]:
    """The variables that the HDF5 file of a Keras model holds; separable layers become two."""
    h5py = package("h5py")
    flat = {}

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        layer, *_, leaf = name.removesuffix(":0").split("/")
        array, where = item[()], place(layer)
        part, separable, kind = leaf.partition("_kernel")
        if separable:
            where, leaf = (*where, part), "kernel"
        if part == "depthwise" and separable:  # (*space, in, 1) to (*space, 1, in)
            array = array.swapaxes(-1, -2)
        collection, kind = _KERAS[leaf]
        flat[collection, *where, kind] = array

    with h5py.File(path) as file:
        file["model_weights"].visititems(visit)
    return variables(flat)


def variables(flat: Mapping[tuple[str, ...], np.ndarray]) -> dict[str, Any]:
    """Arrays by path as nested dictionaries of JAX arrays."""
    nested: dict[str, Any] = jax.tree.map(jnp.asarray, unflatten_dict(dict(flat)))
    return nested
