"""What all distances between pictures have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

from torch import nn

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

SMALLEST = 32
"""Pixels along a side, below which the deepest stage of a network has nothing to look at."""


class PictureDistance(nn.Module, ABC):
    """A Perceptual on pictures, made of a network. Subclasses have a name, and say what is between two pictures."""

    @property
    def domain(self) -> Literal["frames"]:
        """It compares pictures in [0, 1]."""
        return "frames"

    def forward(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """One distance per pair of pictures in [0, 1], any size from 32 pixels; rows do not influence each other.

        Raises:
            ValueError: the shapes differ, or are none of pictures.
        """
        if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 3 or min(a.shape[-2:]) < SMALLEST:
            raise ValueError(
                f"only pictures of one shape (b, 3, h, w) with sides of {SMALLEST} pixels or more can be compared; "
                f"got {tuple(a.shape)} and {tuple(b.shape)}"
            )
        return self.between(a, b)

    @abstractmethod
    def between(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """One distance per pair of pictures, which are checked."""
