"""What is not known of a field over a picture, filled in from what is known around it and looks alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import avg_pool2d, interpolate, pad

from segue.motion.detail import low

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_SCALES = (16, 8, 4, 2)
"""How much smaller pictures are on which colours are looked at, in turn: from far around to near."""
_AROUND = 2.0
"""Standard deviation of that area, in pixels of the smaller picture."""
_SMOOTH = 1e-3
"""Variance of colours below which they decide nothing (epsilon of the guided filter)."""
_ENOUGH = 0.02
"""The share of an area that must be known for it to count half."""


def filled(
    values: Float[Tensor, "1 1 h w"], known: Float[Tensor, "1 1 h w"], seen: Float[Tensor, "1 c h w"]
) -> Float[Tensor, "1 1 h w"]:
    """Values, and where they are not known those of pixels nearby that look alike.

    Around each pixel, values are told by a linear function of what is seen, weighted by how far they are known: the
    guided filter (He et al. 2010, "Guided image filtering", eq. 5 and 6), whose coefficients are found on smaller
    pictures (He and Sun 2015, arXiv:1505.00996), with weights. Near areas count before far ones, as far as anything is
    known there.

    Args:
        values: of any range.
        known: from 0, filled in, to 1, kept as it is, to the bit.
        seen: what tells things apart, such as colours in [0, 1].
    """
    total = known.sum()
    everywhere = (known * values).sum() / total if float(total) > 0 else values.new_zeros(())
    found = torch.full_like(values, float(everywhere))
    for scale in _SCALES:
        if min(values.shape[2:]) < 2 * scale:
            continue
        line, share = _lines(values, known, seen, scale)
        sure = share / (share + _ENOUGH)
        told = (line[:, :-1] * seen).sum(1, keepdim=True) + line[:, -1:]
        found = found + sure * (told - found)
    low_end, high_end = values.aminmax()
    return torch.where(known >= 1, values, found.clamp(low_end, high_end).lerp(values, known))


def _lines(
    values: Tensor, known: Tensor, seen: Tensor, scale: int
) -> tuple[Float[Tensor, "1 c+1 h w"], Float[Tensor, "1 1 h w"]]:
    """Around each pixel, the coefficients of what is seen and the constant; and the share that is known."""
    count = seen.shape[1]
    pairs = [(i, j) for i in range(count) for j in range(i, count)]
    share = low(_small(known, scale), _AROUND).clamp(min=0)
    squares = torch.cat([seen[:, i : i + 1] * seen[:, j : j + 1] for i, j in pairs], 1)
    every = torch.cat([seen, values, seen * values, squares], 1)
    mean = low(_small(every * known, scale), _AROUND) / share.clamp(min=1e-6)
    own, value, together = mean[:, :count], mean[:, count : count + 1], mean[:, count + 1 : 2 * count + 1]
    spread = mean.new_zeros(1, count, count, *mean.shape[2:])
    for place, (i, j) in enumerate(pairs):
        spread[:, i, j] = spread[:, j, i] = mean[:, 2 * count + 1 + place] - own[:, i] * own[:, j]
    system = spread.permute(0, 3, 4, 1, 2) + _SMOOTH * torch.eye(count, device=mean.device)
    apart = (together - own * value).permute(0, 2, 3, 1)[..., None]
    slope = torch.linalg.solve(system, apart)[..., 0].permute(0, 3, 1, 2)
    line = torch.cat([slope, value - (slope * own).sum(1, keepdim=True), share], 1)
    height, width = values.shape[2:]
    large = interpolate(line, scale_factor=scale, mode="bilinear", align_corners=False)[..., :height, :width]
    return large[:, :-1], large[:, -1:]


def _small(fields: Float[Tensor, "1 c h w"], scale: int) -> Float[Tensor, "1 c h/s w/s"]:
    height, width = fields.shape[2:]
    return avg_pool2d(pad(fields, (0, -width % scale, 0, -height % scale), mode="replicate"), scale)
