"""Mixing latents of two trajectories."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

NEARLY_PARALLEL = 1e-7


def slerp(
    a: Float[Tensor, "b c h w"], b: Float[Tensor, "b c h w"], share: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """Spherical mix of whole latents, row by row: `share` 0 is exactly `a`, 1 exactly `b`.

    One angle per row, over all its numbers (Shoemake 1985). Each row is computed by itself, so that the result does
    not depend on its neighbours; in float64 where the device has it.
    """
    rows = [_slerp_one(*row) for row in zip(a, b, share.tolist(), strict=True)]
    return torch.stack(rows)


def _slerp_one(a: Tensor, b: Tensor, share: float) -> Tensor:
    if share in (0.0, 1.0):
        return a if share == 0.0 else b
    precise = torch.float32 if a.device.type == "mps" else torch.float64
    p, q = a.to(precise), b.to(precise)
    norms = p.norm() * q.norm()
    cosine = float((p * q).sum() / norms) if float(norms) > 0 else 1.0
    if abs(cosine) > 1 - NEARLY_PARALLEL:
        return (p * (1 - share) + q * share).to(a.dtype)
    angle = torch.tensor(cosine, dtype=torch.float64).acos()
    left, right = (float((angle * part).sin() / angle.sin()) for part in (1 - share, share))
    return (p * left + q * right).to(a.dtype)
