"""How smoothly a clip passes from its first frame to its last, in numbers; whoever made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pvariance
from typing import TYPE_CHECKING

import torch

from segue.errors import TaskError
from segue.evaluation.ghosting import exposures
from segue.evaluation.loops import loop_ratio, seam_ratio
from segue.evaluation.movement import movement
from segue.evaluation.windows import reduced, reduced_size, windows
from segue.types import Frames, Perceptual, Progress, silent

if TYPE_CHECKING:
    from torch import Tensor

AREA = 512 * 512
"""Pixels of a picture that is given to a distance: larger ones are reduced, so that films of all sizes compare."""
SMALLEST = 32
"""Pixels along a side that every distance and the flow can work with."""


@dataclass(frozen=True)
class Smoothness:
    """What was measured of a clip. A step is the distance between two neighbouring frames.

    Args:
        frames: how many.
        distance: the name of the distance, which every number of steps means nothing without.
        compared_at: (width, height) of the pictures between which it was taken.
        path_length: the sum of the steps (PPL of DiffMorpher, arXiv:2312.07409); lower is more direct. LPIPS grows
            with the square of small changes, so that it also falls with the number of frames.
        step_variance: the variance of the steps (PDV, ibid.); lower is more even.
        evenness: the largest step over the mean one; 1 is even.
        largest_step: where a jump would be seen.
        largest_step_at: the frame that it starts from.
        directness: the distance of the ends over the length of the way, in [0, 1], 1 being straight. Of the roots of
            distances: these keep the triangle inequality, which LPIPS, a squared one, does not.
        ghosting: mean over the frames in between, 0 to 1: how much of a double exposure they are; see `ghosting`.
            None with fewer than 3 frames.
        worst_ghosting: the largest of any frame.
        worst_ghosting_at: that frame.
        mix: mean of the first part of it, how far changes are mixes of before and after.
        sag: the other part, the share of sharpness that is lost in these mixes; mean, weighed by them.
        motion: mean length of the optical flow, in widths of the picture per frame. None if nothing can be followed.
        peak_motion: what the fastest hundredth of the pixels reaches, in the fastest step.
        flicker: temporal noise, as a standard deviation in shares of the full range; see `movement`. None with fewer
            than 3 frames, or if nothing can be followed.
        brightness_flicker: the same of the mean brightness of frames alone, so that it is not seen in grain; ibid.
        loop_ratio: the step from the last frame to the first, over the mean one; see `loops`.
        seam_ratios: by the frames that were asked for, the step there over those around it; 1 cannot be found.
        steps: between all neighbouring frames.
        ghosts: the ghosting of every frame.
    """

    frames: int
    distance: str
    compared_at: tuple[int, int]
    path_length: float
    step_variance: float
    evenness: float
    largest_step: float
    largest_step_at: int
    directness: float
    ghosting: float | None
    worst_ghosting: float | None
    worst_ghosting_at: int | None
    mix: float | None
    sag: float | None
    motion: float | None
    peak_motion: float | None
    flicker: float | None
    brightness_flicker: float | None
    loop_ratio: float
    seam_ratios: dict[int, float]
    steps: tuple[float, ...]
    ghosts: tuple[float, ...]


def smoothness(
    frames: Frames, distance: Perceptual, *, seams: Sequence[int] = (), progress: Progress = silent
) -> Smoothness:
    """All measures of a clip, which is read a few frames at a time, once for each kind of them.

    Args:
        frames: two or more, of sides of 32 pixels or more.
        distance: between pictures.
        seams: numbers of frames where parts of the film meet.
        progress: told of every window.

    Raises:
        TaskError: too few frames, too small ones, or no such seam.
        ValueError: the distance compares something else than pictures.
    """
    _check(frames, distance, seams)
    with torch.no_grad():
        steps, closing = steps_of(frames, distance, progress=progress)
        ghosts = exposures(frames, progress=progress)
        moves = movement(frames, progress=progress)
    largest, mean = max(range(len(steps)), key=steps.__getitem__), fmean(steps)
    way = sum(step**0.5 for step in steps)
    ghostly = ghosts.score.tolist()
    worst = max(range(1, len(frames) - 1), key=ghostly.__getitem__, default=None)
    lost = float((ghosts.sag * ghosts.mix).sum() / ghosts.mix.sum().clamp(min=1e-9))
    return Smoothness(
        frames=len(frames),
        distance=distance.name,
        compared_at=reduced_size(frames.size, AREA),
        path_length=sum(steps),
        step_variance=pvariance(steps),
        evenness=steps[largest] / mean if mean > 0 else 1.0,
        largest_step=steps[largest],
        largest_step_at=largest,
        directness=closing**0.5 / way if way > 0 else 1.0,
        ghosting=_mean(ghosts.score[1:-1]),
        worst_ghosting=None if worst is None else ghostly[worst],
        worst_ghosting_at=worst,
        mix=_mean(ghosts.mix[1:-1]),
        sag=None if worst is None else lost,
        motion=_mean(moves.speed),
        peak_motion=max(_known(moves.peak), default=None),
        flicker=_mean(moves.noise),
        brightness_flicker=_root_mean_square(moves.brightness),
        loop_ratio=loop_ratio(steps, closing),
        seam_ratios={frame: seam_ratio(steps, frame) for frame in seams},
        steps=tuple(steps),
        ghosts=tuple(ghostly),
    )


def steps_of(frames: Frames, distance: Perceptual, *, progress: Progress = silent) -> tuple[list[float], float]:
    """The distances between neighbouring frames, and that between the last frame and the first."""
    steps: list[float] = []
    for start, pictures in windows(frames, AREA, shared=1):
        steps += distance(pictures[:-1], pictures[1:]).double().tolist()
        progress("measuring steps", start + len(pictures), len(frames))
    first, last = reduced(frames[0:1], AREA), reduced(frames[len(frames) - 1 : len(frames)], AREA)
    return [max(0.0, step) for step in steps], max(0.0, float(distance(last, first)))


def _known(values: Tensor) -> list[float]:
    return values[~values.isnan()].tolist()


def _mean(values: Tensor) -> float | None:
    known = _known(values)
    return fmean(known) if known else None


def _root_mean_square(values: Tensor) -> float | None:
    square = _mean(values.double().square())
    return None if square is None else square**0.5


def _check(frames: Frames, distance: Perceptual, seams: Sequence[int]) -> None:
    if distance.domain != "frames":
        raise ValueError(f"smoothness needs a distance between pictures; {distance.name} compares {distance.domain}")
    if len(frames) < 2:
        raise TaskError(f"smoothness is about what lies between frames: expected 2 or more, got {len(frames)}")
    width, height = frames.size
    if min(reduced_size(frames.size, AREA)) < SMALLEST:
        raise TaskError(
            f"the pictures are {width}x{height}; of at most 512x512 pixels' area, both sides must be {SMALLEST} or more"
        )
    for frame in seams:
        if not 0 <= frame < len(frames):
            raise TaskError(f"a seam is one of the frames 0 to {len(frames) - 1}, got {frame}")
