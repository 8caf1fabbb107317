# pyright: basic
"""An upscaler learns to look along time from clips; cut runs go on; its file is loaded with the upscaler."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_upscaler import write_upscaler

from segue.errors import TrainingError
from segue.media import Clip, TensorFrames
from segue.models.bundle import LatentDiffusion
from segue.models.time_inserted import time_layers
from segue.tasks.sampling import Sampling
from segue.tasks.upscale import Upscale
from segue.training.clips import Clips
from segue.training.frozen import read_frozen
from segue.training.recipes import time_upscaler
from segue.training.recipes.time_upscaler import Config, draw
from segue.zoo import load
from segue.zoo.cards import WEIGHTS

from .cutting import cut_at, said

STEPS = 4


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A square that slides to the right over noise that stays."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(3)
    frames = np.repeat(rng.integers(60, 90, (6, 1, 64, 64, 3), np.uint8), 6, 1)
    for time in range(6):
        frames[:, time, 16:40, 4 + 6 * time : 28 + 6 * time] = 220
    np.save(folder / "frames.npy", frames)
    line = {"captions": {"forward": ["a square slides to the right"]}, "fps": 8}
    (folder / "manifest.jsonl").write_text(f"{json.dumps(line)}\n" * 6, "utf-8")
    sha256 = hashlib.sha256((folder / "frames.npy").read_bytes()).hexdigest()
    (folder / "sources.json").write_text(json.dumps({"frames_sha256": sha256}), "utf-8")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_upscaler(tmp_path_factory.mktemp("model") / "x4", vae="tiny")


@pytest.fixture(scope="module")
def config(clips: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    return Config(
        model=str(folder),
        clips=clips,
        out=tmp_path_factory.mktemp("run"),
        through=None,
        inner=4,
        heads=2,
        head_width=4,
        vector=8,
        frames=4,
        strides=(1,),
        crop=32,
        steps=STEPS,
        batch=2,
        lr=1e-2,
        warmup=1,
        decay=2,
        ema=0.5,
        validation_every=3,
        sheet_steps=1,
        log_every=1,
        save_every=2,
        sheet_every=STEPS,
    )


@pytest.fixture(scope="module")
def file(config: Config) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time_upscaler, "VALIDATED", 2)
        return time_upscaler.main(config)


@pytest.fixture(scope="module")
def image(folder: Path) -> LatentDiffusion:
    return load(str(folder), "cpu")


def test_what_is_learned_changes_films_and_no_pictures(
    config: Config, file: Path, image: LatentDiffusion, tmp_path: Path
) -> None:
    along = load(config.model, "cpu", motion=file)
    assert along.moving is not None
    assert (along.moving.frames, along.moving.shared_noise, along.moving.given) == (4, 1.0, ())
    assert any(float(value.abs().max()) > 0 for name, value in time_layers(along).named_parameters() if "last" in name)
    small = (Clips.load(config.clips).frames[0, :5, ::4, ::4]).transpose(0, 3, 1, 2)
    for count in (1, 5):
        source = Clip(TensorFrames(torch.from_numpy(small[:count].copy())), 8.0).save(tmp_path / f"{count}.apng")
        task = Upscale(str(source), ("a square",), sampling=Sampling(steps=1, guidance_scale=(1.0,)))
        film, pictures = (task.run(model).frames[:] for model in (along, image))
        assert torch.equal(film, pictures) == (count == 1)
    log = said(config.out)
    assert {"validation", "psnr", "flicker", "psnr_pictures", "flicker_pictures"} < set(log[-1])
    assert (config.out / f"sheet-{STEPS:06d}.png").exists()


def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(
    config: Config, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_upscaler, "VALIDATED", 2)
    again = dataclasses.replace(config, out=tmp_path)
    with cut_at(STEPS - 1):
        time_upscaler.main(again)
    assert time_upscaler.main(again).read_bytes() == file.read_bytes()
    assert said(tmp_path) == said(config.out)


def test_only_the_layers_along_time_learn(
    config: Config, image: LatentDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what they learn makes frames easier to tell from noise."""
    monkeypatch.setattr(time_upscaler, "VALIDATED", 2)
    longer = dataclasses.replace(
        config, out=tmp_path, steps=30, decay=5, ema=0.9, dropped=0.0, flipped=0.0, noise_power=0.1, log_every=10,
        save_every=30, sheet_every=100,
    )  # fmt: skip
    before = {name: value.clone() for name, value in image.parts["unet"].state_dict().items()}
    file = time_upscaler.main(longer)
    losses = [line["loss"] for line in said(tmp_path) if "loss" in line]
    assert losses[-1] < 0.9 * losses[0]
    after = load(config.model, "cpu", motion=file).parts["unet"].state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_small_frames_are_of_the_same_place_and_noised_alike(config: Config, image: LatentDiffusion) -> None:
    still = dataclasses.replace(config, strides=(1,), crop=32)
    clips = Clips.load(config.clips)
    batch = draw(clips, image, None, still, 5, slice(None))
    assert batch.pictures.shape == (2, 4, 3, 32, 32) and batch.small.shape == batch.plain.shape == (2, 4, 3, 8, 8)
    shrunk = torch.nn.functional.interpolate(batch.pictures.flatten(0, 1), (8, 8), mode="area").unflatten(0, (2, 4))
    assert (batch.plain - shrunk).abs().mean() < 0.03, "the same place, by one of two filters"
    assert image.upscaling is not None
    levels = image.upscaling.levels()
    for clip, level in enumerate(batch.label.tolist()):
        left = batch.small[clip] - float(levels.alpha[level]) * (2 * batch.plain[clip] - 1)
        assert (left - left[:1]).abs().max() < 1e-5, "one field for all frames of a clip"
        assert float(left.std()) == pytest.approx(float(levels.sigma[level]), rel=0.3)
    assert not torch.equal(batch.label[:1], batch.label[1:]) or not torch.equal(batch.small[0], batch.small[1])
    part = draw(clips, image, None, still, 5, slice(1, 2))
    assert torch.equal(part.small[0], batch.small[1]) and torch.equal(part.pictures[0], batch.pictures[1])


def test_some_clips_went_through_the_codec_of_the_model_that_draws(config: Config, image: LatentDiffusion) -> None:
    """Frame by frame, so that what was lost of each is different."""
    codec = time_upscaler.AutoencoderCodec(time_upscaler.load_codec(WEIGHTS / "emoji" / "vae"))
    whole = dataclasses.replace(config, batch=6, crop=0, through_noise=0.3)
    clips = Clips.load(config.clips)
    bare, went = (draw(clips, image, through, whole, 1, slice(None)).plain for through in (None, codec))
    apart = (bare - went).abs().mean((2, 3, 4))
    through = apart.mean(1) > 0
    assert 0 < int(through.sum()) < 6
    assert float(apart[through].min()) > 0.002
    assert not torch.allclose((bare - went)[through][0, 0], (bare - went)[through][0, 1], atol=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "emoji"}, "nothing that this recipe can teach: expected an upscaler"),
        ({"frames": 9}, "need longer clips"),
        ({"crop": 12}, "expected a crop of such sides"),
        ({"crop": 96}, "expected a crop of such sides"),
        ({"validation_every": 40}, "too few to keep back"),
    ],
)
def test_what_cannot_be_learned_from_is_told(config: Config, change, message, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=message):
        time_upscaler.main(dataclasses.replace(config, out=tmp_path, **change))


def test_recipes_for_models_that_draw_take_no_upscaler(config: Config) -> None:
    with pytest.raises(TrainingError, match="from text alone"):
        read_frozen(config.model, torch.device("cpu"), False, (time_upscaler.UNetNetwork,))
