"""Where trajectories begin: in noise, or part of the way, from a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from segue.diffusion.noise import noise, shared_noise, start_noise
from segue.diffusion.schedule import Schedule
from segue.types import Point, RowId, State, over_rows

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor


def from_seeds(
    seeds: Sequence[int], ids: Sequence[RowId], schedule: Schedule, shape: Sequence[int], device: torch.device
) -> State:
    """One trajectory per seed, in pure noise.

    Args:
        seeds: one per row; a seed gives the noise that every program of the field gives it.
        ids: who the rows are.
        schedule: what the noise is scaled for.
        shape: (channels, height, width) of the latents.
        device: where the latents live.
    """
    x = torch.stack([start_noise(seed, shape) for seed in seeds]) * schedule.start_scale
    return State(x.to(device), torch.zeros(len(seeds), dtype=torch.int64), tuple(ids))


def from_clip_seed(
    seed: int,
    ids: Sequence[RowId],
    schedule: Schedule,
    shape: Sequence[int],
    device: torch.device,
    shared: float = 0.0,
) -> State:
    """The frames of one clip, in pure noise, a share of which is common to all of them.

    Args:
        seed: of the clip. The common part is the noise that every program of the field gives this seed; the own part of
            a frame depends on the seed and on the frame's number, so that longer clips begin as shorter ones do.
        ids: who the rows are.
        schedule: what the noise is scaled for.
        shape: (channels, height, width) of the latents.
        device: where the latents live.
        shared: see `segue.diffusion.noise.shared_noise`.
    """
    own = torch.stack([noise(seed, "frame", 0, replace(row, trajectory=""), shape) for row in ids])
    x = shared_noise(own, start_noise(seed, shape)[None], shared) * schedule.start_scale
    return State(x.to(device), torch.zeros(len(ids), dtype=torch.int64), tuple(ids))


def from_latents(
    x0: Float[Tensor, "b c h w"],
    noise: Float[Tensor, "b c h w"],
    schedule: Schedule,
    strength: float,
    ids: Sequence[RowId],
) -> State:
    """Trajectories that begin `strength` of the way into noise (Meng et al. 2021, arXiv:2108.01073).

    Args:
        x0: clean latents.
        noise: standard noise, one per row.
        strength: in [0, 1]: the share of the steps that will be run, rounded down, but at least one; 0 runs none, and
            the rows are `x0` itself at the data end.
        schedule: the whole schedule; the returned rows have its first steps behind them.
        ids: who the rows are.
    """
    step = torch.full((len(x0),), first_step(schedule, strength), dtype=torch.int64)
    if not strength:
        return State(x0, step, tuple(ids))
    now, _ = schedule.step(step, ids)
    return State(now.noised(x0, noise), step, tuple(ids))


def first_step(schedule: Schedule, strength: float) -> int:
    """How many steps are behind a run that begins `strength` of the way into noise; see `from_latents`."""
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be in [0, 1], got {strength}")
    return len(schedule) - max(1, int(len(schedule) * strength)) if strength else len(schedule)


def noisier(
    x: Float[Tensor, "b c h w"], now: Point, back: Point, noise: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"]:
    """Noisy latents, noised further as training would: from their level to a noisier one (`back`).

    x' = r x + sqrt(sigma'^2 - r^2 sigma^2) eps with r = alpha' / alpha (Ho et al. 2020, arXiv:2006.11239, eq. 2).

    Raises:
        ValueError: the other level is less noisy.
    """
    ratio = back.alpha / now.alpha
    fresh = back.sigma**2 - (ratio * now.sigma) ** 2
    if bool((fresh < -1e-9).any()):
        raise ValueError(f"expected a noisier level than {now.sigma.tolist()}, got {back.sigma.tolist()}")
    return over_rows(ratio, x) * x + over_rows(fresh.clamp(min=0).sqrt(), x) * noise


def renoise(state: State, schedule: Schedule, to: int | Int64[Tensor, " b"], noise: Float[Tensor, "b c h w"]) -> State:
    """Clean latents at the data end, put back to step `to` of the schedule (one for all, or each) with fresh noise."""
    step = torch.as_tensor(to, dtype=torch.int64).expand(len(state)).clone()
    now, _ = schedule.step(step, state.ids)
    return State(now.noised(state.x, noise), step, state.ids)
