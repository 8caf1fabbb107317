"""Deformed copies of pictures, to teach a judge from: what is generated is softer and moved, in colours never seen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import affine_grid, conv2d, grid_sample, pad

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

ZOOM, SHIFT = (0.9, 1.15), 0.06
BLUR, NOISE = 1.6, 0.04
CONTRAST = 0.12
TURNED = 0.35
"""The share of pictures whose hues are turned, so that a blue cat is a cat."""


def augmented(pictures: Float[Tensor, "b 3 h w"], generator: torch.Generator) -> Float[Tensor, "b 3 h w"]:
    """Each picture in [0, 1] zoomed and shifted a little, blurred, with noise; some with other hues or contrast.

    Args:
        pictures: to deform.
        generator: of all chances; the same one gives the same copies.
    """
    moved = _moved(pictures, generator)
    coloured = _coloured(moved, generator)
    soft = _blurred(coloured, generator)
    strength = _uniform(len(pictures), 0.0, NOISE, generator)
    return (soft + strength * torch.randn(soft.shape, generator=generator)).clamp(0, 1)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Float[Tensor, "b 1 1 1"]:
    return (low + (high - low) * torch.rand(count, generator=generator)).view(-1, 1, 1, 1)


def _moved(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Zoomed and shifted; what comes in from outside continues the edge."""
    count = len(pictures)
    zoom = _uniform(count, *ZOOM, generator).view(-1)
    across, down = (_uniform(count, -2 * SHIFT, 2 * SHIFT, generator).view(-1) for _ in range(2))
    zero = torch.zeros(count)
    rows = torch.stack([1 / zoom, zero, across, zero, 1 / zoom, down], 1).view(-1, 2, 3)
    grid = affine_grid(rows, list(pictures.shape), align_corners=False)
    return grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def _coloured(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """The hues of some turned by any angle about the grey axis (Rodrigues' formula); the contrast of all changed."""
    count = len(pictures)
    turned = torch.rand(count, generator=generator) < TURNED
    angle = torch.rand(count, generator=generator) * 2 * math.pi * turned
    cosine, sine = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    across = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    turn = cosine * torch.eye(3) + sine * across + (1 - cosine) / 3
    pictures = torch.einsum("bij,bjhw->bihw", turn, pictures)
    factor = _uniform(count, 1 - CONTRAST, 1 + CONTRAST, generator)
    return ((pictures - 0.5) * factor + 0.5).clamp(0, 1)


def _blurred(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Half of them smoothed by a Gaussian of up to BLUR pixels (of a picture of 128)."""
    count, _, height, width = pictures.shape
    sigma = _uniform(count, -BLUR, BLUR, generator).clamp(min=1e-3) * width / 128
    reach = math.ceil(2.5 * BLUR * width / 128)
    offsets = torch.arange(-reach, reach + 1).view(1, 1, 1, -1)
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (weights / weights.sum(-1, keepdim=True)).repeat_interleave(3, 0)
    flat = pad(pictures, [reach] * 4, mode="replicate").reshape(1, 3 * count, height + 2 * reach, width + 2 * reach)
    rows = conv2d(flat, kernel, groups=3 * count)
    return conv2d(rows, kernel.transpose(-1, -2), groups=3 * count).view(count, 3, height, width)
