"""Steps from one noise level to the next. All are pure: memory goes in and comes out, noise comes from the kick.

Written in (alpha, sigma), one formula serves variance-preserving, variance-exploding and flow-matching models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from segue.diffusion.schedule import Grid, is_flow
from segue.errors import ScheduleError
from segue.types import History, Kick, Point, Solver, over_rows

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def ddim(
    x: Float[Tensor, "b c h w"],
    x0: Float[Tensor, "b c h w"],
    now: Point,
    then: Point,
    history: History,
    kick: Kick,
) -> tuple[Float[Tensor, "b c h w"], History]:
    """The first-order step x' = alpha' x0 + (sigma' / sigma)(x - alpha x0).

    DDIM (Song et al. 2020, arXiv:2010.02502, eq. 12, eta = 0), Euler's method on the probability-flow ODE
    (Karras et al. 2022, arXiv:2206.00364) and on straight flows are this one formula in different coordinates.
    """
    carried = over_rows(then.sigma / now.sigma, x)
    return over_rows(then.alpha, x) * x0 + carried * (x - over_rows(now.alpha, x) * x0), history


@dataclass(frozen=True)
class Ancestral:
    """DDIM with fresh noise (Song et al. 2020, eq. 12 and 16): eta 0 is `ddim`, eta 1 is DDPM and Euler ancestral.

    std = eta sigma' sqrt(1 - r^2) with r = sigma' alpha / (sigma alpha'), which is the ancestral split of
    k-diffusion as well, and finite where alpha is 0.
    """

    eta: float = 1.0

    def __call__(
        self,
        x: Float[Tensor, "b c h w"],
        x0: Float[Tensor, "b c h w"],
        now: Point,
        then: Point,
        history: History,
        kick: Kick,
    ) -> tuple[Float[Tensor, "b c h w"], History]:
        """One step; `history` passes through."""
        shrink = (then.sigma * now.alpha) / (now.sigma * then.alpha)
        std = self.eta * then.sigma * (1 - shrink**2).clamp(min=0).sqrt()
        carried = (then.sigma**2 - std**2).clamp(min=0).sqrt() / now.sigma
        x = over_rows(then.alpha, x) * x0 + over_rows(carried, x) * (x - over_rows(now.alpha, x) * x0)
        return x + kick(x, now, then, std), history


euler_ancestral = Ancestral(eta=1.0)


def lcm(
    x: Float[Tensor, "b c h w"],
    x0: Float[Tensor, "b c h w"],
    now: Point,
    then: Point,
    history: History,
    kick: Kick,
) -> tuple[Float[Tensor, "b c h w"], History]:
    """Multistep consistency sampling: x0, noised afresh to the next level (Luo et al. 2023, arXiv:2310.04378, alg. 3).

    The boundary scalings c_skip and c_out of the paper are left out: at the times that are ever visited they differ
    from 0 and 1 by less than 1e-5. Turbo models take this step too.
    """
    return over_rows(then.alpha, x) * x0 + kick(x, now, then, then.sigma), history


@dataclass(frozen=True)
class DpmSolver2M:
    """DPM-Solver++(2M) of Lu et al. 2022 (arXiv:2211.01095, alg. 2), and its SDE form (midpoint).

    Remembers the last x0 and its log signal-to-noise ratio. A row that remembers nothing, and the step to sigma 0,
    are of first order.
    """

    stochastic: bool = False

    def __call__(
        self,
        x: Float[Tensor, "b c h w"],
        x0: Float[Tensor, "b c h w"],
        now: Point,
        then: Point,
        history: History,
        kick: Kick,
    ) -> tuple[Float[Tensor, "b c h w"], History]:
        """One step; returns what the next one needs to be of second order."""
        here, there = _lambda(now), _lambda(then)
        step = there - here
        decay = torch.exp(-step)
        last_x0, last = history or (torch.full_like(x0, float("nan")), torch.full_like(here, float("nan")))
        pull = step / (2 * (here - last))
        first_order = ~pull.isfinite()
        slope = torch.where(over_rows(first_order, x0) > 0, 0.0, over_rows(pull, x0) * (x0 - last_x0))
        shrink = then.sigma / now.sigma
        if not self.stochastic:
            gain = then.alpha * (1 - decay)
            return over_rows(shrink, x) * x + over_rows(gain, x) * (x0 + slope), (x0, here)
        gain = then.alpha * (1 - decay**2)
        std = then.sigma * (1 - decay**2).sqrt()
        x = over_rows(shrink * decay, x) * x + over_rows(gain, x) * (x0 + slope)
        return x + kick(x, now, then, std), (x0, here)


dpmpp_2m = DpmSolver2M()
dpmpp_2m_sde = DpmSolver2M(stochastic=True)


def _lambda(at: Point) -> Float[Tensor, " b"]:
    """Half the log signal-to-noise ratio; infinite at the ends."""
    return at.alpha.log() - at.sigma.log()


@dataclass(frozen=True)
class SolverChoice:
    """A solver by name, with the times that it is used on."""

    name: str
    solver: Solver
    grid: Grid


SOLVERS: Mapping[str, SolverChoice] = {
    choice.name: choice
    for choice in (
        SolverChoice("ddim", ddim, "ddim"),
        SolverChoice("euler", ddim, "sigmas"),
        SolverChoice("euler_ancestral", euler_ancestral, "sigmas"),
        SolverChoice("dpmpp_2m", dpmpp_2m, "multistep"),
        SolverChoice("dpmpp_2m_sde", dpmpp_2m_sde, "multistep"),
        SolverChoice("lcm", lcm, "lcm"),
    )
}


def find_solver(name: str) -> SolverChoice:
    """The solver of this name.

    Raises:
        ScheduleError: with the names there are.
    """
    if name not in SOLVERS:
        raise ScheduleError(f"solver must be one of {', '.join(SOLVERS)}; got {name!r}")
    return SOLVERS[name]


def solver_for(config: Mapping[str, Any]) -> str:
    """The name of the solver that a scheduler config stands for, or of the nearest that Segue has.

    Nothing is refused, since any solver can sample any model. These are stood in for: DPM-Solver multistep of another
    order, of solver_type "heun", or of the older algorithms "dpmsolver" and "sde-dpmsolver", by `dpmpp_2m` and
    `dpmpp_2m_sde`; every other scheduler (PNDM, Heun, UniPC, DDPM, ...) by `ddim`.
    """
    kind = str(config.get("_class_name", ""))
    if is_flow(config) or kind == "EulerDiscreteScheduler":
        return "euler"
    if kind == "EulerAncestralDiscreteScheduler":
        return "euler_ancestral"
    if kind == "LCMScheduler":
        return "lcm"
    if kind.startswith("DPMSolverMultistep"):
        return "dpmpp_2m_sde" if str(config.get("algorithm_type", "")).startswith("sde") else "dpmpp_2m"
    return "ddim"
