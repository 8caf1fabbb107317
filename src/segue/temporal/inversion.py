"""Starts by inversion: the noise from which a model, told what the clip shows, would come back to it.

The loop is run on the reversed schedule (DDIM inversion: Song et al. 2021, arXiv:2010.02502, section 4.3). It is
approximate: the network is asked at the level that a step leaves, where the way down asks at the level that it lands
on. What is wrong by that shrinks with the number of steps, and with `rounds`, which ask again where the step landed
(fixed-point iteration: Pan et al. 2023, "AIDI", arXiv:2309.04907; Garibi et al. 2024, "ReNoise", arXiv:2403.14602).

`exactly_inverted` takes another solver, whose steps have an inverse, and costs no more: told the same, the way back is
the way that it came, to rounding, whatever the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from segue.diffusion.belm import belm
from segue.diffusion.loop import denoise
from segue.diffusion.noise import no_noise
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import ddim
from segue.diffusion.starts import first_step
from segue.temporal.increments import Increments
from segue.types import Condition, Denoiser, Kick, Point, Progress, RowId, Solver, State, over_rows, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class Inversion:
    """Clean latents and the way that they came, backwards.

    Args:
        latents: of all rows, by how many steps of the schedule they have behind them: from `first` to all of them.
        first: the step at which a run from here begins.
        ids: who the rows are.
        solver: by which it goes back the way that it came.
        kick: for that solver.
    """

    latents: Mapping[int, Float[Tensor, "t c h w"]]
    first: int
    ids: tuple[RowId, ...]
    solver: Solver = ddim
    kick: Kick = no_noise

    @property
    def state(self) -> State:
        """Where a run begins."""
        return State(self.latents[self.first], torch.full((len(self.ids),), self.first), self.ids)

    @staticmethod
    def kept(
        latents: Float[Tensor, "t c h w"],
        first: int,
        ids: Sequence[RowId],
        increment: Float[Tensor, "t c h w"] | None = None,
    ) -> Inversion:
        """One of which nothing but its noise was kept, in a file, say.

        Args:
            latents: where a run begins.
            first: how many steps lie behind them.
            ids: who the rows are.
            increment: what is added to the first step of an exact one: its `kick.by_step[first]`.
        """
        found, own = {first: latents}, tuple(ids)
        if increment is None:
            return Inversion(found, first, own)
        return Inversion(found, first, own, belm, Increments({first: increment}, own))

    def at(self, step: int) -> Float[Tensor, "t c h w"]:
        """All rows with `step` steps behind them.

        Raises:
            KeyError: the inversion did not go so far, or the way was not kept.
        """
        return self.latents[step]

    def renamed(self, ids: Sequence[RowId]) -> Inversion:
        """The same for rows of other names, one for one."""
        if len(ids) != len(self.ids):
            raise ValueError(f"expected {len(self.ids)} names, got {len(ids)}")
        kick = self.kick.renamed(ids) if isinstance(self.kick, Increments) else self.kick
        return replace(self, ids=tuple(ids), kick=kick)


def inverted(
    denoiser: Denoiser,
    x0: Float[Tensor, "t c h w"],
    schedule: Schedule,
    cond: Condition,
    ids: Sequence[RowId],
    *,
    strength: float = 1.0,
    rounds: int = 0,
    progress: Progress = silent,
) -> Inversion:
    """The way from clean latents into noise, by DDIM, whatever solver goes back; see this module's text.

    Args:
        denoiser: the model, with whatever is attached to it on the way back.
        x0: clean latents.
        schedule: that of the run; it begins where this ends.
        cond: what the clip shows, one row per row. Guidance makes inversion unstable: a Conditioning is best.
        ids: who the rows are.
        strength: in (0, 1]: how far into noise, as in `starts.from_latents`; 1 is to the first level of the schedule.
        rounds: how often each step is asked again where it landed; each costs as much as the inversion itself.
        progress: told of each step.

    Raises:
        ValueError: the strength or the rounds are out of their range.
    """
    if rounds < 0:
        raise ValueError(f"rounds must be 0 or more, got {rounds}")
    if not 0 < strength <= 1:
        raise ValueError(f"strength must be in (0, 1], got {strength}")
    first, count = first_step(schedule, strength), len(schedule)
    back, inner = schedule.reversed(), Downwards(denoiser, schedule)
    asking = Landing(inner, back, rounds) if rounds else inner
    step = torch.zeros(len(x0), dtype=torch.int64)
    start = State(_least(denoiser, x0, schedule, cond, ids, rounds), step, tuple(ids))
    found = {count: x0}
    for state in denoise(asking, start, back, cond):
        place = count - 1 - int(state.step[0])
        found[place] = state.x
        progress("inverting", count - place, count - first)
        if place == first:
            break
    return Inversion(found, first, tuple(ids))


def exactly_inverted(
    denoiser: Denoiser,
    x0: Float[Tensor, "t c h w"],
    schedule: Schedule,
    cond: Condition,
    ids: Sequence[RowId],
    *,
    strength: float = 1.0,
    rounds: int = 1,
    progress: Progress = silent,
) -> Inversion:
    """The way into noise by `segue.diffusion.belm`, which leads back exactly; see this module's text.

    The way back is a run with the solver and the kick of what is returned. It costs one evaluation more than `inverted`
    without rounds: two states are needed to begin from, and what a model makes of the first is led onto the second
    (by an increment, as in CycleDiffusion; the paper hands over both states instead, so that a target model is not
    asked at the first level at all).

    Args:
        denoiser: the model, with whatever is attached to it on the way back.
        x0: clean latents.
        schedule: that of the run, joined (`Schedule.joined`).
        cond: what the clip shows, one row per row.
        ids: who the rows are.
        strength: see `inverted`.
        rounds: how often the state at the least level is corrected, 1 or more. Any is exact; it decides how far from
            the picture's own way the run swings.
        progress: told of each step.

    Raises:
        ValueError: the schedule is not joined; strength or rounds are out of their range.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be 1 or more, got {rounds}")
    if not 0 < strength <= 1:
        raise ValueError(f"strength must be in (0, 1], got {strength}")
    if not _joined(schedule):
        raise ValueError("an exact inversion needs a schedule of which every step lands where the next one begins")
    first, count, own = first_step(schedule, strength), len(schedule), tuple(ids)
    back, inner = schedule.reversed(), Downwards(denoiser, schedule)
    step, clean = torch.zeros(len(x0), dtype=torch.int64), schedule.then.level(count - 1)
    memory = (x0, *(torch.full((len(x0),), number, dtype=torch.float64) for number in clean))
    found = {count: x0}
    for state in denoise(
        inner, State(_least(denoiser, x0, schedule, cond, own, rounds), step, own, memory), back, cond, solver=belm
    ):
        place = count - 1 - int(state.step[0])
        found[place] = state.x
        progress("inverting", count - place, count - first)
        if place == first:
            break
    now, then = schedule.step(torch.full((len(x0),), first), own)
    mean, _ = ddim(found[first], denoiser(found[first], now, cond), now, then, (), no_noise)
    return Inversion(found, first, own, belm, Increments({first: found[first + 1] - mean}, own))


def _joined(schedule: Schedule) -> bool:
    now, then = schedule.now[1:], schedule.then[: len(schedule) - 1]
    return torch.equal(now.alpha, then.alpha) and torch.equal(now.sigma, then.sigma)


@dataclass(frozen=True)
class Downwards:
    """A denoiser around another, for the reversed schedule: it is told the step that a run stands at on its way down.

    So that what acts at some steps alone, a control network or an adapter, acts at the same levels on the way up.

    Args:
        denoiser: the model.
        schedule: that of the way down.
    """

    denoiser: Denoiser
    schedule: Schedule

    @property
    def group(self) -> int:
        """That of the model."""
        return self.denoiser.group

    def __call__(self, x: Float[Tensor, "b c h w"], at: Point, cond: Condition) -> Float[Tensor, "b c h w"]:
        """x0 of the rows."""
        return self.denoiser(x, self.schedule.step(len(self.schedule) - 1 - at.index, at.rows)[0], cond)


@dataclass(frozen=True)
class Landing:
    """A denoiser around another, for steps that are taken again with the estimate made where they land (by `ddim`).

    Where that no longer changes, the step back from there leads exactly to where this one came from.

    Args:
        denoiser: the model.
        schedule: that of the run.
        rounds: how often.
    """

    denoiser: Denoiser
    schedule: Schedule
    rounds: int

    @property
    def group(self) -> int:
        """That of the model."""
        return self.denoiser.group

    def __call__(self, x: Float[Tensor, "b c h w"], at: Point, cond: Condition) -> Float[Tensor, "b c h w"]:
        """x0 as estimated where the step lands."""
        x0 = self.denoiser(x, at, cond)
        now, then = self.schedule.step(at.index, at.rows)
        for _ in range(self.rounds):
            landed, _ = ddim(x, x0, now, then, (), no_noise)
            x0 = self.denoiser(landed, then, cond)
        return x0


def _least(
    denoiser: Denoiser, x0: Tensor, schedule: Schedule, cond: Condition, ids: Sequence[RowId], rounds: int
) -> Float[Tensor, "t c h w"]:
    """The latents at the least level that a network is asked at, from which one step leads to x0.

    There is next to no noise, so that the picture stands for it. Where there is more, as with few steps, rounds find
    what the network would clean to this picture: x <- x + alpha (x0 - D(x)), which is at rest only there.
    """
    if not rounds:
        return x0
    now, _ = schedule.step(torch.full((len(x0),), len(schedule) - 1), ids)
    x = over_rows(now.alpha, x0) * x0
    for _ in range(rounds):
        x = x + over_rows(now.alpha, x0) * (x0 - denoiser(x, now, cond))
    return x
