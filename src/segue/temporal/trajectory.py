"""What is kept of a run: the latents of one node, or a mix of two."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from segue.temporal.mix import Mix, mixed

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass
class Trajectory:
    """The latents of one node, at the steps where others may need them, and at its end."""

    latents: dict[int, Tensor] = field(default_factory=dict[int, "Tensor"])

    def at(self, step: int) -> Float[Tensor, "c h w"]:
        """The latents with `step` steps behind them."""
        return self.latents[step]


@dataclass(frozen=True)
class Between:
    """The mix of two trajectories, step by step."""

    left: Trajectory
    right: Trajectory
    share: float
    mix: Mix = "whole"

    def at(self, step: int) -> Float[Tensor, "c h w"]:
        """The mixed latents with `step` steps behind them."""
        share = torch.tensor([self.share], dtype=torch.float64)
        return mixed(self.left.at(step)[None], self.right.at(step)[None], share, self.mix)[0]
