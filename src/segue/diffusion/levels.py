"""A run of noise levels, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from segue.types import Point, RowId

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64
    from torch import Tensor


@dataclass(frozen=True)
class Levels:
    """Noise levels in the order in which they are visited or were trained.

    Args:
        alpha: what multiplies the picture.
        sigma: what multiplies the noise.
        time: what the network is told; for a trained level, its number.
    """

    alpha: Float64[Tensor, " n"]
    sigma: Float64[Tensor, " n"]
    time: Float64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.alpha)

    def __getitem__(self, pick: slice | Int64[Tensor, " m"]) -> Levels:
        return Levels(self.alpha[pick], self.sigma[pick], self.time[pick])

    @property
    def ratio(self) -> Float64[Tensor, " n"]:
        """sigma / alpha: the noise level in the variance-exploding picture of Karras et al. 2022."""
        return self.sigma / self.alpha

    def level(self, index: int) -> tuple[float, float]:
        """(alpha, sigma) of one level."""
        return float(self.alpha[index]), float(self.sigma[index])

    def at(self, index: Int64[Tensor, " b"], rows: Sequence[RowId] = ()) -> Point:
        """The levels that each row of a batch stands at; what a training step asks for."""
        return Point(index, len(self), self.alpha[index], self.sigma[index], self.time[index], tuple(rows))

    def flip(self) -> Levels:
        """The same levels in the opposite order."""
        return Levels(self.alpha.flip(0), self.sigma.flip(0), self.time.flip(0))

    def without_zero_snr(self) -> Levels:
        """The levels with a trace of signal (alpha = 2 ** -12) in the last, in place of what it has.

        For models that were rescaled to zero terminal SNR: ratios are infinite without it, and diffusers puts the same
        trace there. No other model needs it, however little signal it keeps.
        """
        alpha, sigma = self.alpha.clone(), self.sigma.clone()
        alpha[-1], sigma[-1] = 2**-12, (1 - 2**-24) ** 0.5
        return Levels(alpha, sigma, self.time)

    @staticmethod
    def from_ratio(ratio: Float64[Tensor, " n"], time: Float64[Tensor, " n"]) -> Levels:
        """Variance-preserving levels (alpha^2 + sigma^2 = 1) with these noise-to-signal ratios."""
        alpha = (ratio**2 + 1).rsqrt()
        return Levels(alpha, ratio * alpha, time)

    @staticmethod
    def single(alpha: float, sigma: float, time: float = 0.0) -> Levels:
        """One level."""
        return Levels(*(torch.tensor([value], dtype=torch.float64) for value in (alpha, sigma, time)))

    @staticmethod
    def cat(parts: Sequence[Levels]) -> Levels:
        """One run of several."""
        return Levels(
            torch.cat([part.alpha for part in parts]),
            torch.cat([part.sigma for part in parts]),
            torch.cat([part.time for part in parts]),
        )
