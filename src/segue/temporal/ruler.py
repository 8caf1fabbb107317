"""Measuring how far apart the pictures of a tree are, whatever the distance looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

from segue.types import Codec, Perceptual

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Pair = tuple[int, int]


class Finals(Protocol):
    """Who knows the finished latents of nodes."""

    def final(self, name: int) -> Float[Tensor, "c h w"]:
        """The clean latents of a node."""
        ...


@dataclass
class Ruler:
    """Perceptual distances between nodes of a tree; what was measured once is remembered.

    Args:
        distance: between latents, or between pictures.
        codec: makes pictures of latents, for a distance that compares these.
        batch: pairs that are compared together.
        known: distances by pair of nodes, the left one first.
    """

    distance: Perceptual
    codec: Codec | None = None
    batch: int = 8
    known: dict[Pair, float] = field(default_factory=dict[Pair, float])

    def __post_init__(self) -> None:
        if self.distance.domain == "frames" and self.codec is None:
            raise ValueError(f"{self.distance.name} compares pictures, so it needs a codec")

    def measure(self, finals: Finals, pairs: Sequence[Pair]) -> list[float]:
        """The distance of each pair. Pairs that share a node should follow each other: a picture is made once."""
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self.known]
        for first in range(0, len(new), self.batch):
            part = new[first : first + self.batch]
            shown = self._shown(finals, sorted({name for pair in part for name in pair}))
            a, b = (torch.stack([shown[pair[side]] for pair in part]) for side in (0, 1))
            self.known.update(zip(part, self.distance(a, b).tolist(), strict=True))
        return [self.known[pair] for pair in pairs]

    def _shown(self, finals: Finals, names: Sequence[int]) -> dict[int, Tensor]:
        latents = torch.stack([finals.final(name) for name in names])
        compared = self.codec.decode(latents) if self.codec is not None and self._on_frames else latents
        return dict(zip(names, compared.float(), strict=True))

    @property
    def _on_frames(self) -> bool:
        return self.distance.domain == "frames"
