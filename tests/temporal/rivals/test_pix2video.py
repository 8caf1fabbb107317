"""Pix2Video: pulled by the gradient that the paper writes, and by nothing where that is 0."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from segue.errors import TaskError
from segue.models.bundle import LatentDiffusion
from segue.models.loading import load_model
from segue.temporal.frame_attention import frame_attention
from segue.temporal.rivals.pix2video import VALUES, Pix2Video, Pulled
from segue.types import Point, RowId
from temporal.rivals.clips import inputs


@pytest.fixture(scope="module")
def model(written: Path) -> LatentDiffusion:
    return load_model(written, device="cpu")


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def points(frames: list[int], step: int, trajectory: str = "clip") -> Point:
    one = torch.full((len(frames),), 0.5, dtype=torch.float64)
    rows = tuple(RowId(trajectory, frame) for frame in frames)
    return Point(torch.full((len(frames),), step), 10, one, one, one, rows)


def test_the_update_is_the_gradient_of_the_mean_squared_difference() -> None:
    """In latents of the size that the paper's weight is for."""
    drawn = torch.Generator().manual_seed(1)
    x, x0 = (torch.randn(3, 4, 64, 64, generator=drawn) for _ in range(2))
    assert x0[0].numel() == VALUES
    made = Pulled(100.0, 9).on_stepped(x, x0, points([0, 1, 2], 3))
    for place in (1, 2):
        with torch.enable_grad():
            own = x0[place].clone().requires_grad_()
            (own - x0[place - 1]).square().mean().backward()
        assert own.grad is not None
        assert torch.allclose(made[place], x[place] - 100.0 * own.grad, atol=1e-6)
    assert torch.equal(made[0], x[0])


def test_it_ends_and_leaves_others_alone() -> None:
    x, x0 = torch.zeros(2, 4, 8, 8), torch.arange(2.0)[:, None, None, None].expand(2, 4, 8, 8)
    pulled = Pulled(100.0, 4)
    assert float(pulled.on_stepped(x, x0, points([0, 1], 4))[1].max()) < 0
    assert torch.equal(pulled.on_stepped(x, x0, points([0, 1], 5)), x)
    assert torch.equal(pulled.on_stepped(x, x0, points([0, 2], 1)), x), "the frame before is not there"
    assert torch.equal(pulled.on_stepped(x, x0, points([0, 1], 1, "source")), x)
    assert torch.equal(pulled.on_stepped(x.flip(0), x0.flip(0), points([1, 0], 1)).flip(0)[0], x[0])


def test_without_weight_it_is_attention_alone(model: LatentDiffusion) -> None:
    given = inputs(model, 3, by=8)
    start = given.inversion(model.denoiser, 1).state.fork(range(3), given.rows)
    with frame_attention(model.denoiser, given.sites, "first, previous", given.rows) as denoiser:
        wanted = given.run(denoiser, start, "plain", lambda what, done, total: None)
    assert torch.equal(Pix2Video(weight=0.0).run(given).latents, wanted)
    pulled = Pix2Video(weight=100.0).run(given).latents
    assert torch.allclose(pulled[0], wanted[0], atol=1e-6)
    before, after = ((part[1] - part[0]).square().mean() for part in (wanted, Pix2Video(5000.0).run(given).latents))
    assert float(after) < float(before), "frames are drawn together"


def test_settings_that_cannot_be_are_refused() -> None:
    for weight, until in ((-1.0, 0.5), (1.0, 1.5)):
        with pytest.raises(TaskError, match="0 or more"):
            Pix2Video(weight, until)
