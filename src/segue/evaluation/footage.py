"""What footage is worth learning from: where its shots are, and how much moves in them."""

from __future__ import annotations

from itertools import pairwise

from segue.evaluation.windows import reduced
from segue.motion.cuts import cuts
from segue.motion.flow import SMALLEST, flow
from segue.types import Frames, Progress, silent

SCORED = 64 * 64
"""Pixels of a picture in which movement is looked for: grain is gone there."""
STEPS = 6
"""Pairs of frames that are compared."""


def shots(frames: Frames, *, progress: Progress = silent) -> list[range]:
    """The numbers of the frames of each shot, between hard cuts."""
    starts = [0, *cuts(frames, progress=progress), len(frames)]
    return [range(start, stop) for start, stop in pairwise(starts) if stop > start]


def motion_score(frames: Frames, fps: float) -> float:
    """How fast what is seen moves: the mean length of the flow in small pictures, in widths of them per second.

    The median of a few pairs of neighbours, evenly spread, so that a flash is no movement. Blattmann et al. 2023
    (arXiv:2311.15127), appendix C, with another flow, and in a unit that depends on neither size nor rate.

    Raises:
        ValueError: there are less than two frames, or the pictures are too small or narrow.
    """
    if len(frames) < 2:
        raise ValueError(f"movement needs two frames or more, got {len(frames)}")
    last = len(frames) - 2
    numbers = sorted({round(step * last / max(1, STEPS - 1)) for step in range(STEPS)})
    lengths: list[float] = []
    for number in numbers:
        pair = reduced(frames[number : number + 2], SCORED)
        if min(pair.shape[-2:]) < SMALLEST:
            raise ValueError(f"movement needs pictures that are not so narrow, got {frames.size[0]}x{frames.size[1]}")
        found = flow(pair[:1], pair[1:])
        lengths.append(float(found.square().sum(1).sqrt().mean()) / pair.shape[-1])
    lengths.sort()
    middle = len(lengths) // 2
    median = lengths[middle] if len(lengths) % 2 else (lengths[middle - 1] + lengths[middle]) / 2
    return median * fps
