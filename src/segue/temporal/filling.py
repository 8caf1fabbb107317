"""Frames between two known ones: where branches fork between them, and pixels that move from one to the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from segue.diffusion.schedule import Schedule
from segue.diffusion.starts import first_step
from segue.motion.flow import flow
from segue.motion.occlusion import followed
from segue.motion.warp import warp
from segue.temporal.mix import slerp
from segue.types import RowId, State, over_rows

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

UNSEEN = 1e-3
"""What a picture counts where its way is not believed: next to nothing, unless that of the other is not, either."""


def forked(
    left: Float[Tensor, "b c h w"],
    right: Float[Tensor, "b c h w"],
    shares: Sequence[float],
    noises: Float[Tensor, "b c h w"],
    schedule: Schedule,
    strength: float,
    ids: Sequence[RowId],
) -> State:
    """Branches that begin between two pictures, part of the way into noise: latent blending, of given ends.

    Both ends are noised alike, and mixed spherically at the level of the fork (after Latent Blending, as the tree does
    it with trajectories that it has run).

    Args:
        left: clean latents of one end, brought to the place of each row.
        right: of the other, likewise.
        shares: how far each row is from the left, 0, to the right, 1.
        noises: standard noise, one per row.
        schedule: of the whole run.
        strength: in (0, 1]: the share of the steps that is run.
        ids: who the rows are.
    """
    step = torch.full((len(left),), first_step(schedule, strength), dtype=torch.int64)
    now, _ = schedule.step(step, ids)
    mixed = slerp(now.noised(left, noises), now.noised(right, noises), torch.tensor(shares, dtype=torch.float64))
    return State(mixed, step, tuple(ids))


def flowed(
    left: Float[Tensor, "3 h w"], right: Float[Tensor, "3 h w"], shares: Sequence[float]
) -> Float[Tensor, "t 3 h w"]:
    """Pictures between two, made of their pixels alone, which move in straight lines.

    Ways to the place of a picture are put together of those between both ends (Jiang et al. 2018, arXiv:1712.00080,
    eq. 4), and each end counts by how near it is, where its way is found there and back again.

    Args:
        left: in [0, 1].
        right: likewise.
        shares: how far each picture is from the left, 0, to the right, 1.
    """
    there, back = flow(left[None], right[None]), flow(right[None], left[None])
    seen = followed(there, back)[:, None].float(), followed(back, there)[:, None].float()
    share = torch.tensor(shares, dtype=torch.float32)
    t = over_rows(share, there)
    to_left = -(1 - t) * t * there + t.square() * back
    to_right = (1 - t).square() * there - t * (1 - t) * back
    found = list["Tensor"]()
    weights = list["Tensor"]()
    for picture, ways, believed, near in (
        (left, to_left, seen[0], 1 - t),
        (right, to_right, seen[1], t),
    ):
        brought = warp(torch.cat([picture[None], believed], 1).expand(len(ways), -1, -1, -1).contiguous(), ways)
        found.append(brought[:, :3])
        weights.append(near * brought[:, 3:].clamp(UNSEEN, 1))
    total = weights[0] + weights[1]
    return ((found[0] * weights[0] + found[1] * weights[1]) / total).clamp(0, 1)
