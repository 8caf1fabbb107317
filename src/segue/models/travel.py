"""What is told to move is carried there: a similarity that words and seconds say, of what a mask takes for the thing.

Attention over places (`segue.models.instruct_adapter.Move`) can learn any rearrangement of a picture, and needs long to
learn the even ones. Things that go somewhere, turn or grow are moved by four numbers, which a few layers know after
minutes. As in the first-order motion of Siarohin et al. 2019 (arXiv:2003.00196), a picture's features are warped along
it; the layers behind repair what a warp cannot know, such as light and hidden ground.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from segue.models.control_adapter import GROUPS

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

HIDDEN = 128
LARGEST = 3.0
"""Logarithm of how many times larger a thing may get: about twenty times, so that long times end somewhere."""
LEAST = 1e-3
"""Share of the places that a mask counts for at least, so that nothing is divided by 0."""


@dataclass(frozen=True)
class Way:
    """How things go, each as a similarity about its own middle. Lengths are in halves of the shorter side.

    Args:
        shift: of the middle, x then y.
        turn: in radians, clockwise as one sees it.
        growth: the logarithm of how many times larger it gets.
    """

    shift: Float[Tensor, "b 2"]
    turn: Float[Tensor, " b"]
    growth: Float[Tensor, " b"]

    @property
    def numbers(self) -> Float[Tensor, "b 4"]:
        """All of them, in this order."""
        return torch.cat([self.shift, self.turn[:, None], self.growth[:, None]], 1)


@dataclass(frozen=True)
class Carrying:
    """A way, of what, and from where.

    Args:
        way: of the thing.
        mask: how far each place is part of it, in [0, 1].
        middle: of the thing, x then y, in halves of the shorter side from the picture's middle.
    """

    way: Way
    mask: Float[Tensor, "b 1 h w"]
    middle: Float[Tensor, "b 2"]

    def carried(
        self, values: Float[Tensor, "b c h w"], behind: Float[Tensor, "b c h w"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """Values where the thing goes.

        Args:
            values: of a picture.
            behind: what is seen where the thing was; None is what is around it, on the average.
        """
        grid, mask = self._sources(values), self.mask.to(values)
        there = functional.grid_sample(mask, grid, padding_mode="zeros", align_corners=False)
        moved = functional.grid_sample(values, grid, padding_mode="border", align_corners=False)
        ground = 1 - mask
        if behind is None:
            behind = (ground * values).sum((2, 3), keepdim=True) / ground.sum((2, 3), keepdim=True).clamp(min=LEAST)
        return there * moved + (1 - there) * (ground * values + mask * behind)

    def _sources(self, values: Tensor) -> Float[Tensor, "b h w 2"]:
        """Where what comes to each place was before, as grid_sample counts places."""
        height, width = values.shape[-2:]
        to, extent = places(height, width).to(values), extent_of(height, width).to(values)
        way, middle = self.way, self.middle.to(values)
        away = to - (middle + way.shift.to(values))[:, None, None]
        cos, sin, smaller = (part.to(values)[:, None, None] for part in (way.turn.cos(), way.turn.sin(), -way.growth))
        # Back by the turn: y points down, so that this is counterclockwise as one sees it.
        back = torch.stack([cos * away[..., 0] + sin * away[..., 1], cos * away[..., 1] - sin * away[..., 0]], -1)
        return (middle[:, None, None] + back * smaller.exp()[..., None]) / extent


class Travel(nn.Module):
    """Finds the thing and its way; both learn from what becomes of pictures, and the way is none at first.

    Args:
        width: channels of a picture's features.
        embedding: width of what tells the words and the seconds.
    """

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width)
        self.thing = nn.Conv2d(2 * width, 1, 1)
        self.way = nn.Sequential(
            nn.Linear(embedding + width + 4, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, 4),
        )
        self.said = nn.Linear(6, embedding)
        for layer in (self.way[-1], self.said):
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "b c h w"], told: Float[Tensor, "b e"]) -> Carrying:
        """Where the thing of a picture goes.

        Args:
            x: features of the picture.
            told: the words and the seconds.
        """
        mask, middle, heard = self.heard(x, told)
        return Carrying(self.way_of(heard), mask, middle)

    def heard(
        self, x: Float[Tensor, "b c h w"], told: Float[Tensor, "b e"]
    ) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 2"], Float[Tensor, "b f"]]:
        """The mask of the thing, its middle, and all that its way is found by: what is told, and what it looks like."""
        seen = self.norm(x)
        apart = (seen - edge_of(seen)).abs()
        mask = self.thing(torch.cat([seen, apart], 1)).sigmoid()
        share = mask / mask.sum((2, 3), keepdim=True).clamp(min=LEAST * mask[0, 0].numel())
        at = places(*x.shape[-2:]).to(x).permute(2, 0, 1)
        middle = (share * at).sum((2, 3))
        spread = (share * (at - middle[:, :, None, None]).square()).sum((2, 3)).clamp(min=1e-6).sqrt()
        looks = (share * seen).sum((2, 3))
        return mask, middle, torch.cat([told, looks, middle, spread], 1)

    def way_of(self, heard: Float[Tensor, "b f"]) -> Way:
        """The way, by what is heard of it."""
        numbers = self.way(heard).float()
        growth = LARGEST * (numbers[:, 3] / LARGEST).tanh()
        return Way(numbers[:, :2], numbers[:, 2], growth)

    def meaning(self, way: Way) -> Float[Tensor, "b e"]:
        """The way in one vector, for layers that see a thing which was turned."""
        turn = way.turn[:, None]
        told = torch.cat([way.shift, turn.sin(), turn.cos() - 1, (2 * turn).sin(), way.growth[:, None]], 1)
        return self.said(told.to(self.said.weight))


def edge_of(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 1 1"]:
    """The mean of the places along the edge of a picture, which is ground more often than not."""
    rows = torch.cat([x[..., 0, :], x[..., -1, :], x[..., 0], x[..., -1]], -1)
    return rows.mean(-1)[..., None, None]


def extent_of(height: int, width: int) -> Float[Tensor, 2]:
    """Half of both sides, x then y, in halves of the shorter one."""
    return torch.tensor([width, height], dtype=torch.float32) / min(height, width)


def places(height: int, width: int) -> Float[Tensor, "h w 2"]:
    """Of each place where its middle lies, x then y, from the picture's middle, in halves of the shorter side."""
    down, across = ((torch.arange(side) + 0.5) / side * 2 - 1 for side in (height, width))
    at = torch.stack([across.expand(height, -1), down[:, None].expand(-1, width)], -1)
    return at * extent_of(height, width)
