"""Text2Video-Zero: every frame attends to the first one alone; without a source, its noise is moved along a line.

Khachatryan et al. 2023, arXiv:2303.13439, section 3.3. See docs/rivals.md for what is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from segue.diffusion.noise import noise
from segue.diffusion.starts import noisier
from segue.errors import TaskError
from segue.temporal.frame_attention import frame_attention
from segue.temporal.rivals.inputs import Outcome, RivalInputs
from segue.types import Denoiser, Progress, State, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

NAME = "Text2Video-Zero"


@dataclass(frozen=True)
class Text2VideoZero:
    """First-frame attention in a run from noise or noised frames, or from noise that a line of motion was put into.

    Args:
        motion: how far the picture moves from frame to frame, as shares of its width and height; (12/512, 12/512) in
            the paper, whose clips have no source. None starts as all others do, as the paper does under control maps.
        until: share of the run at which the first frame's latents are moved.
        back: share of the run that they are noised back to.
    """

    motion: tuple[float, float] | None = None
    until: float = 0.1
    back: float = 0.04

    def __post_init__(self) -> None:
        if not 0 <= self.back <= self.until < 1:
            raise TaskError(f"{NAME} goes back from a share of the run in [0, 1), got {self.until} to {self.back}")

    def run(self, inputs: RivalInputs, progress: Progress = silent) -> Outcome:
        """The restyled clip.

        Raises:
            TaskError: the model has no self-attention that can be stepped into; motion, and a start from frames.
        """
        inputs.need_sites(NAME)
        with frame_attention(inputs.denoiser, inputs.sites, "first", inputs.rows) as denoiser:
            start = inputs.noised() if self.motion is None else self._moving(inputs, denoiser, self.motion)
            return Outcome(inputs.run(denoiser, start, "denoising", progress))

    def _moving(self, inputs: RivalInputs, denoiser: Denoiser, motion: tuple[float, float]) -> State:
        """All frames in the noise of the first, moved k times for frame k; they move on their own from there."""
        if inputs.first:
            raise TaskError(f"the motion of {NAME} begins in noise: take strength 1, or leave the motion out")
        schedule = inputs.schedule
        back, until = (round(share * len(schedule)) for share in (self.back, self.until))
        kept = state = inputs.noised().fork([0])
        for last in inputs.states(denoiser, state, cond=inputs.cond[[0]]):
            state, kept = last, last if int(last.step[0]) == back else kept
            if int(state.step[0]) == until:
                break
        height, width = state.x.shape[2:]
        step = torch.full((1,), until)
        now, then = (schedule.step(step + by, state.ids)[0] for by in (0, back - until))
        rows = [kept.x]
        for row in inputs.rows[1:]:
            shift = round(motion[0] * row.frame * width), round(motion[1] * row.frame * height)
            fresh = noise(inputs.seed, "text2video-zero", back, row, state.x.shape[1:])[None]
            rows.append(noisier(shifted(state.x, shift), now, then, fresh.to(state.x)))
        return State(torch.cat(rows), torch.full((len(inputs),), back), inputs.rows)


def shifted(latents: Float[Tensor, "b c h w"], by: tuple[int, int]) -> Float[Tensor, "b c h w"]:
    """Moved by whole latents, x to the right and y down; what comes into sight is mirrored at the border."""
    height, width = latents.shape[2:]
    columns, rows = (_mirrored(torch.arange(side) - to, side) for side, to in zip((width, height), by, strict=True))
    return latents[:, :, rows][..., columns]


def _mirrored(places: Tensor, side: int) -> Tensor:
    """Places within a side, as a mirror at both of its ends shows them."""
    period = max(1, 2 * (side - 1))
    folded = places.remainder(period)
    return torch.minimum(folded, period - folded) if side > 1 else torch.zeros_like(places)
