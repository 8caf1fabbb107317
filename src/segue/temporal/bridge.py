"""DDIB: a picture goes into noise with one model, and comes out of it with another.

Dual Diffusion Implicit Bridges (Su et al. 2022, arXiv:2203.08382): the probability-flow ODE of the source model, then
that of the target model, backwards. Source and target may be two models that share a space of latents and levels, or
one model that is told two things. They meet in the noise alone: who has the one need not have the other, and the noise
can be kept in a file between them (`segue.models.inverted`).

Going there and back is the identity up to the error of the solver, which falls as 1 / steps for DDIM. With
`exactly_inverted` it is the identity to rounding. In between, noise is the same Gaussian for both only if the last
level of the schedule has no picture left; where some is, each keeps its own mean there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from segue.diffusion.loop import denoise
from segue.diffusion.schedule import Schedule
from segue.temporal.inversion import Inversion
from segue.types import Condition, Denoiser, Operator, Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def bridged(
    denoiser: Denoiser,
    way: Inversion,
    schedule: Schedule,
    target: Condition,
    *,
    operators: Sequence[Operator] = (),
    progress: Progress = silent,
) -> Float[Tensor, "t c h w"]:
    """What a target model makes of noise that a source model found.

    Args:
        denoiser: the target model.
        way: `inverted` or `exactly_inverted` with the source model.
        schedule: that of the way; see there.
        target: what is wanted, one row per row; guided, if so wanted.
        operators: see `denoise`.
        progress: told of each step.

    Raises:
        ValueError: the way begins where the schedule has ended.
    """
    if way.first >= len(schedule):
        raise ValueError(f"the inversion begins at step {way.first}, and the schedule has {len(schedule)}")
    state = way.state
    run = denoise(denoiser, state, schedule, target, solver=way.solver, operators=operators, kick=way.kick)
    for state in run:
        if done := int(state.step[0]) - way.first:
            progress("bridging", done, len(schedule) - way.first)
    return state.x
