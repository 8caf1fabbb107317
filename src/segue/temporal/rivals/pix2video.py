"""Pix2Video: frames begin at their inversion, attend to the first and the one before, and are pulled towards it.

Ceylan et al. 2023, arXiv:2303.12688, section 3. See docs/rivals.md for what is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segue.errors import TaskError
from segue.temporal.frame_attention import frame_attention
from segue.temporal.operator import Identity
from segue.temporal.rivals.inputs import CLIP, Outcome, RivalInputs
from segue.types import Point, Progress, RowId, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

NAME = "Pix2Video"
VALUES = 4 * 64 * 64
"""How many numbers the latents have whose mean squared difference the paper's weight belongs to: 512x512 pixels."""


@dataclass(frozen=True)
class Pix2Video:
    """Inversion, attention to the first and the previous frame, and a guided update in the first half of the run.

    Args:
        weight: of the update, 100 in the paper; 0 is without.
        until: share of the steps that are run up to which frames are pulled.
        rounds: of the inversion, see `segue.temporal.inversion`; the paper has 0.
    """

    weight: float = 100.0
    until: float = 0.5
    rounds: int = 1

    def __post_init__(self) -> None:
        if self.weight < 0 or not 0 <= self.until <= 1:
            raise TaskError(f"{NAME} pulls by 0 or more over a share of the run, got {self.weight} to {self.until}")

    def run(self, inputs: RivalInputs, progress: Progress = silent) -> Outcome:
        """The restyled clip.

        Raises:
            TaskError: the model has no self-attention that can be stepped into.
        """
        inputs.need_sites(NAME)
        start = inputs.inversion(inputs.denoiser, self.rounds, progress).state
        start = start.fork(range(len(inputs)), inputs.rows)
        stop = inputs.first + round(self.until * inputs.steps)
        operators = [Pulled(self.weight, stop)] if self.weight else []
        with frame_attention(inputs.denoiser, inputs.sites, "first, previous", inputs.rows) as denoiser:
            return Outcome(inputs.run(denoiser, start, "denoising", progress, operators=operators))


@dataclass(frozen=True)
class Pulled(Identity):
    """The guided update: x_i <- x_i - weight d/dx0_i MSE(x0_i, x0_{i-1}), after each step in the first share of a run.

    The gradient with regard to x0 is carried to x as it is, without that of the network, so that no network is
    differentiated, and all frames are updated at once: what the frame before believes at a step does not depend on its
    own update at that step. The mean is over `VALUES` numbers, whatever the size, so that a latent is pulled as far
    in a small picture as in a large one.

    Args:
        weight: of the gradient.
        stop: the first step at which it no longer acts.
    """

    weight: float
    stop: int

    def on_stepped(
        self, x: Float[Tensor, "b c h w"], x0: Float[Tensor, "b c h w"], at: Point
    ) -> Float[Tensor, "b c h w"]:
        """The latents, each frame nearer to the one before."""
        places = {row: place for place, row in enumerate(at.rows) if row.trajectory == CLIP}
        # `at` is where the step landed; the step itself is the one before.
        acting = (at.index - 1 < self.stop).tolist()
        out = x.clone()
        for row, place in places.items():
            before = places.get(RowId(CLIP, row.frame - 1))
            if before is not None and acting[place]:
                out[place] = x[place] - self.weight * 2 * (x0[place] - x0[before]) / VALUES
        return out
