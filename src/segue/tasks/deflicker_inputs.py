"""What a film is made to agree by: the film itself, its guide, and how these fit each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segue.errors import TaskError

if TYPE_CHECKING:
    from segue.media.clip import Clip
    from segue.media.timing import Timing
    from segue.tasks.deflicker import Deflicker

SMALLEST = 16
"""Pixels of the shorter side of a frame, in which movement can still be looked for."""
PROPORTIONS = 0.01
"""How far, as a share of a side, a guide may be from the film's proportions: cameras and encoders round."""


@dataclass(frozen=True)
class Inputs:
    """What a film is made to agree by.

    Args:
        film: whose frames are to agree.
        guide: shows the same frame by frame, in the size of the film; None if it is the film itself.
        notes: what is good to know about them, a line each; the record of the result has the same.
    """

    film: Clip
    guide: Clip | None
    notes: tuple[str, ...]

    @staticmethod
    def of(task: Deflicker) -> Inputs:
        """Opened, and found to fit each other and the task.

        Raises:
            TaskError: they do not.
            MediaError: one of them cannot be read.
        """
        film = task.source()
        if len(film) < 2:
            raise TaskError(
                f"{task.path} has one frame, which nothing flickers in: expected a video, an animation or a folder "
                "of 2 frames or more"
            )
        if min(film.size) < SMALLEST:
            raise TaskError(
                f"expected frames with sides of {SMALLEST} pixels or more, and {task.path} has "
                f"{film.size[0]}x{film.size[1]}; enlarge it first"
            )
        task.shots(len(film))
        notes = [_sampled(task.path, film)]
        if task.window is not None and task.window > len(film) - 1:
            notes.append(f"the film has {len(film)} frames: a window of {task.window} is all of them")
        guide = None
        if task.guide is not None:
            guide, said = _guide(Path(task.guide).expanduser(), task.path, film)
            notes += said
        return Inputs(film, guide, tuple(note for note in notes if note))


def _guide(path: Path, film_path: Path, film: Clip) -> tuple[Clip, list[str]]:
    """The guide in the size of the film, and what is to be said about it."""
    from dataclasses import replace

    from segue.media.reader import read
    from segue.media.resize import fit

    guide = read(path)
    if len(guide) != len(film):
        raise TaskError(
            f"a guide shows the same frame by frame: {film_path} has {len(film)} frames, and {path} has {len(guide)}; "
            "cut them to the same frames, at the same rate"
        )
    here, there = "{}x{}".format(*film.size), "{}x{}".format(*guide.size)
    width, height = film.size
    across, down = width / guide.size[0], height / guide.size[1]
    if abs(across / down - 1) > PROPORTIONS and abs(guide.size[1] * across - height) > 1:
        raise TaskError(
            f"a guide shows the same in the same proportions: {film_path} has {here} pixels, and {path} has {there}; "
            "cut one of them to the other's"
        )
    notes = [_sampled(path, guide)]
    if guide.size != film.size:
        notes.append(f"{path} has {there} pixels: it is resized to the film's {here}")
    if guide.fps != film.fps:
        notes.append(
            f"{path} plays at {float(guide.fps):.5g} frames a second and the film at {float(film.fps):.5g}: "
            "frames are taken one for one"
        )
    return replace(guide, frames=fit(guide.frames, film.size, "stretch")), notes


def _sampled(path: Path, clip: Clip) -> str:
    timing: Timing | None = getattr(clip.frames, "timing", None)
    if timing is None or timing.constant:
        return ""
    return f"{path} has no constant rate: it is sampled {float(clip.fps):.5g} times a second, {len(clip)} frames"
