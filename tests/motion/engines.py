"""Small engines of correspondence for tests."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from segue.motion.match import Match, inside


@dataclass
class Shifts:
    """One way for a whole picture, by whole pixels: the best of all within reach. Patches of it are believed by chance.

    Args:
        reach: pixels to each side.
        doubt: of how much of the confidence is drawn, by the pictures, so that weights differ from place to place.
        seen: the pairs that were searched, each the mean values of its pictures.
        starts: what each search was told to start from.
    """

    reach: int = 4
    doubt: float = 0.0
    seen: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    starts: list[tuple[Match, Match] | None] = field(default_factory=list[tuple[Match, Match] | None])

    @property
    def name(self) -> str:
        return f"shifts-{self.reach}-{self.doubt}"

    def __call__(self, a: Tensor, b: Tensor, start: tuple[Match, Match] | None = None) -> tuple[Match, Match]:
        self.seen.append((float(a.mean()), float(b.mean())))
        self.starts.append(start)
        return self._one(a, b), self._one(b, a)

    def _one(self, a: Tensor, b: Tensor) -> Match:
        reach = range(-self.reach, self.reach + 1)
        shifts = sorted(((x, y) for x in reach for y in reach), key=lambda way: (way[0] ** 2 + way[1] ** 2, way))
        height, width = a.shape[2:]

        def apart(way: tuple[int, int]) -> float:
            x, y = way
            here = a[..., max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
            there = b[..., max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
            return float((here - there).square().mean())

        x, y = min(shifts, key=apart)
        way = torch.tensor([float(x), float(y)]).view(1, 2, 1, 1).expand(1, 2, height, width).contiguous()
        believed = inside(way)
        if self.doubt:
            # Of the pair as it is: what is drawn for the way back differs, and a swapped pair draws the same.
            seed = int(float(a.double().sum()) * 1e4) % 100003 + 2 * (int(float(b.double().sum()) * 1e4) % 100003)
            drawn = torch.rand(believed.shape, generator=torch.Generator().manual_seed(seed))
            believed = believed * (1 - self.doubt * drawn)
        return Match(way, torch.full_like(believed, apart((x, y))), believed, whole=True)


class Still:
    """Says, and is sure of it, that nothing moves; and counts how often it was asked."""

    name = "still"

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, a: Tensor, b: Tensor, start: tuple[Match, Match] | None = None) -> tuple[Match, Match]:
        self.asked += 1
        match = Match(torch.zeros_like(a[:, :2]), torch.zeros_like(a[:, 0]), torch.ones_like(a[:, 0]), whole=True)
        return match, match
