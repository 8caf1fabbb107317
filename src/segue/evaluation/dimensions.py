"""What a film is judged by that no other film is held against: VBench's dimensions that need no weights, and drift.

After Huang et al. 2024, "VBench", arXiv:2311.17982, section 4.1 and its code. Where VBench asks a network for motion
(RAFT, AMT), here dense inverse search is asked, so that numbers are comparable among themselves and not with its table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from segue.evaluation.features import Features
from segue.evaluation.loops import seam_ratio
from segue.evaluation.measure import Measure
from segue.evaluation.windows import reduced, windows
from segue.motion.flow import flow
from segue.motion.warp import warp
from segue.types import Frames, Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

AREA = 256 * 256
"""Pixels of a picture that is looked at."""
FASTEST = 0.05
"""The share of a picture's pixels, those that move fastest, by which it is judged whether it moves."""
FAR = 6 / 256
"""Shares of the shorter side, from frame to frame, above which these count as moving."""
DYNAMIC_FPS = 8.0
"""Frames per second at which that is looked at."""
BEGINNING = 8
"""Frames that drift is counted from."""


@dataclass(frozen=True)
class Consistency:
    """How far a film keeps showing the same thing, in the features of a network.

    Args:
        features: its name.
        score: in [0, 1]: the mean, over all frames but the first, of how alike a frame is to the one before and to the
            first (cosines, those below 0 counting as 0). VBench calls it subject consistency in the features of DINO,
            and background consistency in those of CLIP.
        to_first: the second part of it, for every frame but the first.
    """

    features: str
    score: float
    to_first: tuple[float, ...]


@dataclass(frozen=True)
class Dimensions:
    """What was found out.

    Args:
        steadiness: 1 less the mean absolute difference of neighbouring frames: VBench's temporal flickering, which is
            meant for films of what does not move.
        motion_smoothness: 1 less the mean absolute difference between every other frame and what its neighbours would
            make of it along the flow; None with fewer than 3 frames.
        dynamic_share: the share of steps, at 8 frames per second, whose fastest twentieth of pixels goes further than
            6/256 of the shorter side.
        dynamic: whether there are as many of them as VBench wants: 4 among 16.
        drift: how far the last frames' colours (means and deviations) are from the first frames', root mean square.
        drift_curve: the same for every frame.
        worst_seam: the largest ratio of a step to those around it; 1 is even.
        worst_seam_at: the frame that lies between.
        consistency: in one kind of features after the other.
    """

    steadiness: float
    motion_smoothness: float | None
    dynamic_share: float
    dynamic: bool
    drift: float
    drift_curve: tuple[float, ...]
    worst_seam: float | None
    worst_seam_at: int | None
    consistency: tuple[Consistency, ...] = ()

    def measures(self) -> list[Measure]:
        """All numbers, each with its meaning."""
        moves = "it counts as moving" if self.dynamic else "it does not count as moving"
        where = "" if self.worst_seam_at is None else f": frame {self.worst_seam_at}"
        found = [
            Measure(
                "steadiness", self.steadiness, "higher", "1 less the mean change between neighbours; a still has 1"
            ),
            Measure("motion smoothness", self.motion_smoothness, "higher", "how well neighbours foretell a frame"),
            Measure(
                "dynamic degree", self.dynamic_share, "neither", f"the share of steps in which much moves; {moves}"
            ),
            Measure(
                "drift from start", self.drift, "lower", "how far colours of the last frames leave the first ones'"
            ),
            Measure("worst seam", self.worst_seam, "near 1", f"the largest step over those around it{where}"),
        ]
        for one in self.consistency:
            about = f"how alike frames are to the one before and to the first, in {one.features}"
            found.append(Measure("consistency", one.score, "higher", about))
        return found


def dimensions(
    frames: Frames,
    fps: float,
    *,
    steps: Sequence[float] = (),
    features: Sequence[Features] = (),
    progress: Progress = silent,
) -> Dimensions:
    """Look at a film, a few frames at a time.

    Args:
        frames: two or more, of sides of 16 pixels or more.
        fps: how many there are in a second.
        steps: distances between neighbouring frames, where they are known: for seams.
        features: networks in which frames are compared.
        progress: told of every window.
    """
    changes, looks = list[float](), list["Tensor"]()
    for start, pictures in windows(frames, AREA, shared=1):
        changes += (pictures[1:] - pictures[:-1]).abs().flatten(1).mean(1).tolist()
        new = pictures[1 if start else 0 :].flatten(2)
        looks.append(torch.cat([new.mean(2), new.std(2)], 1))
        progress("looking for drift", start + len(pictures), len(frames))
    share, dynamic = dynamic_degree(frames, fps, progress=progress)
    curve = _drift(torch.cat(looks))
    ratios = [seam_ratio(steps, frame) for frame in range(1, len(steps))]
    worst = max(range(len(ratios)), key=ratios.__getitem__, default=None)
    return Dimensions(
        steadiness=1 - fmean(changes),
        motion_smoothness=motion_smoothness(frames, progress=progress),
        dynamic_share=share,
        dynamic=dynamic,
        drift=fmean(curve[-min(BEGINNING, len(curve)) :]),
        drift_curve=tuple(curve),
        worst_seam=None if worst is None else ratios[worst],
        worst_seam_at=None if worst is None else worst + 1,
        consistency=tuple(consistency(frames, each, progress=progress) for each in features),
    )


def motion_smoothness(frames: Frames, *, progress: Progress = silent) -> float | None:
    """1 less the mean absolute difference between odd frames and what lies half-way between their neighbours.

    VBench lets a network interpolate; here both neighbours go half of the flow between them, and are mixed.
    """
    missed = list[float]()
    for middle in range(1, len(frames) - 1, 2):
        before, now, after = (reduced(frames[at : at + 1], AREA) for at in range(middle - 1, middle + 2))
        # What is half-way is where a way of half the length, taken back from there, ends.
        half = (warp(before, -flow(before, after) / 2) + warp(after, -flow(after, before) / 2)) / 2
        missed.append(float((half - now).abs().mean()))
        progress("foretelling frames", middle + 1, len(frames))
    return 1 - fmean(missed) if missed else None


def dynamic_degree(frames: Frames, fps: float, *, progress: Progress = silent) -> tuple[float, bool]:
    """The share of steps at 8 frames per second in which much moves, and whether these are enough to count."""
    every = max(1, round(fps / DYNAMIC_FPS))
    numbers = range(0, len(frames), every) if every < len(frames) else range(0, len(frames), len(frames) - 1)
    far, previous = 0, None
    for number in numbers:
        picture = reduced(frames[number : number + 1], AREA)
        if previous is not None:
            lengths = flow(previous, picture).square().sum(1).sqrt().flatten()
            fastest = lengths.topk(max(1, int(FASTEST * len(lengths)))).values
            far += float(fastest.mean()) > FAR * min(picture.shape[2:])
        previous = picture
        progress("following movement", number + 1, len(frames))
    return far / (len(numbers) - 1), far >= max(1, round(4 * len(numbers) / 16))


def consistency(frames: Frames, features: Features, *, progress: Progress = silent) -> Consistency:
    """How alike frames are, in the features of a network; see `Consistency`."""
    first = previous = None
    to_first, scores = list[float](), list[float]()
    for number in range(len(frames)):
        with torch.no_grad():
            seen = features(frames[number : number + 1])[0].float().cpu()
        seen = seen / seen.norm().clamp(min=1e-12)
        if first is not None and previous is not None:
            near, far = max(0.0, float(seen @ previous)), max(0.0, float(seen @ first))
            scores.append((near + far) / 2)
            to_first.append(far)
        first, previous = seen if first is None else first, seen
        progress(f"comparing frames in {features.name}", number + 1, len(frames))
    return Consistency(features.name, fmean(scores), tuple(to_first))


def _drift(looks: Float[Tensor, "t 6"]) -> list[float]:
    """Of each frame, how far its means and deviations of colours are from those of the first frames."""
    start = looks[:BEGINNING].mean(0)
    return (looks - start).square().mean(1).sqrt().tolist()
