"""The denoising loop: the only one in the project."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from segue.diffusion.noise import NamedNoise
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import ddim
from segue.types import Condition, Denoiser, Kick, Operator, Solver, State

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_NAMED = NamedNoise()


def denoise(
    denoiser: Denoiser,
    state: State,
    schedule: Schedule,
    cond: Condition,
    *,
    solver: Solver = ddim,
    operators: Sequence[Operator] = (),
    kick: Kick = _NAMED,
) -> Iterator[State]:
    """Yield a batch of trajectories as it stands, and after every step until all rows are at the data end.

    Rows may be at different steps. A row that reaches the end is in the state that is yielded then, and leaves
    before the next step; `collect` gathers them. `cond` has one row per row of the first state.
    """
    yield state
    while len(rows := running(state, schedule)) > 0:
        if len(rows) < len(state):
            state, cond = state.fork(rows), cond[rows]
        now, then = schedule.step(state.step, state.ids)
        x = state.x
        for op in operators:
            x = op.on_latents(x, now)
        x0 = denoiser(x, now, cond)
        for op in operators:
            x0 = op.on_denoised(x0, now)
        x, history = solver(x, x0, now, then, state.history, kick)
        for op in operators:
            x = op.on_stepped(x, x0, then)
        state = state.advance(x, history)
        yield state


def running(state: State, schedule: Schedule) -> list[int]:
    """The rows of a state that have steps before them."""
    return torch.nonzero(state.step < len(schedule))[:, 0].tolist()


def collect(states: Iterable[State], schedule: Schedule) -> Float[Tensor, "b c h w"]:
    """Run a loop to its end: the final latents of all rows, in the order of the first state."""
    order = None
    finished: dict[object, Tensor] = {}
    for state in states:
        order = order or state.ids
        for place in torch.nonzero(state.step >= len(schedule))[:, 0].tolist():
            finished[state.ids[place]] = state.x[place]
    if order is None:
        raise ValueError("an empty run has no latents")
    return torch.stack([finished[row] for row in order])
