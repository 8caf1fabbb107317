"""What a long run keeps on disk, so that another one goes on where it was killed."""

from __future__ import annotations

import tempfile
import weakref
from pathlib import Path
from typing import IO

from segue.errors import TaskError

PREFIX = ".segue-"


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
    def others(self) -> list[Path]:
        """Folders that other runs of this task left in the same place."""
        name, _, _ = self.folder.name.rpartition("-")
        return sorted(path for path in self.folder.parent.glob(f"{name}-*") if path != self.folder and path.is_dir())

    def remove(self) -> None:
        """Remove the folder, with all that is in it."""
        from segue.media.disk import remove

        self._end()
        remove(self.folder)


def _let_go(lock: IO[bytes], folder: Path | None) -> None:
    from segue.media.disk import remove

    lock.close()
    if folder is not None:
        remove(folder)
