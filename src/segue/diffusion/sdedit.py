"""SDEdit (Meng et al. 2021, arXiv:2108.01073): a picture is noised part of the way, and denoised as something else.

Where a run begins is `segue.diffusion.starts.from_latents`; this is the rest: several passes, and how strong an edit
may be that is to stay near its picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from segue.diffusion.loop import denoise
from segue.diffusion.noise import NamedNoise
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import ddim
from segue.diffusion.starts import renoise
from segue.errors import TaskError
from segue.types import Condition, Denoiser, Kick, Operator, Point, Solver, State

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_NAMED = NamedNoise()


def passes(
    denoiser: Denoiser,
    state: State,
    schedule: Schedule,
    cond: Condition,
    *,
    noise: Sequence[Float[Tensor, "b c h w"]] = (),
    solver: Solver = ddim,
    operators: Sequence[Operator] = (),
    kick: Kick = _NAMED,
) -> Iterator[State]:
    """Whole runs one after the other, each noised anew from what the last one ended with (algorithm 2 of the paper).

    The first begins with `state`. Every state of every run is yielded, as by `denoise`, which this is without `noise`.

    Args:
        denoiser: see `denoise`.
        state: where the first begins; the others begin at the same steps.
        schedule: see `denoise`.
        cond: see `denoise`.
        noise: standard noise for each further pass.
        solver: see `denoise`.
        operators: see `denoise`.
        kick: see `denoise`; in each pass it is asked for the noise of steps of its own.
    """
    begin = state
    for number, fresh in enumerate((None, *noise)):
        if fresh is not None:
            state = renoise(state, schedule, begin.step, fresh)
        ended: dict[object, Tensor] = {}
        own = _InPass(kick, number) if number else kick
        for now in denoise(denoiser, state, schedule, cond, solver=solver, operators=operators, kick=own):
            for place in torch.nonzero(now.step >= len(schedule))[:, 0].tolist():
                ended[now.ids[place]] = now.x[place]
            yield now
        state = replace(begin, x=torch.stack([ended[row] for row in begin.ids]))


@dataclass(frozen=True)
class _InPass:
    """A kick whose steps are numbered on from pass to pass, so that no pass repeats the noise of another."""

    kick: Kick
    number: int

    def __call__(self, like: Tensor, now: Point, then: Point, std: Tensor) -> Tensor:
        here, there = (replace(at, index=at.index + self.number * at.count) for at in (now, then))
        return self.kick(like, here, there, std)


@dataclass(frozen=True)
class FoundStrength:
    """How strong an edit may be.

    Args:
        strength: the strongest that was tried with no weaker one beyond the budget.
        distance: how far from the picture it leads.
        budget: how far it was allowed to.
        tried: all (strength, distance), the weakest first.
    """

    strength: float
    distance: float
    budget: float
    tried: tuple[tuple[float, float], ...]

    @property
    def steady(self) -> bool:
        """Whether stronger edits always led at least as far."""
        distances = [distance for _, distance in self.tried]
        return distances == sorted(distances)

    def said(self) -> str:
        """One line for people."""
        line = (
            f"strength {self.strength:g} leads {self.distance:.4g} away from the picture, of {self.budget:.4g} allowed "
            f"({len(self.tried)} runs)"
        )
        if self.steady:
            return line
        return f"{line}; some stronger edits led less far than weaker ones, so a stronger one may fit, too"


def find_strength(
    distance: Callable[[float], float],
    budget: float,
    steps: int,
    *,
    most_runs: int = 8,
    least: float = 0.0,
    most: float = 1.0,
) -> FoundStrength:
    """The greatest strength at which an edit stays within a budget of faithfulness, by bisection.

    A strength is a whole number of steps, so that no two runs are of the same, and the answer is exact as soon as
    there are log2(steps) + 2 of them. Distances mostly grow with the strength, but nothing makes them; what is found is
    the strongest that was tried with no weaker one beyond the budget.

    Args:
        distance: makes an edit of this strength, and says how far from its picture it is, by any measure.
        budget: the largest distance that is allowed.
        steps: of a whole run, of strength 1.
        most_runs: the most edits that are made.
        least: strength below which is not looked; at 0, from one step on.
        most: strength above which is not looked.

    Raises:
        TaskError: even the weakest edit is beyond the budget, or what is asked for is impossible.
    """
    if steps < 1 or most_runs < 2 or not 0 <= least <= most <= 1:
        raise TaskError(
            "expected 1 step or more, 2 runs or more, and strengths with 0 <= least <= most <= 1; "
            f"got {steps} steps, {most_runs} runs, and {least:g} to {most:g}"
        )
    low, high = (max(1, int(steps * share)) for share in (least, most))
    tried: dict[int, float] = {}

    def over(taken: int) -> bool:
        tried[taken] = float(distance(_share(taken, steps)))
        # Not a number is beyond any budget.
        return not tried[taken] <= budget

    if over(low):
        raise TaskError(
            f"the weakest edit, of strength {_share(low, steps):g}, leads {tried[low]:.4g} away from the picture, "
            f"beyond the budget of {budget:.4g}: allow more, or take more steps, of which the first then changes less"
        )
    if high > low:
        best = low if over(high) else high
        while best == low and high - low > 1 and len(tried) < most_runs:
            middle = (low + high) // 2
            best, high = (low, middle) if over(middle) else (middle, high)
            low = best
    else:
        best = low
    made = tuple((_share(taken, steps), tried[taken]) for taken in sorted(tried))
    return FoundStrength(_share(best, steps), tried[best], budget, made)


def _share(taken: int, steps: int) -> float:
    """The strength that takes so many of all steps: 29 / 100 would take 28, since 100 times it is a bit below 29."""
    share = taken / steps
    while int(steps * share) < taken:
        share = math.nextafter(share, 2)
    return share
