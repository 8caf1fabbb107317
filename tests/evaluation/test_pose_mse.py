"""Pose-MSE against its definition, written out point by point."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from segue.evaluation.pose_mse import pose_mse
from segue.training.figure import figure_clip
from segue.types import KeyPoints
from segue.types.keypoints import BODY, POINTS


def of(places: torch.Tensor, size: tuple[int, int] = (128, 96)) -> KeyPoints:
    return KeyPoints(places, places[..., 0].isfinite().to(places), size)


def some(seed: int, persons: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    places = 90 * torch.rand(5, persons, POINTS, 2, generator=generator, dtype=torch.float64)
    places[torch.rand(5, persons, POINTS, generator=generator) < 0.2] = math.nan
    return places


def test_it_is_what_it_says() -> None:
    """Naively: every frame and point that both have."""
    found, asked = some(1), some(2)
    sizes: list[float] = []
    for frame in asked[:, 0, BODY].numpy():
        there = frame[~np.isnan(frame[:, 0])]
        sizes.append(math.dist(there.min(0), there.max(0)))
    size = sorted(sizes)[2]
    total, count, missing, wanted = 0.0, 0, 0, 0
    for frame in range(5):
        for point in range(POINTS):
            a, b = found[frame, 0, point].tolist(), asked[frame, 0, point].tolist()
            if math.isnan(b[0]):
                continue
            wanted += 1
            if math.isnan(a[0]):
                missing += 1
                continue
            total += (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2
            count += 1
    got = pose_mse(of(found), of(asked))
    assert got.value == pytest.approx(total / count / size**2)
    assert got.points == count and got.missing == pytest.approx(missing / wanted)
    assert got.size == pytest.approx(size)
    shares = [(18, "body"), (42, "hands"), (68, "face")]
    assert all(got.parts[name] is not None for _, name in shares)
    assert [measure.value for measure in got.measures()] == [got.value, got.missing]


def test_size_of_the_picture_does_not_count() -> None:
    clip = figure_clip(1, "walk", frames=6).key_points
    other = figure_clip(1, "walk", frames=6, phase=0.1).key_points
    small = pose_mse(other, clip)
    large = pose_mse(other.at((512, 512)), clip.at((512, 512)))
    assert small.value == pytest.approx(large.value, rel=1e-4)
    assert pose_mse(clip, clip).value == 0 and pose_mse(clip, clip).missing == 0
    assert small.value is not None and 1e-4 < small.value < 0.05
    drawn = figure_clip(1, "walk", size=(512, 512), frames=6).key_points
    torch.testing.assert_close(clip.at((512, 512)).places, drawn.places, atol=1e-2, rtol=0, equal_nan=True)


def test_persons_are_matched_and_who_is_missing_counts() -> None:
    asked = some(3, persons=3)
    swapped = of(asked[:, [2, 0, 1]])
    got = pose_mse(swapped, of(asked))
    assert got.value == 0 and got.missing == 0
    fewer = pose_mse(of(asked[:, [2, 0]]), of(asked))
    lost = float(asked[:, 1, :, 0].isfinite().sum() / asked[..., 0].isfinite().sum())
    assert fewer.value == 0 and fewer.missing == pytest.approx(lost)
    nobody = pose_mse(of(torch.full_like(asked, math.nan)), of(asked))
    assert nobody.value is None and nobody.missing == 1 and nobody.points == 0


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="of one size"):
        pose_mse(of(some(1)), of(some(1), (64, 96)))
    with pytest.raises(ValueError, match="as many pictures"):
        pose_mse(of(some(1)[:3]), of(some(1)))
    with pytest.raises(ValueError, match="nobody"):
        pose_mse(of(some(1)), of(torch.full_like(some(1), math.nan)))
