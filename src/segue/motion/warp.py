"""Pictures pulled along a flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch.nn.functional import grid_sample

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

FINENESS = 32
"""Steps of a pixel that ways are kept in, unless they are whole."""
_TOGETHER = 4
"""Channels that OpenCV takes at once."""


def warp(fields: Float[Tensor, "b c h w"], along: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b c h w"]:
    """What each pixel meets at the end of its way: out(x, y) = fields(x + u, y + v), bicubic.

    With `along = flow(a, b)`, `warp(b, along)` looks like `a`. Beyond the border, its nearest pixel is taken. Ways in
    steps of 1/32 pixel, as those that are kept, take a third of the time on a CPU. Where a way has no length, a pixel
    comes as it is, bit for bit.
    """
    height, width = fields.shape[-2:]
    if _is_stepped(fields, along):
        found = torch.empty(fields.shape)
        for row, way, room in zip(fields.numpy(), along.numpy(), found.numpy(), strict=True):
            _put_stepped(row, way, room)
        return found
    y, x = torch.meshgrid(
        torch.arange(height, device=along.device, dtype=along.dtype),
        torch.arange(width, device=along.device, dtype=along.dtype),
        indexing="ij",
    )
    # grid_sample counts from edge to edge in [-1, 1], pixels standing for the middle of their area.
    across = (2 * (x + along[:, 0]) + 1) / width - 1
    down = (2 * (y + along[:, 1]) + 1) / height - 1
    grid = torch.stack([across, down], -1)
    found = grid_sample(fields, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return torch.where((along == 0).all(1, keepdim=True), fields, found)


def stepped(along: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b 2 h w"]:
    """Ways, rounded to steps of 1/32 pixel."""
    return (along * FINENESS).round() / FINENESS


def _is_stepped(fields: Tensor, along: Tensor) -> bool:
    """Whether OpenCV, which knows no finer steps, gives the same answer."""
    plain = all(each.device.type == "cpu" and each.dtype == torch.float32 for each in (fields, along))
    if not plain or fields.requires_grad or along.requires_grad or max(fields.shape[-2:]) >= 2**15:
        return False
    steps = along * FINENESS
    return bool((steps == steps.round()).all())


def _put_stepped(
    fields: Float[np.ndarray, "c h w"], along: Float[np.ndarray, "2 h w"], room: Float[np.ndarray, "c h w"]
) -> None:
    height, width = fields.shape[1:]
    x = along[0] + np.arange(width, dtype=np.float32)
    y = along[1] + np.arange(height, dtype=np.float32)[:, None]
    for first in range(0, len(fields), _TOGETHER):
        part = cv2.merge([np.ascontiguousarray(field) for field in fields[first : first + _TOGETHER]])
        moved = cv2.remap(part, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        room[first : first + _TOGETHER] = moved.reshape(height, width, -1).transpose(2, 0, 1)
