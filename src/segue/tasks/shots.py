"""Where shots begin, as a user says it."""

from __future__ import annotations

from segue.errors import TaskError

AUTO, NONE = "auto", "none"


def spelled_cuts(cuts: str | tuple[int, ...]) -> str:
    """In one spelling: auto, none, or the numbers of frames with commas between.

    Raises:
        TaskError: it is none of these.
    """
    if isinstance(cuts, str) and cuts.strip().lower() in (AUTO, NONE):
        return cuts.strip().lower()
    parts = cuts.replace(",", " ").split() if isinstance(cuts, str) else [str(part) for part in cuts]
    if not parts or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise TaskError(f"cuts must be auto, none, or the frames from 1 on that begin a shot, as 48,120; got {cuts!r}")
    return ",".join(str(number) for number in sorted({int(part) for part in parts}))


def shots_said(cuts: str, frames: int, name: str) -> tuple[int, ...] | None:
    """The first frames of all shots, from the spelling of `spelled_cuts`; None if they are to be found.

    Args:
        cuts: what was said.
        frames: of the film.
        name: of the film, for messages.

    Raises:
        TaskError: it has fewer frames.
    """
    if cuts == AUTO:
        return None
    starts = () if cuts == NONE else tuple(int(part) for part in cuts.split(","))
    if starts and starts[-1] >= frames:
        raise TaskError(f"{name} has {frames} frames, 0 to {frames - 1}: no shot begins at {starts[-1]}")
    return (0, *starts)
