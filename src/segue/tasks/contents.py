"""What is in a file or a folder of pictures, as a hash: whether it is still what a result was made of."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Of a file; of a folder, of the names and contents of its pictures.

    Raises:
        MediaError: the folder has no pictures.
    """
    from segue.media.pictures import FolderFrames

    digest = hashlib.sha256()
    for file in FolderFrames(path, "white").files if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(file.name.encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
