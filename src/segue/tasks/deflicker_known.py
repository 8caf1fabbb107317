"""What a run that makes frames agree has found out so far, in files that may have been damaged since."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from segue.media.disk import disk_errors, written_whole

Row = tuple[float | None, float | None, float | None, float | None]
FEW = 0.5
"""Of all neighbouring frames: if fewer can be followed from one to the other, it is said."""
ASTRAY = 1.02
"""How many times more the film changes along the ways that were found than standing still, if these are wrong."""


class Measured:
    """What was measured of each finished frame, in a file.

    How much the film changes from the frame before, and the result, both along the ways that were found; how much of
    its sharpness is kept; and how much the film changes at the same places if nothing is moved. Of a film that was
    drawn after another, the last is the share of it that moves as that other does.

    Args:
        path: of the file; what it says of more frames than there are, was cut off or damaged, is forgotten.
        frames: that are finished.
    """

    def __init__(self, path: Path, frames: int) -> None:
        self.path = path
        self._rows: list[Row] = []
        for line in _lines(path)[:frames]:
            row = _row(line)
            if row is None:
                break
            self._rows.append(row)
        with written_whole(path) as part:
            part.write_text("".join(map(_line, self._rows)), encoding="utf-8")

    @property
    def count(self) -> int:
        """How many frames were measured."""
        return len(self._rows)

    def add(self, row: Row) -> None:
        """What was measured of the next frame."""
        self._rows.append(row)
        with disk_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(_line(row))

    def scores(self) -> dict[str, float | None]:
        """The means over all frames of which there is something to say."""
        return {name: self.mean(place) for place, name in enumerate(("change_before", "change", "sharpness_kept"))}

    def mean(self, place: int) -> float | None:
        """The mean of one of the numbers of a row; None where there is nothing to say."""
        return _mean(row[place] for row in self._rows)

    def doubts(self, pairs: int, guided: bool) -> tuple[str, ...]:
        """What speaks against the ways that were found, a line each.

        Args:
            pairs: of neighbouring frames that are finished and belong to one shot.
            guided: whether ways are those of another film.
        """
        said: list[str] = []
        compared = [(row[0], row[3]) for row in self._rows if row[0] is not None and row[3] is not None]
        asked = "; does the guide show what the film shows, frame by frame?" if guided else ""
        if len(compared) < FEW * pairs:
            said.append(f"movement could be followed in {len(compared)} of {pairs} pairs of neighbouring frames{asked}")
        along, still = (_mean(column) for column in zip(*compared, strict=True)) if compared else (0.0, 0.0)
        if guided and along and still and along > ASTRAY * still:
            said.append(
                f"along the movement of the guide the film changes by {along:.4f} from frame to frame, and standing "
                f"still by {still:.4f}{asked}"
            )
        return tuple(said)


def known_shots(path: Path, frames: int) -> tuple[int, ...] | None:
    """The first frames of all shots of a film of so many frames, as a file has them; None if it has no sound ones."""
    found = _value("".join(_lines(path)))
    if not isinstance(found, list) or not all(type(start) is int for start in found):
        return None
    sound = found[:1] == [0] and found == sorted(set(found)) and found[-1] < frames
    return tuple(found) if sound else None


def _lines(path: Path) -> list[str]:
    """Of a text, whatever has become of it; none if there is none."""
    with disk_errors(path, "read"):
        return path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.exists() else []


def _row(line: str) -> Row | None:
    found = _value(line) if line.endswith("\n") else None
    match found:
        case [None | float() as before, None | float() as after, None | float() as kept, None | float() as still]:
            return before, after, kept, still
        case _:
            return None


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"


def _value(text: str) -> Any:
    """What a JSON text says; None if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(fmean(known), 5) if known else None
