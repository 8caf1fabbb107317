"""Folders that are whole whenever they can be seen."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(folder: Path) -> Generator[Path]:
    """Yield an empty folder beside `folder`, which takes its place when the block ends well.

    What has that name is the old folder or the new one, and never has files of both. A kill between the two renames of
    the end leaves the old one as `.<name>.old` and the new one as `.<name>.part`, both whole.
    """
    part, old = (folder.with_name(f".{folder.name}.{which}") for which in ("part", "old"))
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
    except BaseException:
        shutil.rmtree(part)
        raise
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
