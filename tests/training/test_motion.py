# pyright: basic
"""A few clips teach attention along time a way of moving, as a LoRA that changes nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import write_model

from segue.errors import TrainingError
from segue.media.clip import Clip, TensorFrames
from segue.models.lora import applied
from segue.models.time_files import save_time, with_time_file
from segue.models.time_inserted import TimeSettings, time_layers, with_time
from segue.training.clip_corpus import ClipsConfig, build_clips
from segue.training.moving import Camera, moving_clip
from segue.training.recipes import motion
from segue.training.recipes.motion import FILE, Config, taught
from segue.types import RowId
from segue.zoo import load

from .conftest import Sources
from .cutting import cut_at, said

STEPS = 4
SETTINGS = TimeSettings(inner=8, heads=2, head_width=4, vector=16, context=4, frames=4, shared_noise=0.5)


@pytest.fixture(scope="module")
def config(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Config:
    clips = tmp_path_factory.mktemp("clips")
    chosen = ClipsConfig(size=64, frames=8, clips=2, motions={"bounce": 1.0})
    build_clips(clips, sources.folder, chosen, sources.concepts, sources.packages)
    folder = write_model(tmp_path_factory.mktemp("model"), length=24, vae="tiny")
    model = with_time(load(str(folder), "cpu"), SETTINGS)
    torch.manual_seed(0)
    for value in time_layers(model).parameters():
        torch.nn.init.normal_(value, std=0.1)
    save_time(layers := tmp_path_factory.mktemp("layers") / "time.safetensors", model)
    return Config(
        model=str(folder),
        layers=layers,
        clips=clips,
        out=tmp_path_factory.mktemp("run"),
        rank=2,
        frames=4,
        steps=STEPS,
        warmup=1,
        decay=2,
        validation_every=4,
        sheet_prompts=("a ball",),
        sheet_steps=2,
        log_every=1,
        save_every=2,
        sheet_every=STEPS,
    )


@pytest.fixture(scope="module")
def file(config: Config) -> Path:
    return motion.main(config)


def predicted(model, group: int) -> torch.Tensor:
    now, _ = model.schedule(10, (64, 64)).step(torch.full((4,), 4))
    x = torch.randn(4, model.codec.channels, 8, 8, generator=torch.Generator().manual_seed(1))
    at = dataclasses.replace(now, rows=tuple(RowId("clip", frame) for frame in range(4)))
    with torch.no_grad():
        return model.over(group).denoiser(x, at, model.text(["a ball"] * 4))


def test_the_file_updates_attention_along_time_alone(config: Config, file: Path) -> None:
    names = list(load_file(file))
    assert names and all(name.startswith("unet.time_layers.layers.") for name in names)
    assert {name.split(".")[4] for name in names} >= {"query", "key", "value", "last"}
    assert not [name for name in names if "resnets" in name]
    assert (config.out / f"sheet-{STEPS:06d}.png").exists()
    assert {"validation", "untaught"} < set(said(config.out)[-1])


def test_it_changes_clips_and_no_single_pictures(config: Config, file: Path) -> None:
    model = load(config.model, "cpu", motion=config.layers)
    clip, still = predicted(model, 4), predicted(model, 1)
    with applied(model, {file: 1.0}) as learned:
        assert float((predicted(learned, 4) - clip).abs().max()) > 1e-6
        assert torch.equal(predicted(learned, 1), still)
    assert torch.equal(predicted(model, 4), clip)
    loaded = load(config.model, "cpu", motion=config.layers, loras={str(file): 1.0})
    assert not torch.equal(predicted(loaded, 4), clip)


def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(config: Config, file: Path, tmp_path: Path) -> None:
    again = dataclasses.replace(config, out=tmp_path)
    with cut_at(STEPS - 1):
        motion.main(again)
    assert motion.main(again).read_bytes() == file.read_bytes()
    assert said(tmp_path) == said(config.out)


def test_footage_is_cut_into_clips_first(config: Config, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for seed in range(5):
        frames = moving_clip(seed, (72, 64), 8, camera=Camera(pan=(2.0, 0.0)), speed=0.03).frames[0:8]
        Clip(TensorFrames.rounded(frames), 8).save(folder / f"{seed}.mp4")
        (folder / f"{seed}.txt").write_text("the camera pans", "utf-8")
    made = motion.main(dataclasses.replace(config, clips=folder, out=tmp_path / "out", steps=2, sheet_every=2))
    assert made == tmp_path / "out" / FILE
    assert (tmp_path / "out" / "clips" / "sources.json").exists()


def test_there_must_be_attention_along_time_and_long_clips(config: Config, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="has no layers along time to teach: give their file"):
        motion.main(dataclasses.replace(config, layers=None, out=tmp_path))
    blind = with_time(load(config.model, "cpu"), dataclasses.replace(SETTINGS, transformers="convolution"))
    with pytest.raises(TrainingError, match="none of attention"):
        taught(blind, 2)
    with pytest.raises(TrainingError, match="windows of 9 frames"):
        motion.main(dataclasses.replace(config, frames=9, out=tmp_path / "long"))


def test_layers_stay_as_they_were(config: Config, file: Path) -> None:
    image = load(config.model, "cpu")
    assert config.layers is not None
    one, other = with_time_file(image, config.layers), with_time_file(image, config.layers)
    updates = taught(one, 2)
    assert all(value.requires_grad for value in updates.parameters())
    assert sum(value.requires_grad for value in time_layers(one).parameters()) == len(list(updates.parameters()))
    assert torch.equal(predicted(one, 4), predicted(other, 4)), "an update begins as none"
