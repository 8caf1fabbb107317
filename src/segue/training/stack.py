"""A .npy file that grows by one array at a time, so that a corpus need not fit into memory while it is built."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segue.errors import TrainingError

ROOM = 10**12


class Stack:
    """Write uint8 arrays of one shape to `path` as a .npy file (n, *shape). A context manager.

    The file appears under its name when the block ends well, and not at all when it does not.

    Raises:
        TrainingError: when the block ends, if the number of arrays does not fit the header.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.shape, self.count = path, shape, 0
        self._part = path.with_name(path.name + ".part")

    def __enter__(self) -> Stack:
        self._file = self._part.open("wb")
        self._header(ROOM)  # headers are padded, so that those of fewer arrays are as long
        self._start = self._file.tell()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            self._file.seek(0)
            self._header(self.count)
            fits = self._file.tell() == self._start
        if kind is None and fits:
            self._part.replace(self.path)
            return
        self._part.unlink()
        if kind is None:
            raise TrainingError(f"{self.path}: {self.count} arrays are more than its header has room for")

    def append(self, one: NDArray[np.uint8]) -> None:
        """Add one array.

        Raises:
            TrainingError: it is of another shape or type.
        """
        if one.shape != self.shape or one.dtype != np.uint8:
            raise TrainingError(f"{self.path} takes uint8 arrays {self.shape}; got {one.dtype} {one.shape}")
        self._file.write(np.ascontiguousarray(one).data)
        self.count += 1

    def _header(self, count: int) -> None:
        facts: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": (count, *self.shape)}
        np.lib.format.write_array_header_1_0(self._file, facts)
