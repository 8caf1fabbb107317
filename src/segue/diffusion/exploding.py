"""Variance-exploding diffusion: noise is added to a picture that keeps its size, x_t = x0 + sigma(t) eps.

Song et al. 2021, arXiv:2011.13456. In (alpha, sigma) it is alpha = 1 throughout, so that starts, loop and solvers are
those of all families; what is its own are its levels, and the solver that SDEdit takes with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from segue.diffusion.levels import Levels
from segue.diffusion.schedule import Schedule
from segue.errors import ScheduleError
from segue.types import History, Kick, Point, over_rows

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

LEAST, MOST = 0.01, 378.0
"""The noise of the models of 256x256 pixels that SDEdit takes; those of 1024x1024 go to 1348."""


def exploding_schedule(steps: int, *, least: float = LEAST, most: float = MOST) -> Schedule:
    """sigma(t) = least (most / least)^t at t = 1, 1 - 1/steps, ..., 1/steps; the last step lands on the picture.

    A strength s begins at sigma(s), as t0 does in SDEdit (Meng et al. 2021, arXiv:2108.01073, appendix C). The time
    that a network is told is sigma, as in the models of Song et al.

    Args:
        steps: 1 or more.
        least: sigma(0).
        most: sigma(1).

    Raises:
        ScheduleError: no steps, or levels that do not rise.
    """
    if steps < 1 or not 0 < least < most:
        raise ScheduleError(f"expected 1 or more steps and 0 < least < most, got {steps}, {least:g} and {most:g}")
    share = torch.arange(steps, 0, -1, dtype=torch.float64) / steps
    sigma = least * (most / least) ** share
    landing = torch.cat([sigma[1:], sigma.new_zeros(1)])
    now, then = (Levels(torch.ones_like(level), level, level) for level in (sigma, landing))
    return Schedule(now, then, start_scale=float(sigma[0]))


def reverse_sde(
    x: Float[Tensor, "b c h w"],
    x0: Float[Tensor, "b c h w"],
    now: Point,
    then: Point,
    history: History,
    kick: Kick,
) -> tuple[Float[Tensor, "b c h w"], History]:
    """One step of the reverse SDE: x' = x + e^2 score + e z, e = sqrt(sigma^2 - sigma'^2) (SDEdit, algorithm 1).

    Written for any family by sigma / alpha in place of sigma. It adds more noise than the ancestral step, which draws
    from the posterior, and agrees with it as steps become small. None is added on the step that ends in the picture.
    """
    high, low = (at.sigma / at.alpha for at in (now, then))
    kept = (low / high) ** 2
    std = torch.where(low > 0, then.alpha * (high**2 - low**2).clamp(min=0).sqrt(), 0.0)
    mean = over_rows(then.alpha * (1 - kept), x) * x0 + over_rows(then.alpha * kept / now.alpha, x) * x
    return mean + kick(x, now, then, std), history
