# pyright: basic
"""Where things go is learned alone, of clips that know it; all else of the layers stays, and a cut run goes on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import write_model

from segue.errors import TrainingError
from segue.models.own_files import weights_of
from segue.models.time_files import with_time_file
from segue.models.time_inserted import time_layers
from segue.training.clip_corpus import ClipsConfig, build_clips
from segue.training.recipes import videoldm, ways
from segue.training.recipes.ways import Config
from segue.zoo import load

from .conftest import Sources
from .cutting import cut_at, said

STEPS = 300
WAY = "moves.travel.way."


@pytest.fixture(scope="module")
def config(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Config:
    clips = tmp_path_factory.mktemp("clips")
    build_clips(clips, sources.folder, ClipsConfig(size=64, frames=8, clips=12), sources.concepts, sources.packages)
    model = str(write_model(tmp_path_factory.mktemp("model"), length=24, vae="tiny"))
    moving = videoldm.Config(
        model=model, clips=clips, out=tmp_path_factory.mktemp("motion"), inner=8, heads=2, head_width=4, vector=16,
        context=4, frames=4, attention="clip", moves=(16, 16), first_steps=2, first_batch=4, tokens=True, steps=2,
        batch=2, warmup=1, decay=0, validation_every=6, sheet_prompts=("a red car slides to the right",), sheet_steps=2,
        given={"first": 1.0}, log_every=1, save_every=2, sheet_every=2,
    )  # fmt: skip
    return Config(
        motion=videoldm.main(moving), model=model, clips=clips, out=tmp_path_factory.mktemp("ways"), pairs=300,
        steps=STEPS, batch=64, warmup=5, decay=150, ema=0.9, validation_every=6, log_every=50,
        save_every=100, lr=1e-2, exchanged=0.5,
    )  # fmt: skip


@pytest.fixture(scope="module")
def file(config: Config) -> Path:
    return ways.main(config)


def test_ways_are_learned_and_nothing_else(config: Config, file: Path) -> None:
    before, after = weights_of(config.motion), weights_of(file)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.allclose(before[name], after[name], atol=1e-3)}
    assert changed and all(name.startswith(WAY) for name in changed)
    moving = with_time_file(load(config.model, "cpu"), file)
    assert (
        time_layers(moving).settings == time_layers(with_time_file(load(config.model, "cpu"), config.motion)).settings
    )
    found = load_file(config.out / "pairs-000000.safetensors")
    assert "validation" in said(config.out)[-1]
    with torch.no_grad():
        wrong = list[float]()
        for one in (config.motion, file):
            _, travel = ways.learning(with_time_file(load(config.model, "cpu"), one), config)
            wrong.append(float((travel.way_of(found["heard"]).numbers - found["ways"]).abs().mean()))
    assert wrong[1] < wrong[0], "of clips that were seen, at least: little can be heard of random words"


def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(config: Config, file: Path, tmp_path: Path) -> None:
    """Also where pairs were half gathered: what is damaged is gathered again."""
    again = dataclasses.replace(config, out=tmp_path)
    with cut_at(STEPS - 125):
        ways.main(again)
    (tmp_path / "pairs-000000.safetensors").write_bytes(b"half")
    assert ways.main(again).read_bytes() == file.read_bytes()
    assert said(tmp_path) == said(config.out)


def test_things_that_look_like_others_keep_what_they_are_told(config: Config) -> None:
    moves, _ = ways.learning(with_time_file(load(config.model, "cpu"), config.motion), config)
    told = moves.layout.embedding
    heard = torch.arange(10.0)[:, None].expand(10, told + 6)
    drawn = ways.batch(heard, config, 3)
    found = ways.exchanged(heard, drawn, moves, config, 3)
    assert torch.equal(found[:, :told], heard[drawn, :told])
    others = (found[:, told:] != heard[drawn, told:]).all(1).float().mean()
    assert 0.2 < float(others) < 0.75, "half of them, less those that met themselves"


def test_it_needs_layers_that_set_pictures_in_motion(config: Config, tmp_path: Path) -> None:
    still = videoldm.Config(
        model=config.model, clips=config.clips, out=tmp_path, inner=8, heads=2, head_width=4, vector=16, frames=4,
        steps=1, batch=1, warmup=1, decay=0, validation_every=6, sheet_every=5, save_every=5,
    )  # fmt: skip
    with pytest.raises(TrainingError, match="sets no pictures in motion"):
        ways.main(dataclasses.replace(config, motion=videoldm.main(still), out=tmp_path / "ways"))
