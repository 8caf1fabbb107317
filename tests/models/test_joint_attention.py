# pyright: basic
"""Attention of text and picture at once: listed, stepped into, and shared by the tokens of the picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from tiny_flow import CHANNELS, write_flux, write_sd3

from segue.diffusion.envelope import Envelope
from segue.diffusion.guidance import classifier_free
from segue.errors import TaskError
from segue.models.attention import attached, sites
from segue.models.bundle import LatentDiffusion
from segue.models.loading import load_model
from segue.temporal.attention import Attending, SharedAttention
from segue.temporal.passengers import Passenger, WithPassengers
from segue.temporal.trajectory import Trajectory
from segue.types import Conditioning, Point, RowId

ROWS = tuple(RowId("a", frame) for frame in range(3))
X = torch.randn(3, CHANNELS, 8, 4, generator=torch.Generator().manual_seed(5))
NAMES = ("sd3", "dev")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LatentDiffusion]:
    root: Path = tmp_path_factory.mktemp("joint")
    folders = {"sd3": write_sd3(root / "sd3", with_t5=False), "dev": write_flux(root / "dev")}
    return {name: load_model(folder, device="cpu") for name, folder in folders.items()}


def asked(model: LatentDiffusion) -> tuple[Point, Conditioning]:
    now, _ = model.schedule(4, (32, 64)).step(torch.ones(3, dtype=torch.int64), ROWS)
    return now, model.text(["a red apple", "a cat", "a green apple"])


def pass_through(plain, hidden, context, call, site):
    return plain(hidden, context)


def from_itself(plain, hidden, context, call, site):
    """Keys and values handed over, though they are the row's own: the formula beside the processor's."""
    return plain(hidden, hidden)


def first_row(plain, hidden, context, call, site):
    """Every row attends to text and picture of the first."""
    return plain(hidden, hidden[:1].expand_as(hidden))


def own_picture_twice(plain, hidden, context, call, site):
    """Every key twice leaves every answer as it was, if the text is there twice, too: here, where there is none."""
    return plain(hidden, torch.cat([hidden, hidden], dim=1)) if site.kind == "self" else plain(hidden, context)


def test_the_sites_of_both(models):
    found = {name: [(site.name, site.kind) for site in sites(models[name].backbone)] for name in NAMES}
    assert found["sd3"] == [
        ("transformer_blocks.0.attn", "joint"),
        ("transformer_blocks.0.attn2", "self"),
        ("transformer_blocks.1.attn", "joint"),
        ("transformer_blocks.2.attn", "joint"),
    ]
    assert found["dev"] == [
        *((f"transformer_blocks.{block}.attn", "joint") for block in (0, 1)),
        *((f"single_transformer_blocks.{block}.attn", "joint") for block in (0, 1)),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_passing_through_changes_no_bit_and_leaves_no_trace(name, models):
    model = models[name]
    at, cond = asked(model)
    before, places = model.denoiser(X, at, cond), sites(model.backbone)
    processors = [site.module.processor for site in places]
    with attached(places, pass_through):
        assert torch.equal(model.denoiser(X, at, cond), before)
        with attached(places, pass_through):
            assert torch.equal(model.denoiser(X, at, cond), before)
    assert all(site.module.processor is was for site, was in zip(places, processors, strict=True))
    assert torch.equal(model.denoiser(X, at, cond), before)


@pytest.mark.parametrize("name", NAMES)
def test_attending_to_what_one_has_anyway_is_plain_attention(name, models):
    model = models[name]
    at, cond = asked(model)
    plain = model.denoiser(X, at, cond)
    for adapter in (from_itself, own_picture_twice):
        with attached(sites(model.backbone), adapter):
            assert (model.denoiser(X, at, cond) - plain).abs().max() < 1e-5
    with attached(sites(model.backbone), from_itself), attached(sites(model.backbone), from_itself):
        assert (model.denoiser(X, at, cond) - plain).abs().max() < 1e-5
    with attached(sites(model.backbone), first_row):
        shared = model.denoiser(X, at, cond)
        alone = model.denoiser(X[:1], at[[0]], cond[[0]])
    assert (shared[0] - plain[0]).abs().max() < 1e-5
    assert (alone[0] - plain[0]).abs().max() < 1e-5, "attention with one frame is plain attention"
    assert (shared[1:] - plain[1:]).abs().amax((1, 2, 3)).min() > 1e-3
    assert torch.equal(model.denoiser(X, at, cond), plain)


@pytest.mark.parametrize("name", NAMES)
def test_a_context_is_longer_by_whole_pictures(name, models):
    model = models[name]
    at, cond = asked(model)

    def longer(plain, hidden, context, call, site):
        return plain(hidden, torch.cat([hidden, hidden[:, -3:]], dim=1))

    with attached(sites(model.backbone), longer):
        if name == "dev":
            with pytest.raises(ValueError, match="whole pictures of 8 tokens; got 3 more"):
                model.denoiser(X, at, cond)
        else:
            model.denoiser(X, at, cond)  # its keys know no places


@pytest.mark.parametrize("name", NAMES)
def test_rows_share_the_tokens_of_the_picture(name, models):
    """The row that is looked at keeps its answer; others follow what it shows."""
    model = models[name]
    at, cond = asked(model)
    told = classifier_free(cond, cond[[1, 1, 1]], [3.0, 3.0, 3.0])
    plain, sharing = model.denoiser(X, at, told), SharedAttention()

    def shared(anchor: torch.Tensor, rows=(0, 1, 2), power: float = 1.0) -> torch.Tensor:
        looking = {row: Attending(ROWS[0], Envelope(power)) for row in ROWS[1:]}
        passengers = {ROWS[0]: Passenger(Trajectory({1: anchor}), told[[0]])}
        with attached(sites(model.backbone), sharing):
            return WithPassengers(model.denoiser, sharing, looking, passengers)(X[list(rows)], at[rows], told[rows])

    answer = shared(X[0])
    assert torch.equal(answer[0], plain[0])
    assert (answer[1:] - plain[1:]).abs().amax((1, 2, 3)).min() > 1e-3
    assert torch.equal(shared(X[0], power=0.0), plain)
    assert (shared(X[0], rows=(1, 2)) - answer[1:]).abs().max() < 1e-4
    assert (shared(X[0] + 1, rows=(1, 2)) - answer[1:]).abs().max() > 1e-3, "what the anchor shows is seen"
    assert torch.equal(model.denoiser(X, at, told), plain), "and is forgotten"


def test_what_is_kept_of_a_passenger_is_its_picture_alone(models):
    for name in NAMES:
        model, sharing = models[name], SharedAttention()
        at, cond = asked(model)
        seen: dict[str, int] = {}

        def noting(plain, hidden, context, call, site, sharing=sharing, seen=seen):
            answer = sharing(plain, hidden, context, call, site)
            for tokens in sharing._bank[site.name].values():
                seen[site.name] = len(tokens)
            return answer

        looking = {ROWS[1]: Attending(ROWS[0], Envelope(1.0))}
        passengers = {ROWS[0]: Passenger(Trajectory({1: X[0]}), cond[[0]])}
        with attached(sites(model.backbone), noting):
            WithPassengers(model.denoiser, sharing, looking, passengers)(X[[1]], at[[1]], cond[[1]])
        assert seen == {site.name: 8 for site in sites(model.backbone)}


def test_a_passenger_is_told_its_own_guidance(models):
    """A network that embeds the scale sees the anchor as the anchor itself was drawn."""
    model, sharing = models["dev"], SharedAttention()
    at, cond = asked(model)
    empty = cond[[1]]

    def with_anchor(scale: float) -> torch.Tensor:
        looking = {ROWS[1]: Attending(ROWS[0], Envelope(1.0))}
        passengers = {ROWS[0]: Passenger(Trajectory({1: X[0]}), classifier_free(cond[[0]], empty, scale))}
        with attached(sites(model.backbone), sharing):
            rows = WithPassengers(model.denoiser, sharing, looking, passengers)
            return rows(X[[1]], at[[1]], classifier_free(cond[[1]], empty, 3.0))

    assert (with_anchor(1.0) - with_anchor(8.0)).abs().max() > 1e-5


def test_what_cannot_be_shared_is_refused_by_name(models):
    model = models["sd3"]
    at, cond = asked(model)
    sharing = SharedAttention()
    looking = {ROWS[1]: Attending(ROWS[0], Envelope(0.0), ((ROWS[0], 1.0),), Envelope(1.0), cross=True)}
    passengers = {ROWS[0]: Passenger(Trajectory({1: X[0]}), cond[[0]])}
    with (
        attached(sites(model.backbone), sharing),
        pytest.raises(TaskError, match="not at their texts; leave cross out"),
    ):
        WithPassengers(model.denoiser, sharing, looking, passengers)(X[[1]], at[[1]], cond[[1]])
    place = sites(model.backbone)[0]
    before: Any = place.module.processor
    other: Any = AttnProcessor2_0()
    place.module.set_processor(other)
    try:
        with (
            pytest.raises(TaskError, match=r"runs by AttnProcessor2_0.*Stable Diffusion 3 or FLUX"),
            attached([place], pass_through),
        ):
            pass
    finally:
        place.module.set_processor(before)
    assert replace(model, parts={}).backbone is None
