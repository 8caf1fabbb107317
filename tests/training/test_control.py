"""An adapter learns from frozen models what control pictures say; its run can be cut, and take in another kind."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import write_model

from segue.errors import ModelError, TrainingError
from segue.models.control_adapter import KINDS, read_adapter
from segue.training.conditions import Conditions, cutout, moved, puffed, torn
from segue.training.data import Corpus
from segue.training.ranks import Ranks
from segue.training.recipes import control
from segue.training.recipes.control import Config
from segue.training.run import read_config

from .cutting import cut_at, said

SIDE, STEPS = 64, 4
ONE = Ranks(0, 1, torch.device("cpu"))
DRAWN = {kind: 1.0 for kind in KINDS if kind != "pose"}


@pytest.fixture(autouse=True, scope="module")
def few_are_validated() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control, "VALIDATED", 4)
        yield


def discs(count: int) -> np.ndarray:
    """Discs of one colour on grounds of another, with a soft light in these."""
    rng, pictures = np.random.default_rng(3), np.zeros((count, SIDE, SIDE, 3), np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE]
    for picture in pictures:
        ground, colour = rng.integers(150, 230, 3), rng.integers(0, 110, 3)
        light = 12 * np.exp(-((x - SIDE / 2) ** 2 + (y - SIDE / 2) ** 2) / 800)[..., None]
        picture[:] = ground + light
        centre, radius = rng.integers(24, 40, 2), int(rng.integers(10, 16))
        cv2.circle(picture, (int(centre[0]), int(centre[1])), radius, colour.tolist(), -1, cv2.LINE_AA)
    return pictures


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    pictures = discs(12)
    lines = [json.dumps({"weight": 1, "captions": ["apple", "a red apple"]}) for _ in pictures]
    (folder / "manifest.jsonl").write_text("\n".join(lines), "utf-8")
    np.save(folder / "pictures.npy", pictures)
    digest = hashlib.sha256((folder / "pictures.npy").read_bytes()).hexdigest()
    (folder / "sources.json").write_text(json.dumps({"pictures_sha256": digest}), "utf-8")
    return folder


@pytest.fixture(scope="module")
def config(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = write_model(tmp_path_factory.mktemp("model"), prediction="v_prediction", length=24, vae="tiny")
    return Config(
        model=str(folder),
        corpus=corpus,
        out=tmp_path_factory.mktemp("run"),
        kinds=DRAWN,
        widths=(16, 16),
        blocks=(1, 1),
        steps=STEPS,
        batch=4,
        warmup=1,
        decay=2,
        validation_every=4,
        sheet_pictures=1,
        sheet_steps=2,
        log_every=1,
        save_every=2,
        sheet_every=STEPS,
    )


@pytest.fixture(scope="module")
def adapter(config: Config) -> Path:
    return control.main(config)


def test_a_run_writes_an_adapter_a_sheet_and_what_each_kind_has_gained(config: Config, adapter: Path) -> None:
    net = read_adapter(adapter)
    assert net.layout.skips == ((32, 0), (32, 0), (32, 1), (64, 1)) and net.layout.widths == (16, 16)
    assert any(bool(value.any()) for value in net.taps.parameters()), "it has learned something"
    gained = {name: value for line in said(config.out) for name, value in line.items() if name in KINDS}
    assert gained.keys() == DRAWN.keys() and all(0.5 < value < 1.5 for value in gained.values())
    assert (config.out / f"sheet-{STEPS:06d}.png").exists()


def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(config: Config, adapter: Path, tmp_path: Path) -> None:
    again = dataclasses.replace(config, out=tmp_path)
    with cut_at(STEPS - 1):
        control.main(again)
    assert control.main(again).read_bytes() == adapter.read_bytes()
    assert said(tmp_path) == said(config.out)
    one, other = (load_file(each.out / "checkpoint.safetensors") for each in (config, again))
    assert one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one)


def test_a_run_takes_in_another_kind(config: Config, tmp_path: Path) -> None:
    few = dataclasses.replace(config, out=tmp_path, kinds={"tile": 1.0}, figures=8, steps=2, sheet_every=2)
    control.main(few)
    control.main(dataclasses.replace(few, kinds={"tile": 1.0, "pose": 2.0}, steps=4, sheet_every=4))
    assert {name for line in said(tmp_path) for name in line} >= {"tile", "pose"}


def test_learning_makes_the_model_less_wrong(config: Config, tmp_path: Path) -> None:
    """Tiles say nearly all of a picture; the model is random and knows nothing."""
    longer = dataclasses.replace(
        config,
        out=tmp_path,
        kinds={"tile": 1.0},
        scenes=0.0,
        roughened=0.0,
        steps=40,
        decay=10,
        ema=0.9,
        lr=5e-3,
        sheet_every=40,
        save_every=40,
        log_every=40,
        bf16=False,
    )
    control.main(longer)
    assert said(tmp_path)[-1]["tile"] < 0.93


@pytest.mark.parametrize(
    ("field", "why"),
    [
        ("kinds={hed = 1}", 'no kind "hed"'),
        ("kinds={}", "at least 1"),
        ("kinds={tile = -1}", "greater than 0"),
        ("figures=0", "figures=100"),
        ("widths=[16]", "2 widths"),
        ("validation_every=13", "at most 12"),
    ],
)
def test_what_cannot_be_trained_is_refused(config: Config, tmp_path: Path, field: str, why: str) -> None:
    fields = [f"model={config.model}", f"corpus={config.corpus}", f"out={tmp_path}", "widths=[16, 16]", "blocks=[1, 1]"]
    with pytest.raises((TrainingError, ModelError), match=why):
        control.main(read_config("control", None, [*fields, "validation_every=4", "figures=8", field]))


def test_models_with_another_prediction_or_size_are_refused(config: Config, corpus: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "epsilon", length=24, vae="tiny")
    with pytest.raises(TrainingError, match="predicts epsilon"):
        control.main(dataclasses.replace(config, model=str(other), out=tmp_path / "run"))
    with pytest.raises(TrainingError, match="nothing that this recipe can teach"):
        control.main(dataclasses.replace(config, model="emoji-x4", out=tmp_path / "run"))
    large = write_model(tmp_path / "large", prediction="v_prediction", length=24, vae="tiny", sample_size=16)
    with pytest.raises(TrainingError, match=r"pictures of 64x64, and .* draws 128x128"):
        control.main(dataclasses.replace(config, model=str(large), out=tmp_path / "run"))


def test_things_are_cut_out_of_their_grounds() -> None:
    for picture in discs(6):
        ground, inside = picture[:8].reshape(-1, 3).astype(float).mean(0), cutout(picture.astype(np.float32) / 255)
        true = np.abs(picture.astype(float) - ground).max(-1) > 40
        assert np.abs((inside > 0.5).astype(int).sum() - true.sum()) < 0.25 * true.sum()
        assert not (inside > 0.5)[~cv2.dilate(true.astype(np.uint8), np.ones((3, 3))).astype(bool)].any()


def test_what_stands_in_front_is_nearer_and_round() -> None:
    alpha = np.zeros((SIDE, SIDE), np.float32)
    cv2.circle(alpha, (32, 30), 14, 1.0, -1)
    floor = np.repeat(np.linspace(0, 1, SIDE, dtype=np.float32)[:, None], SIDE, 1)
    depth = puffed(alpha, floor)
    assert depth[30, 32] > depth[30, 44] > floor[44, 0], "its middle is nearest, and its rim as near as its foot"
    assert np.array_equal(depth[alpha == 0], floor[alpha == 0])


def test_scenes_differ_and_rows_follow_from_their_generator(corpus: Path) -> None:
    drawn = Conditions(Corpus.load(corpus), DRAWN, 1.0, 0.5, 0.5, 0.5)
    one, same, other = (drawn.draw(np.random.default_rng(seed), 6) for seed in (1, 1, 2))
    assert one.pictures.equal(same.pictures) and one.hints.equal(same.hints) and one.captions == same.captions
    assert not one.pictures.allclose(other.pictures)
    for part in (one.pictures, one.hints):
        assert part.shape == (6, 3, SIDE, SIDE) and float(part.min()) >= 0 and float(part.max()) <= 1


def test_a_thing_and_its_mask_are_moved_alike() -> None:
    rng, picture = np.random.default_rng(0), np.zeros((SIDE, SIDE, 3), np.float32)
    picture[20:40, 10:30] = 1
    colour, alpha = moved([picture, picture[..., 0]], rng, shares=(0.5, 1.2), reach=0.2, turn=20)
    assert np.allclose(colour[..., 1], alpha, atol=1e-5) and not np.allclose(alpha, picture[..., 0])


def test_colours_are_never_torn() -> None:
    """Holes are for what is drawn in lines: black patches would be taken for colours."""
    hint = np.full((SIDE, SIDE, 3), 0.5, np.float32)
    assert all(np.array_equal(torn(hint, "palette", np.random.default_rng(seed)), hint) for seed in range(8))
    assert any((torn(hint, "canny", np.random.default_rng(seed)) == 0).any() for seed in range(8))
