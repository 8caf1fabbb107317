"""What the network is told at any position between key pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from segue.diffusion.guidance import classifier_free
from segue.diffusion.noise import Ancestry
from segue.errors import TaskError
from segue.temporal.simplex import Route
from segue.temporal.texts import Words, between, mixed
from segue.temporal.told import Told
from segue.types import Conditioning, Guided, RowId

if TYPE_CHECKING:
    from jaxtyping import Float64
    from torch import Tensor

Along = Callable[[float], float]
"""A number at every position on the line of the keys."""

ANY_KEY = RowId("key")
"""Keys share one name where noise is drawn during a run, so that equal seeds see equal noise."""


@dataclass(frozen=True)
class Keys:
    """The key pictures of a transition, one row each.

    Args:
        positive: what is wanted.
        negative: what is not.
        guidance_scale: of each key, with a line between them; or at every position. 1 is unguided.
        seeds: of each key; or any number of them, of which `shares` says how much of each is in a key's noise.
        shares: of the seeds, adding up to 1 in every key; () if each key has its own.
        damper: what the guidance is multiplied with in the middle between two keys, above 0; 1 is constant. Or the same
            at every position.
        words: how texts are mixed.
        told: what changes at every position besides the mix of texts; None if nothing does.
        guidance_start: share of the run, in [0, 1), before guidance sets in.
    """

    positive: Conditioning
    negative: Conditioning
    guidance_scale: tuple[float, ...] | Along
    seeds: tuple[int, ...]
    damper: float | Along = 1.0
    shares: tuple[tuple[float, ...], ...] = ()
    told: Told | None = None
    words: Words = "line"
    guidance_start: float = 0.0

    def __post_init__(self) -> None:
        counts = {len(self.positive), len(self.negative), len(self.shares or self.seeds)}
        if isinstance(self.guidance_scale, tuple):
            counts.add(len(self.guidance_scale))
        if len(counts) > 1:
            raise ValueError(f"keys disagree in number: {sorted(counts)}")
        if not callable(self.damper) and not self.damper > 0:
            raise TaskError(f"damper must be above 0, got {self.damper}")

    def __len__(self) -> int:
        return len(self.positive)

    def guidance_at(self, positions: Sequence[float]) -> Float64[Tensor, " b"]:
        """Guidance scales: linear between keys, times 1 at a key and `damper` half-way between two."""
        scales: list[float] = []
        for position in positions:
            _, share = self.place(position)
            middle = 1 - abs(share - 0.5) / 0.5
            damper = self.damper(position) if callable(self.damper) else self.damper
            scales.append(self._scale(position) * (1 - (1 - damper) * middle))
        return torch.tensor(scales, dtype=torch.float64)

    def _scale(self, position: float) -> float:
        if callable(self.guidance_scale):
            return self.guidance_scale(position)
        left, share = self.place(position)
        return self.guidance_scale[left] * (1 - share) + self.guidance_scale[self._right(left)] * share

    def at(self, positions: Sequence[float]) -> Guided:
        """The guided conditioning at positions on the line of the keys."""
        positive, negative = self.texts(positions)
        return classifier_free(positive, negative, self.guidance_at(positions), start=self.guidance_start)

    def texts(self, positions: Sequence[float]) -> tuple[Conditioning, Conditioning]:
        """What is wanted at positions, and what is not."""
        places = [self.place(position) for position in positions]
        left = [key for key, _ in places]
        right = [self._right(key) for key in left]
        share = torch.tensor([share for _, share in places], dtype=torch.float64)
        positive, negative = (
            between(terms[left], terms[right], share, self.words) for terms in (self.positive, self.negative)
        )
        return self.told(positions, positive, negative) if self.told else (positive, negative)

    def ancestry(self, position: float) -> Ancestry:
        """Whose noise a stochastic solver adds at a position."""
        left, share = self.place(position)
        right = self._right(left)
        if not self.shares:
            return Ancestry((self.seeds[left], self.seeds[right]), (ANY_KEY, ANY_KEY), (1 - share, share))
        ends = zip(self.shares[left], self.shares[right], strict=True)
        parts = tuple(a * (1 - share) + b * share for a, b in ends)
        return Ancestry(self.seeds, (ANY_KEY,) * len(parts), parts)

    def along(self, route: Route) -> Keys:
        """Keys at the points of a path, each the mix of these by its shares: of texts by their words, of numbers in a
        line.

        A guidance scale or damper that is known at every position is taken as one along the path.
        """
        if not route.blends:
            order = [route.corners[place] for place in range(len(route))]
            positive, negative, shares = self.positive[order], self.negative[order], ()
            seeds = tuple(self.seeds[key] for key in order)
        else:
            positive, negative = (
                Conditioning.cat([mixed(terms, point, self.words) for point in route.points])
                for terms in (self.positive, self.negative)
            )
            seeds, shares = self.seeds, route.points
        scales = self.guidance_scale
        if isinstance(scales, tuple):
            scales = tuple(_sum(scales, point) for point in route.points)
        return replace(
            self, positive=positive, negative=negative, guidance_scale=scales, seeds=seeds, shares=shares, told=None
        )

    def place(self, position: float) -> tuple[int, float]:
        """The key at or left of a position, and the share of the way from it to the next."""
        left = min(math.floor(position), len(self) - 1)
        return left, position - left

    def _right(self, left: int) -> int:
        return min(left + 1, len(self) - 1)


def _sum(values: Sequence[float], point: Sequence[float]) -> float:
    return math.fsum(value * share for value, share in zip(values, point, strict=True))
