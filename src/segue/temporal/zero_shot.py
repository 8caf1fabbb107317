"""Clips by a model of single pictures: where their frames begin, so that what the first one shows moves on.

After Text2Video-Zero (Khachatryan et al. 2023, arXiv:2303.13439, section 3.3.1): the first frame's latents are moved
early in the run, noised back, and all frames run on from there, attending to the first. The paper moves x along a line
by whole latents. Here the model's x0 is moved between latents, too, and the noise is placed, so that it stays white in
what turns and grows; for slides by whole latents both are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from segue.diffusion.loop import denoise
from segue.diffusion.noise import noise, start_noise
from segue.diffusion.schedule import Schedule
from segue.diffusion.starts import noisier
from segue.temporal.zero_shot_motion import carried, placed_along
from segue.types import Denoiser, Guided, RowId, Solver, State

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

NAME = "zero-shot"
UNTIL, BACK = 0.1, 0.04
"""Shares of the run, as in the paper: 5 and 2 of 50 steps."""


@dataclass(frozen=True)
class Moved:
    """Frames that begin where the first one's latents are moved to, early in the run.

    Args:
        schedule: of the whole run.
        solver: takes its steps.
        seed: of the noise.
        until: share of the run at which the first frame's latents are moved.
        back: share of the run that they are noised back to.
        fresh: whether each frame is noised with numbers of its own, as in the paper; else with those of the first,
            which move along, so that frames agree more and are freer less.

    Raises:
        ValueError: the shares are no way back.
    """

    schedule: Schedule
    solver: Solver
    seed: int = 0
    until: float = UNTIL
    back: float = BACK
    fresh: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.back <= self.until < 1:
            raise ValueError(f"expected a way back from a share of the run in [0, 1), got {self.until} to {self.back}")

    def begun(
        self,
        denoiser: Denoiser,
        cond: Guided,
        maps: Float[Tensor, "t 3 3"],
        rows: Sequence[RowId],
        shape: Sequence[int],
        device: torch.device,
    ) -> State:
        """All frames, as many steps into the run as `back` says; the first is as it would be alone.

        Args:
            denoiser: the model; nobody looks at others yet.
            cond: what frames are told, one row each.
            maps: where what is in the first frame goes; the first is none.
            rows: names of the frames.
            shape: (channels, height, width) of the latents.
            device: where these live.
        """
        count = len(self.schedule)
        until, back = round(self.until * count), round(self.back * count)
        x = start_noise(self.seed, shape)[None] * self.schedule.start_scale
        kept = state = start = State(x.to(device), torch.zeros(1, dtype=torch.int64), tuple(rows[:1]))
        for state in denoise(denoiser, start, self.schedule, cond[[0]], solver=self.solver):
            kept = state if int(state.step[0]) == back else kept
            if int(state.step[0]) == until:
                break
        now, then = (self.schedule.step(torch.tensor([step]), state.ids)[0] for step in (until, back))
        x0 = denoiser(state.x, now, cond[[0]])
        eps = now.eps(state.x, x0)[0].cpu()
        placed = placed_along(maps, (shape[2], shape[1]))

        def carrying(birth: int, parts: int) -> Tensor:
            return eps if birth == 0 else noise(self.seed, NAME, until, RowId("moved", birth), shape)

        def added(birth: int, parts: int) -> Tensor:
            return noise(self.seed, NAME, back, RowId("added", birth), shape)

        pushed = placed.drawn(carrying).to(x0)
        every = range(len(rows))
        again = torch.stack([added(frame, 1) for frame in every]) if self.fresh else placed.drawn(added)
        moved = now[[0] * len(rows)].noised(carried(x0, maps, "reflection"), pushed)
        if until > back:  # at the same level there is nothing to add, and alpha may be 0 there
            moved = noisier(moved, now[[0] * len(rows)], then[[0] * len(rows)], again.to(x0))
        return State(torch.cat([kept.x, moved[1:]]), torch.full((len(rows),), back), tuple(rows))
