"""Pictures and ways at half the size, and ways at twice the size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Shaped
    from torch import Tensor


def halved(pictures: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Means of 2x2 pixels; of an odd side, the last line stands alone."""
    for dim in (2, 3):
        length = pictures.shape[dim]
        even = torch.arange(0, length, 2, device=pictures.device)
        odd = (even + 1).clamp(max=length - 1)
        pictures = (pictures.index_select(dim, even) + pictures.index_select(dim, odd)) * 0.5
    return pictures


def levels(pictures: Float[Tensor, "b c h w"], smallest: int) -> list[Float[Tensor, "b c _ _"]]:
    """The pictures and their halves, as long as the shorter side keeps `smallest` pixels."""
    found = [pictures]
    while (min(found[-1].shape[-2:]) + 1) // 2 >= smallest:
        found.append(halved(found[-1]))
    return found


def repeated(values: Shaped[Tensor, "... h2 w2"], height: int, width: int) -> Shaped[Tensor, "... h w"]:
    """Each value for the 2x2 pixels that it was the mean of; of odd sides, for the pixels that there are."""
    doubled = values.repeat_interleave(2, -2)[..., :height, :]
    return doubled.repeat_interleave(2, -1)[..., :width]


def reduced(way: Float[Tensor, "b 2 h w"], level: int, height: int, width: int) -> Int[Tensor, "b 2 h2 w2"]:
    """The way of the middle pixel of each block, in whole pixels of a pyramid's level."""
    step = 2**level
    across = (torch.arange(width, device=way.device) * step + step // 2).clamp(max=way.shape[3] - 1)
    down = (torch.arange(height, device=way.device) * step + step // 2).clamp(max=way.shape[2] - 1)
    return (way.index_select(3, across).index_select(2, down) / step).round().int()


def bounded(way: Shaped[Tensor, "b 2 h w"]) -> Shaped[Tensor, "b 2 h w"]:
    """The same ways, but those that leave the picture end at its border."""
    height, width = way.shape[2:]
    x = torch.arange(width, device=way.device, dtype=way.dtype)
    y = torch.arange(height, device=way.device, dtype=way.dtype)[:, None]
    held = way.clone()
    held[:, 0].add_(x).clamp_(0, width - 1).sub_(x)
    held[:, 1].add_(y).clamp_(0, height - 1).sub_(y)
    return held
