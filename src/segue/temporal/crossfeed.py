"""Crossfeed: a trajectory is pulled towards others that were run before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from segue.diffusion.envelope import Envelope
from segue.temporal.mix import slerp
from segue.temporal.operator import Identity
from segue.types import Point, RowId

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class Guide(Protocol):
    """Latents to be pulled towards, at any step of a run."""

    def at(self, step: int) -> Float[Tensor, "c h w"]:
        """The latents with `step` steps behind them."""
        ...


@dataclass(frozen=True)
class Pull:
    """Which latents a row is pulled towards, and when."""

    guide: Guide
    envelope: Envelope


@dataclass(frozen=True)
class Crossfeed(Identity):
    """Mixes each row with its guide before the network sees it: x <- slerp(x, guide, weight).

    Power 0 is the identity; power 1 is the guide. Nothing is mixed before the first step, where a row has only its
    seed. After the latent blending of Lunar Ring (github.com/lunarring/latentblending), where the range counts from the
    start of the run and late branches are hardly fed; `Feed` counts it from the fork.
    """

    pulls: Mapping[RowId, Pull]

    def on_latents(self, x: Float[Tensor, "b c h w"], at: Point) -> Float[Tensor, "b c h w"]:
        """The mixed latents; rows without a pull stay as they are."""
        rows: list[Tensor] = []
        for place, (row, step) in enumerate(zip(at.rows, at.index.tolist(), strict=True)):
            own = x[place]
            pull = self.pulls.get(row)
            weight = float(pull.envelope.weight(at.index[place : place + 1], at.count)) if pull else 0.0
            if pull is None or weight == 0 or step == 0:
                rows.append(own)
                continue
            guide = pull.guide.at(step).to(own)
            rows.append(slerp(own[None], guide[None], torch.tensor([weight]))[0])
        return torch.stack(rows)
