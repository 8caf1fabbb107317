"""Mixing latents of two trajectories."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Mix = Literal["whole", "channels", "linear"]
"""How two latents are mixed: spherically with one angle for all their numbers, with one for each channel, or in a
straight line whose length is put right."""
NEARLY_PARALLEL = 1e-7


def mixed(
    a: Float[Tensor, "b c h w"], b: Float[Tensor, "b c h w"], share: Float[Tensor, " b"], mix: Mix = "whole"
) -> Float[Tensor, "b c h w"]:
    """A mix of latents, row by row: `share` 0 is exactly `a`, 1 exactly `b`, and a mix of equals is what they are.

    "whole" and "channels" are spherical (Shoemake 1985). "linear" is stretched so that its norm, too, lies in a line
    between those of both; only opposites, of whose half-way point no direction is left, give 0. Each row is computed by
    itself, so that the result does not depend on its neighbours; in float64 where the device has it.
    """
    one = _MIXES[mix]
    return torch.stack([_exact(one, *row) for row in zip(a, b, share.tolist(), strict=True)])


def slerp(
    a: Float[Tensor, "b c h w"], b: Float[Tensor, "b c h w"], share: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """The spherical mix of whole latents: see `mixed`."""
    return mixed(a, b, share)


def _exact(mix: Callable[[Tensor, Tensor, float], Tensor], a: Tensor, b: Tensor, share: float) -> Tensor:
    if share in (0.0, 1.0):
        return a if share == 0.0 else b
    precise = torch.float32 if a.device.type == "mps" else torch.float64
    return mix(a.to(precise), b.to(precise), share).to(a.dtype)


def _whole(a: Tensor, b: Tensor, share: float) -> Tensor:
    norms = a.norm() * b.norm()
    cosine = float((a * b).sum() / norms) if float(norms) > 0 else 1.0
    if abs(cosine) > 1 - NEARLY_PARALLEL:
        return a * (1 - share) + b * share
    angle = torch.tensor(cosine, dtype=torch.float64).acos()
    left, right = (float((angle * part).sin() / angle.sin()) for part in (1 - share, share))
    return a * left + b * right


def _channels(a: Tensor, b: Tensor, share: float) -> Tensor:
    return torch.stack([_whole(*pair, share) for pair in zip(a, b, strict=True)])


def _linear(a: Tensor, b: Tensor, share: float) -> Tensor:
    straight = a * (1 - share) + b * share
    wanted, length = a.norm() * (1 - share) + b.norm() * share, straight.norm()
    return straight * (wanted / length) if float(length) > NEARLY_PARALLEL * float(wanted) else straight


_MIXES: dict[Mix, Callable[[Tensor, Tensor, float], Tensor]] = {
    "whole": _whole,
    "channels": _channels,
    "linear": _linear,
}
