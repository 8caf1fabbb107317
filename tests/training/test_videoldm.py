# pyright: basic
"""Layers along time learn from clips on a frozen model of pictures; a cut run goes on as if it had not been cut."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tiny import write_model

from segue.errors import CheckpointError, TrainingError
from segue.models.time_files import with_time_file
from segue.models.time_inserted import time_layers
from segue.training.clip_corpus import ClipsConfig, build_clips
from segue.training.clips import Clips
from segue.training.latents import latents_of
from segue.training.recipes import videoldm
from segue.training.recipes.videoldm import Config, told_frames
from segue.zoo import load

from .conftest import Sources
from .cutting import cut_at, said

STEPS = 4


@pytest.fixture(scope="module")
def clips(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("clips")
    build_clips(out, sources.folder, ClipsConfig(size=64, frames=8, clips=6), sources.concepts, sources.packages)
    return out


@pytest.fixture(scope="module")
def config(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = write_model(tmp_path_factory.mktemp("model"), length=24, vae="tiny")
    return Config(
        model=str(folder),
        clips=clips,
        out=tmp_path_factory.mktemp("run"),
        inner=8,
        heads=2,
        head_width=4,
        vector=16,
        context=4,
        frames=4,
        steps=STEPS,
        batch=2,
        warmup=1,
        decay=2,
        validation_every=6,
        sheet_prompts=("a red car slides to the right",),
        sheet_steps=2,
        log_every=1,
        save_every=2,
        sheet_every=STEPS,
    )


@pytest.fixture(scope="module")
def file(config: Config) -> Path:
    return videoldm.main(config)


def test_the_file_makes_a_model_of_clips(config: Config, file: Path) -> None:
    image = load(config.model, "cpu")
    moving = with_time_file(image, file)
    assert moving.moving is not None and moving.moving.frames == config.frames
    assert any(float(value.detach().abs().max()) > 0 for value in time_layers(moving).parameters())
    assert (config.out / f"sheet-{STEPS:06d}.png").exists()
    assert {"loss"} < set(said(config.out)[0]) and "validation" in said(config.out)[-1]


def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(config: Config, file: Path, tmp_path: Path) -> None:
    again = dataclasses.replace(config, out=tmp_path)
    with cut_at(STEPS - 1):
        videoldm.main(again)
    assert videoldm.main(again).read_bytes() == file.read_bytes()
    assert said(tmp_path) == said(config.out)


def test_it_goes_on_from_layers_that_were_trained(config: Config, file: Path, tmp_path: Path) -> None:
    still = dataclasses.replace(config, start=file, steps=1, decay=0, warmup=0, lr=1e-12, ema=0.5)
    again = videoldm.main(dataclasses.replace(still, out=tmp_path / "again"))
    before, after = (time_layers(with_time_file(load(config.model, "cpu"), one)).state_dict() for one in (file, again))
    assert all(torch.allclose(before[name], after[name], atol=1e-3) for name in before)
    other = dataclasses.replace(still, inner=16, out=tmp_path / "other")
    with pytest.raises(CheckpointError, match="another architecture"):
        videoldm.main(other)


def test_what_sets_frames_in_motion_learns_by_pairs_and_then_beside_the_unet(config: Config, tmp_path: Path) -> None:
    """Sheets of both, a cut between them, and a file that says what it was told."""
    moving = dataclasses.replace(
        config, out=tmp_path, attention="clip", moves=(16, 16), first_steps=2, first_batch=4, movements_unsaid=True,
        tokens=True, given={"first": 1.0}, sheet_every=2,
    )  # fmt: skip
    with cut_at(3):
        videoldm.main(moving)
    file = videoldm.main(moving)
    assert [(tmp_path / f"sheet-{step:06d}.png").exists() for step in (2, 4)] == [True, True]
    layers = time_layers(with_time_file(load(config.model, "cpu"), file))
    assert layers.settings.tokens and layers.moves is not None and layers.moves.travel is not None
    learned = dict(layers.moves.travel.way.named_parameters())["4.weight"]
    assert float(learned.detach().abs().max()) > 0, "what clips know of their ways is learned"


def test_encoding_goes_on_where_it_was_cut(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(config.model, "cpu")
    frames = Clips.load(config.clips).frames.reshape(-1, 64, 64, 3)[:70]
    plain = torch.autocast("cpu", enabled=False)
    whole = latents_of(frames, model.codec, tmp_path / "whole", "key", plain)
    seen: list[int] = []

    class Cut:
        def encode(self, pictures: torch.Tensor) -> torch.Tensor:
            if len(seen) == 2:
                raise KeyboardInterrupt
            seen.append(len(pictures))
            return model.codec.encode(pictures)

    monkeypatch.setattr("segue.training.latents._PARTS", 1)
    with pytest.raises(KeyboardInterrupt):
        latents_of(frames, cast("Any", Cut()), tmp_path / "cut", "key", plain)
    seen.clear()
    monkeypatch.setattr("segue.training.latents._PARTS", 64)
    rest: list[int] = []

    class Rest:
        def encode(self, pictures: torch.Tensor) -> torch.Tensor:
            rest.append(len(pictures))
            return model.codec.encode(pictures)

    assert torch.equal(latents_of(frames, cast("Any", Rest()), tmp_path / "cut", "key", plain), whole)
    assert sum(rest) == 70 - 32
    assert len(latents_of(frames, model.codec, tmp_path / "cut", "another key", plain)) == 70


def test_only_the_layers_along_time_learn(config: Config, tmp_path: Path) -> None:
    """And what they learn makes frames of a clip easier to tell from noise."""
    longer = dataclasses.replace(
        config, out=tmp_path, steps=30, decay=5, ema=0.9, lr=1e-2, dropped=0.0, strides=(1,), shared_noise=0.0,
        log_every=10, save_every=30, sheet_every=100,
    )  # fmt: skip
    image = load(config.model, "cpu")
    before = {name: value.clone() for name, value in image.parts["unet"].state_dict().items()}
    file = videoldm.main(longer)
    losses = [line["loss"] for line in said(tmp_path) if "loss" in line]
    assert losses[-1] < losses[0]
    moving = with_time_file(image, file)
    after = moving.parts["unet"].state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_known_frames_are_told_with_where_they_are() -> None:
    x0 = torch.arange(1.0, 7.0)[:, None, None, None].expand(6, 2, 3, 3)
    told = told_frames(x0, torch.tensor([[True, False, True], [False, False, False]]))
    assert told.shape == (6, 3, 3, 3)
    assert told[:, 2, 0, 0].tolist() == [1, 0, 1, 0, 0, 0]
    assert told[:, 0, 0, 0].tolist() == [1, 0, 3, 0, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "emoji"}, "clips of 64x64, and emoji draws 128x128"),
        ({"frames": 9}, "need longer clips"),
        ({"validation_every": 1000}, "too few to keep back"),
        ({"given": {"middle": 1.0}}, "expected shares of none"),
    ],
)
def test_what_cannot_be_learned_from_is_told(config: Config, change, message, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=message):
        videoldm.main(dataclasses.replace(config, out=tmp_path, **change))
