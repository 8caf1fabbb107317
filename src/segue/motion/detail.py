"""Two bands of pictures, and the sharpness that a mean of many has lost."""

from __future__ import annotations

from functools import cache
from math import exp
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch.nn.functional import pad

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

REACH = 4.0
"""Standard deviation, in pixels, of what divides the bands."""
_FINE = 1.0
_AROUND = 4.0
"""Standard deviation, in pixels, of the area over which energies are compared."""
_NOTHING = 1e-8
"""Mean square of detail that is none: far below what one of 256 levels makes."""
_ONE = np.ones(1, np.float32)
_VECTOR = 16
"""Numbers that the widest vectors hold."""


def low(pictures: Float[Tensor, "b c h w"], sigma: float = REACH) -> Float[Tensor, "b c h w"]:
    """What is left without detail: a Gaussian mean, mirrored at the border (repeated where it is too small)."""
    bell = _bell(sigma)
    mirrored = len(bell) // 2 < min(pictures.shape[2:])
    if pictures.device.type == "cpu" and pictures.dtype == torch.float32 and not pictures.requires_grad:
        border, weights = cv2.BORDER_REFLECT_101 if mirrored else cv2.BORDER_REPLICATE, bell.astype(np.float32)
        found = torch.empty(pictures.shape)
        for picture, room in zip(pictures.numpy(), found.numpy(), strict=True):
            _filtered(picture, weights, border, room)
        return found
    radius = len(bell) // 2
    wide = pad(pictures, (radius, radius, radius, radius), mode="reflect" if mirrored else "replicate")
    return _summed(_summed(wide, 3, bell), 2, bell)


@cache
def _bell(sigma: float) -> Float[np.ndarray, " n"]:
    """The weights of a Gaussian mean over three standard deviations to each side."""
    radius = max(1, round(3 * sigma))
    bell = [exp(-0.5 * (place / sigma) ** 2) for place in range(-radius, radius + 1)]
    total = bell[radius] + 2 * sum(bell[radius + 1 :])
    return np.array([part / total for part in bell])


def _filtered(
    picture: Float[np.ndarray, "c h w"], bell: Float[np.ndarray, " n"], border: int, room: Float[np.ndarray, "c h w"]
) -> None:
    """Put into `room` what OpenCV makes of a picture: 3 to 6 times as fast as sums of shifted pictures, of equal bits.

    Its means down columns add what lies above and below in pairs, so that mirrored pictures give mirrored bits; those
    along rows do not. So rows are turned into columns for theirs. Columns at the end of a row that make no full vector
    are rounded otherwise: planes lie side by side, filled up to a multiple.
    """
    planes, height, width = picture.shape
    turned = _side_by_side(width, planes * height)
    for plane, part in enumerate(picture):
        cv2.transpose(part, turned[:, plane * height : (plane + 1) * height])
    turned = cv2.sepFilter2D(turned, -1, _ONE, bell, borderType=border)
    wide = _side_by_side(height, planes * width)
    for plane in range(planes):
        there = slice(plane * width, (plane + 1) * width)
        cv2.transpose(turned[:, plane * height : (plane + 1) * height], wide[:, there])
    wide = cv2.sepFilter2D(wide, -1, _ONE, bell, borderType=border)
    for plane, part in enumerate(room):
        part[:] = wide[:, plane * width : (plane + 1) * width]


def _side_by_side(rows: int, columns: int) -> Float[np.ndarray, "rows filled"]:
    """Room for so many columns, and zeros up to a full vector."""
    room = np.empty((rows, -(-columns // _VECTOR) * _VECTOR), np.float32)
    room[:, columns:] = 0
    return room


def _summed(wide: Tensor, dim: int, bell: Float[np.ndarray, " n"]) -> Tensor:
    """The sum of shifted pictures: the bits of a convolution would depend on shapes."""
    radius = len(bell) // 2
    length = wide.shape[dim] - 2 * radius
    found = wide.narrow(dim, radius, length) * float(bell[radius])
    for away in range(1, radius + 1):
        pair = wide.narrow(dim, radius - away, length) + wide.narrow(dim, radius + away, length)
        found.add_(pair, alpha=float(bell[radius + away]))
    return found


def high(pictures: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """The detail: all that `low` takes away."""
    return pictures - low(pictures)


def split(detail: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 6 h w"]:
    """Detail in two bands: that of about a pixel, lost first where pictures are moved by parts of one, and the rest."""
    middle = low(detail, _FINE)
    return torch.cat([detail - middle, middle], 1)


def whole(bands: Float[Tensor, "b 6 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Both bands together; but for rounding, what was split."""
    return bands[:, :3] + bands[:, 3:]


def energy(detail: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
    """The mean square over the colours."""
    return detail.square().mean(1, keepdim=True)


def slope(detail: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
    """The mean square of differences to the right and below: what is called sharp. 0 beyond the border."""
    across = pad(detail[..., 1:] - detail[..., :-1], (0, 1))
    down = pad(detail[..., 1:, :] - detail[..., :-1, :], (0, 0, 0, 1))
    return energy(across) + energy(down)


def gain(
    of_mean: Float[Tensor, "b 1 h w"],
    of_all: Float[Tensor, "b 1 h w"],
    count: Float[Tensor, "b 1 h w"],
    grain: float,
    most: float,
) -> Float[Tensor, "b 1 h w"]:
    """How much stronger the detail of a mean has to be.

    Of `count` pictures, what all share keeps its energy s^2 in the mean, and what each has for itself, n^2, is left
    with n^2 / count. So from the energy of the mean and the mean of the energies follow both, and what is aimed at is
    s^2 + grain n^2: with 1, as much detail as in the pictures; with 0, what they share alone. Where the energies are
    equal, the gain is exactly 1.

    Args:
        of_mean: the energy of the detail of the mean.
        of_all: the mean energy of the details.
        count: pictures, 1 or more; of weighted ones, (sum w)^2 / sum w^2.
        grain: 0 to 1.
        most: the largest gain.
    """
    lost = low(of_all - of_mean, _AROUND)
    each = torch.where(count > 1.001, (grain * count - 1) / (count - 1).clamp(min=1e-3), torch.zeros_like(count))
    return (1 + each * lost / low(of_mean, _AROUND).clamp(min=_NOTHING)).clamp(0, most * most).sqrt()
