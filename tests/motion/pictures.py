"""Pictures whose motion is known."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def texture(height: int, width: int, seed: int = 0) -> Tensor:
    """One picture (1, 3, h, w) with something to hold on to at every scale."""
    draws = torch.Generator().manual_seed(seed)
    total = torch.zeros(1, 3, height, width)
    for scale in (1, 2, 4, 8, 16):
        coarse = torch.rand(1, 3, -(-height // scale), -(-width // scale), generator=draws)
        total += scale * interpolate(coarse, (height, width), mode="bicubic")
    return (total - total.min()) / (total.max() - total.min())


def moved(dx: int, dy: int, height: int = 96, width: int = 96, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two windows of one texture; what lies in the first at (x, y) lies in the second at (x + dx, y + dy)."""
    across, down = abs(dx), abs(dy)
    whole = texture(height + 2 * down, width + 2 * across, seed)
    first = whole[..., down : down + height, across : across + width]
    return first, whole[..., down - dy : down - dy + height, across - dx : across - dx + width]
