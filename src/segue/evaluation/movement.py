"""What moves between frames, and what comes and goes although nothing moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from segue.evaluation.windows import windows
from segue.motion.flow import flow, luma
from segue.motion.occlusion import followed
from segue.motion.warp import warp
from segue.types import Frames, Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

AREA = 256 * 256
"""Pixels of a picture that is judged; grain that is finer than these is not seen."""
ENOUGH = 1 / 3
"""The share of a picture that must be followed into another, for their movement to be known: of unrelated photographs
it is a twentieth, of what slides or turns fast a half."""


@dataclass(frozen=True)
class Movement:
    """Movement between neighbouring frames, and temporal noise; nan where too little can be followed, as at a cut.

    Args:
        speed: the mean length of the flow, in widths of the picture per frame.
        peak: what one pixel in a hundred exceeds.
        noise: at each frame that has two neighbours, the standard deviation, in shares of the full range, of white
            noise that would explain how it differs from the mean of them, both moved to its place.
        brightness: there, how much lighter they are than it as a whole, as a sample of such a noise.
    """

    speed: Float[Tensor, " steps"]
    peak: Float[Tensor, " steps"]
    noise: Float[Tensor, " inner"]
    brightness: Float[Tensor, " inner"]


def movement(frames: Frames, *, progress: Progress = silent) -> Movement:
    """The movement in a clip, read a few frames at a time.

    The noise is the second difference in time along the flow: with p and n the neighbours of a frame x, warped to its
    place, the root mean square of (p + n - 2x) / sqrt(6), over the pixels that are followed both ways. An even movement
    leaves nothing of it, nor does an even change of colours, such as a fade; independent noise of deviation s leaves s.
    The brightness is the mean of (p + n - 2x) / sqrt(6) over the same pixels (BT.601), in which grain is lost: where
    the light of each frame is off by an independent amount of deviation s, its root mean square over time is s.

    Raises:
        ValueError: a side of the pictures is shorter than 16 pixels.
    """
    speeds: list[Tensor] = []
    peaks: list[Tensor] = []
    noises: list[Tensor] = []
    lights: list[Tensor] = []
    for start, pictures in windows(frames, AREA, shared=2):
        there, back = flow(pictures[:-1], pictures[1:]), flow(pictures[1:], pictures[:-1])
        forward, backward = followed(there, back), followed(back, there)
        new = slice(1 if start else 0, None)  # A window begins with the last step of the one before.
        speed, peak = _lengths(there[new], forward[new])
        speeds.append(speed)
        peaks.append(peak)
        before, after = warp(pictures[:-2], back[:-1]), warp(pictures[2:], there[1:])
        noise, light = _noise((before + after - 2 * pictures[1:-1]) / 6**0.5, backward[:-1] & forward[1:])
        noises.append(noise)
        lights.append(light)
        progress("following movement", start + len(pictures), len(frames))
    return Movement(torch.cat(speeds), torch.cat(peaks), torch.cat(noises), torch.cat(lights))


def _lengths(there: Tensor, known: Bool[Tensor, "b h w"]) -> tuple[Tensor, Tensor]:
    """Mean and peak, in widths, of the flow where it is known."""
    lengths = there.square().sum(1).sqrt() / there.shape[-1]
    lengths = lengths.masked_fill(~known, float("nan")).flatten(1)
    unknown = known.flatten(1).float().mean(1) < ENOUGH
    peaks = lengths.nanquantile(0.99, dim=1)
    return lengths.nanmean(1).masked_fill(unknown, float("nan")), peaks.masked_fill(unknown, float("nan"))


def _noise(off: Float[Tensor, "b 3 h w"], known: Bool[Tensor, "b h w"]) -> tuple[Tensor, Tensor]:
    """The root mean square of what frames are off by, and the mean of their brightness, where the flow is known."""
    share = known.flatten(1).float().mean(1)
    unknown = share < ENOUGH

    def mean(values: Tensor) -> Tensor:
        found = (values * known).flatten(1).mean(1) / share.clamp(min=1e-9)
        return found.masked_fill(unknown, float("nan"))

    return mean(off.square().mean(1)).sqrt(), mean(luma(off))
