"""Frames side by side in one large picture: what is drawn together looks alike, and shows where it was put together.

The ablation that DiffSynth argues against (Duan et al. 2023, arXiv:2308.03463): a network that was trained on single
pictures meets grids of them, and frames of different grids share nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from segue.diffusion.loop import collect, denoise
from segue.diffusion.starts import from_latents
from segue.errors import TaskError
from segue.temporal.rivals.inputs import CLIP, Outcome, RivalInputs
from segue.types import Condition, Conditioning, Guided, Kick, Point, Progress, RowId, silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float
    from torch import Tensor

    from segue.types import State


@dataclass(frozen=True)
class SideBySide:
    """Grids of consecutive frames, each denoised as one picture with the text of its first frame.

    The last grid is filled up with its last frame. The schedule is that of single frames, also where a family shifts
    its schedule with the size of the picture.

    Args:
        columns: of a grid.
        rows: of a grid.
    """

    columns: int = 2
    rows: int = 2

    def __post_init__(self) -> None:
        if self.columns < 1 or self.rows < 1:
            raise TaskError(f"a grid has 1 or more columns and rows, got {self.columns} and {self.rows}")

    def run(self, inputs: RivalInputs, progress: Progress = silent) -> Outcome:
        """The restyled clip.

        Raises:
            TaskError: the model denoises groups of frames together.
        """
        if inputs.denoiser.group > 1:
            raise TaskError(f"this model denoises {inputs.denoiser.group} frames at once, which are no grid")
        groups = self._groups(len(inputs))
        ids = tuple(RowId("grid", number) for number in range(len(groups)))
        latents, noise = (self.joined(part, groups) for part in (inputs.source.latents, inputs.noise))
        start = from_latents(latents, noise, inputs.schedule, inputs.strength, ids)
        cond = self.told(inputs.cond)
        kick = GridKick(inputs.kick, self, len(inputs))
        states = denoise(inputs.denoiser, start, inputs.schedule, cond, solver=inputs.solver, kick=kick)

        def watched() -> Iterator[State]:
            for state in states:
                if done := int(state.step[0]) - inputs.first:
                    progress("denoising", done, inputs.steps)
                yield state

        return Outcome(self.parted(collect(watched(), inputs.schedule))[: len(inputs)])

    def joined(self, frames: Float[Tensor, "t c h w"], groups: list[list[int]]) -> Float[Tensor, "g c H W"]:
        """Grids of frames, filled row by row."""
        grids = torch.stack([frames[group] for group in groups]).unflatten(1, (self.rows, self.columns))
        return grids.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)

    def parted(self, grids: Float[Tensor, "g c H W"]) -> Float[Tensor, "t c h w"]:
        """The frames of grids, one after the other."""
        cells = grids.unflatten(3, (self.columns, -1)).unflatten(2, (self.rows, -1))
        return cells.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)

    def _groups(self, count: int) -> list[list[int]]:
        size = self.columns * self.rows
        return [[min(start + by, count - 1) for by in range(size)] for start in range(0, count, size)]

    def told(self, cond: Condition) -> Condition:
        """What grids are told: the words of their first frames, and pictures side by side."""
        groups = self._groups(len(cond))
        first = [group[0] for group in groups]
        if isinstance(cond, Guided):
            terms = tuple(self._pictured(term, first, groups) for term in cond.terms)
            return Guided(terms, cond.weights[:, first], cond.rescale, cond.start)
        return self._pictured(cond, first, groups)

    def _pictured(self, term: Conditioning, first: list[int], groups: list[list[int]]) -> Conditioning:
        pictures = {name: self.joined(part, groups) for name, part in term.residual_inputs.items()}
        concat = None if term.concat is None else self.joined(term.concat, groups)
        return replace(term[first], residual_inputs=pictures, concat=concat)


@dataclass(frozen=True)
class GridKick:
    """The kicks of frames, for grids of them.

    Args:
        kick: of single frames.
        grid: how they lie.
        count: of all frames; the last one fills up.
    """

    kick: Kick
    grid: SideBySide
    count: int

    def __call__(
        self, like: Float[Tensor, "b c h w"], now: Point, then: Point, std: Float[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """std times standard noise, grid by grid."""
        size = self.grid.columns * self.grid.rows
        frames = [min(row.frame * size + by, self.count - 1) for row in now.rows for by in range(size)]
        pick = [place for place in range(len(like)) for _ in range(size)]
        ids = tuple(RowId(CLIP, frame) for frame in frames)
        here, there = (replace(at[pick], rows=ids) for at in (now, then))
        drawn = self.kick(self.grid.parted(like), here, there, std[pick])
        places = list(range(len(frames)))
        return self.grid.joined(drawn, [places[start : start + size] for start in range(0, len(places), size)])
