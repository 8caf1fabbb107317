"""What the network is told at any position between key pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from segue.diffusion.guidance import classifier_free
from segue.diffusion.noise import Ancestry
from segue.errors import TaskError
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
        seeds: of each key.
        damper: share of the guidance that is left in the middle between two keys, in (0, 1]; 1 is constant. Or the same
            at every position.
    """

    positive: Conditioning
    negative: Conditioning
    guidance_scale: tuple[float, ...] | Along
    seeds: tuple[int, ...]
    damper: float | Along = 1.0

    def __post_init__(self) -> None:
        counts = {len(self.positive), len(self.negative), len(self.seeds)}
        if isinstance(self.guidance_scale, tuple):
            counts.add(len(self.guidance_scale))
        if len(counts) > 1:
            raise ValueError(f"keys disagree in number: {sorted(counts)}")
        if not callable(self.damper) and not 0 < self.damper <= 1:
            raise TaskError(f"damper must be in (0, 1], got {self.damper}")

    def __len__(self) -> int:
        return len(self.seeds)

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
        """The guided conditioning at positions on the line of the keys: embeddings are mixed linearly."""
        places = [self.place(position) for position in positions]
        left = [key for key, _ in places]
        right = [self._right(key) for key in left]
        share = torch.tensor([share for _, share in places], dtype=torch.float64)
        positive, negative = (terms[left].lerp(terms[right], share) for terms in (self.positive, self.negative))
        return classifier_free(positive, negative, self.guidance_at(positions))

    def ancestry(self, position: float) -> Ancestry:
        """Whose noise a stochastic solver adds at a position."""
        left, share = self.place(position)
        return Ancestry((self.seeds[left], self.seeds[self._right(left)]), (ANY_KEY, ANY_KEY), share)

    def place(self, position: float) -> tuple[int, float]:
        """The key at or left of a position, and the share of the way from it to the next."""
        left = min(math.floor(position), len(self) - 1)
        return left, position - left

    def _right(self, left: int) -> int:
        return min(left + 1, len(self) - 1)
