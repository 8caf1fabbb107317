"""Two bands of pictures, and the sharpness that a mean of many has lost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

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


def low(pictures: Float[Tensor, "b c h w"], sigma: float = REACH) -> Float[Tensor, "b c h w"]:
    """What is left without detail: a Gaussian mean, mirrored at the border (repeated where it is too small)."""
    radius = max(1, round(3 * sigma))
    bell = [math.exp(-0.5 * (place / sigma) ** 2) for place in range(radius + 1)]
    total = bell[0] + 2 * sum(bell[1:])
    mode = "reflect" if radius < min(pictures.shape[2:]) else "replicate"
    wide = pad(pictures, (radius, radius, radius, radius), mode=mode)
    return _summed(_summed(wide, 3, [part / total for part in bell]), 2, [part / total for part in bell])


def _summed(wide: Tensor, dim: int, bell: list[float]) -> Tensor:
    """The sum of shifted pictures. Ten times as fast on a CPU as a convolution, whose bits would depend on shapes."""
    radius = len(bell) - 1
    length = wide.shape[dim] - 2 * radius
    found = wide.narrow(dim, radius, length) * bell[0]
    for away in range(1, radius + 1):
        pair = wide.narrow(dim, radius - away, length) + wide.narrow(dim, radius + away, length)
        found.add_(pair, alpha=bell[away])
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
