"""A solver that can be run backwards exactly, whatever the network: a leapfrog over two steps.

O-BELM of Wang et al. 2024 (arXiv:2410.07273, "Bidirectional explicit linear multi-step"): the next state is a linear
combination of the last one, this one, and what the network says of this one alone. So the last follows from the next
by the same formula read the other way, with the same evaluation; DDIM's inverse would need to be asked where it lands.
Exact means to rounding, which grows a little with every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from segue.diffusion.solvers import ddim
from segue.types import History, Kick, Point, over_rows

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_NOISIEST = 20.0
"""sigma / alpha up to which x / alpha is followed; above, where that grows without end, x / (alpha + sigma) is."""


def belm(
    x: Float[Tensor, "b c h w"],
    x0: Float[Tensor, "b c h w"],
    now: Point,
    then: Point,
    history: History,
    kick: Kick,
) -> tuple[Float[Tensor, "b c h w"], History]:
    """One step of second order; it remembers the state that it leaves, and its level.

    With y = x / m and v = sigma / m, the states of three levels 0, 1, 2 obey
    y2 = r^2 y0 + (1 - r^2) y1 + (1 + r)(v2 - v1) dy/dv(1), r = (v2 - v1) / (v1 - v0); m is alpha, as in the paper, or
    alpha + sigma where there is next to no picture. The levels must be joined (`Schedule.joined`).

    A row that remembers nothing takes a step of `ddim`, and the kick for it: so that a run that begins as another one
    did can be led onto its second state.
    """
    blank = torch.full_like(now.alpha, float("nan"))
    last, alpha, sigma = history or (torch.full_like(x, float("nan")), blank, blank)
    levels = (_Level(alpha.cpu(), sigma.cpu()), _Level(now.alpha, now.sigma), _Level(then.alpha, then.sigma))
    new = ~(alpha.isfinite()).cpu()
    stepped = _leap(x, x0, last, levels)
    if bool(new.any()):
        rows = new.nonzero()[:, 0].tolist()
        first, _ = ddim(x[rows], x0[rows], now[rows], then[rows], (), kick)
        stepped[rows] = first + kick(x[rows], now[rows], then[rows], torch.zeros_like(now.sigma[rows]))
    return stepped, (x, now.alpha, now.sigma)


class _Level(NamedTuple):
    alpha: Float[Tensor, " b"]
    sigma: Float[Tensor, " b"]


def _leap(x: Tensor, x0: Tensor, last: Tensor, levels: tuple[_Level, _Level, _Level]) -> Tensor:
    """The state at the third of three levels, from those at the first two."""
    noisy = torch.stack([level.sigma > _NOISIEST * level.alpha for level in levels]).any(0)
    scales = [torch.where(noisy, level.alpha + level.sigma, level.alpha) for level in levels]
    places = [level.sigma / scale for level, scale in zip(levels, scales, strict=True)]
    back, ahead = places[1] - places[0], places[2] - places[1]
    ratio = ahead / back
    out = scales[2]
    eps = (x - over_rows(levels[1].alpha, x) * x0) / over_rows(levels[1].sigma, x)
    slope = torch.where(over_rows(noisy.to(x.dtype), x) > 0, eps - x0, eps)
    return (
        over_rows(out * ratio**2 / scales[0], x) * last
        + over_rows(out * (1 - ratio**2) / scales[1], x) * x
        + over_rows(out * (1 + ratio) * ahead, x) * slope
    )
