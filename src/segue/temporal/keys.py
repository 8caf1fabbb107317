"""What the network is told at any position between key pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
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

ANY_KEY = RowId("key")
"""Keys share one name where noise is drawn during a run, so that equal seeds see equal noise."""


@dataclass(frozen=True)
class Keys:
    """The key pictures of a transition, one row each.

    Args:
        positive: what is wanted.
        negative: what is not.
        guidance_scale: of each key; 1 is unguided.
        seeds: of each key.
        damper: share of the guidance that is left in the middle between two keys, in (0, 1]; 1 is constant.
    """

    positive: Conditioning
    negative: Conditioning
    guidance_scale: tuple[float, ...]
    seeds: tuple[int, ...]
    damper: float = 1.0

    def __post_init__(self) -> None:
        counts = {len(self.positive), len(self.negative), len(self.guidance_scale), len(self.seeds)}
        if len(counts) > 1:
            raise ValueError(f"keys disagree in number: {sorted(counts)}")
        if not 0 < self.damper <= 1:
            raise TaskError(f"damper must be in (0, 1], got {self.damper}")

    def __len__(self) -> int:
        return len(self.seeds)

    def guidance_at(self, positions: Sequence[float]) -> Float64[Tensor, " b"]:
        """Guidance scales: linear between keys, times 1 at a key and `damper` half-way between two."""
        scales: list[float] = []
        for position in positions:
            left, share = self.place(position)
            base = self.guidance_scale[left] * (1 - share) + self.guidance_scale[self._right(left)] * share
            middle = 1 - abs(share - 0.5) / 0.5
            scales.append(base * (1 - (1 - self.damper) * middle))
        return torch.tensor(scales, dtype=torch.float64)

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
