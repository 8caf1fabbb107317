"""Mean and contrast of latents, channel by channel, pulled towards those of other trajectories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from segue.diffusion.envelope import Envelope
from segue.temporal.crossfeed import Guide
from segue.temporal.operator import Identity
from segue.types import Point, RowId

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_TINY = 1e-12


@dataclass(frozen=True)
class Tuning:
    """What one row is tuned to.

    Args:
        anchor: the first key.
        lean: how far keys at this place lean on it, in [0, 1].
        sides: the keys beside a branch, with their shares, which add up to 1; none for a key.
        power: how strongly it is tuned at all, in [0, 1].
    """

    anchor: Guide
    lean: float
    sides: tuple[tuple[Guide, float], ...] = ()
    power: float = 1.0


@dataclass(frozen=True)
class Statistics(Identity):
    """AdaIN of every row after each step, over a range of the run (Huang & Belongie 2017, arXiv:1703.06868, eq. 8).

    A key is tuned to the first key; a branch likewise, by how near it is to keys that were, and then to the mix of the
    statistics of the keys beside it, as DiffMorpher does (arXiv:2312.07409, section 4.3). So a branch that comes near a
    key meets the same operations, and arrives there. Weight 0 is the identity.
    """

    tunings: Mapping[RowId, Tuning]
    envelope: Envelope

    def on_stepped(
        self, x: Float[Tensor, "b c h w"], x0: Float[Tensor, "b c h w"], at: Point
    ) -> Float[Tensor, "b c h w"]:
        """The tuned latents; rows without a tuning stay as they are."""
        weights = self.envelope.weight(at.index - 1, at.count).tolist()
        rows: list[Tensor] = []
        for own, row, step, weight in zip(x, at.rows, at.index.tolist(), weights, strict=True):
            tuning = self.tunings.get(row)
            power = weight * tuning.power if tuning else 0.0
            rows.append(own if tuning is None or power == 0 else _tuned(own, tuning, step, power))
        return torch.stack(rows)


def adain(
    x: Float[Tensor, "c h w"], mean: Float[Tensor, "c 1 1"], std: Float[Tensor, "c 1 1"], weight: float
) -> Float[Tensor, "c h w"]:
    """`x`, whose channels' statistics go `weight` of the way to those given. No contrast is made where none is."""
    if weight == 0:
        return x
    own_mean, own_std = moments(x)
    scale = 1 - weight + weight * std / own_std.clamp(min=_TINY)
    return (x - own_mean) * scale + own_mean * (1 - weight) + mean * weight


def moments(x: Float[Tensor, "c h w"]) -> tuple[Float[Tensor, "c 1 1"], Float[Tensor, "c 1 1"]]:
    """Mean and standard deviation of each channel."""
    return x.mean((1, 2), keepdim=True), x.std((1, 2), keepdim=True, correction=0)


def _tuned(x: Tensor, tuning: Tuning, step: int, weight: float) -> Tensor:
    if tuning.lean > 0:
        x = adain(x, *moments(tuning.anchor.at(step).to(x)), weight * tuning.lean)
    if not tuning.sides:
        return x
    means, stds = zip(*(moments(guide.at(step).to(x)) for guide, _ in tuning.sides), strict=True)
    shares = [share for _, share in tuning.sides]
    return adain(x, _sum(means, shares), _sum(stds, shares), weight)


def _sum(parts: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    return torch.stack([part * share for part, share in zip(parts, shares, strict=True)]).sum(0)
