"""Frames on disk, without loss, while they are being made."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import torch

from segue.errors import MediaError
from segue.media.clip import as_floats, to_uint8
from segue.media.disk import PathLike, as_path, disk_errors, written_whole

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

LAYOUT = "segue spool 1: rgb, planar, a byte per value"


class Spool:
    """Frames that are appended while they are rendered, and read back in any order; memory stays the same.

    A folder with the bytes of all frames, one after the other, and a small header. Rounded once, to 256 levels. A spool
    that is opened again goes on where it ended: what was appended survives the program being killed, and half
    a frame is cut off.

    Args:
        folder: made if it is missing; the folder above it has to be there.
        size: (width, height) of all frames.

    Raises:
        MediaError: if the folder holds a spool of another size or layout.
        DiskError: if the file system refuses.
    """

    def __init__(self, folder: PathLike, size: tuple[int, int]) -> None:
        self.folder = as_path(folder)
        self._size = size
        self._bytes = 3 * size[0] * size[1]
        with disk_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
        self._check_header(self.folder / "header.json")
        path = self.folder / "frames.rgb"
        self._lock = Lock()
        with disk_errors(path):
            self._file = path.open("a+b", buffering=0)
            self._count = path.stat().st_size // self._bytes
            self._file.truncate(self._count * self._bytes)

    def _check_header(self, path: Path) -> None:
        header = {"layout": LAYOUT, "width": self._size[0], "height": self._size[1]}
        if not path.exists():
            with written_whole(path) as part:
                part.write_text(json.dumps(header) + "\n", encoding="utf-8")
        with disk_errors(path, "read"):
            found = path.read_text(encoding="utf-8", errors="replace")
        if found != json.dumps(header) + "\n":
            raise MediaError(
                f"{self.folder} holds frames of another kind: expected {json.dumps(header)}, "
                f"found {found.strip()[:200]}; choose another folder, or remove this one"
            )

    @staticmethod
    @contextmanager
    def temporary(size: tuple[int, int], near: PathLike | None = None) -> Generator[Spool]:
        """A spool that is removed at the end of the block.

        Args:
            near: the folder to put it in; by default where the system keeps temporary files (which may be small).
        """
        with disk_errors(as_path(near or tempfile.gettempdir())):
            home = tempfile.TemporaryDirectory(prefix=".segue-spool-", dir=near)
        with home as folder, Spool(Path(folder) / "spool", size) as spool:
            yield spool

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self._size

    def __len__(self) -> int:
        return self._count

    def append(self, frames: Float[Tensor, "t 3 h w"] | UInt8[Tensor, "t 3 h w"]) -> None:
        """Add frames at the end: floats in [0, 1], or uint8.

        Raises:
            MediaError: if they are of another size, or not in [0, 1].
            DiskError: if the file system refuses. None of these frames has then been added.
        """
        pixels = to_uint8(frames)
        if pixels.shape[2:] != self._size[::-1]:
            came = f"{pixels.shape[3]}x{pixels.shape[2]}"
            raise MediaError(f"expected frames of {self._size[0]}x{self._size[1]} pixels, got {came}")
        try:
            with self._lock, disk_errors(self.folder):
                for frame in pixels.cpu():
                    left = memoryview(frame.contiguous().numpy().tobytes())
                    while left:
                        left = left[self._file.write(left) :]
        except BaseException:
            self._file.truncate(self._count * self._bytes)
            raise
        self._count += len(pixels)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        return as_floats(self.levels(window))

    def levels(self, window: slice, /) -> UInt8[Tensor, "t 3 h w"]:
        """The pictures of a window, 256 levels a colour."""
        numbers = range(self._count)[window]
        pixels = np.empty((len(numbers), 3, *self._size[::-1]), np.uint8)
        with self._lock, disk_errors(self.folder, "read"):
            for row, number in enumerate(numbers):
                self._read(number, memoryview(pixels[row]).cast("B"))
        return torch.from_numpy(pixels)

    def _read(self, number: int, into: memoryview) -> None:
        self._file.seek(number * self._bytes)
        while into:
            count = self._file.readinto(into)
            if not count:
                raise MediaError(f"{self.folder} has lost frames: frame {number} was appended and is gone")
            into = into[count:]

    def close(self) -> None:
        """Let go of the file. The frames stay on disk."""
        self._file.close()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
