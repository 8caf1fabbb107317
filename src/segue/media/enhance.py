"""Contrast and sharpness of finished pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import conv2d

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)  # BT.601
_SMOOTH = ((1.0, 1.0, 1.0), (1.0, 5.0, 1.0), (1.0, 1.0, 1.0))


def contrasted(pictures: Float[Tensor, "t 3 h w"], factor: float) -> Float[Tensor, "t 3 h w"]:
    """Colours moved from the mean brightness of their picture, so many times as far: ImageEnhance.Contrast of Pillow.

    Unlike there, nothing is rounded. 1 gives back the very same pictures.
    """
    if factor == 1:
        return pictures
    weights = torch.tensor(_LUMA, dtype=pictures.dtype, device=pictures.device).view(3, 1, 1)
    mean = (pictures * weights).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    return (mean + factor * (pictures - mean)).clamp(0, 1)


def sharpened(pictures: Float[Tensor, "t 3 h w"], factor: float) -> Float[Tensor, "t 3 h w"]:
    """Pixels moved from the mean of their neighbours, so many times as far: ImageEnhance.Sharpness of Pillow.

    As there, pixels at the border stay as they are. 1 gives back the very same pictures.
    """
    if factor == 1 or min(pictures.shape[2:]) < 3:
        return pictures
    kernel = torch.tensor(_SMOOTH, dtype=pictures.dtype, device=pictures.device)
    kernel = (kernel / kernel.sum()).expand(3, 1, 3, 3)
    out = pictures.clone()
    smooth, inner = conv2d(pictures, kernel, groups=3), pictures[..., 1:-1, 1:-1]
    out[..., 1:-1, 1:-1] = (smooth + factor * (inner - smooth)).clamp(0, 1)
    return out
