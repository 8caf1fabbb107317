"""What deflickering in the loop is handed: frames blended along the movement of a guide, as finely as noise allows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import interpolate, max_pool2d

from segue.motion.blend import Blending, blended
from segue.motion.fields import Fields, reduced, reduced_size
from segue.types import Frames

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

KNOWN = 1.1
"""sigma / alpha below which more than half of the finest detail of an estimate (energy of what lies between a picture
and its half) is that of the finished picture. Measured on the embedded model."""
LOST = 4
"""How many times higher it is where the next octave of detail is lost; measured likewise: 1.1, about 4, about 19."""


@dataclass(frozen=True)
class Along:
    """Pictures blended with their neighbours along fields; a `Smoother`.

    Where noise is high, the detail of estimates is a guess: they are blended at a half, a quarter, ... of their size,
    and what that changed is enlarged and added, so that detail is left as it is. See `level`.

    Args:
        fields: of the guide at full size, at half, at a quarter, and so on (`Smaller`); as many as may be used.
        blending: how; the window counts frames at any size.
    """

    fields: Sequence[Fields]
    blending: Blending = field(default_factory=Blending)

    def __call__(
        self, pictures: Frames, noise: float
    ) -> Iterator[tuple[int, Float[Tensor, "3 h w"], Float[Tensor, "h w"]]]:
        """See `segue.temporal.deflicker.Smoother`.

        Raises:
            ValueError: there are more or fewer pictures than the guide has, or they are of another size.
        """
        coarse = min(level(noise), len(self.fields) - 1)
        if coarse == 0:
            return blended(pictures, self.fields[0], self.blending)
        return self._coarsely(pictures, coarse)

    def _coarsely(self, pictures: Frames, coarse: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        small = Smaller(pictures, coarse)
        width, height = (side << coarse for side in small.size)
        for number, picture, change in blended(small, self.fields[coarse], self.blending):
            whole, before = pictures[number : number + 1], small[number : number + 1].to(picture)
            moved = interpolate(picture[None] - before, (height, width), mode="bilinear")
            around = interpolate(max_pool2d(change[None, None], 3, 1, 1), (height, width), mode="nearest")
            moved, around = (part[..., : whole.shape[2], : whole.shape[3]].to(whole) for part in (moved, around))
            # What is added to nothing but zeros is zero, so that 0 in the map is 0 in the picture.
            yield number, torch.where(around > 0, (whole + moved).clamp(0, 1), whole)[0], around[0, 0]


@dataclass(frozen=True)
class Smaller:
    """Frames reduced 2^level times when they are asked for, each pixel the mean of those it stands for."""

    frames: Frames
    level: int

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return reduced_size(self.frames.size, 1 << self.level)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        return reduced(self.frames[window], 1 << self.level)


def level(noise: float) -> int:
    """How often pictures can be halved where estimates stand at `noise` (sigma / alpha) and lose nothing that is known.

    A denoiser's estimate is sure of what is strong against the noise, and pictures are the weaker the finer; what it
    has of finer detail is a guess that the next steps replace.
    """
    return 0 if noise < KNOWN else 1 + math.floor(math.log(min(noise, 1e9) / KNOWN, LOST))
