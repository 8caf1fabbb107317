"""One level of a PatchMatch search: ways that are bettered by candidates, all pixels at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from segue.motion.pyramid import bounded

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Generator, Tensor

_CHUNK = 8192
"""Pixels whose candidates a CPU compares at a time: what they gather stays in its cache."""

_NEIGHBOURS = ((1, 0), (-1, 0), (0, 1), (0, -1))


@dataclass(frozen=True)
class Ground:
    """What is compared: descriptors of the pixels, and of the places that ways may end at.

    The counterpart of a row, into which its ways lead, is the one half of all rows further on, in a circle.
    """

    here: Float[Tensor, "r h*w terms"]
    there: Float[Tensor, "r h*w terms"]
    height: int
    width: int

    def costs(self, way: Int[Tensor, "r 2 h w"], asked: Int[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        """The squared distance at the end of each way, or only of those that are asked for, by number."""
        rows, area, terms = self.here.shape
        here, there = self.here.view(-1, terms), self.there.view(-1, terms)
        ends = (way[:, 1] * self.width + way[:, 0]).flatten().long()
        ends += torch.arange(len(ends), device=ends.device)
        ends = ends.view(2, -1) + torch.tensor([[1], [-1]], device=ends.device) * (rows // 2 * area)
        ends = ends.flatten() if asked is None else ends.flatten().index_select(0, asked)
        step = _CHUNK if here.device.type == "cpu" else max(len(ends), 1)
        found = here.new_empty(len(ends))
        for first in range(0, len(ends), step):
            part = slice(first, first + step)
            apart = there.index_select(0, ends[part])
            apart.sub_(here[part] if asked is None else here.index_select(0, asked[part]))
            torch.sum(apart.square_(), -1, out=found[part])
        return found


@dataclass(frozen=True)
class Field:
    """The best ways so far, whole and within the picture, and what they cost."""

    way: Int[Tensor, "r 2 h w"]
    cost: Float[Tensor, "r h w"]

    @staticmethod
    def of(way: Int[Tensor, "r 2 h w"], ground: Ground) -> Field:
        """These ways, held within the picture."""
        way = bounded(way)
        return Field(way, ground.costs(way).view_as(way[:, 0]))

    def better(self, way: Int[Tensor, "r 2 h w"], ground: Ground) -> Field:
        """At every pixel the cheaper of its way and another; its own, where both cost the same."""
        way = bounded(way)
        if way.device.type == "cpu":
            # Most candidates are the way that is there already. Elsewhere it would cost more to count them.
            asked = (way != self.way).any(1).flatten().nonzero()[:, 0]
            cost = self.cost.flatten().index_copy(0, asked, ground.costs(way, asked)).view_as(self.cost)
        else:
            cost = ground.costs(way).view_as(self.cost)
        cheaper = cost < self.cost
        return Field(torch.where(cheaper[:, None], way, self.way), torch.where(cheaper, cost, self.cost))

    def propagated(self, ground: Ground, jump: int = 1) -> Field:
        """Bettered by the ways of the pixels to the left, to the right, above and below."""
        field = self
        for across, down in _NEIGHBOURS:
            field = field.better(_shifted(_shifted(field.way, 3, across * jump), 2, down * jump), ground)
        return field

    def drawn(self, ground: Ground, radius: int, draws: Generator) -> Field:
        """Bettered by a random place around where each way leads; the same draw for every row."""
        height, width = self.way.shape[2:]
        away = torch.randint(-radius, radius + 1, (2, height, width), generator=draws, dtype=torch.int32)
        return self.better(self.way + away.to(self.way.device), ground)


def _shifted(way: Tensor, dim: int, places: int) -> Tensor:
    """Each pixel's from its neighbour some places before it; the border's from the border."""
    if places == 0:
        return way
    length = way.shape[dim]
    return way.index_select(dim, (torch.arange(length, device=way.device) - places).clamp(0, length - 1))
