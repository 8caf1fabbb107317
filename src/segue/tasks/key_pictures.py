"""Keys that are pictures: which, from where, and how they fit."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segue.errors import TaskError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_FORM = re.compile(r"(?P<key>\d+|first|last)=(?P<path>.+?)(?:@(?P<seconds>\d+(?:\.\d+)?)s?)?", re.ASCII)


@dataclass(frozen=True)
class KeyPicture:
    """A file that a key is given by.

    Args:
        key: its number, from 0.
        path: a picture or a video.
        seconds: which moment of the video.
    """

    key: int
    path: Path
    seconds: float = 0.0

    @staticmethod
    def parse(text: str, keys: int) -> KeyPicture:
        """From KEY=FILE or KEY=FILE@SECONDS, where KEY is 1 and up, first or last.

        Raises:
            TaskError: it has another form, or there is no such key.
        """
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise TaskError(
                f"a key picture is KEY=FILE, or KEY=VIDEO@SECONDS, such as first=photo.jpg or 2=clip.mp4@1.5; "
                f"got {text!r}"
            )
        number = {"first": 1, "last": keys}.get(found["key"]) or int(found["key"])
        if not 1 <= number <= keys:
            raise TaskError(f"key picture {text!r} is for key {number}, and the keys are 1 to {keys}")
        return KeyPicture(number - 1, Path(found["path"]).expanduser(), float(found["seconds"] or 0))

    def load(self, size: tuple[int, int]) -> Float[Tensor, "3 h w"]:
        """The picture, scaled and cut to (width, height) in pixels.

        Raises:
            MediaError: it cannot be read.
            TaskError: the video ends before that moment.
        """
        from segue.media.reader import read
        from segue.media.resize import fit

        clip = read(self.path)
        frame = int(self.seconds * float(clip.fps))
        if frame >= len(clip):
            raise TaskError(
                f"{self.path} has {float(clip.seconds):.3g} seconds; there is no picture at {self.seconds:g}"
            )
        return fit(clip.frames, size, "crop")[frame : frame + 1][0]

    def note(self, size: tuple[int, int]) -> str | None:
        """What is said about a picture that does not have this size."""
        from segue.media.reader import read

        own = read(self.path).size
        if own == size:
            return None
        return f"{self.path} has {own[0]}x{own[1]} pixels; it is scaled and cut to {size[0]}x{size[1]}"

    def sha256(self) -> str:
        """Of the file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def key_pictures(texts: Sequence[str], keys: int) -> dict[int, KeyPicture]:
    """By the number of the key.

    Raises:
        TaskError: see `KeyPicture.parse`; or two are for one key.
    """
    found: dict[int, KeyPicture] = {}
    for text in texts:
        picture = KeyPicture.parse(text, keys)
        if picture.key in found:
            raise TaskError(f"key {picture.key + 1} has two pictures, {found[picture.key].path} and {picture.path}")
        found[picture.key] = picture
    return found


def unchanged(pictures: Mapping[int, KeyPicture], hashes: Sequence[str]) -> None:
    """Whether the files are those that a plan was made with.

    Raises:
        TaskError: one is not; the message says which.
    """
    for (_, picture), known in zip(sorted(pictures.items()), hashes, strict=True):
        if picture.sha256() != known:
            raise TaskError(f"{picture.path} is not the file that this was made with: its contents have changed")
