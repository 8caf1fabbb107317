"""How faithful a film is to another one, frame by frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from segue.evaluation.drift import Drift, drift
from segue.evaluation.fidelity import psnr, ssim
from segue.evaluation.measure import Measure
from segue.evaluation.smoothness import AREA
from segue.evaluation.windows import reduced
from segue.types import Frames, Perceptual, Progress, silent

if TYPE_CHECKING:
    from torch import Tensor

_PIXELS = 1 << 21  # that are compared at once, as SSIM makes many copies of them


@dataclass(frozen=True)
class Likeness:
    """How faithful a film is to another, frame by frame; of a restyled film, how far it was changed.

    Args:
        source: the other one.
        psnr: in dB, of the mean squared error of all frames; None if they are equal.
        ssim: mean over the frames.
        distance: mean over the frames.
        worst: the frame whose distance is the largest.
        distances: of all frames.
        drift: how far it leaves the source with time; None with fewer than 3 frames.
        by: what the distance is.
    """

    source: Path
    psnr: float | None
    ssim: float
    distance: float
    worst: int
    distances: tuple[float, ...]
    drift: Drift | None = None
    by: str = "distance"

    def measures(self) -> list[Measure]:
        """All numbers, each with its meaning."""
        place = f"the frame that is least alike is {self.worst}"
        return [
            Measure("PSNR", self.psnr, "higher", f"in dB, against {self.source.name}; none for equal films"),
            Measure("SSIM", self.ssim, "higher", "structural similarity, up to 1"),
            Measure("distance", self.distance, "lower", f"{self.by}, mean over the frames; {place}"),
            *(self.drift.measures() if self.drift else []),
        ]

    def measures_before(self) -> list[Measure]:
        """The same of the film as it was before it was worked on."""
        told = f"of the film before, against {self.source.name}"
        return [
            Measure("PSNR before", self.psnr, "higher", f"in dB, {told}"),
            Measure("SSIM before", self.ssim, "higher", told),
            Measure("distance before", self.distance, "lower", told),
        ]


def likeness_of(
    frames: Frames,
    originals: Frames,
    source: Path,
    distance: Perceptual,
    *,
    drifting: bool = True,
    progress: Progress = silent,
) -> Likeness:
    """How faithful frames are to as many originals of the same size; the distance is taken of reduced pictures.

    Args:
        frames: the film.
        originals: the other one.
        source: what that is called.
        distance: between pictures.
        drifting: also tell how far it drifts.
        progress: told of every few frames.
    """
    rows: list[Tensor] = []
    length = max(1, _PIXELS // (frames.size[0] * frames.size[1]))
    with torch.no_grad():
        for start in range(0, len(frames), length):
            here, there = frames[start : start + length], originals[start : start + length]
            apart = distance(reduced(here, AREA), reduced(there, AREA)).double()
            rows.append(torch.stack([10 ** (-psnr(here, there) / 10), ssim(here, there), apart], 1))
            progress("comparing with the source", start + len(here), len(frames))
    found = torch.cat(rows)
    error, similarity, mean = found.mean(0).tolist()
    distances = tuple(found[:, 2].tolist())
    worst = max(range(len(distances)), key=distances.__getitem__)
    left = drift(frames, originals, progress=progress) if drifting and len(frames) > 2 else None
    decibel = -10 * math.log10(error) if error > 0 else None
    return Likeness(source, decibel, similarity, mean, worst, distances, left, distance.name)
