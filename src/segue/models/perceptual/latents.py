"""A distance between pictures that needs no weights: differences of codec latents at several scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn.functional import avg_pool2d

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class LatentDistance:
    """A Perceptual on latents, without learned weights. It is not LPIPS, and its numbers are not comparable to it.

    At each level of a pyramid (latents, and their averages over 2x2, 4x4, ...) a position has two features: the latent
    vector itself, and its direction z / sqrt(|z|^2 / c + floor), which weighs faint structure as much as strong, as the
    unit-normalised features of Zhang et al. 2018 (arXiv:1801.03924, eq. 1) do. The distance is the root of the mean
    square difference of all features, each level and each kind counting the same. As the norm of a difference it is
    symmetric, 0 for equal pictures, and obeys the triangle inequality.

    Args:
        levels: of the pyramid, the finest included; fewer where a picture becomes smaller than two positions.
        floor: the squared magnitude (of latents with about unit variance) below which a direction fades out.
    """

    levels: int = 3
    floor: float = 0.1

    @property
    def name(self) -> str:
        """What is written beside its numbers."""
        return f"latent-distance-{self.levels}"

    @property
    def domain(self) -> Literal["latents"]:
        """It compares latents as the codec makes them."""
        return "latents"

    def __call__(self, a: Float[Tensor, "b c h w"], b: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        """One distance per pair, float32; rows do not influence each other."""
        if a.shape != b.shape:
            raise ValueError(f"only latents of one shape can be compared; got {tuple(a.shape)} and {tuple(b.shape)}")
        a, b = a.float(), b.float()
        squares: list[Tensor] = []
        for level in range(self.levels):
            if level:
                a, b = avg_pool2d(a, 2), avg_pool2d(b, 2)
            squares += [_mean_square(a - b), _mean_square(self._direction(a) - self._direction(b))]
            if min(a.shape[-2:]) < 4:
                break
        return torch.stack(squares).mean(0).sqrt().float()

    def _direction(self, z: Tensor) -> Tensor:
        return z / (z.square().mean(1, keepdim=True) + self.floor).sqrt()


def _mean_square(difference: Tensor) -> Tensor:
    """Per row, summed in float64 so that the order of summation never shows."""
    return difference.double().square().flatten(1).mean(1)
