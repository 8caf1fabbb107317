# pyright: basic
"""What every model says of the frames that it denoises together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from segue.errors import TaskError
from segue.models.bundle import LatentDiffusion, Moving


def test_a_clip_is_a_group_that_calls_keep_whole(model: LatentDiffusion):
    moving = replace(model, moving=Moving(frames=16, fps=8.0, most=24))
    assert moving.over(24).denoiser.group == 24
    assert moving.over(24).denoiser.max_batch >= 24
    assert moving.batched(40).over(8).denoiser.max_batch == 40
    assert moving.over(1).denoiser == model.denoiser


def test_clips_that_are_too_long_and_models_of_single_pictures_are_refused(model: LatentDiffusion):
    moving = replace(model, moving=Moving(frames=16, fps=8.0, most=24))
    with pytest.raises(TaskError, match="24 frames at once, got 25"):
        moving.over(25)
    assert replace(model, moving=Moving(frames=16, fps=8.0)).over(100).denoiser.group == 100
    assert model.over(1).denoiser == model.denoiser
    with pytest.raises(TaskError, match="single pictures"):
        model.over(2)
    with pytest.raises(TaskError, match="at least one frame"):
        moving.over(0)
