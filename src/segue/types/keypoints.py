"""Key points of persons in a clip: what pose annotators find, smoothing orders, and skeletons are drawn from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

BODY = slice(0, 18)
"""OpenPose's 18: nose, neck, right shoulder, elbow, wrist, left shoulder, elbow, wrist, right hip, knee, ankle, left
hip, knee, ankle, right eye, left eye, right ear, left ear. Right is the person's own."""

RIGHT_HAND = slice(18, 39)
"""The wrist, then four points of each finger from the palm to the tip, thumb first."""

LEFT_HAND = slice(39, 60)
"""As the right hand."""

FACE = slice(60, 128)
"""The 68 of iBUG: jaw 17, brows 5 and 5, nose 9, eyes 6 and 6, lips 20; beginning at the picture's left."""

POINTS = 128
"""All of them."""


@dataclass(frozen=True)
class KeyPoints:
    """Where points of persons are in each frame, and how sure that is.

    Args:
        places: frames, persons, points, x then y: in pixels from the middle of the first pixel; NaN where a point is
            absent. Points may be outside of the picture.
        confidence: in [0, 1]; 0 where a point is absent, and only there.
        size: (width, height) of the pictures in pixels.

    Raises:
        ValueError: shapes that do not fit, a point with one number, or a confidence that contradicts its place.
    """

    places: Float[Tensor, "t persons points 2"]
    confidence: Float[Tensor, "t persons points"]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        shape = tuple(self.places.shape)
        if len(shape) != 4 or shape[2:] != (POINTS, 2) or tuple(self.confidence.shape) != shape[:3]:
            found = f"{shape} and {tuple(self.confidence.shape)}"
            raise ValueError(f"expected places (t, persons, {POINTS}, 2) and a confidence of each, got {found}")
        there = self.places.isfinite()
        if not bool((there[..., 0] == there[..., 1]).all()):
            raise ValueError("a key point has an x and a y, or neither")
        sure = (self.confidence > 0) & (self.confidence <= 1)
        if not bool((sure == there[..., 0]).all()) or not bool((sure | (self.confidence == 0)).all()):
            raise ValueError("the confidence of a key point is in (0, 1], and 0 where it is absent")

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, window: slice, /) -> KeyPoints:
        """Those of some frames."""
        return KeyPoints(self.places[window], self.confidence[window], self.size)

    @property
    def persons(self) -> int:
        """How many there are room for; a person who is not in a frame has no points there."""
        return self.places.shape[1]

    @property
    def present(self) -> Bool[Tensor, "t persons points"]:
        """Which points there are."""
        return self.confidence > 0

    def at(self, size: tuple[int, int]) -> KeyPoints:
        """Those of the same pictures at another size, (width, height) in pixels; sides may be stretched."""
        across, down = (new / old for new, old in zip(size, self.size, strict=True))
        scale = self.places.new_tensor([across, down])
        return replace(self, places=(self.places + 0.5) * scale - 0.5, size=size)
