"""Tasks on a film that is there: what is read, and where the result may be written, never over what it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segue.errors import TaskError
from segue.tasks.upscale_words import named, recorded_at

if TYPE_CHECKING:
    from segue.media.clip import Clip


class OnFile:
    """A task whose field `input` names a video, a picture, an animation or a folder of pictures."""

    input: str

    @property
    def path(self) -> Path:
        """Of the input."""
        return Path(self.input).expanduser()

    def source(self) -> Clip:
        """The input.

        Raises:
            MediaError: it cannot be read.
        """
        from segue.media.reader import read

        return read(self.path)

    @property
    def frames(self) -> int:
        """How many frames the input has."""
        return len(self.source())

    @property
    def fps(self) -> float:
        """Frames per second of the input."""
        return float(self.source().fps)

    @property
    def others(self) -> tuple[str, ...]:
        """The names of all other files that the result depends on."""
        return ()

    def check_result(self, path: Path) -> None:
        """Find out whether a result, or its record, would replace what it is made of.

        Raises:
            TaskError: it would.
            MediaError: its suffix names no format.
        """
        for name in (self.input, *self.others):
            check_result(Path(name).expanduser(), path)


def result_name(source: Path, frames: int, word: str = "large") -> str:
    """What to call the result of so many frames if nobody says.

    Args:
        source: the input.
        frames: that the result has.
        word: what has become of it.
    """
    from segue.media.formats import FORMATS

    if source.is_dir():
        # What follows a dot would be taken for a suffix.
        return f"{named(source).name.replace('.', '-')}-{word}"
    suffix, kind = source.suffix.lower(), "picture" if frames == 1 else "video"
    keeps = suffix in FORMATS and FORMATS[suffix].kind == kind
    return f"{source.stem}-{word}{suffix if keeps else '.png' if frames == 1 else '.mp4'}"


def check_result(source: Path, path: Path) -> None:
    """Find out whether a result, or its record, would replace what it is made of, or lie in it.

    Args:
        source: the input.
        path: of the result.

    Raises:
        TaskError: it would.
        MediaError: its suffix names no format.
    """
    from segue.media.disk import record_path

    # A link is replaced itself, and not what it leads to.
    place = _place(path)
    if place in (_place(source), source.resolve()):
        raise TaskError(f"{path} is the input, which a rerun needs: choose another name for the result")
    if source.is_dir() and source.resolve() in place.parents:
        raise TaskError(
            f"{path} lies in {source}, which is the input, and a rerun needs that as it is: "
            "write the result to another folder (-o)"
        )
    beside = recorded_at(source)
    if beside is not None and beside.is_file() and _place(record_path(path)) == _place(beside):
        raise TaskError(
            f"the record of {path} would replace {beside}, which says how {source.name} was made: "
            "choose a name with another stem for the result"
        )


def _place(path: Path) -> Path:
    """Where a name stands, whichever way leads there."""
    path = path.expanduser()
    return path.parent.resolve() / path.name
