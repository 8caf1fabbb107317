"""Pictures made larger without a model: Lanczos, padding by reflection, and the lowest band of another picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import conv1d, interpolate

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

LOBES = 3
BAND = 8
"""Pixels of the small picture, along a side, that share one number in what is usually taken for its lowest band."""


def lanczos(pictures: Float[Tensor, "t 3 h w"], factor: int) -> Float[Tensor, "t 3 H W"]:
    """Pictures in [0, 1], `factor` times as large, by a windowed sinc of three lobes; what it overshoots is clipped.

    Duchon 1979, "Lanczos filtering in one and two dimensions". At the edges only pixels that are there count.
    """
    return _stretched(_stretched(pictures, factor).mT, factor).mT.clamp(0, 1)


def _stretched(x: Tensor, factor: int) -> Tensor:
    """Along the last axis. Each of `factor` phases is a filter of its own."""
    taps = torch.arange(-LOBES, LOBES + 1, dtype=torch.float64)
    phases = (torch.arange(factor, dtype=torch.float64) + 0.5) / factor - 0.5
    away = taps - phases[:, None]
    kernel = torch.where(away.abs() < LOBES, torch.sinc(away) * torch.sinc(away / LOBES), 0.0).to(x)[:, None]
    lines = x.reshape(-1, 1, x.shape[-1])
    there = conv1d(torch.ones_like(lines[:1]), kernel, padding=LOBES)
    return (conv1d(lines, kernel, padding=LOBES) / there).mT.reshape(*x.shape[:-1], -1)


def mirrored(pictures: Float[Tensor, "t 3 h w"], size: tuple[int, int]) -> Float[Tensor, "t 3 H W"]:
    """Pictures that go on to the right and below as in a mirror, up to (width, height), which is no smaller."""
    width, height = size
    rows, columns = (
        _reflection(own, wanted) for own, wanted in ((pictures.shape[-2], height), (pictures.shape[-1], width))
    )
    return pictures[..., rows.to(pictures.device), :][..., columns.to(pictures.device)]


def _reflection(own: int, wanted: int) -> Tensor:
    if wanted < own:
        raise ValueError(f"{own} pixels cannot be padded to {wanted}")
    period = max(1, 2 * (own - 1))
    place = torch.arange(wanted) % period
    return torch.minimum(place, period - place).clamp(max=own - 1)


def with_low_band(
    large: Float[Tensor, "t 3 H W"], small: Float[Tensor, "t 3 h w"], band: int = BAND
) -> Float[Tensor, "t 3 H W"]:
    """Large pictures whose lowest band is that of the small ones, in [0, 1].

    The band has one number for each `band` x `band` pixels of a small picture, and is smooth in between. With a band of
    1 it is the whole small picture: one step of back-projection (Irani & Peleg 1991, "Improving resolution by image
    registration").
    """
    missing = low_band(small, small.shape[-2:], band) - low_band(large, small.shape[-2:], band)
    return (large + interpolate(missing, large.shape[-2:], mode="bicubic")).clamp(0, 1)


def low_band(
    pictures: Float[Tensor, "t 3 H W"], small: tuple[int, ...], band: int = BAND
) -> Float[Tensor, "t 3 bh bw"]:
    """Means over the areas that stand for `band` x `band` pixels of pictures of the size `small`, (height, width)."""
    height, width = (max(1, round(side / band)) for side in small)
    return interpolate(pictures, (height, width), mode="area")
