"""Latents of any size through a network of limited size: a Denoiser around a Denoiser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import torch

from segue.types import Condition, Conditioning, Denoiser, Guided, Point

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

ALIGNED = 8
"""Windows begin at multiples of it if they can, so that a network's halvings meet the same latents in all of them."""


@dataclass(frozen=True)
class Window:
    """A part of the latents."""

    top: int
    left: int
    height: int
    width: int

    def of(self, x: Float[Tensor, "... h w"]) -> Float[Tensor, "... th tw"]:
        """That part of a tensor; a view."""
        return x[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def told(self, cond: Condition, whole: tuple[int, int]) -> Condition:
        """What the network is told about this part of latents of (height, width) `whole`."""
        place = self.top, self.left, self.height, self.width, whole
        if isinstance(cond, Conditioning):
            return cond.crop(*place)
        return replace(cond, terms=tuple(term.crop(*place) for term in cond.terms))


def windows(height: int, width: int, tile: int, overlap: int) -> tuple[Window, ...]:
    """Windows of at most `tile` a side that cover the latents; see `starts_of` for how neighbours overlap."""
    tall, wide = min(tile, height), min(tile, width)
    starts = product(starts_of(height, tile, overlap), starts_of(width, tile, overlap))
    return tuple(Window(top, left, tall, wide) for top, left in starts)


def starts_of(length: int, tile: int, overlap: int) -> tuple[int, ...]:
    """Where windows begin along one side, the last one flush with the end; neighbours share `overlap` or more.

    They are aligned, or if that would share less, begin at multiples of a smaller power of two.
    """
    if length <= tile:
        return (0,)
    most, unit = tile - overlap, ALIGNED
    while unit > most:
        unit //= 2
    stride = most // unit * unit
    return (*range(0, length - tile, stride), length - tile)


@dataclass(frozen=True)
class TiledDenoiser:
    """A Denoiser that sees at most a window at a time, and agrees with itself where windows overlap.

    At every step each window is denoised by itself, and x0 is their mean, with weights that rise smoothly from a
    window's edge (Bar-Tal et al. 2023, "MultiDiffusion", arXiv:2302.08113, eq. 5; there, what is averaged is the step,
    with equal weights). What the network answers row by row and pixel by pixel is left as it is.

    Args:
        denoiser: sees the windows.
        tile: the most latents along a side.
        overlap: how many of them neighbours share, at least; below `tile`.
        together: windows in one call of `denoiser`.
    """

    denoiser: Denoiser
    tile: int
    overlap: int
    together: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.tile or self.together < 1:
            raise ValueError(
                f"windows of {self.tile} cannot share {self.overlap} latents, or come {self.together} at a time"
            )

    @property
    def group(self) -> int:
        """Consecutive rows that share a call."""
        return self.denoiser.group

    def __call__(self, x: Float[Tensor, "b c h w"], at: Point, cond: Condition) -> Float[Tensor, "b c h w"]:
        """x0; memory beyond the latents does not depend on their size."""
        height, width = x.shape[-2:]
        every = windows(height, width, self.tile, self.overlap)
        if len(every) == 1:
            return self.denoiser(x, at, cond)
        weight = _weights(every[0], self.overlap, x)
        total = torch.zeros_like(x, dtype=torch.float32)
        weights = torch.zeros(height, width, dtype=torch.float32, device=x.device)
        for some in _batches(every, self.together):
            for window, x0 in zip(some, self._answers(x, at, cond, some), strict=True):
                window.of(total).add_(x0 * weight)
                window.of(weights).add_(weight)
        return total / weights

    def _answers(self, x: Tensor, at: Point, cond: Condition, some: tuple[Window, ...]) -> tuple[Tensor, ...]:
        parts = [window.told(cond, (x.shape[-2], x.shape[-1])) for window in some]
        if len(some) == 1:
            return (self.denoiser(some[0].of(x), at, parts[0]),)
        merged = (
            Conditioning.cat([part for part in parts if isinstance(part, Conditioning)])
            if isinstance(cond, Conditioning)
            else Guided.cat([part for part in parts if isinstance(part, Guided)])
        )
        rows = list(range(len(x))) * len(some)
        x0 = self.denoiser(torch.cat([window.of(x) for window in some]), at[rows], merged)
        return x0.chunk(len(some))


def _batches(every: tuple[Window, ...], most: int) -> Iterator[tuple[Window, ...]]:
    for first in range(0, len(every), most):
        yield every[first : first + most]


def _weights(window: Window, overlap: int, like: Tensor) -> Float[Tensor, "th tw"]:
    """A hill over a window: 1 inside, falling as a squared sine over the overlap, never 0."""
    rows, columns = (_slope(length, overlap) for length in (window.height, window.width))
    return (rows[:, None] * columns).to(like.device)


def _slope(length: int, overlap: int) -> Float[Tensor, " n"]:
    place = torch.arange(length, dtype=torch.float64)
    edge = torch.minimum(place, place.flip(0))
    share = ((edge + 0.5) / max(overlap, 1)).clamp(max=1)
    return (share * torch.pi / 2).sin().square().float()
