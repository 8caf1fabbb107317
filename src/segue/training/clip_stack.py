"""A folder of clips that grows by one clip at a time, and goes on where a cut run stopped."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from segue.errors import TrainingError
from segue.training.corpus import write_texts
from segue.training.stack import ROOM


class ClipStack:
    """Clips (n, t, h, w, 3) in uint8 and a line of text for each, in a folder; a context manager.

    Until `close` is called, they lie in files called `.part`, of which whole clips are kept if the block ends early or
    the process is killed; they are gone on with if `key` is the same. `sources.json` comes last, so a folder that has
    it is whole.

    Args:
        folder: made if it is not there.
        shape: of a clip.
        key: what all clips follow from.

    `fresh` is whether nothing of an earlier run was there.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], key: str) -> None:
        self.folder, self.shape, self.key, self.count, self.fresh = folder, shape, key, 0, True
        self._frames, self._lines = folder / "frames.npy.part", folder / "manifest.jsonl.part"
        self._said: list[str] = []
        self._log: TextIO | None = None

    def __enter__(self) -> ClipStack:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "sources.json").unlink(missing_ok=True)
        stamp = self.folder / "key.part"
        if not stamp.exists() or stamp.read_text("utf-8") != self.key:
            for path in (self._frames, self._lines):
                path.unlink(missing_ok=True)
            stamp.write_text(self.key, "utf-8")
        self._file = self._frames.open("r+b" if self._frames.exists() else "w+b")
        self._header(ROOM)
        self._start, self._each = self._file.tell(), int(np.prod(self.shape))
        self.fresh = not self._lines.exists()
        self._said = self._known()
        self.keep(max(0, self._frames.stat().st_size - self._start) // self._each)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._log is not None:
            self._log.close()
        self._file.close()

    def keep(self, count: int) -> None:
        """Drop all clips but the first so many, if there are more."""
        if self._log is not None:
            self._log.close()
        self._said = self._said[:count]
        self.count = len(self._said)
        self._file.truncate(self._start + self.count * self._each)
        self._file.seek(0, os.SEEK_END)
        self._lines.write_text("".join(self._said), "utf-8")
        self._log = self._lines.open("a", encoding="utf-8")

    def append(self, clip: NDArray[np.uint8], line: str) -> None:
        """Add a clip and what is said of it; the clip is written first.

        Raises:
            TrainingError: it is of another shape or type.
        """
        if clip.shape != self.shape or clip.dtype != np.uint8:
            raise TrainingError(f"{self.folder} takes clips of uint8 {self.shape}; got {clip.dtype} {clip.shape}")
        self._file.write(np.ascontiguousarray(clip).data)
        self._file.flush()
        self._said.append(line + "\n")
        if self._log is not None:
            self._log.write(line + "\n")
            self._log.flush()
        self.count += 1

    def close(self, sources: Mapping[str, Any]) -> None:
        """Give the files their names.

        Raises:
            TrainingError: there is no clip.
        """
        if not self.count:
            raise TrainingError(f"{self.folder}: there is no clip to keep")
        self._file.seek(0)
        self._header(self.count)
        self._file.flush()
        self._frames.replace(self.folder / "frames.npy")
        write_texts(self.folder, "manifest.jsonl", "".join(self._said), sources, pictures="frames")
        self._lines.unlink()
        (self.folder / "key.part").unlink()

    def _known(self) -> list[str]:
        """The lines that were written whole."""
        if not self._lines.exists():
            return []
        lines = self._lines.read_text("utf-8").splitlines(keepends=True)
        return [line for line in lines if line.endswith("\n")]

    def _header(self, count: int) -> None:
        facts: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": (count, *self.shape)}
        np.lib.format.write_array_header_1_0(self._file, facts)
