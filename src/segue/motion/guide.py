"""Guides where there is no source: a clip that flickers, made comparable with itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segue.motion.detail import low

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.types import Frames

_MIDDLE, _SPREAD = 0.5, 0.2
_FLAT = 0.01
"""Standard deviation of a picture with nothing on it, which is not made to stand out."""


@dataclass(frozen=True)
class Levelled:
    """Frames whose brightness says nothing any more, and whose noise says less; to be matched, not to be shown.

    Each colour of each frame has its mean brought to 0.5 and its deviation to 0.2, which takes any gain and offset out,
    whichever frame comes before or after. What then lies outside [0, 1] is cut.

    Args:
        frames: the clip.
        blur: the standard deviation, in pixels, of a light Gaussian against noise; 0 for none.
    """

    frames: Frames
    blur: float = 0.7

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.frames.size

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        pictures = levelled(self.frames[window])
        return low(pictures, self.blur) if self.blur > 0 and len(pictures) else pictures


def levelled(pictures: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Each channel of each picture with a mean of 0.5 and a deviation of 0.2, cut to [0, 1]; flat ones stay flat."""
    mean = pictures.mean((2, 3), keepdim=True)
    spread = (pictures - mean).square().mean((2, 3), keepdim=True).sqrt()
    return ((pictures - mean) * (_SPREAD / spread.clamp(min=_FLAT)) + _MIDDLE).clamp(0, 1)
