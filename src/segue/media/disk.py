"""What the file system may answer, and files that are either whole or not there."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from segue.errors import DiskError
from segue.media.formats import format_of

PathLike = str | os.PathLike[str]

_serial = count()

_ADVICE = {
    errno.ENOENT: "the folder {folder} does not exist: create it first",
    errno.ENOTDIR: "a part of this path is a file, not a folder: choose another folder",
    errno.EISDIR: "this is a folder: give the name of a file",
    errno.EACCES: "you may not write there: choose another folder",
    errno.EPERM: "you may not write there: choose another folder",
    errno.EROFS: "the disk is read-only: choose another folder",
    errno.ENOSPC: "the disk is full: free some space, or choose another disk",
    errno.EDQUOT: "your quota is used up: free some space, or choose another disk",
    errno.EFBIG: "the file-size limit was hit: raise it (ulimit -f), or ask for fewer or smaller frames",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def as_path(path: PathLike) -> Path:
    """`~` is the home folder, as in a shell."""
    return Path(path).expanduser()


@contextmanager
def disk_errors(path: Path, doing: str = "write") -> Generator[None]:
    """Turn what the operating system refuses into a DiskError that names `path`, the reason and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # Pillow's own, about the content.
            raise
        reason = (error.strerror or str(error) or type(error).__name__).lower()
        advice = "check its name and permissions"
        if doing == "write":
            advice = _ADVICE.get(error.errno or 0, "check the path and the disk").format(folder=path.parent)
        raise DiskError(f"cannot {doing} {path}: {reason}; {advice}") from error


def part_of(path: Path) -> Path:
    """A temporary name beside `path`, for what is to become it."""
    return path.with_name(f".{path.name[:200]}.{os.getpid()}-{next(_serial)}.part")


def remove(path: Path) -> None:
    """Remove a file or a folder; it need not be there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@contextmanager
def written_whole(path: Path) -> Generator[Path]:
    """A temporary name to write to, moved to `path` at the end of the block, removed if the block fails.

    Raises:
        DiskError: if the file system refuses.
    """
    part = part_of(path)
    try:
        with disk_errors(path):
            yield part
            part.replace(path)
    except BaseException:
        remove(part)
        raise


def record_path(path: PathLike) -> Path:
    """Where the record of a clip lies: beside it, with the suffix .json."""
    path = as_path(path)
    return path.with_name((path.name if format_of(path).kind == "folder" else path.stem) + ".json")


def free_path(path: Path) -> Path:
    """A name of which neither the file nor its record exists: the path itself, or with a number."""
    for number in count(1):
        name = path if number == 1 else _longer(path, f"-{number}")
        if not name.exists() and not record_path(name).exists():
            return name
    raise AssertionError


def partial_path(path: Path, aside: bool = False) -> Path:
    """Where a part of what was to be written to `path` goes: there, or to a name beside it if something is there.

    A whole film of an earlier run is worth more than a part of this one.

    Args:
        path: of the whole.
        aside: whether it goes beside it anyway, so that the same command, which looks for a free name, finds it again.
    """
    return free_path(_longer(path, "-partial")) if aside or path.exists() else path


def set_aside(path: Path) -> Path:
    """Give a part that has the name of the whole a name beside it, and its record, too; see `partial_path`.

    Raises:
        DiskError: the file system refuses.
    """
    aside = partial_path(path, aside=True)
    with disk_errors(aside):
        if record_path(path).exists():
            record_path(path).replace(record_path(aside))
        path.replace(aside)
    return aside


def _longer(path: Path, by: str) -> Path:
    if format_of(path).kind == "folder":
        # What follows a dot would be taken for a suffix.
        return path.with_name(path.name.replace(".", "-") + by)
    return path.with_stem(path.stem + by)


def check_record(path: PathLike) -> None:
    """Find out whether the record of a clip can be written beside it.

    Raises:
        DiskError: a JSON file of something else lies there.
    """
    beside = record_path(path)
    if beside.exists() and not _is_record(beside):
        raise DiskError(f"{beside} would be replaced by the record of {Path(path).name}, and is none: move it away")


def _is_record(path: Path) -> bool:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and {"format", "task"} <= data.keys()


def check_writable(path: PathLike) -> None:
    """Find out before long work whether a clip can be written to `path`, its record beside it.

    Raises:
        MediaError: if the suffix names no known format.
        DiskError: if the folder is missing or refuses new files, or `path` is something that may not be replaced.
    """
    path = as_path(path)
    kind = format_of(path).kind
    with disk_errors(path):
        if path.is_dir() and kind != "folder":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        part = part_of(path)
        part.touch()
        part.unlink()
    if kind == "folder" and path.exists():
        check_folder(path)


def check_folder(path: Path) -> None:
    """A folder of frames may be replaced if it holds nothing else.

    Raises:
        DiskError: if it holds other things, or is no folder.
    """
    with disk_errors(path):
        foreign = sorted(item.name for item in path.iterdir() if not (item.stem.isdigit() and item.suffix == ".png"))
    if foreign:
        raise DiskError(
            f"cannot write {path}: the folder holds other things than numbered frames ({foreign[0]}); "
            "choose a new folder, or the name of a file with a suffix such as .mp4"
        )
