"""Weights in 8 bits, with a scale for each output of a layer: how small networks of Segue's own are kept in files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

SCALE = ".scale"
"""What is appended to the name of a weight to name its scales."""


def packed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as a file keeps them: matrices and kernels in 8 bits, all else in half precision."""
    tensors: dict[str, Tensor] = {}
    for name, value in weights.items():
        value = value.detach().float().cpu().contiguous()
        if value.ndim < 2:
            tensors[name] = value.half()
            continue
        scale = value.flatten(1).abs().amax(1).clamp_min(1e-12) / 127
        tensors[name] = (value / _along(scale, value)).round().to(torch.int8)
        tensors[name + SCALE] = scale
    return tensors


def unpacked(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in float32 from what a file keeps, whether in 8 bits or not.

    Raises:
        LookupError: a weight in 8 bits has no scales.
    """
    return {
        name: value.float() * _along(stored[name + SCALE], value) if value.dtype == torch.int8 else value.float()
        for name, value in stored.items()
        if not name.endswith(SCALE)
    }


def _along(scale: Tensor, value: Tensor) -> Tensor:
    return scale.reshape(-1, *(1,) * (value.ndim - 1))
