"""Steps that stand out from those around them: where a film begins again, and where its parts are joined."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

SURROUNDINGS = 8
"""Steps on each side of a seam that it is compared with."""


def loop_ratio(steps: Sequence[float], closing: float) -> float:
    """The step from the last frame back to the first, over the mean of the others; 1 if there is no change at all.

    Up to 1.5 the place where a loop begins again does not stand out; 0 says that the first frame is shown twice.

    Args:
        steps: distances between neighbouring frames.
        closing: the distance between the last frame and the first.
    """
    return _ratio(closing, fmean(steps))


def seam_ratio(steps: Sequence[float], frame: int) -> float:
    """The larger of the steps to and from a frame, over the median of up to 8 more steps on each side.

    Where these stand still, the mean of all steps takes their place. 1 is a seam that cannot be found.

    Args:
        steps: distances between neighbouring frames; step i leads from frame i to frame i + 1.
        frame: a key, or the first frame of a part.
    """
    touching = range(max(frame - 1, 0), min(frame + 1, len(steps)))
    near = range(max(touching.start - SURROUNDINGS, 0), min(touching.stop + SURROUNDINGS, len(steps)))
    others = [steps[i] for i in near if i not in touching]
    usual = median(others) if others else 0.0
    return _ratio(max(steps[i] for i in touching), usual or fmean(steps))


def _ratio(step: float, usual: float) -> float:
    return step / usual if usual > 0 else 1.0
