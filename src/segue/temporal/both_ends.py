"""Clips between two given pictures, by models that are shown the first: forwards from one, backwards from the other.

Feng et al. 2024, "Explorative Inbetweening of Time and Space", arXiv:2403.14611: in each step, what the model makes of
the clip from its first frame on, and of the reversed clip from the last frame on, is mixed, each counting for as much
as its picture is near. The same picture at both ends makes a loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from segue.types import Condition, Denoiser, Point, over_rows

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class BothEnds:
    """A Denoiser around one of clips, which also takes each clip the other way round.

    Deviation from the paper: no noise is added again within a step, so that any solver can take it.

    Args:
        denoiser: of clips, whose condition tells the first frame.
        last: what the reversed clip is told: its first row belongs to the last frame. One row per row of the batch,
            all of which reach the end together.
        frames: of a clip.
    """

    denoiser: Denoiser
    last: Condition
    frames: int

    @property
    def group(self) -> int:
        """Rows that must share a call."""
        return self.frames

    def __call__(self, x: Float[Tensor, "b c h w"], at: Point, cond: Condition) -> Float[Tensor, "b c h w"]:
        """x0 of both ways, mixed.

        Raises:
            ValueError: the rows are no whole clips, or not as many as those of `last`.
        """
        if len(x) % self.frames or len(x) != len(self.last):
            raise ValueError(f"expected {len(self.last)} rows, clips of {self.frames} frames; got {len(x)}")
        places = torch.arange(len(x)).unflatten(0, (-1, self.frames))
        turned: list[int] = places.flip(1).flatten().tolist()
        forwards = self.denoiser(x, at, cond)
        # Names stay with what is drawn, so that what is told by frame is told to the same picture.
        backwards = self.denoiser(x[turned], at[turned], self.last)[turned]
        near = torch.linspace(0, 1, self.frames, dtype=torch.float64) if self.frames > 1 else torch.zeros(1)
        share = over_rows(near.repeat(len(x) // self.frames), x)
        return (1 - share) * forwards + share * backwards
