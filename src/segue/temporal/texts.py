"""Mixing texts: what a network is told between prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch

from segue.temporal.blend import blended
from segue.temporal.mix import NEARLY_PARALLEL
from segue.types import Conditioning, over_rows

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Words = Literal["tokens", "line"]
"""How embeddings are mixed: spherically, with an angle for each token, or in a straight line."""


def between(a: Conditioning, b: Conditioning, share: Float[Tensor, " b"], words: Words) -> Conditioning:
    """A mix of texts, row by row: `share` 0 is exactly `a`, 1 exactly `b`. All but the tokens is mixed in a line."""
    straight = a.lerp(b, share)
    return straight if words == "line" else replace(straight, text=_turned(a.text, b.text, share))


def mixed(terms: Conditioning, shares: Sequence[float], words: Words) -> Conditioning:
    """One row of any number: in a line, or by the weighted mean on the sphere of each token. One alone is itself."""
    parts = [(row, share) for row, share in enumerate(shares) if share > 0]
    row, total = terms[[parts[0][0]]], parts[0][1]
    for other, share in parts[1:]:
        # A line to the second, from there one to the third, and so on: where it ends is the weighted sum.
        total += share
        row = row.lerp(terms[[other]], torch.tensor([share / total], dtype=torch.float64))
    if words == "line" or len(parts) == 1:
        return row
    if len(parts) == 2:
        (first, _), (second, share) = parts
        return between(terms[[first]], terms[[second]], torch.tensor([share], dtype=torch.float64), words)
    return replace(row, text=blended(terms.text, shares, "channels")[None])


def _turned(a: Float[Tensor, "b n d"], b: Float[Tensor, "b n d"], share: Float[Tensor, " b"]) -> Float[Tensor, "b n d"]:
    """Slerp of each token (Shoemake 1985); those that are nearly parallel, or nothing, in a line."""
    precise = torch.float32 if a.device.type == "mps" else torch.float64
    x, y = a.to(precise), b.to(precise)
    part = over_rows(share, x)
    lengths = x.norm(dim=-1, keepdim=True) * y.norm(dim=-1, keepdim=True)
    cosine = (x * y).sum(-1, keepdim=True) / lengths.clamp(min=1e-300)
    straight = (lengths == 0) | (cosine.abs() > 1 - NEARLY_PARALLEL)
    angle = torch.where(straight, 1.0, cosine.clamp(-1, 1).acos())
    left, right = (torch.where(straight, own, (own * angle).sin() / angle.sin()) for own in (1 - part, part))
    ends = torch.where(part == 0, a, b)
    return torch.where((part == 0) | (part == 1), ends, (x * left + y * right).to(a.dtype))
