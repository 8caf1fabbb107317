"""Contrast and sharpness of finished pictures, for taste; blending needs neither."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segue.motion.detail import low

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_MOST = 10.0
_FINE = 1.0
"""Standard deviation, in pixels, of what is taken for detail."""


@dataclass(frozen=True)
class Finish:
    """What is done to a picture at the end. At 1 and 1 it is nothing, to the bit.

    Args:
        contrast: distances from the middle grey are multiplied by it; 0 is grey. The grey is 0.5 and not the mean of
            the picture, which would make a film pulse as its content changes.
        sharpness: detail of about a pixel is multiplied by it; 0 is a blur.

    Raises:
        ValueError: a value is not 0 to 10.
    """

    contrast: float = 1.0
    sharpness: float = 1.0

    def __post_init__(self) -> None:
        for name in ("contrast", "sharpness"):
            if not 0 <= getattr(self, name) <= _MOST:
                raise ValueError(f"{name} must be 0 to {_MOST:g}, where 1 changes nothing; got {getattr(self, name)}")

    def __call__(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures in [0, 1] to pictures in [0, 1], float throughout: rounding is left to the end."""
        if self.sharpness != 1:
            pictures = (pictures + (self.sharpness - 1) * (pictures - low(pictures, _FINE))).clamp(0, 1)
        if self.contrast != 1:
            pictures = (pictures + (self.contrast - 1) * (pictures - 0.5)).clamp(0, 1)
        return pictures
