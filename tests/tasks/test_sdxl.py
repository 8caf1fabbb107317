"""Films of Stable Diffusion XL: pooled texts and sizes go where branches go, with crossfeed and shared attention."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.tiny_xl import write_xl
from segue.media.clip import Clip
from segue.models.bundle import LatentDiffusion
from segue.tasks.branching import Branching
from segue.tasks.frames import DecodedFrames
from segue.tasks.image import Image
from segue.tasks.likeness import Likeness
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.transition import Transition
from segue.types import Call, Conditioning, Network
from segue.zoo.load import load
from shown import pixels, record

FILM = Transition(
    ("a red apple", "a cat"),
    seconds=0.5,
    fps=10,
    seeds=(1, 2),
    sampling=Sampling(steps=4, guidance_scale=(3.0,)),
    tree=Branching(max_branches=3, depth=0.3),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_xl(tmp_path_factory.mktemp("xl") / "xl")


@pytest.fixture(scope="module")
def model(folder: Path) -> LatentDiffusion:
    return load(folder, device="cpu")


def test_a_film_begins_and_ends_with_its_pictures(model: LatentDiffusion) -> None:
    shown = pixels(FILM.run(model))
    first, last = (
        pixels(Image(prompt, seed=seed, sampling=FILM.sampling).run(model))[0]
        for prompt, seed in zip(FILM.prompts, FILM.seeds, strict=True)
    )
    assert torch.allclose(shown[0], first, atol=1 / 255) and torch.allclose(shown[-1], last, atol=1 / 255)
    assert (first - last).abs().mean() > 0.01


class Listening:
    """A network that keeps what it is told."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.pooled: list[torch.Tensor] = []

    def __call__(self, x: torch.Tensor, time: torch.Tensor, cond: Conditioning, call: Call) -> torch.Tensor:
        assert cond.pooled is not None
        self.pooled += [cond.pooled[row] for row, term in enumerate(call.term) if term == 1]
        return self.network(x, time, cond, call)


def test_pooled_texts_are_mixed_between_keys(model: LatentDiffusion) -> None:
    heard = Listening(model.denoiser.network)
    FILM.run(replace(model, denoiser=replace(model.denoiser, network=heard)))
    pooled = model.text(list(FILM.prompts)).pooled
    assert pooled is not None
    a, b = pooled
    shares = {round(float((row - a).norm() / (b - a).norm()), 3) for row in heard.pooled}
    assert {0.0, 1.0} < shares
    for row in heard.pooled:
        share = (row - a).norm() / (b - a).norm()
        assert torch.allclose(row, a + share * (b - a), atol=1e-4)


@pytest.mark.parametrize(
    "task",
    [
        replace(FILM, tree=replace(FILM.tree, crossfeed=(0.8, 1.0, 0.9))),
        replace(FILM, likeness=Likeness(shared_attention=0.5)),
        replace(FILM, likeness=Likeness(interpolation=0.5)),
        replace(FILM, sampling=Sampling(steps=4, guidance_scale=(1.0,), solver="euler_ancestral", size=(80, 48))),
        replace(FILM, sampling=Sampling(steps=4, solver="lcm")),
    ],
    ids=["crossfeed", "shared attention", "interpolation", "ancestral", "lcm"],
)
def test_everything_works_on_it_at_any_batch_size(task: Transition, model: LatentDiffusion) -> None:
    one, many = (task.run(model, Execution(max_batch=size)) for size in (2, 16))
    assert record(one)["plan"] == record(many)["plan"]
    assert torch.allclose(pixels(one), pixels(many), atol=1 / 255)
    plain = latents(FILM.run(model, Execution(max_batch=16)))
    assert latents(many).shape != plain.shape or (latents(many) - plain).abs().max() > 1e-2


def latents(clip: Clip) -> torch.Tensor:
    """Of all pictures; those of random weights are mostly black or white, and tell less."""
    frames = clip.frames
    assert isinstance(frames, DecodedFrames)
    return torch.stack([frames.latents[number] for number in sorted(frames.latents)])


def test_the_profile_is_recorded_and_used(folder: Path) -> None:
    turbo = load(folder, device="cpu", profile="turbo")
    said = record(Image("a cat").run(turbo))
    assert said["model"]["profile"] == "turbo"
    assert (said["fields"]["sampling"]["steps"], said["fields"]["sampling"]["solver"]) == (4, "euler")
    assert json.dumps(said)
