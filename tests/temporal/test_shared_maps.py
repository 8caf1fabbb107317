# pyright: basic
"""A row that follows another attends as it does, early in the run; the other, and the model, are left alone."""

from __future__ import annotations

import pytest
import torch
from tiny import write_model

from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.schedule import Schedule
from segue.models.attention import attached, sites
from segue.models.attention_maps import MapReader
from segue.models.bundle import LatentDiffusion
from segue.models.loading import load_model
from segue.temporal.shared_maps import Follows, SharedMaps
from segue.types import RowId, State

FIRST, SECOND = RowId("before"), RowId("after")
STEPS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LatentDiffusion:
    return load_model(write_model(tmp_path_factory.mktemp("maps") / "m", seed=3), device="cpu")


@torch.no_grad()
def drawn(model: LatentDiffusion, until: float | None, prompts=("a cat", "a red apple")) -> torch.Tensor:
    """Both pictures, from one noise; `until` None attaches nothing."""
    schedule: Schedule = model.schedule(STEPS, (64, 64), solver="ddim")
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2)).expand(2, -1, -1, -1).clone()
    state = State(noise * schedule.start_scale, torch.zeros(2, dtype=torch.int64), (FIRST, SECOND))
    text = model.text([*prompts, ""])
    cond = classifier_free(text[[0, 1]], text[[2, 2]], 3.0)
    places = sites(model.parts["unet"]) if until is not None else ()
    maps = SharedMaps(MapReader(), {SECOND: Follows(FIRST, until or 0.0)})
    with attached(places, maps):
        return collect(denoise(model.denoiser, state, schedule, cond), schedule)


def test_the_one_that_is_followed_is_drawn_as_it_would_be(model):
    alone, followed = drawn(model, None), drawn(model, 1.0)
    assert torch.equal(alone[0], followed[0])
    assert (alone[1] - followed[1]).abs().max() > 1e-3


def test_for_no_share_of_the_run_nothing_is_changed(model):
    assert torch.equal(drawn(model, 0.0), drawn(model, None))


def test_the_same_words_make_the_same_picture(model):
    first, second = drawn(model, 1.0, ("a cat", "a cat"))
    assert (first - second).abs().max() < 1e-4


def test_the_longer_it_follows_the_less_it_is_its_own(model):
    apart = [float((drawn(model, until)[1] - drawn(model, None)[1]).abs().mean()) for until in (0.25, 0.5, 1.0)]
    assert 0 < apart[0] < apart[1] < apart[2]


def test_the_model_is_left_as_it_was(model):
    before = {site.name: site.module.processor for site in sites(model.parts["unet"])}
    drawn(model, 0.5)
    assert all(site.module.processor is before[site.name] for site in sites(model.parts["unet"]))


def test_both_must_be_in_one_call(model):
    with pytest.raises(ValueError, match="take a larger max_batch"):
        drawn(model.batched(1), 1.0)
