"""How faithful copies are to their originals: PSNR, SSIM, and a perceptual distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import conv2d

from segue.types import Perceptual

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03


@dataclass(frozen=True)
class Fidelity:
    """Means over pairs of an original and its copy.

    Args:
        psnr: in dB; higher is closer.
        ssim: up to 1; higher is closer.
        distances: by the name of each perceptual distance; lower is closer.
        pictures: how many pairs.
    """

    psnr: float
    ssim: float
    distances: dict[str, float]
    pictures: int


def fidelity(
    originals: Float[Tensor, "n 3 h w"],
    copies: Float[Tensor, "n 3 h w"],
    perceptual: tuple[Perceptual, ...] = (),
    *,
    batch: int = 32,
) -> Fidelity:
    """All measures of copies of pictures in [0, 1].

    Raises:
        ValueError: the shapes differ, there are no pictures, or a distance compares something else than pictures.
    """
    _check(originals, copies)
    wrong = [distance.name for distance in perceptual if distance.domain != "frames"]
    if wrong:
        raise ValueError(f"fidelity needs distances between pictures; {wrong[0]} compares latents")
    rows: list[Tensor] = []
    with torch.no_grad():
        for start in range(0, len(originals), batch):
            a, b = originals[start : start + batch], copies[start : start + batch]
            rows.append(torch.stack([psnr(a, b), ssim(a, b), *(distance(a, b) for distance in perceptual)], 1))
    means = torch.cat(rows).double().mean(0).tolist()
    named = zip((distance.name for distance in perceptual), means[2:], strict=True)
    return Fidelity(means[0], means[1], dict(named), len(originals))


def psnr(a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Peak signal-to-noise ratio of each pair of pictures in [0, 1], in dB; infinite for equal ones."""
    _check(a, b)
    return -10 * (a - b).double().square().flatten(1).mean(1).log10()


def ssim(a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Structural similarity of each pair of pictures in [0, 1], the mean over the three channels.

    Wang et al. 2004 ("Image quality assessment: from error visibility to structural similarity"), eq. 13, with their
    Gaussian window of 11 x 11 pixels and sigma 1.5. Only windows that lie within the picture count.

    Raises:
        ValueError: the shapes differ, or a side is shorter than 11 pixels.
    """
    _check(a, b)
    if min(a.shape[-2:]) < _WINDOW:
        raise ValueError(f"SSIM needs pictures of at least {_WINDOW} pixels a side, got {tuple(a.shape[-2:])}")
    x, y = a.double(), b.double()
    mean_x, mean_y = _smooth(x), _smooth(y)
    variance_x, variance_y = _smooth(x * x) - mean_x**2, _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (likeness / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))).flatten(1).mean(1)


def _smooth(x: Tensor) -> Tensor:
    """Averages under the Gaussian window, one axis after the other."""
    offsets = torch.arange(_WINDOW, dtype=x.dtype, device=x.device) - _WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    weights = weights / weights.sum()
    channels = x.shape[1]
    rows = conv2d(x, weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return conv2d(rows, weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def _check(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.ndim != 4 or len(a) == 0:
        raise ValueError(f"expected as many copies as originals, (n, 3, h, w); got {tuple(a.shape)}, {tuple(b.shape)}")
