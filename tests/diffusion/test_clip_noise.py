"""Noise that stochastic solvers add to the frames of a clip: standard, named, and common to them as far as is said."""

from __future__ import annotations

import pytest
import torch

from segue.diffusion.noise import ClipNoise, NamedNoise
from segue.types import Point, RowId

FRAMES = 3


def at(step: int, frames: tuple[int, ...] = tuple(range(FRAMES)), clip: str = "clip") -> Point:
    ones = torch.ones(len(frames), dtype=torch.float64)
    rows = tuple(RowId(clip, frame) for frame in frames)
    return Point(torch.full((len(frames),), step), 20, 0.8 * ones, 0.6 * ones, 500 * ones, rows)


def kicked(shared: float, point: Point, side: int = 200) -> torch.Tensor:
    return ClipNoise(7, shared)(torch.zeros(len(point.rows), 1, side, side), point, point, torch.ones(len(point.rows)))


def test_with_nothing_shared_it_is_the_usual_noise() -> None:
    std = torch.tensor([0.5, 1, 2])
    like = torch.zeros(FRAMES, 4, 8, 8)
    assert torch.equal(ClipNoise(7)(like, at(3), at(4), std), NamedNoise(7)(like, at(3), at(4), std))


@pytest.mark.parametrize("shared", [0.0, 0.25, 0.5, 1.0])
def test_frames_have_as_much_in_common_as_is_said_and_each_is_standard(shared: float) -> None:
    seen = torch.corrcoef(kicked(shared, at(3)).flatten(1))
    assert torch.allclose(seen, torch.eye(FRAMES) * (1 - shared) + shared, atol=0.02)
    assert torch.allclose(kicked(shared, at(3)).std((1, 2, 3)), torch.ones(FRAMES), atol=0.02)


def test_steps_and_clips_have_nothing_in_common_and_frames_know_their_number() -> None:
    one = kicked(0.5, at(3))
    for other in (kicked(0.5, at(4)), kicked(0.5, at(3, clip="another"))):
        assert abs(float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])) < 0.02
    assert torch.equal(kicked(0.5, at(3, (2, 0))), one[[2, 0]])
