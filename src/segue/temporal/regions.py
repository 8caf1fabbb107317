"""Regions that change at their own times: a map says which parts of the picture come first and which come last."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from segue.errors import TaskError
from segue.temporal.crossfeed import Guide
from segue.temporal.mix import NEARLY_PARALLEL
from segue.temporal.operator import Identity
from segue.types import Point, RowId

if TYPE_CHECKING:
    from jaxtyping import Float, Float64
    from torch import Tensor


@dataclass(frozen=True)
class Timing:
    """When each region changes, between every two keys.

    Args:
        delays: of each latent, in [0, 1]: 0 changes first, 1 last.
        spread: how much of the way from key to key the last begins after the first, in (0, 1).

    Raises:
        TaskError: spread is outside its range.
    """

    delays: Float[Tensor, "h w"]
    spread: float

    def __post_init__(self) -> None:
        if not 0 < self.spread < 1:
            raise TaskError(f"spread must be between 0 (all at once) and 1, got {self.spread}")

    def shares(self, position: float) -> Float64[Tensor, "h w"]:
        """How far each latent is on its way from a key to the next, when `position` of that way, in [0, 1], is over.

        s(p, g) = clamp((p - g spread) / (1 - spread), 0, 1), eased by 3 s^2 - 2 s^3: 0 everywhere at p = 0, 1
        everywhere at p = 1, and never falling.
        """
        begun = (position - self.delays.double() * self.spread) / (1 - self.spread)
        share = begun.clamp(0, 1)
        return share**2 * (3 - 2 * share)

    def strength(self, position: float) -> Float64[Tensor, "h w"]:
        """How firmly each latent is held on its schedule: twice as much as that departs from the film's own, up to 1.

        Where a region is as far as the film, the network is told the right text, and needs no holding.
        """
        own = position - math.floor(position)
        return (2 * (self.shares(own) - own).abs()).clamp(max=1)

    def between(self, position: float, left: float, right: float) -> Float64[Tensor, "h w"]:
        """How far each latent of a node is on its way from its left parent to its right one, all on the line of keys.

        Where both parents are equally far, it is the share of the way that the node itself has.
        """
        base = math.floor(left)
        here, start, end = (self.shares(place - base) for place in (position, left, right))
        way = end - start
        plain = (position - left) / (right - left)
        return torch.where(way > 0, (here - start) / way.clamp(min=1e-12), plain).clamp(0, 1)


def slerp_regions(
    a: Float[Tensor, "c h w"], b: Float[Tensor, "c h w"], share: Float[Tensor, "h w"]
) -> Float[Tensor, "c h w"]:
    """Spherical mix with one angle, that of the whole latents, and a share for each place: 0 is exactly `a`, 1 `b`.

    Where the share is the same everywhere, this is `mix.slerp`, bit for bit.
    """
    precise = torch.float32 if a.device.type == "mps" else torch.float64
    p, q = a.to(precise), b.to(precise)
    norms = p.norm() * q.norm()
    cosine = float((p * q).sum() / norms) if float(norms) > 0 else 1.0
    share = share.double().cpu()
    if abs(cosine) > 1 - NEARLY_PARALLEL:
        left, right = 1 - share, share
    else:
        angle = torch.tensor(cosine, dtype=torch.float64).acos()
        left, right = ((angle * part).sin() / angle.sin() for part in (1 - share, share))
    mixed = (p * left.to(p) + q * right.to(q)).to(a.dtype)
    place = share.to(a.device)
    return torch.where(place == 0, a, torch.where(place == 1, b, mixed))


@dataclass(frozen=True)
class Staggered:
    """The mix of two trajectories, step by step, with a share for each place; see `Timing.between`."""

    left: Guide
    right: Guide
    share: Float[Tensor, "h w"]

    def at(self, step: int) -> Float[Tensor, "c h w"]:
        """The mixed latents with `step` steps behind them."""
        return slerp_regions(self.left.at(step), self.right.at(step), self.share)


@dataclass(frozen=True)
class RegionPull:
    """What holds the regions of one row on their schedule.

    Args:
        guide: latents that are on it, at any step: the mix of the parents.
        strength: of each latent, in [0, 1]; see `Timing.strength`.
    """

    guide: Guide
    strength: Float[Tensor, "h w"]


@dataclass(frozen=True)
class Regions(Identity):
    """Pulls each region towards its own schedule before the network sees it, which is told one text for all of them.

    It is a crossfeed with a weight for each place, and acts up to the end: whatever is free takes its schedule from the
    text. Rows without a pull stay as they are.
    """

    pulls: Mapping[RowId, RegionPull]

    def on_latents(self, x: Float[Tensor, "b c h w"], at: Point) -> Float[Tensor, "b c h w"]:
        """The pulled latents."""
        rows: list[Tensor] = []
        for own, row, step in zip(x, at.rows, at.index.tolist(), strict=True):
            pull = self.pulls.get(row)
            rows.append(own if pull is None else slerp_regions(own, pull.guide.at(step).to(own), pull.strength))
        return torch.stack(rows)
