# pyright: basic
"""Scales of guidance over the frames of a clip."""

from __future__ import annotations

import pytest
import torch

from segue.diffusion.frame_guidance import SHAPES, linear, scales_over_frames, trapezoid, triangle
from segue.errors import TaskError


def test_linear_rises_evenly_from_the_first_frame():
    assert linear(5, 1.0, 3.0).tolist() == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert linear(1, 1.0, 3.0).tolist() == [1.0]


def test_a_triangle_ends_as_it_begins():
    assert triangle(5, 1.0, 3.0).tolist() == [1.0, 2.0, 3.0, 2.0, 1.0]
    twice = triangle(9, 1.0, 3.0, periods=2)
    assert torch.allclose(twice, torch.tensor([1, 2, 3, 2, 1, 2, 3, 2, 1], dtype=torch.float64))


def test_a_trapezoid_is_flat_between_its_slopes():
    scales = trapezoid(21, 1.0, 3.0)
    assert scales[:3].tolist() == pytest.approx([1.0, 2.0, 3.0])
    assert scales[2:19].tolist() == pytest.approx([3.0] * 17)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("frames", [1, 2, 14, 25])
def test_all_shapes_stay_between_their_scales(shape, frames):
    scales = scales_over_frames(shape, frames, 1.5, 4.0)
    assert len(scales) == frames
    assert 1.5 <= float(scales.min()) <= float(scales.max()) <= 4.0
    assert scales[0] == 1.5
    if shape != "linear":
        assert torch.allclose(scales, scales.flip(0))


def test_what_there_is_not_is_refused():
    with pytest.raises(TaskError, match="linear, triangle, trapezoid; got 'square'"):
        scales_over_frames("square", 5, 1, 2)
    for wrong, match in ((lambda: linear(0, 1, 2), "one frame"), (lambda: triangle(3, 1, 2, 0), "periods")):
        with pytest.raises(TaskError, match=match):
            wrong()
    with pytest.raises(TaskError, match="edge"):
        trapezoid(3, 1, 2, edge=0.6)
