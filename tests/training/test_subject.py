"""A subject is learned from a few pictures as a LoRA, beside what the model knew of its class; a run can be cut."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from tiny import write_model

from segue.errors import MediaError, TrainingError
from segue.media import Clip
from segue.media.clip import TensorFrames
from segue.models.lora import applied
from segue.training.ranks import Ranks
from segue.training.recipes import subject
from segue.training.recipes.subject import Config
from segue.training.run import read_config
from segue.training.sampling import noisy_levels, trained_levels
from segue.zoo import load

from .cutting import cut_at, said

STEPS = 4
ONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("subject"), np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def config(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = write_model(tmp_path_factory.mktemp("model"), length=24, vae="tiny")  # it predicts the noise
    return Config(
        model=str(folder),
        pictures=pictures,
        out=tmp_path_factory.mktemp("run"),
        phrase="a zwx cat",
        class_phrase="a cat",
        prior_pictures=2,
        rank=2,
        steps=STEPS,
        batch=2,
        warmup=1,
        decay=2,
        sheet_prompts=("{}", "{}, red"),
        sheet_seeds=1,
        log_every=1,
        save_every=2,
        sheet_every=STEPS,
    )


@pytest.fixture(scope="module")
def lora(config: Config) -> Path:
    return subject.main(config)


def test_the_file_changes_the_unet_in_segue_and_in_diffusers(config: Config, lora: Path) -> None:
    model = load(config.model, "cpu")
    before = model.parts["unet"].state_dict()["conv_in.weight"].clone()
    with applied(model, {lora: 1.0}) as taught:
        ours = taught.parts["unet"].state_dict()["conv_in.weight"].clone()
    assert not ours.equal(before) and model.parts["unet"].state_dict()["conv_in.weight"].equal(before)
    pipeline: Any = StableDiffusionPipeline.from_pretrained(config.model, local_files_only=True)
    pipeline.load_lora_weights(lora)
    pipeline.fuse_lora()
    assert pipeline.unet.conv_in.base_layer.weight.allclose(ours, atol=1e-4)
    assert all(key.startswith("unet.") for key in load_file(lora))
    assert (config.out / f"sheet-{STEPS:06d}.png").exists()
    assert {"subject", "prior", "loss"} <= said(config.out)[-1].keys()


def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(config: Config, lora: Path, tmp_path: Path) -> None:
    again = dataclasses.replace(config, out=tmp_path)
    with cut_at(STEPS - 1):
        subject.main(again)
    assert subject.main(again).read_bytes() == lora.read_bytes()
    assert said(tmp_path) == said(config.out)


def test_it_comes_nearer_to_its_pictures(config: Config, tmp_path: Path) -> None:
    longer = dataclasses.replace(
        config, out=tmp_path, class_phrase="", steps=40, decay=10, ema=0.9, lr=2e-2, rank=8, zoomed=0.0, bf16=False,
        log_every=10, save_every=40, sheet_every=40,
    )  # fmt: skip
    subject.main(longer)
    losses = [line["loss"] for line in said(tmp_path)]
    assert losses[-1] < 0.9 * losses[0]
    assert "prior" not in said(tmp_path)[0] and not (tmp_path / "prior.safetensors").exists()


def test_the_class_is_what_the_model_draws_of_it(config: Config, lora: Path, tmp_path: Path) -> None:
    kept = load_file(lora.parent / "prior.safetensors")["latents"]
    again = subject.prior_latents(dataclasses.replace(config, out=tmp_path), load(config.model, "cpu"))
    assert again is not None and kept.allclose(again, atol=1e-4), "the same seeds, the same pictures"


def test_other_pictures_are_another_run(config: Config, lora: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    with pytest.raises(TrainingError, match="pictures"):
        subject.main(dataclasses.replace(config, pictures=tmp_path, steps=STEPS + 2))
    changed = dataclasses.replace(config, steps=STEPS + 2)
    for file in config.pictures.glob("0.png"):
        content = file.read_bytes()
        Image.new("RGB", (60, 40)).save(file)
        with pytest.raises(TrainingError, match="began with other pictures"):
            subject.main(changed)
        file.write_bytes(content)


def test_a_video_is_a_source_and_nothing_is_not(config: Config, tmp_path: Path) -> None:
    frames = torch.rand(10, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    Clip(TensorFrames((frames * 255).byte()), 10).save(tmp_path / "film.mp4")
    some = dataclasses.replace(config, pictures=tmp_path / "film.mp4", out=tmp_path, frames=4)
    found = subject.subject_pictures(some, (64, 64))
    assert found.shape == (4, 3, 64, 64) and found.dtype == torch.uint8
    with pytest.raises(MediaError, match="no such file"):
        subject.subject_pictures(dataclasses.replace(some, pictures=tmp_path / "nothing"), (64, 64))


def test_what_cannot_be_trained_is_refused(config: Config, tmp_path: Path) -> None:
    for field, why in (("rank=0", "greater than or equal to 1"), ("zoomed=2", "less than or equal to 1")):
        with pytest.raises(TrainingError, match=why):
            read_config("subject", None, [field])
    with pytest.raises(TrainingError, match="nothing that this recipe can teach"):
        subject.read_model(dataclasses.replace(config, model="emoji-x4"), ONE)


def test_levels_are_those_that_the_model_was_trained_at(config: Config) -> None:
    model = load(config.model, "cpu")
    known = trained_levels(model)
    at, eps = noisy_levels(model, 8, 1.0, torch.Generator().manual_seed(0))
    assert len(known) == 1000 and bool((known.sigma.diff() > 0).all())
    assert eps.shape == (8, 4, 8, 8)
    eighths = (at.time / 125).long().sort().values
    assert eighths.tolist() == list(range(8)), "one row in each eighth"
    high, _ = noisy_levels(model, 8, 0.5, torch.Generator().manual_seed(0))
    assert bool((high.sigma >= at.sigma).all()) and bool((high.sigma > at.sigma).any())
