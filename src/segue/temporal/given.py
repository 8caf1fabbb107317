"""Keys that are pictures: trajectories that are given, not run, and what makes the frames beside them arrive there.

A picture has no trajectory of its own. `inverted` makes one, which the model would not follow by itself: run from any
of its points, it ends at another picture. So what the model gets wrong on the way, step by step, is measured once, and
added to the rows near the key, the whole of it where they meet. There they become the picture, and nothing jumps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from segue.diffusion.loop import denoise
from segue.diffusion.noise import InheritedNoise
from segue.diffusion.schedule import Schedule
from segue.temporal import inversion
from segue.temporal.keys import Keys
from segue.temporal.operator import Identity
from segue.temporal.trajectory import Trajectory
from segue.types import Denoiser, Point, RowId, Solver, State

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

FALLOFF = 2.0
"""Power with which the correction fades on the way to the next key."""


def inverted(x0: Float[Tensor, "c h w"], denoiser: Denoiser, schedule: Schedule, keys: Keys, key: int) -> Trajectory:
    """The way back into noise that the model itself takes, unguided (DDIM inversion: Song et al. 2021,
    arXiv:2010.02502, section 4.3). It is approximate, and costs one evaluation for each step but the last.
    """
    rows = (RowId("key", key),)
    way = inversion.inverted(denoiser, x0[None], schedule, keys.texts([float(key)])[0], rows)
    return Trajectory({step: latents[0] for step, latents in way.latents.items()})


def residuals(
    trajectory: Trajectory,
    first: int,
    key: int,
    denoiser: Denoiser,
    schedule: Schedule,
    solver: Solver,
    keys: Keys,
) -> dict[int, Float[Tensor, "c h w"]]:
    """What must be added after each step from `first` on, so that a run follows a trajectory exactly.

    After Ju et al. 2023 (arXiv:2310.01506), who keep the source branch of an edit on its inversion in this way.

    Args:
        trajectory: with its latents at every step.
        first: the step from which rows run that will be corrected; a multistep solver remembers nothing before it.
        key: its number among `keys`.
        denoiser: the model.
        schedule: its noise levels.
        solver: how rows will step.
        keys: what the model is told.
    """
    row = RowId("key", key)
    held = Held(trajectory)
    state = State(trajectory.at(first)[None], torch.full((1,), first, dtype=torch.int64), (row,))
    kick = InheritedNoise({row: keys.ancestry(float(key))})
    for _ in denoise(denoiser, state, schedule, keys.at([float(key)]), solver=solver, operators=[held], kick=kick):
        pass
    return held.errors


@dataclass
class Held(Identity):
    """Holds a single row on a trajectory, and keeps what had to be added for that, by the step after which it was."""

    trajectory: Trajectory
    errors: dict[int, Tensor] = field(default_factory=dict[int, "Tensor"])

    def on_stepped(
        self, x: Float[Tensor, "b c h w"], x0: Float[Tensor, "b c h w"], at: Point
    ) -> Float[Tensor, "b c h w"]:
        """The trajectory's own latents."""
        step = int(at.index[0])
        wanted = self.trajectory.at(step).to(x)[None]
        self.errors[step] = (wanted - x)[0]
        return wanted


@dataclass(frozen=True)
class Home:
    """What corrects one row: the errors of the keys beside it, each with its weight."""

    errors: tuple[Mapping[int, Tensor], ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Homing(Identity):
    """Adds to each row what the model gets wrong about the given keys beside it, the more the nearer they are."""

    homes: Mapping[RowId, Home]

    def on_stepped(
        self, x: Float[Tensor, "b c h w"], x0: Float[Tensor, "b c h w"], at: Point
    ) -> Float[Tensor, "b c h w"]:
        """The corrected latents; rows without a given key stay as they are."""
        rows: list[Tensor] = []
        for place, (row, step) in enumerate(zip(at.rows, at.index.tolist(), strict=True)):
            own, home = x[place], self.homes.get(row)
            for errors, weight in zip(home.errors, home.weights, strict=True) if home else ():
                own = own + weight * errors[step].to(own)
            rows.append(own)
        return torch.stack(rows)


@dataclass
class Givens:
    """The keys that are given, and the corrections that belong to them, computed when they are first needed.

    Args:
        trajectories: by the number of the key, with latents at every step.
        denoiser: the model.
        schedule: its noise levels.
        solver: how rows step.
        keys: what the model is told.
        followed: those that the model takes by itself, which need no corrections.
    """

    trajectories: Mapping[int, Trajectory]
    denoiser: Denoiser
    schedule: Schedule
    solver: Solver
    keys: Keys
    followed: frozenset[int] = frozenset()
    known: dict[tuple[int, int], dict[int, Tensor]] = field(default_factory=dict[tuple[int, int], dict[int, "Tensor"]])

    def homing(self, rows: Sequence[RowId], positions: Sequence[float], first: int) -> Homing:
        """What corrects rows at positions that run from step `first` on."""
        homes: dict[RowId, Home] = {}
        for row, position in zip(rows, positions, strict=True):
            left, share = self.keys.place(position)
            sides = [(left, 1 - share), (left + 1, share)]
            wrong = self.trajectories.keys() - self.followed
            near = [(key, weight**FALLOFF) for key, weight in sides if key in wrong and weight > 0]
            if near:
                errors = tuple(self._errors(key, first) for key, _ in near)
                homes[row] = Home(errors, tuple(weight for _, weight in near))
        return Homing(homes)

    def _errors(self, key: int, first: int) -> dict[int, Tensor]:
        if (key, first) not in self.known:
            self.known[key, first] = residuals(
                self.trajectories[key], first, key, self.denoiser, self.schedule, self.solver, self.keys
            )
        return self.known[key, first]
