"""What a long run keeps on disk, so that another one goes on where it was killed."""

from __future__ import annotations

import tempfile
import weakref
from pathlib import Path
from typing import IO, TYPE_CHECKING

from segue.errors import TaskError

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

PREFIX = ".segue-"
FRAMES = "frames"
"""The folder of what is finished."""


class Unfinished:
    """A hidden folder for what is done of one run, and nobody else's as long as this object or its process lives.

    Args:
        folder: made if it is missing; the folder above it has to be there.
        lasting: False removes it with this object.

    Raises:
        TaskError: another process works in it.
        DiskError: the file system refuses.
    """

    def __init__(self, folder: Path, lasting: bool = True) -> None:
        import fcntl

        from segue.media.disk import disk_errors

        self.folder, self.lasting = folder, lasting
        with disk_errors(folder):
            folder.mkdir(exist_ok=True)
            lock = (folder / "lock").open("ab")
        try:
            # Unlike a file that says who is there, this ends with the process, however that ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise TaskError(f"another process is making the same film, in {folder}: wait for it, or stop it") from error
        self._end = weakref.finalize(self, _let_go, lock, None if lasting else folder)

    @staticmethod
    def of(home: Path, task: str, key: str) -> Unfinished:
        """Found again by a hash of everything that the result depends on.

        Args:
            home: the folder that the result goes to, where space was found for it.
            task: its name.
            key: the hash, in hexadecimal.
        """
        return Unfinished(home / f"{PREFIX}{task}-{key[:16]}")

    @staticmethod
    def temporary() -> Unfinished:
        """Where the system keeps temporary files; removed with the object."""
        from segue.media.disk import disk_errors

        home = Path(tempfile.gettempdir())
        with disk_errors(home):
            return Unfinished(Path(tempfile.mkdtemp(prefix=PREFIX, dir=home)), lasting=False)

    @property
    def bytes(self) -> int:
        """What lies in it."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    def remove_if_empty(self) -> None:
        """Remove the folder, unless a frame is finished: nothing else is worth going on with."""
        if not any(file.stat().st_size for file in (self.folder / FRAMES).glob("*.rgb")):
            self.remove()

    def remove(self) -> None:
        """Remove the folder, with all that is in it."""
        from segue.media.disk import remove

        self._end()
        remove(self.folder)


class KeptFrames:
    """Frames that lie on disk, in a hidden folder that goes with them when they are no longer needed."""

    def __init__(self, unfinished: Unfinished, size: tuple[int, int]) -> None:
        self.unfinished = unfinished
        from segue.media.spool import Spool

        self.spool = Spool(unfinished.folder / FRAMES, size)
        self._end = weakref.finalize(self, self.spool.close)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.spool.size

    def __len__(self) -> int:
        return len(self.spool)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        return self.spool[window]

    def levels(self, window: slice, /) -> UInt8[Tensor, "t 3 h w"]:
        """The pictures of a window, 256 levels a colour."""
        return self.spool.levels(window)

    def discard(self) -> None:
        """Remove the folder; there are no frames any more."""
        self._end()
        self.unfinished.remove()


class Passed:
    """A folder of files that are made on the way, and are needed for some frames more.

    Args:
        folder: of them; made if it is missing.
        needed: for how many frames after the one that they were made for.
    """

    def __init__(self, folder: Path, needed: int) -> None:
        self.folder, self.needed = folder, needed
        folder.mkdir(exist_ok=True)
        self._made: dict[Path, int] = {}

    def forget(self, number: int) -> None:
        """Remove what no frame from this one on needs."""
        for file in self.folder.iterdir():
            if self._made.setdefault(file, number) < number - self.needed:
                del self._made[file]
                file.unlink()


def _let_go(lock: IO[bytes], folder: Path | None) -> None:
    from segue.media.disk import remove

    lock.close()
    if folder is not None:
        remove(folder)
