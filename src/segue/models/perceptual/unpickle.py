"""Numbers out of pickles without running what a pickle may ask for.

The published weights of the perceptual networks are pickles: trees of numpy arrays, and a state dict in torch's format
before 1.6. A pickle is a program that calls what it names. Here a name is looked up in a table of placeholders that
only keep what they are given, and a name that is not in the table ends the reading. Neither numpy's nor torch's own
unpickling code is reached.
"""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segue.errors import CheckpointError, UnsafeFileError

Array = NDArray[np.generic]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


def read_numpy_tree(data: bytes) -> dict[str, Array]:
    """The arrays of a pickled tree of dicts, by their path: "VGG16_0/Conv_0/kernel".

    Raises:
        UnsafeFileError: the pickle names anything but numpy arrays.
        CheckpointError: it is damaged, or holds something else.
    """
    names: dict[tuple[str, str], Any] = {
        ("numpy.core.multiarray", "_reconstruct"): _blank,
        ("numpy._core.multiarray", "_reconstruct"): _blank,
        ("numpy", "ndarray"): _Pickled,
        ("numpy", "dtype"): _Dtype,
    }
    return _flattened(_loaded(BytesIO(data), names))


def read_legacy_state_dict(data: bytes) -> dict[str, Array]:
    """The tensors of a state dict that torch.save wrote before version 1.6, as arrays.

    The file is five pickles (magic number, protocol, machine, tensors, keys of storages) and then the storages: for
    each key a 64-bit count and the numbers.

    Raises:
        UnsafeFileError: a pickle names anything but tensors and their storages.
        CheckpointError: it is damaged, or of another format.
    """
    file = BytesIO(data)
    if _loaded(file, {}) != _LEGACY_MAGIC or _loaded(file, {}) != _LEGACY_PROTOCOL:
        raise CheckpointError("expected a file that torch.save wrote before version 1.6; it begins in another way")
    _loaded(file, {})
    names: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
        ("torch", "FloatStorage"): np.dtype("<f4"),
        ("torch", "LongStorage"): np.dtype("<i8"),
    }
    state = _loaded(file, names, persistent=_Storage)
    stored: dict[str, bytes] = {}
    tensors: dict[str, _Tensor] = {name: value for name, value in state.items() if isinstance(value, _Tensor)}
    widths = {tensor.storage.key: tensor.storage.dtype.itemsize for tensor in tensors.values()}
    for key in _loaded(file, {}):
        (count,) = struct.unpack("<q", file.read(8))
        stored[key] = file.read(count * widths[key])
    return {name: tensor.filled(stored[tensor.storage.key]) for name, tensor in tensors.items()}


class _Unpickler(pickle.Unpickler):
    """Knows the names of a table; whatever else a pickle asks for is refused."""

    def __init__(
        self, file: BytesIO, names: Mapping[tuple[str, str], Any], persistent: Callable[..., Any] | None
    ) -> None:
        super().__init__(file)
        self._names, self._persistent = names, persistent

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in self._names:
            raise UnsafeFileError(
                f"this pickle asks for {module_name}.{global_name}, which is not a part of any array; it is not read"
            )
        return self._names[module_name, global_name]

    def persistent_load(self, pid: Any, /) -> Any:
        if self._persistent is None:
            raise UnsafeFileError("this pickle refers to something outside itself; it is not read")
        return self._persistent(*pid)


def _loaded(file: BytesIO, names: Mapping[tuple[str, str], Any], persistent: Callable[..., Any] | None = None) -> Any:
    try:
        return _Unpickler(file, names, persistent).load()
    except UnsafeFileError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(f"a pickle of weights is damaged, or of another layout ({error})") from error


class _Dtype:
    """A numpy dtype as a pickle describes it: a code, then its byte order."""

    def __init__(self, code: str, *_: object) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    @property
    def numpy(self) -> np.dtype[Any]:
        if self.code not in ("f4", "f8", "i4", "i8"):
            raise CheckpointError(f"expected arrays of numbers, got one of {self.code}")
        return np.dtype(f"{self.order if self.order in '<>' else '='}{self.code}")


class _Pickled:
    """A numpy array as a pickle describes it."""

    array: Array

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes]) -> None:
        _, shape, dtype, fortran, data = state
        self.array = np.frombuffer(data, dtype.numpy).reshape(shape, order="F" if fortran else "C")


def _blank(*_: object) -> _Pickled:
    return _Pickled()


class _Storage:
    """What a tensor of a legacy file points to."""

    def __init__(self, kind: str, dtype: np.dtype[Any], key: str, *_: object) -> None:
        if kind != "storage":
            raise CheckpointError(f"expected a storage, got {kind}")
        self.dtype, self.key = dtype, key


class _Tensor:
    """A tensor of a legacy file: a window of a storage."""

    def __init__(
        self, storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: object
    ) -> None:
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride

    def filled(self, data: bytes) -> Array:
        """The array, once the storages are read."""
        numbers = np.frombuffer(data, self.storage.dtype)[self.offset :]
        last = sum((length - 1) * step for length, step in zip(self.shape, self.stride, strict=True))
        if min((self.offset, last, *self.stride)) < 0 or 0 in self.shape or last >= len(numbers):
            raise CheckpointError("a tensor reaches beyond what is stored of it; the file is damaged")
        steps = [step * numbers.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(numbers, self.shape, steps, writeable=False).copy()


def _flattened(tree: Any, path: str = "") -> dict[str, Array]:
    if isinstance(tree, _Pickled):
        return {path: tree.array}
    if not isinstance(tree, dict):
        raise CheckpointError(f"expected a tree of arrays, got {type(tree).__name__} at {path or 'its root'}")
    found: dict[str, Array] = {}
    for key, branch in tree.items():
        found.update(_flattened(branch, f"{path}/{key}" if path else str(key)))
    return found
