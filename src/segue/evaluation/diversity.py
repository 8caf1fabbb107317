"""Whether seeds matter: how far apart pictures of one prompt are, and pictures of different prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import torch

from segue.types import Perceptual

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class Diversity:
    """Mean distances between pictures.

    Args:
        within: between pictures of one prompt with different seeds.
        between: between pictures of different prompts with the same seed.
        distance: the name of the distance.
    """

    within: float
    between: float
    distance: str

    @property
    def relative(self) -> float:
        """0: a prompt always gives the same picture. 1: its pictures differ as much as those of different prompts."""
        return self.within / self.between if self.between else 0.0


def diversity(groups: Sequence[Float[Tensor, "seeds 3 h w"]], distance: Perceptual, *, batch: int = 32) -> Diversity:
    """Compare every pair of seeds of a prompt, and for every seed every pair of prompts.

    Args:
        groups: for each prompt its pictures, in the same order of seeds.
        distance: between pictures.
        batch: how many pairs are compared together.

    Raises:
        ValueError: fewer than two prompts or seeds, or prompts with different numbers of seeds.
    """
    counts = {len(group) for group in groups}
    if len(groups) < 2 or len(counts) != 1 or min(counts) < 2:
        raise ValueError(
            f"diversity needs at least two prompts with the same two or more seeds each; got {len(groups)} prompts "
            f"with {sorted(counts)} seeds"
        )
    pictures = torch.stack(list(groups))
    prompts, seeds = range(len(groups)), range(pictures.shape[1])
    within = [((p, i), (p, j)) for p in prompts for i, j in combinations(seeds, 2)]
    between = [((p, i), (q, i)) for i in seeds for p, q in combinations(prompts, 2)]
    return Diversity(
        _mean_distance(pictures, within, distance, batch),
        _mean_distance(pictures, between, distance, batch),
        distance.name,
    )


Place = tuple[int, int]


def _mean_distance(pictures: Tensor, pairs: list[tuple[Place, Place]], distance: Perceptual, batch: int) -> float:
    found: list[Tensor] = []
    with torch.no_grad():
        for start in range(0, len(pairs), batch):
            chosen = pairs[start : start + batch]
            one, other = (torch.stack([pictures[pair[side]] for pair in chosen]) for side in (0, 1))
            found.append(distance(one, other))
    return float(torch.cat(found).double().mean())
