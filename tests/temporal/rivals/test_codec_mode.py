"""Frames as a codec has them: moved exactly where they can be, drawn where something comes into sight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from segue.errors import TaskError
from segue.media.clip import TensorFrames
from segue.models.bundle import LatentDiffusion
from segue.models.denoiser import Tally
from segue.models.loading import load_model
from segue.motion.fields import Fields
from segue.motion.keyframes import keyed
from segue.temporal.rivals.codec_mode import CodecMode
from segue.temporal.rivals.inputs import Outcome, RivalInputs
from temporal.rivals.clips import SIDE, Across, alone, clip, inputs, plain


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model(written: Path) -> LatentDiffusion:
    return load_model(written, device="cpu")


def pictures(made: Outcome) -> Tensor:
    assert made.pictures is not None
    return made.pictures[:]


def test_what_is_not_hidden_is_moved_exactly(model: LatentDiffusion) -> None:
    """In a clip that stands still, that is everything; in one that moves, all but what comes in and what is near it."""
    still = pictures(CodecMode(between=0).run(inputs(model, 4)))
    assert torch.equal(still, still[:1].expand_as(still))
    given = inputs(model, 3, by=8)
    moving = pictures(CodecMode(between=0, feather=2.0).run(given))
    for k in (1, 2):
        assert torch.equal(moving[k, :, :, 10:], moving[k - 1, :, :, 2:-8])
        smeared = moving[k - 1, :, :, :1].expand(-1, -1, 8)
        assert float((moving[k, :, :, :8] - smeared).abs().max()) > 0.005, "what comes in is drawn"
    first = model.codec.decode(plain(alone(given, 0)))
    assert torch.allclose(moving[:1], first, atol=1e-5)


def test_only_what_must_be_is_drawn(model: LatentDiffusion) -> None:
    """Frames that nothing is hidden in cost no evaluation: one I frame is all."""
    tally = Tally()
    given = inputs(model, 7, denoiser=tally.watching(model.denoiser))
    CodecMode().run(given)
    assert tally.rows == 2 * given.steps
    moving = replace(inputs(model, 7, by=8), denoiser=tally.watching(model.denoiser))
    CodecMode().run(moving)
    assert tally.rows == 2 * given.steps * (1 + 1 + 2), "and two P frames"


def test_frames_between_are_interpolated(model: LatentDiffusion) -> None:
    given = inputs(model, 5, by=4)
    made = pictures(CodecMode(between=1).run(given))
    keys, fields = TensorFrames.rounded(made[::2]), given.need_fields("test")
    for number, picture, _ in keyed(keys, (0, 2, 4), fields, numbers=(1, 3)):
        assert torch.allclose(made[number], picture, atol=0.01)


def test_which_frames_are_drawn_in_which_way() -> None:
    fields = Fields(Across(), clip(14), cuts=(9,))
    assert CodecMode(between=2).places(fields) == [(0, None), (3, 0), (6, 3), (8, 6), (9, None), (12, 9), (13, 12)]
    assert CodecMode(between=1, period=4).places(fields)[:4] == [(0, None), (2, 0), (4, None), (6, 4)]
    assert CodecMode(between=9).places(fields) == [(0, None), (8, 0), (9, None), (13, 9)]
    single = Fields(Across(), clip(2), cuts=(1,))
    assert CodecMode().places(single) == [(0, None), (1, None)]


def test_nothing_crosses_a_cut(model: LatentDiffusion) -> None:
    given = inputs(model, 4, by=8, cuts=(2,))
    made = pictures(CodecMode(between=0).run(given))
    assert torch.allclose(made[2:3], model.codec.decode(plain(alone(given, 2))), atol=1e-5)


def test_what_it_needs_is_said(model: LatentDiffusion) -> None:
    given: RivalInputs = inputs(model, 3)
    with pytest.raises(TaskError, match="no fields"):
        CodecMode().run(replace(given, source=replace(given.source, fields=None)))
    other = Fields(Across(), clip(4))
    with pytest.raises(ValueError, match=f"3 frames of .{SIDE}"):
        CodecMode().run(replace(given, source=replace(given.source, fields=other)))
    with pytest.raises(TaskError, match="0 or more"):
        CodecMode(between=-1)
