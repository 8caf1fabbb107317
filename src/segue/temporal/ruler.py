"""Measuring how far apart the pictures of a tree are, whatever the distance looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

from segue.temporal.tree import Tree
from segue.types import Perceptual

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Pair = tuple[int, int]


class Develop(Protocol):
    """Makes pictures."""

    def __call__(
        self, latents: Float[Tensor, "b c h w"], names: Sequence[int], positions: Sequence[float]
    ) -> Float[Tensor, "b 3 H W"]:
        """Pictures in [0, 1] of nodes, from their latents, names and positions."""
        ...


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
        develop: makes pictures of nodes and their latents, for a distance that compares pictures. It is asked for a
            node once for each round of pairs that the node is in.
        batch: pairs that are compared together.
        known: distances by pair of nodes, the left one first.
    """

    distance: Perceptual
    develop: Develop | None = None
    batch: int = 8
    known: dict[Pair, float] = field(default_factory=dict[Pair, float])

    def __post_init__(self) -> None:
        if self.distance.domain == "frames" and self.develop is None:
            raise ValueError(f"{self.distance.name} compares pictures, so it needs to be told how these are made")

    def measure(self, finals: Finals, tree: Tree, pairs: Sequence[Pair]) -> list[float]:
        """The distance of each pair. Pairs that share a node should follow each other: a picture is then made once."""
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self.known]
        for first in range(0, len(new), self.batch):
            part = new[first : first + self.batch]
            shown = self._shown(finals, tree, sorted({name for pair in part for name in pair}))
            a, b = (torch.stack([shown[pair[side]] for pair in part]) for side in (0, 1))
            self.known.update(zip(part, self.distance(a, b).tolist(), strict=True))
        return [self.known[pair] for pair in pairs]

    def _shown(self, finals: Finals, tree: Tree, names: Sequence[int]) -> dict[int, Tensor]:
        if self.develop is None or self.distance.domain == "latents":
            return {name: finals.final(name).float() for name in names}
        latents = torch.stack([finals.final(name) for name in names])
        return dict(
            zip(names, self.develop(latents, names, [tree.nodes[name].position for name in names]), strict=True)
        )
