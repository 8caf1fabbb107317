"""A decoder learns to look along time; cut runs go on; its file is loaded with the layers of a UNet."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import write_model

from segue.errors import CheckpointError, TrainingError
from segue.models.bundle import LatentDiffusion
from segue.models.time_decoder import TimeCodec
from segue.models.time_decoder_files import join_decoder, with_decoder_file
from segue.models.time_files import save_time
from segue.models.time_inserted import TimeSettings, with_motion, with_time
from segue.training.adversary_time import ClipDiscriminator
from segue.training.recipes import time_decoder
from segue.training.recipes.time_decoder import Config, flicker
from segue.zoo import load

from .cutting import cut_at, said

STEPS = 4
SMALL = TimeSettings(inner=4, heads=2, head_width=4, vector=8, queries=2, context=4, frames=4)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A square that slides to the right over noise that stays."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(3)
    frames = np.repeat(rng.integers(60, 90, (6, 1, 32, 32, 3), np.uint8), 6, 1)
    for time in range(6):
        frames[:, time, 8:20, 2 + 3 * time : 14 + 3 * time] = 220
    np.save(folder / "frames.npy", frames)
    line = {"captions": {"forward": ["a square slides to the right"]}, "fps": 8}
    (folder / "manifest.jsonl").write_text(f"{json.dumps(line)}\n" * 6, "utf-8")
    sha256 = hashlib.sha256((folder / "frames.npy").read_bytes()).hexdigest()
    (folder / "sources.json").write_text(json.dumps({"frames_sha256": sha256}), "utf-8")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), length=24, vae="tiny")


@pytest.fixture(scope="module")
def config(clips: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    return Config(
        model=str(model),
        clips=clips,
        out=tmp_path_factory.mktemp("run"),
        inner=4,
        frames=4,
        strides=(1,),
        crop=16,
        steps=STEPS,
        batch=2,
        lr=1e-2,
        warmup=1,
        decay=2,
        ema=0.5,
        discriminator_width=4,
        validation_every=3,
        log_every=1,
        save_every=2,
    )


@pytest.fixture(scope="module")
def file(config: Config) -> Path:
    return time_decoder.main(config)


@pytest.fixture(scope="module")
def image(model: Path) -> LatentDiffusion:
    return load(str(model), "cpu")


def film(model: LatentDiffusion, latents: torch.Tensor) -> torch.Tensor:
    assert isinstance(model.codec, TimeCodec)
    with torch.no_grad():
        return torch.cat(list(model.codec.pieces(latents)))


def test_what_is_learned_changes_clips_and_no_pictures(config: Config, file: Path, image: LatentDiffusion) -> None:
    taught = with_decoder_file(image, file)
    latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        alone = image.codec.decode(latents)
        assert torch.equal(taught.codec.decode(latents), alone)
    assert not torch.equal(film(taught, latents), alone)
    assert taught.fingerprint != image.fingerprint
    log = said(config.out)
    assert {"loss", "adversarial", "discriminator"} < set(log[0])
    assert {"psnr", "flicker", "psnr_pictures", "flicker_pictures"} < set(log[-1])
    assert (config.out / f"sheet-{STEPS:06d}.png").exists()


def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(config: Config, file: Path, tmp_path: Path) -> None:
    again = dataclasses.replace(config, out=tmp_path)
    with cut_at(STEPS - 1):
        time_decoder.main(again)
    assert time_decoder.main(again).read_bytes() == file.read_bytes()
    assert said(tmp_path) == said(config.out)


def test_a_decoder_comes_with_layers_along_time_of_a_unet(
    config: Config, file: Path, image: LatentDiffusion, tmp_path: Path
) -> None:
    motion, both = tmp_path / "motion.safetensors", tmp_path / "both.safetensors"
    save_time(motion, with_time(image, SMALL))
    join_decoder(motion, file, both)
    moving = load(config.model, "cpu", motion=both)
    assert moving.moving is not None and moving.moving.frames == SMALL.frames
    latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(film(moving, latents), film(with_decoder_file(image, file), latents))
    with torch.no_grad():
        assert torch.equal(film(with_motion(moving, 0.0), latents), image.codec.decode(latents))
    # A file without one decodes frame by frame, and another decoder takes the place of the first.
    assert not isinstance(load(config.model, "cpu", motion=motion).codec, TimeCodec)
    join_decoder(both, file, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == both.read_bytes()
    with pytest.raises(CheckpointError, match="no decoder along time"):
        join_decoder(motion, motion, both)
    with pytest.raises(CheckpointError, match="no decoder along time"):
        with_decoder_file(image, motion)


def test_recipes_and_clips_that_do_not_go_together_are_refused(config: Config, tmp_path: Path) -> None:
    for wrong, said_of_it in (
        ({"crop": 17}, "crop must be a multiple"),
        ({"crop": 64}, "crop must be a multiple"),
        ({"kernel": 2}, "kernel must be odd"),
        ({"validation_every": 40}, "too few to keep back"),
        ({"frames": 9}, "need longer clips"),
    ):
        with pytest.raises(TrainingError, match=said_of_it):
            time_decoder.main(dataclasses.replace(config, out=tmp_path, **wrong))


def test_the_discriminator_sees_changes_and_no_light() -> None:
    torch.manual_seed(2)
    rival = ClipDiscriminator(4)
    clips = torch.rand(2, 4, 3, 16, 16)
    with torch.no_grad():
        verdicts = rival(clips)
        assert verdicts.shape[:3] == (2, 1, 4)
        torch.testing.assert_close(rival(clips + 0.2), verdicts, rtol=0, atol=1e-4)
        assert not torch.allclose(rival(clips.flip(1)).flip(2), verdicts, atol=1e-3)


def test_flicker_is_what_changes_and_should_not() -> None:
    real = torch.rand(2, 4, 3, 8, 8)
    assert flicker(real + 0.1, real) == pytest.approx(0, abs=1e-3)
    trembling = real + torch.tensor([0.0, 0.1, 0.0, 0.1]).reshape(1, 4, 1, 1, 1)
    assert flicker(trembling, real) == pytest.approx(25.5, rel=1e-3)
