"""Pictures pulled along a flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import grid_sample

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def warp(fields: Float[Tensor, "b c h w"], along: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b c h w"]:
    """What each pixel meets at the end of its way: out(x, y) = fields(x + u, y + v), bicubic.

    With `along = flow(a, b)`, `warp(b, along)` looks like `a`. Beyond the border, its nearest pixel is taken.
    """
    height, width = fields.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=along.device, dtype=along.dtype),
        torch.arange(width, device=along.device, dtype=along.dtype),
        indexing="ij",
    )
    # grid_sample counts from edge to edge in [-1, 1], pixels standing for the middle of their area.
    across = (2 * (x + along[:, 0]) + 1) / width - 1
    down = (2 * (y + along[:, 1]) + 1) / height - 1
    grid = torch.stack([across, down], -1)
    return grid_sample(fields, grid, mode="bicubic", padding_mode="border", align_corners=False)
