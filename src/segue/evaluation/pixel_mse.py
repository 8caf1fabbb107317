"""Pixel-MSE, which is never told without sharpness: the blurrier a film, the better it looks by it."""

from __future__ import annotations

from dataclasses import dataclass

from segue.evaluation.measure import Measure
from segue.evaluation.sharpness import Sharpness, sharpness
from segue.evaluation.warp_error import WarpError, warp_error
from segue.types import Frames, Progress, silent


@dataclass(frozen=True)
class PixelMse:
    """How much neighbouring frames differ along the flow, and how sharp they are.

    Args:
        value: mean over the pairs of neighbours of the mean squared difference, of a full range of 1 (of 256 levels it
            is 65025 times as much); None if nothing can be followed.
        sharpness: of the same film.
        of_source: the flow is that of another film.
        followed: the mean share of the picture that counts.
    """

    value: float | None
    sharpness: Sharpness
    of_source: bool
    followed: float

    @staticmethod
    def of(warped: WarpError, sharpness: Sharpness) -> PixelMse:
        """Of changes that were measured between neighbours."""
        found = warped.at(1)
        return PixelMse(found.squared, sharpness, warped.of_source, found.followed)

    def measures(self) -> list[Measure]:
        """It, and the sharpness right after."""
        whose = "the source's flow" if self.of_source else "its own flow"
        told = f"mean squared change along {whose}, of a full range of 1; blur lowers it: read sharpness, too"
        return [Measure("Pixel-MSE", self.value, "lower", told), *self.sharpness.measures()]


def pixel_mse(
    frames: Frames, source: Frames | None = None, reference: Frames | None = None, *, progress: Progress = silent
) -> PixelMse:
    """The Pixel-MSE of a film: each frame warped to the next along the optical flow, and compared with it.

    As Pix2Video has it (Ceylan et al. 2023, arXiv:2303.12688), but over what is not occluded, for otherwise it tells
    how much is uncovered; of pictures reduced to 512x512 pixels' area.

    Args:
        frames: two or more.
        source: whose flow is taken; the film's own if left out. See `warp_error`.
        reference: whose sharpness is the right one; the source's if left out.
        progress: told of every frame.

    Raises:
        ValueError: the films differ in size or length, or there are fewer than two frames.
    """
    warped = warp_error(frames, source, intervals=(1,), to_first=False, progress=progress)
    return PixelMse.of(warped, sharpness(frames, source if reference is None else reference, progress=progress))
