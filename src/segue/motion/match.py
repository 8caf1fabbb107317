"""Where the pixels of one picture are found in another: what every engine of correspondence answers with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from segue.motion.warp import warp

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class Match:
    """Ways from the pixels of pictures ("here") to where the same is seen in other pictures ("there").

    Args:
        way: x then y, in pixels: what lies here at p is found there at p + way.
        error: the mean squared difference of what was compared, per value, so that 0 is equal and 1 black on white.
        confidence: how far to believe it, 0 to 1; 0 where it is occluded, leaves the picture, or lies behind a cut.
        whole: ways lead from pixel to pixel, so that pictures are gathered along them and never resampled: along two
            ways, one after the other, is then exactly along the composed one.
    """

    way: Float[Tensor, "b 2 h w"]
    error: Float[Tensor, "b h w"]
    confidence: Float[Tensor, "b h w"]
    whole: bool

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.way.shape[3], self.way.shape[2]

    def __len__(self) -> int:
        return len(self.way)

    def __getitem__(self, rows: slice, /) -> Match:
        return Match(self.way[rows], self.error[rows], self.confidence[rows], self.whole)

    def remap(self, there: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """What lies there, brought here: gathered if ways are whole, else bicubic; beyond is the border.

        Along a way of no length it comes as it is, bit for bit.

        Raises:
            ValueError: it is of another size.
        """
        if there.shape[0] != len(self) or there.shape[2:] != self.way.shape[2:]:
            raise ValueError(f"ways of shape {tuple(self.way.shape)} do not lead into {tuple(there.shape)}")
        if self.whole:
            return gathered(there, self.way)
        return warp(there, self.way)

    def then(self, onward: Match) -> Match:
        """These ways and, from where they end, those of another match: errors add up, confidences are multiplied."""
        far = self.remap(torch.cat([onward.way, onward.error[:, None], onward.confidence[:, None]], 1))
        return Match(
            self.way + far[:, :2],
            self.error + far[:, 2].clamp(min=0),
            self.confidence * far[:, 3].clamp(0, 1),
            self.whole and onward.whole,
        )


class Matcher(Protocol):
    """An engine of correspondence. Rows are independent: the same pair gives the same bytes in any batch."""

    @property
    def name(self) -> str:
        """What it is, with all settings that make a difference: fields that are kept are found again by it."""
        ...

    def __call__(
        self,
        a: Float[Tensor, "b 3 h w"],
        b: Float[Tensor, "b 3 h w"],
        start: tuple[Match, Match] | None = None,
    ) -> tuple[Match, Match]:
        """From `a` to `b`, and from `b` to `a`; swapping the pictures swaps the answer, bit for bit.

        Args:
            a: pictures in [0, 1].
            b: as many, of the same size.
            start: what is believed so far, in both directions: a candidate, never a command.
        """
        ...


def gathered(there: Float[Tensor, "b c h w"], way: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b c h w"]:
    """The pixel that each way ends at, rounded to the nearest; the border stands for what is beyond."""
    return there.flatten(2).gather(2, ends(way).flatten(1)[:, None].expand(-1, there.shape[1], -1)).view_as(there)


def ends(way: Float[Tensor, "b 2 h w"]) -> Int[Tensor, "b h w"]:
    """The number of the pixel, row by row, that each way ends at; within the picture."""
    height, width = way.shape[-2:]
    x = (torch.arange(width, device=way.device) + way[:, 0]).round_().clamp_(0, width - 1)
    y = (torch.arange(height, device=way.device)[:, None] + way[:, 1]).round_().clamp_(0, height - 1)
    return (y * width + x).long()


def returned(there: Float[Tensor, "b 2 h w"], back: Match) -> Float[Tensor, "b h w"]:
    """How far from its start each pixel ends that goes `there` and `back`, in pixels."""
    way = gathered(back.way, there) if back.whole else warp(back.way, there)
    return (there + way).square().sum(1).sqrt()


def inside(way: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b h w"]:
    """1 where a way ends within the picture, else 0."""
    height, width = way.shape[-2:]
    x = torch.arange(width, device=way.device) + way[:, 0]
    y = torch.arange(height, device=way.device)[:, None] + way[:, 1]
    return ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).float()
