"""Clips longer than a model looks at: windows that overlap, whose answers are mixed at every step.

As MultiDiffusion does across a picture (Bar-Tal et al. 2023, arXiv:2302.08113, eq. 5), here along time. All windows
of a step see the same latents, so that what they have in common agrees before the next step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from segue.errors import TaskError
from segue.types import Condition, Denoiser, Point, over_rows

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


GOLDEN = (5**0.5 - 1) / 2
SHARED = 4
"""One frame in so many of a window is in the one beside it, too, unless somebody says otherwise."""


def shared_frames(length: int) -> int:
    """How many frames neighbouring windows of this length usually have in common."""
    return min(length - 1, max(1, length // SHARED))


def windows_of(count: int, length: int, overlap: int, loop: bool = False, turn: int = 0) -> list[list[int]]:
    """The frames of each window, evenly spread, neighbours having `overlap` frames or more in common.

    Args:
        count: of frames.
        length: of a window; all are as long.
        overlap: below `length`.
        loop: windows reach over the end to the beginning.
        turn: where the first one begins, in a loop.

    Raises:
        TaskError: windows longer than the clip, or no longer than their overlap.
    """
    if not 0 <= overlap < length <= count:
        raise TaskError(
            f"windows of {length} frames that overlap by {overlap} do not fit a clip of {count}: expected a window of "
            f"{overlap + 1} to {count} frames"
        )
    step = length - overlap
    if loop:
        number = -(-count // step) if length < count else 1
        begins = [turn + round(place * count / number) for place in range(number)]
    else:
        number = 1 - (length - count) // step if length < count else 1
        begins = [round(place * (count - length) / max(1, number - 1)) for place in range(number)]
    return [[frame % count for frame in range(begin, begin + length)] for begin in begins]


def turn_of(step: int, length: int) -> int:
    """Where the first window begins at a step, in a loop: golden sections of a window apart, so never long the same."""
    return round(step * GOLDEN * length)


@dataclass(frozen=True)
class Overlapping:
    """A denoiser of a whole clip around one of windows; rows are the clip's frames, in order, all at one step.

    Args:
        denoiser: its group is the length of a window.
        overlap: frames that neighbouring windows have in common, at least.
        loop: windows go round, and begin elsewhere at every step, so that no frame is always at an end.

    Raises:
        TaskError: see `windows_of`; when it is called.
    """

    denoiser: Denoiser
    overlap: int
    loop: bool = False

    @property
    def group(self) -> int:
        """Rows are windowed here."""
        return 1

    def __call__(self, x: Float[Tensor, "b c h w"], at: Point, cond: Condition) -> Float[Tensor, "b c h w"]:
        """x0 of all frames, float32: the mean over windows, weighed least at their ends."""
        length = self.denoiser.group
        groups = windows_of(len(x), length, self.overlap, self.loop, turn_of(int(at.index[0]), length))
        rows = [frame for group in groups for frame in group]
        answers = self.denoiser(x[rows], at[rows], cond[rows])
        weights = shares(groups, len(x), self.overlap)
        total = torch.zeros(x.shape, dtype=answers.dtype, device=answers.device)
        total.index_add_(0, torch.tensor(rows, device=answers.device), answers * over_rows(weights, answers))
        return total


def shares(groups: Sequence[Sequence[int]], count: int, overlap: int) -> Float[Tensor, " n"]:
    """How much each frame of each window counts, rising over the overlap; those of one frame add up to 1.

    Args:
        groups: of `windows_of`; the result has their frames one after the other.
        count: of all frames.
        overlap: that the windows were made for.
    """
    length = len(groups[0])
    places = torch.arange(length, dtype=torch.float64)
    raw = torch.minimum(places + 1, length - places).clamp(max=overlap + 1)
    every = raw.repeat(len(groups))
    rows = torch.tensor([frame for group in groups for frame in group])
    sums = torch.zeros(count, dtype=torch.float64).index_add_(0, rows, every)
    return every / sums[rows]
