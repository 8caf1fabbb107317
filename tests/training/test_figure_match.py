"""Which posture a picture shows: right under noise, blur and another ground; nothing where there is no figure."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import avg_pool2d

from segue.errors import TrainingError
from segue.evaluation.pose_mse import pose_mse
from segue.training.figure import figure_clip
from segue.training.figure_match import nearest_postures


@pytest.mark.parametrize("motion", ["walk", "dance"])
def test_a_worse_picture_of_a_posture_is_still_of_that_posture(motion: str) -> None:
    clip = figure_clip(5, motion, frames=6, period=24, phase=4 / 24)
    worse = avg_pool2d(clip.frames[0:6], 5, 1, 2, count_include_pad=False)
    worse = (worse + 0.1 * torch.randn(worse.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    worse = 0.15 + 0.75 * worse
    found = nearest_postures(worse, clip, motions=("walk", "dance"))
    assert found.motions == (motion,) * 6
    expected = torch.arange(4, 10) / 24
    off = ((found.phases - expected + 0.5) % 1 - 0.5).abs()
    assert float(off.max()) <= 1.01 / 24
    measured = pose_mse(found.key_points, clip.key_points)
    other = pose_mse(figure_clip(5, motion, frames=6, phase=0.5).key_points, clip.key_points)
    assert measured.value is not None and other.value is not None
    assert measured.value < 0.05 * other.value


def test_it_is_exact_where_the_posture_is_among_those_tried() -> None:
    clip = figure_clip(9, "wave", size=(96, 96), frames=3, phase=0.25)
    found = nearest_postures(clip.frames[0:3], clip, motions=["wave"])
    assert (found.phases * 24).round().tolist() == [6, 7, 8]
    measured = pose_mse(found.key_points, clip.key_points)
    assert measured.value is not None and measured.value < 1e-8 and measured.missing == 0
    assert float(found.key_points.confidence.max()) > 0.9


def test_nobody_is_found_where_nobody_is() -> None:
    clip = figure_clip(9, "wave", size=(64, 64), frames=1)
    flat = torch.full((1, 3, 64, 64), 0.7)
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    found = nearest_postures(torch.cat([flat, noise]), clip, motions=["wave"], phases=4)
    assert found.motions == ("", "") and not bool(found.key_points.present.any())
    assert bool(found.phases.isnan().all())
    with pytest.raises(TrainingError, match="proportions"):
        nearest_postures(torch.zeros(1, 3, 64, 80), clip)
    with pytest.raises(TrainingError, match="to try"):
        nearest_postures(flat, clip, motions=[])
