"""Where a flow can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from segue.motion.warp import warp

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

_RELATIVE, _ABSOLUTE = 0.01, 0.5


def followed(there: Float[Tensor, "b 2 h w"], back: Float[Tensor, "b 2 h w"]) -> Bool[Tensor, "b h w"]:
    """The pixels that the two flows between two pictures carry there and back again, within the picture.

    |w + w'(p + w)|^2 < 0.01 (|w|^2 + |w'(p + w)|^2) + 0.5, in pixels (Sundaram et al. 2010, "Dense point trajectories
    by GPU-accelerated large displacement optical flow"). What is covered or leaves the picture fails.

    Args:
        there: from the first picture to the second.
        back: from the second to the first.
    """
    returned = warp(back, there)
    error = (there + returned).square().sum(1)
    lengths = there.square().sum(1) + returned.square().sum(1)
    height, width = there.shape[-2:]
    x = torch.arange(width, device=there.device) + there[:, 0]
    y = torch.arange(height, device=there.device)[:, None] + there[:, 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return inside & (error < _RELATIVE * lengths + _ABSOLUTE)
