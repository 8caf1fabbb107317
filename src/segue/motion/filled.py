"""What is not known of a field over a picture, filled in from what is known around it, by colour."""

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


def filled_by_colour(
    values: Float[Tensor, "1 1 h w"], known: Float[Tensor, "1 1 h w"], picture: Float[Tensor, "1 3 h w"]
) -> Float[Tensor, "1 1 h w"]:
    """Values, and where they are not known what pixels of such a colour have nearby.

    Around each pixel, values are told by a linear function of the colours, weighted by how far they are known: the
    guided filter (He et al. 2010, "Guided image filtering", eq. 5 and 6), whose coefficients are found on smaller
    pictures (He and Sun 2015, arXiv:1505.00996), with weights. Near areas count before far ones, as far as anything is
    known there.

    Args:
        values: of any range.
        known: from 0, filled in, to 1, kept as it is, to the bit.
        picture: in [0, 1].
    """
    total = known.sum()
    everywhere = (known * values).sum() / total if float(total) > 0 else values.new_zeros(())
    filled = torch.full_like(values, float(everywhere))
    for scale in _SCALES:
        if min(values.shape[2:]) < 2 * scale:
            continue
        line, share = _lines(values, known, picture, scale)
        sure = share / (share + _ENOUGH)
        told = (line[:, :3] * picture).sum(1, keepdim=True) + line[:, 3:]
        filled = filled + sure * (told - filled)
    low_end, high_end = values.aminmax()
    return torch.where(known >= 1, values, filled.clamp(low_end, high_end).lerp(values, known))


def _lines(
    values: Tensor, known: Tensor, picture: Tensor, scale: int
) -> tuple[Float[Tensor, "1 4 h w"], Float[Tensor, "1 1 h w"]]:
    """Around each pixel, the coefficients of the three colours and the constant; and the share that is known."""
    weights = _small(known, scale)
    share = low(weights, _AROUND).clamp(min=0)
    per = 1 / share.clamp(min=1e-6)
    squares = torch.cat([picture[:, i : i + 1] * picture[:, j : j + 1] for i, j in _PAIRS], 1)
    every = torch.cat([picture, values, squares, picture * values], 1)
    mean = low(_small(every * known, scale), _AROUND) * per
    colours, value = mean[:, :3], mean[:, 3:4]
    spread = mean.new_zeros(1, 3, 3, *mean.shape[2:])
    for place, (i, j) in enumerate(_PAIRS):
        spread[:, i, j] = spread[:, j, i] = mean[:, 4 + place] - colours[:, i] * colours[:, j]
    together = mean[:, 10:] - colours * value
    system = spread.permute(0, 3, 4, 1, 2) + _SMOOTH * torch.eye(3, device=mean.device)
    slope = torch.linalg.solve(system, together.permute(0, 2, 3, 1)[..., None])[..., 0].permute(0, 3, 1, 2)
    line = torch.cat([slope, value - (slope * colours).sum(1, keepdim=True), share], 1)
    height, width = values.shape[2:]
    large = interpolate(line, scale_factor=scale, mode="bilinear", align_corners=False)[..., :height, :width]
    return large[:, :4], large[:, 4:]


_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


def _small(fields: Float[Tensor, "1 c h w"], scale: int) -> Float[Tensor, "1 c h/s w/s"]:
    height, width = fields.shape[2:]
    return avg_pool2d(pad(fields, (0, -width % scale, 0, -height % scale), mode="replicate"), scale)
