"""Text2Video-Zero: the first frame alone is looked at, and a line of motion is put into the noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segue.errors import TaskError
from segue.models.bundle import LatentDiffusion
from segue.models.loading import load_model
from segue.temporal.rivals.text2video_zero import Text2VideoZero, shifted
from temporal.rivals.clips import alone, inputs, plain


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model(written: Path) -> LatentDiffusion:
    return load_model(written, device="cpu")


def test_the_first_frame_is_as_it_would_be_alone_and_no_frame_depends_on_later_ones(model: LatentDiffusion) -> None:
    given = inputs(model, 4, by=8)
    made = Text2VideoZero().run(given).latents
    assert torch.allclose(made[:1], plain(alone(given, 0)), atol=1e-5)
    assert torch.allclose(made[[0, 2]], Text2VideoZero().run(alone(given, 0, 2)).latents, atol=1e-5)
    assert float((made[1:] - plain(given)[1:]).abs().max()) > 1e-3


def test_frames_that_are_alike_stay_alike(model: LatentDiffusion) -> None:
    given = inputs(model, 3)
    one = [1, 1, 1]
    same = replace(given, noise=given.noise[one], source=replace(given.source, latents=given.source.latents[one]))
    made = Text2VideoZero().run(same).latents
    assert torch.allclose(made, made[:1].expand_as(made), atol=1e-5)


def test_latents_move_by_whole_places_and_are_mirrored_at_the_border() -> None:
    x = torch.arange(12.0).view(1, 1, 3, 4)
    assert torch.equal(shifted(x, (1, 0))[0, 0, 0], torch.tensor([1.0, 0.0, 1.0, 2.0]))
    assert torch.equal(shifted(x, (-2, 0))[0, 0, 0], torch.tensor([2.0, 3.0, 2.0, 1.0]))
    assert torch.equal(shifted(x, (0, 1))[0, 0, :, 0], torch.tensor([4.0, 0.0, 4.0]))
    assert torch.equal(shifted(x, (0, 0)), x)
    assert torch.equal(shifted(shifted(x, (6, 4)), (6, 4)), shifted(x, (12, 8)))
    assert torch.equal(shifted(x[..., :1], (3, 1))[..., 0], shifted(x, (0, 1))[..., 0])


def test_a_start_in_motion_holds_the_shifted_first_frame(model: LatentDiffusion) -> None:
    """Nothing is noised again where the run goes on from the step at which frames were moved."""
    given = inputs(model, 3, strength=1.0)
    given = replace(given, noise=given.noise[[0, 0, 0]])
    still = Text2VideoZero(motion=(0.0, 0.0), until=0.5, back=0.5).run(given).latents
    alike = Text2VideoZero().run(given).latents
    assert torch.allclose(still[0], alike[0], atol=1e-5)
    assert torch.allclose(still[1], still[0], atol=1e-5)
    moving = Text2VideoZero(motion=(0.25, 0.0), until=0.5, back=0.25).run(given).latents
    assert torch.allclose(moving[0], alike[0], atol=1e-5)
    assert float((moving[1] - moving[0]).abs().max()) > 1e-2


def test_motion_begins_in_noise(model: LatentDiffusion) -> None:
    with pytest.raises(TaskError, match="strength 1"):
        Text2VideoZero(motion=(0.1, 0.1)).run(inputs(model, 2))
    with pytest.raises(TaskError, match="goes back"):
        Text2VideoZero(until=0.1, back=0.2)
