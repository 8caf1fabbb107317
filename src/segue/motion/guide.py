"""Guides where there is no source: a clip that flickers, made comparable with itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.nn.functional import interpolate

from segue.motion.detail import low

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.types import Frames

_MIDDLE, _SPREAD = 0.5, 0.2
_FLAT = 0.08
"""Standard deviation up to which all places are made to stand out alike. With 0.02, the grain of a plain background was
not believed to be the same from frame to frame, and light that flickered there stayed."""
_AROUND = 0.07
"""Standard deviation of what is around a pixel, in shorter sides of the picture."""
_REACH = 4.0
"""The same in pixels, to which larger pictures are reduced for it."""


@dataclass(frozen=True)
class Levelled:
    """Frames whose brightness says nothing any more, and whose noise says less; to be matched, not to be shown.

    Each colour has its mean around every pixel brought to 0.5 and its deviation there to 0.2, which takes any gain and
    offset out, also of a part of the picture, whichever frame comes before or after. Where there is less than 0.08 of
    it, it keeps its gain. What then lies outside [0, 1] is cut.

    Args:
        frames: the clip.
        blur: the standard deviation, in pixels, of a light Gaussian against noise; 0 for none.
    """

    frames: Frames
    blur: float = 1.0

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
    """Each channel with a mean of 0.5 and a deviation of 0.2 around every pixel, in [0, 1]; faint places stay so."""
    apart = pictures - _around(pictures)
    spread = _around(apart.square()).clamp(min=0).sqrt()
    return (apart * (_SPREAD / spread.clamp(min=_FLAT)) + _MIDDLE).clamp(0, 1)


def _around(values: Tensor) -> Tensor:
    """The mean around every pixel, of pictures so small that it does not reach far."""
    height, width = values.shape[2:]
    sigma = _AROUND * min(height, width)
    step = max(1.0, sigma / _REACH)
    small = interpolate(values, (math.ceil(height / step), math.ceil(width / step)), mode="area")
    return interpolate(low(small, max(1.0, sigma / step)), (height, width), mode="bilinear")
