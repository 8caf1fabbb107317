"""Stretches of a long clip by a model of single pictures: what lies between two frames."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from segue.diffusion.loop import collect, denoise
from segue.diffusion.solvers import find_solver
from segue.models.attended import model_sites
from segue.tasks.animate_settings import USUAL_STRENGTH
from segue.tasks.animate_zero_shot import ALIKE, CLIP, ZeroShot
from segue.temporal.filling import forked
from segue.temporal.frame_attention import Pattern, frame_attention
from segue.temporal.moved_noise import PlacedKick
from segue.temporal.pinned import pinned
from segue.temporal.zero_shot_motion import carried
from segue.types import Denoiser

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

ENDS = Pattern(own=True, anchors=True)
"""What is between looks at both ends and at itself; ends look at themselves."""


@dataclass
class Still(ZeroShot):
    """Some frames of a zero-shot clip, of which the first and the last are known; `numbers` names all of them."""

    def between(
        self, left: Float[Tensor, "3 h w"], right: Float[Tensor, "3 h w"], shares: Sequence[float], weight: float
    ) -> Float[Tensor, "t 3 h w"]:
        """What lies between the ends.

        Both ends are moved to where each frame is, and branches fork from their mix. The ends are drawn once more, too:
        the others look at them, and what is lost of them by that is put back, as it is in a whole clip.

        Args:
            left: the first frame.
            right: the last one.
            shares: how far each frame is, ends too, from 0 to 1.
            weight: how much of what drawing does to mean and contrast of the ends is taken from all.
        """
        ways = [self._maps, self._maps @ torch.linalg.inv(self._maps[-1])]
        drawn = self._decoded(self._branches((left, right), ways, shares))
        drawn = pinned(drawn, {0: left, len(drawn) - 1: right}, weight, shares)
        found = drawn.clone()
        for end, way, place, nearness in (
            (left, ways[0], 0, [1 - one for one in shares]),
            (right, ways[1], -1, shares),
        ):
            again, lost = (carried(one[None], way) for one in (drawn[place], end - drawn[place]))
            apart = (drawn - again).abs().mean(1, keepdim=True)
            near = torch.tensor(nearness, dtype=drawn.dtype)[:, None, None, None]
            found = found + near * (-((apart / ALIKE) ** 2)).exp() * lost
        return found[1:-1].clamp(0, 1)

    def _branches(
        self, ends: tuple[Tensor, Tensor], ways: Sequence[Float[Tensor, "t 3 3"]], shares: Sequence[float]
    ) -> Float[Tensor, "t c h w"]:
        """Clean latents of all frames, ends too."""
        left, right = (
            torch.cat([self._encoded(carried(end[None], way[[place]])) for place in range(len(way))])
            for end, way in zip(ends, ways, strict=True)
        )
        noises = self._placed.start(self.task.seed, self._shape[0], CLIP).to(self.model.device)
        strength = self.task.movement.strength or USUAL_STRENGTH
        state = forked(left, right, shares, noises, self._schedule, strength, self._rows)
        solver, kick = (
            find_solver(str(self.task.sampling.solver)).solver,
            PlacedKick(self._placed, self.task.seed, CLIP),
        )
        with self._seeing() as denoiser:
            run = denoise(denoiser, state, self._schedule, self._cond, solver=solver, kick=kick)
            return collect(run, self._schedule)

    def _seeing(self) -> AbstractContextManager[Denoiser]:
        """The denoiser, by which all look at the ends, unless frames are to look at themselves alone."""
        said = self.task.movement.attention
        if said is not None and Pattern.parse(said) == Pattern(own=True):
            return self._looking(Pattern(own=True))
        ends = (0, len(self._rows) - 1)
        return frame_attention(self.model.denoiser, model_sites(self.model), ENDS, self._rows, anchors=ends)
