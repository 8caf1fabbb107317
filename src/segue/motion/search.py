"""One level of a PatchMatch search: ways that are bettered by candidates, all pixels at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

import torch

from segue.motion.pyramid import bounded

if TYPE_CHECKING:
    from types import ModuleType

    from jaxtyping import Float, Int
    from torch import Generator, Tensor

_CHUNK = 8192
"""Pixels whose candidates a CPU compares at a time: what they gather stays in its cache."""

_MOST = 0.6
"""The share of pixels from which on a CPU compares all of them, rather than to pick out those that have to be."""

_NEIGHBOURS = ((1, 0), (-1, 0), (0, 1), (0, -1))

_APART = 2
"""Pixels from its neighbours from which on a way is simply another: it may be what lies beside an edge."""


@dataclass(frozen=True)
class Ground:
    """What is compared: descriptors of the pixels, and of the places that ways may end at.

    The counterpart of a row, into which its ways lead, is the one half of all rows further on, in a circle.

    Args:
        coherence: what a way may cost more for each pixel that it is nearer to the mean of its neighbours' ways.
    """

    here: Float[Tensor, "r h*w terms"]
    there: Float[Tensor, "r h*w terms"]
    height: int
    width: int
    coherence: float = 0.0

    def costs(self, way: Int[Tensor, "r 2 h w"], asked: Int[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        """The squared distance at the end of each way, or only of those that are asked for, by number."""
        rows, area, terms = self.here.shape
        here, there = self.here.view(-1, terms), self.there.view(-1, terms)
        ends = (way[:, 1] * self.width + way[:, 0]).flatten().long()
        ends += torch.arange(len(ends), device=ends.device)
        half = rows // 2 * area
        ends[:half] += half
        ends[half:] -= half
        if asked is not None:
            ends = ends.index_select(0, asked)
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
        if fused_on(way.device) is not None:
            return Field(way, torch.full_like(way[:, 0], math.inf, dtype=torch.float32)).better(way, ground)
        way = bounded(way)
        return Field(way, ground.costs(way).view_as(way[:, 0]))

    def better(self, way: Int[Tensor, "r 2 h w"], ground: Ground) -> Field:
        """At every pixel the cheaper of its way and another; its own, where both cost the same."""
        return self.tried(ground, way)

    def tried(
        self,
        ground: Ground,
        source: Int[Tensor, "r 2 h w"],
        shift: tuple[int, int] = (0, 0),
        away: Int[Tensor, "2 h w"] | None = None,
    ) -> Field:
        """Bettered by what the source says so many places to the left and above, and by `away` from where that ends."""
        fused = fused_on(self.way.device)
        if fused is not None:
            return Field(*fused.bettered(self, ground, source, shift, away))
        across, down = shift
        way = _shifted(_shifted(source, 3, across), 2, down)
        way = bounded(way if away is None else way + away)
        cost = self._costs(way, ground)
        gain = self.cost - cost
        if ground.coherence > 0:
            usual = _mean_of_neighbours(self.way)
            gain += ground.coherence * (_apart(self.way, usual) - _apart(way, usual))
        cheaper = gain > 0
        return Field(torch.where(cheaper[:, None], way, self.way), torch.where(cheaper, cost, self.cost))

    def _costs(self, way: Tensor, ground: Ground) -> Float[Tensor, "r h w"]:
        if way.device.type == "cpu":
            # Many candidates are the way that is there already. Elsewhere it would cost more to count them.
            new = (way[:, 0] != self.way[:, 0]).logical_or_(way[:, 1] != self.way[:, 1]).flatten()
            if int(new.count_nonzero()) < _MOST * len(new):
                asked = new.nonzero()[:, 0]
                return self.cost.flatten().index_copy(0, asked, ground.costs(way, asked)).view_as(self.cost)
        return ground.costs(way).view_as(self.cost)

    def propagated(self, ground: Ground, jump: int = 1) -> Field:
        """Bettered by the ways of the pixels some places to the left, to the right, above and below."""
        field = self
        for across, down in _NEIGHBOURS:
            field = field.tried(ground, field.way, (across * jump, down * jump))
        return field

    def drawn(self, ground: Ground, radius: int, draws: Generator) -> Field:
        """Bettered by a random place around where each way leads; the same draw for every row."""
        height, width = self.way.shape[2:]
        away = torch.randint(-radius, radius + 1, (2, height, width), generator=draws, dtype=torch.int32)
        return self.tried(ground, self.way, away=away.to(self.way.device))

    def sorted(self, ground: Ground, count: int, draws: Generator) -> Field:
        """Bettered by the places that follow each pixel when both pictures are sorted by their descriptors.

        What lies far away is found at once, if it looks alike: descriptors are put in the order in which a curve
        passes through their space, which is another one at each call (Connor and Kumar 2010, "Fast construction of
        k-nearest neighbor graphs for point clouds").
        """
        height, width = self.way.shape[2:]
        area = height * width
        rows = len(self.way)
        codes = _along_a_curve(torch.cat([ground.here, ground.there.roll(rows // 2, 0)], 1), draws)
        goals, order = codes[:, area:].sort(dim=1, stable=True)
        place = torch.searchsorted(goals, codes[:, :area].contiguous())
        own = torch.arange(area, device=order.device)
        field = self
        for further in range(-(count // 2), count - count // 2):
            goal = order.gather(1, (place + further).clamp(0, area - 1))
            way = torch.stack([goal % width - own % width, goal // width - own // width], 1)
            field = field.better(way.view_as(self.way).int(), ground)
        return field


def fused_on(device: torch.device) -> ModuleType | None:
    """`segue.motion.fused`, which takes each step in one launch: on cards, where Triton is there."""
    return loaded() if device.type == "cuda" else None


@cache
def loaded() -> ModuleType | None:
    """The same, or None without Triton, or with one so old that its kernels know no tuples."""
    try:
        return import_module("segue.motion.fused")
    except (ImportError, AttributeError):
        return None


def _along_a_curve(descriptors: Tensor, draws: Generator) -> Int[Tensor, "r n"]:
    """Numbers that are near where descriptors are: the Z-order of their ranks along six axes, drawn and shifted."""
    rows, count, terms = descriptors.shape
    axes, bits, strongest = 6, 6, min(terms, 12)
    chosen = torch.randperm(strongest, generator=draws).repeat(2 * axes)
    turns, shifts = torch.rand(2, axes, generator=draws, dtype=torch.float64).tolist()
    places: list[Tensor] = []
    for axis in range(axes):
        one, other = (descriptors[..., int(chosen[2 * axis + side])] for side in range(2))
        along = one * math.cos(math.pi * turns[axis]) + other * math.sin(math.pi * turns[axis])
        rank = along.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
        # Ranks fill half of the axis, so that a shift never carries any past its end.
        places.append(((rank.double() / count + shifts[axis]) * 2 ** (bits - 1)).long())
    codes = torch.zeros(rows, count, dtype=torch.long, device=descriptors.device)
    for bit in reversed(range(bits)):
        for place in places:
            codes = codes * 2 + ((place >> bit) & 1)
    return codes


def _mean_of_neighbours(way: Tensor) -> Float[Tensor, "r 2 h w"]:
    total = torch.zeros_like(way)
    for across, down in _NEIGHBOURS:
        total += _shifted(_shifted(way, 3, across), 2, down)
    return total / len(_NEIGHBOURS)


def _apart(way: Tensor, other: Tensor) -> Float[Tensor, "r h w"]:
    return (way - other).abs().sum(1).clamp(max=_APART)


def _shifted(way: Tensor, dim: int, places: int) -> Tensor:
    """Each pixel's from its neighbour some places before it; the border's from the border."""
    if places == 0:
        return way
    length = way.shape[dim]
    apart = min(abs(places), length - 1)
    kept, border = (0, 0) if places > 0 else (apart, length - 1)
    inner = way.narrow(dim, kept, length - apart)
    edge = way.narrow(dim, border, 1).expand(*(apart if one == dim else -1 for one in range(way.ndim)))
    return torch.cat([edge, inner] if places > 0 else [inner, edge], dim)
