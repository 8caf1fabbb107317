"""Sound that goes with a clip. It stays in its file until the clip is written."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path


@dataclass(frozen=True)
class Audio:
    """The sound of a file, from a time on.

    Args:
        path: a video or sound file.
        start: where in the file the clip's first frame lies, in seconds.
    """

    path: Path
    start: Fraction = Fraction(0)
