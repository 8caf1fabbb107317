"""What a film is drawn anew from: the film in the size that the model draws, on disk, and what else it goes by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segue.errors import TaskError
from segue.media.clip import Clip, levels_of
from segue.media.spool import Spool
from segue.motion.flow import SMALLEST
from segue.tasks.stylize import Stylize
from segue.tasks.stylize_geometry import Geometry
from segue.types import Frames, Progress

if TYPE_CHECKING:
    from segue.media.timing import Timing

TOGETHER = 8
"""Frames that are read at once."""


@dataclass(frozen=True)
class Inputs:
    """What a film is drawn anew from.

    Args:
        film: as it is.
        geometry: between its pictures and those that are drawn.
        notes: what is good to know about it, a line each.
    """

    film: Clip
    geometry: Geometry
    notes: tuple[str, ...]

    @staticmethod
    def of(task: Stylize, clip: Clip) -> Inputs:
        """Of a task with nothing left open.

        Raises:
            TaskError: the film does not fit it.
        """
        assert task.sampling.size is not None and task.shape.fit is not None
        if len(clip) < 1:
            raise TaskError(f"{task.path} has no frames: expected a video, an animation or a folder of pictures")
        geometry = Geometry(clip.size, task.sampling.size, task.shape.fit, task.shape.model_size)
        if min(geometry.drawn) < SMALLEST and len(clip) > 1 and blends(task):
            raise TaskError(
                f"frames of {geometry.drawn[0]}x{geometry.drawn[1]} pixels are too small for their movement to be "
                f"found: take a larger --size, with sides of {SMALLEST} pixels or more"
            )
        said = [_sampled(task.path, clip), geometry.note(), alone(task, len(clip))]
        return Inputs(clip, geometry, tuple(note for note in said if note))


def blends(task: Stylize) -> bool:
    """Whether a resolved task goes by the movement of the film."""
    agreement = task.agreement
    return bool(agreement.deflicker or agreement.blend) or task.beginning.noise == "moved"


def read_into(spool: Spool, frames: Frames, progress: Progress, stage: str) -> None:
    """Frames on disk; what is there already is not read again."""
    while len(spool) < len(frames):
        first = len(spool)
        spool.append(levels_of(frames, slice(first, min(len(frames), first + TOGETHER))))
        progress(stage, len(spool), len(frames))


def check_seen(pictures: Frames, kind: str, source: str) -> None:
    """Find out whether control pictures show anything.

    Raises:
        TaskError: all are black.
    """
    for first in range(0, len(pictures), TOGETHER):
        if bool(levels_of(pictures, slice(first, min(len(pictures), first + TOGETHER))).any()):
            return
    what = "nobody was found" if kind == "pose" else "nothing was found"
    raise TaskError(
        f"control {kind}: {what} in any frame of {source}, and black pictures would say so to the model; take another "
        "control, or a film that shows it"
    )


def alone(task: Stylize, frames: int) -> str:
    """What is said of a film of one frame; "" of others."""
    if frames > 1:
        return ""
    return f"{task.path} has one frame, which nothing has to agree with: it is drawn as a picture"


def _sampled(path: Path, clip: Clip) -> str:
    timing: Timing | None = getattr(clip.frames, "timing", None)
    if timing is None or timing.constant:
        return ""
    return f"{path} has no constant rate: it is sampled {float(clip.fps):.5g} times a second, {len(clip)} frames"
