"""Pictures that move, for tests: smooth, coloured, every frame another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

CLIPS = Path(__file__).parents[2] / "shared" / "clips"


def moving(count: int = 10, size: tuple[int, int] = (96, 64)) -> Tensor:
    """uint8 frames (t, 3, h, w): a gradient that drifts, with a bright bar at a place that tells the frame's number."""
    width, height = size
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    frames = torch.stack([torch.stack([0.2 + 0.5 * x, 0.2 + 0.5 * y, 0.8 - 0.02 * t * x]) for t in range(count)])
    for t in range(count):
        left = t * (width - 4) // max(1, count - 1)
        frames[t, :, height // 4 : height // 2, left : left + 4] = 0.95
    return (frames * 255).round().byte()


def numbers(frames: Tensor, total: int) -> list[int]:
    """Which of `total` moving frames each of these (t, 3, h, w in [0, 1]) is, read off its bar."""
    width = frames.shape[3]
    weight = (frames[:, 0, frames.shape[2] * 3 // 8] - 0.8).clamp(min=0)
    centre = (weight * torch.arange(width)).sum(-1) / weight.sum(-1)
    return ((centre - 1.5) * (total - 1) / (width - 4)).round().int().tolist()


def patches() -> Tensor:
    """One uint8 picture (1, 3, 96, 160) of 15 flat colours, 32 pixels each, the corners of the RGB cube among them."""
    corners = [[255 * (i >> bit & 1) for bit in range(3)] for i in range(8)]
    mixed = [
        [250, 128, 20],
        [18, 99, 201],
        [128, 128, 128],
        [60, 180, 75],
        [200, 30, 90],
        [240, 230, 140],
        [33, 33, 33],
    ]
    colours = torch.tensor(corners + mixed, dtype=torch.uint8).reshape(3, 5, 3)
    return colours.permute(2, 0, 1).repeat_interleave(32, 1).repeat_interleave(32, 2)[None]


def real_clip(name: str) -> Path:
    """Real footage; the test is skipped where it is missing."""
    path = CLIPS / name
    if not path.exists():
        pytest.skip(f"no real footage at {path}")
    return path
