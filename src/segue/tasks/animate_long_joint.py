"""Stretches of a long clip by a model that was made for films: what lies between two frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from segue.diffusion.starts import from_clip_seed
from segue.tasks.animate_joint import Joint
from segue.temporal.filling import forked
from segue.types import RowId, State

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass
class JointBetween(Joint):
    """Frames of which the first and the last are given, and that begin between them, some way into noise.

    They are denoised as a whole, since frames of a window between both would be told of neither, unless there are more
    than the model can look at.

    What is large, such as the ground's colour, is decided by the noisiest steps. A model that is told of both ends need
    not agree with them there, so that these steps are left out.

    Args:
        strength: share of the steps that is run, in (0, 1]; 1 begins in noise alone.
        shares: how far each frame is, ends too, from the first, 0, to the last, 1.
    """

    strength: float = 1.0
    shares: Sequence[float] = ()

    def _begun(self, rows: tuple[RowId, ...], shared: float) -> State:
        noise = from_clip_seed(self.task.seed, rows, self._schedule, self._shape, self.model.device, shared)
        if self.strength == 1:
            return noise
        left, right = (self._latents_of(place).expand(len(rows), -1, -1, -1) for place in (0, len(rows) - 1))
        plain = noise.x / self._schedule.start_scale
        return forked(left, right, self.shares, plain, self._schedule, self.strength, rows)

    @property
    def _window(self) -> int:
        assert self.model.moving is not None
        return min(self.task.frames, self.model.moving.most or self.task.frames)

    def _latents_of(self, place: int) -> Float[Tensor, "1 c h w"]:
        return self.model.codec.encode(self._known[place][None]).float().to(torch.device(self.model.device))
