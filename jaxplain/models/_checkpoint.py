"""Read the tensors of a PyTorch checkpoint without PyTorch, and without trusting the file.

A checkpoint is a pickle, and a pickle can call anything it can name. This reader lets it name
tensors, their storages and `OrderedDict`, and nothing else.
"""

import io
import math
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C  # first object of the legacy layout
_PROTOCOL = 1001  # second object of the legacy layout
_ZIP = b"PK\x03\x04"
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


class _Storage(NamedTuple):
    key: str
    dtype: str
    length: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _RefusedError(pickle.UnpicklingError):
    """The pickle names something that this reader does not construct."""


class _Unpickler(pickle.Unpickler):
    """Builds descriptions of tensors; the numbers are looked up once the pickle has been read."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        match module, name:
            case "collections", "OrderedDict":
                return OrderedDict
            case "torch._utils", "_rebuild_tensor_v2":
                # A new function each time: a pickle can set attributes of what it is given.
                return lambda storage, offset, shape, strides, *_: _Tensor(
                    storage, offset, shape, strides
                )
            case "torch", _ if name in _DTYPES:
                return _DTYPES[name]
        raise _RefusedError(f"the checkpoint refers to {module}.{name}, which is not a tensor")

    def persistent_load(self, pid: Any, /) -> _Storage:
        kind, dtype, key, _device, length, *view = pid
        if kind != "storage" or any(view):
            raise ValueError("it holds a view of a storage or a module")
        if dtype not in _DTYPES.values():  # text from the file could say "object": raw pointers
            raise ValueError(f"storage {key} is of the unknown type {dtype!r}")
        return self.storages.setdefault(key, _Storage(key, dtype, length))


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a checkpoint that is a dictionary of tensors, such as a `state_dict`.

    Both layouts of `torch.save` are read: the legacy one (pickles followed by raw storages) and
    the zip archive.

    Args:
        path: The checkpoint.

    Returns:
        The tensors by name, as arrays of their own memory.

    Raises:
        pickle.UnpicklingError: The file names an object that is not a tensor. It is not built.
        ValueError: The file is damaged, or is not a PyTorch checkpoint of tensors.
    """
    data = Path(path).read_bytes()
    try:
        parse = _parse_zip if data.startswith(_ZIP) else _parse_legacy
        tensors, buffers = parse(io.BytesIO(data))
        return {name: _array(tensor, buffers) for name, tensor in tensors.items()}
    except _RefusedError:
        raise
    except Exception as error:  # damaged bytes make an unpickler raise almost anything
        message = f"{path} is damaged or is not a PyTorch checkpoint of tensors ({error})"
        raise ValueError(message) from error


def _parse_legacy(file: io.BytesIO) -> tuple[dict[str, _Tensor], dict[str, bytes]]:
    if _Unpickler(file).load() != _MAGIC or _Unpickler(file).load() != _PROTOCOL:
        raise ValueError("it does not begin with the number that marks a checkpoint")
    if not _Unpickler(file).load()["little_endian"]:
        raise ValueError("it was written by a big-endian machine")
    unpickler = _Unpickler(file)
    tensors = unpickler.load()
    buffers = {}
    for key in _Unpickler(file).load():
        (length,) = struct.unpack("<q", file.read(8))
        buffers[key] = file.read(length * np.dtype(unpickler.storages[key].dtype).itemsize)
    return tensors, buffers


def _parse_zip(file: io.BytesIO) -> tuple[dict[str, _Tensor], dict[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        files = {name.partition("/")[2]: name for name in archive.namelist()}
        if "byteorder" in files and archive.read(files["byteorder"]) != b"little":
            raise ValueError("it was written by a big-endian machine")
        unpickler = _Unpickler(io.BytesIO(archive.read(files["data.pkl"])))
        tensors = unpickler.load()
        return tensors, {key: archive.read(files[f"data/{key}"]) for key in unpickler.storages}


def _array(tensor: _Tensor, buffers: dict[str, bytes]) -> np.ndarray:
    if not isinstance(tensor, _Tensor):
        raise ValueError(f"it holds a {type(tensor).__name__} where a tensor is expected")
    if not isinstance(tensor.storage, _Storage):  # its type has not been checked
        raise ValueError("a tensor has no storage")
    dtype = np.dtype(tensor.storage.dtype)
    buffer = buffers[tensor.storage.key]
    if len(buffer) != tensor.storage.length * dtype.itemsize:
        raise ValueError(f"storage {tensor.storage.key} has the wrong size")
    if math.prod(tensor.shape) > tensor.storage.length:
        raise ValueError("a tensor is larger than its storage")
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    # The constructor checks that every element lies inside of the buffer.
    return np.ndarray(tensor.shape, dtype, buffer, tensor.offset * dtype.itemsize, strides).copy()
