# pyright: basic
"""Pairs of pictures and instructions: each differs as is said and in nothing else; an adapter learns from them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import write_model
from transformers import CLIPTokenizer

from segue.errors import TrainingError
from segue.models.instruct_files import read_instruct
from segue.training import frozen
from segue.training.captions import Concept, Look
from segue.training.corpus import build
from segue.training.instruct_data import EditPairs
from segue.training.instruct_drawn import Palette
from segue.training.instruct_pairs import SEEN, PairsConfig, build_pairs, change, changes_of
from segue.training.instruct_words import BY_RULE, KINDS, instructions
from segue.training.pictures import HUES, Placement, to_hsv
from segue.training.recipes import instruct
from segue.training.recipes.instruct import Config
from segue.zoo import load
from segue.zoo.cards import WEIGHTS

from .conftest import SMALL, Sources
from .cutting import cut_at, said

STEPS = 4
PAIRS = PairsConfig(size=64, sources=6, changes=6)
CAR = Concept("car", "red", ("automobile",), character="🚗", name="automobile")
STYLES = ("3d", "flat", "gradient", "line art")
OUTCOMES = {
    "colour": tuple(HUES),
    "ground": ("white", "dark blue", "orange"),
    "style": STYLES,
    "turn": ("upside down", "upright", "left", "right"),
    "flip": ("",),
    "size": ("bigger", "smaller"),
    "thing": ("cat face", "octopus"),
}


@pytest.fixture(scope="module")
def pairs(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pairs")
    assert build_pairs(out, sources.folder, PAIRS, sources.concepts, sources.packages) > 50
    return out


@pytest.fixture(scope="module")
def config(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = write_model(tmp_path_factory.mktemp("model"), length=24, vae="tiny")
    return Config(
        model=str(folder),
        pairs=pairs,
        out=tmp_path_factory.mktemp("run"),
        width=16,
        widths=(16, 16),
        blocks=(1, 1),
        steps=STEPS,
        first_steps=2,
        first_batch=6,
        batch=4,
        warmup=1,
        decay=2,
        validation_every=6,
        sheet_pictures=6,
        sheet_steps=2,
        log_every=1,
        save_every=2,
        sheet_every=STEPS,
    )


@pytest.fixture(scope="module")
def adapter(config: Config) -> Path:
    return instruct.main(config)


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "pairs.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_is_said_in_many_words_that_the_embedded_model_can_read(kind) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "emoji/tokenizer", local_files_only=True)
    for wanted in OUTCOMES[kind]:
        words = instructions(kind, wanted, ["smiling face with heart-eyes", "alarm clock"])
        assert len(set(words)) >= 4
        assert all("{" not in one and "  " not in one for one in words)
        assert max(len(tokenizer(one).input_ids) for one in words) <= 24
    said_ = {wanted: set(instructions(kind, wanted, ["car"])) for wanted in OUTCOMES[kind]}
    assert sum(map(len, said_.values())) == len(set().union(*said_.values())), "the same words for two changes"


def test_articles_fit() -> None:
    assert "an orange car" in instructions("colour", "orange", ["car"])
    assert "put it on an orange background" in instructions("ground", "orange", ["car"])
    assert "line art of an octopus" in instructions("style", "line art", ["octopus"])


def test_a_change_is_one_respect_and_no_more() -> None:
    palette, rng = Palette(CAR, ("blue", "green"), STYLES), np.random.default_rng(1)
    field = {"colour": "colour", "style": "style", "ground": "background"}
    inside = {"turn": "angle", "flip": "flip", "size": "scale"}
    seen: set[str] = set()
    for before, changes in changes_of(palette, PairsConfig(sources=200), rng):
        assert len({one.after for one in changes}) == len(changes)
        for one in changes:
            seen.add(one.kind)
            differing = {
                f.name for f in dataclasses.fields(Look) if getattr(before, f.name) != getattr(one.after, f.name)
            }
            assert differing == {field.get(one.kind, "placement")}
            if one.kind in inside:
                moved = {
                    f.name
                    for f in dataclasses.fields(Placement)
                    if getattr(before.placement, f.name) != getattr(one.after.placement, f.name)
                }
                assert moved == {inside[one.kind]}
    assert seen == set(BY_RULE)


def test_what_nobody_could_see_is_not_asked_for() -> None:
    rng, still = np.random.default_rng(2), Palette(dataclasses.replace(CAR, turn=False, flip=False), (), ("3d",))
    lines = Look("red", style="line art")
    assert change("colour", lines, Palette(CAR, ("blue",), STYLES), rng) is None
    assert all(change(kind, Look("red"), still, rng) is None for kind in ("colour", "style", "turn", "flip"))
    green = change("style", Look("green"), Palette(CAR, ("green",), ("3d", "line art")), rng)
    assert green is not None and green.there == "line art"
    assert green.back is None, "nobody sees that the lines were green"


def test_pictures_show_what_was_said(pairs: Path) -> None:
    found = EditPairs.load(pairs)
    checked: set[str] = set()
    for row, line in enumerate(lines_of(pairs)):
        before, after = (
            picture.numpy().astype(np.float32) / 255
            for picture in (found.pictures[found.before[row]], found.pictures[found.after[row]])
        )
        assert np.abs(before - after).mean() > SEEN * 0.9, line
        middle = before[24:40, 24:40].mean((0, 1)), after[24:40, 24:40].mean((0, 1))
        corner = before[0, 0], after[0, 0]
        if line["kind"] == "colour":
            asked = next(word for word in (*HUES, "gray") if any(word in one for one in line["instructions"]))
            if asked in HUES:
                hue = float(to_hsv(middle[1][None, None])[0][0, 0])
                assert abs((hue - HUES[asked][0] + 180) % 360 - 180) < 40, line
            assert np.allclose(*corner)
        elif line["kind"] == "ground":
            assert not np.allclose(*corner, atol=0.01)
            # Line art turns white on dark grounds.
            assert np.allclose(*middle, atol=0.02) or any("line" in caption for caption in line["captions"])
        elif line["kind"] == "size":
            assert np.allclose(*corner, atol=0.02)
        checked.add(line["kind"])
    assert {"colour", "ground", "size", "style"} <= checked


def test_held_out_colours_are_never_asked_for(pairs: Path) -> None:
    for line in lines_of(pairs):
        about = " ".join((*line["instructions"], *line["captions"]))
        assert not ("elephant" in about and "pink elephant" in about)
        if line["kind"] == "colour" and "star" in about:
            assert not any("blue" in one for one in line["instructions"])


def test_kinds_are_drawn_as_often_as_they_should_be(pairs: Path) -> None:
    lines = lines_of(pairs)
    wanted: dict[str, float] = {**PAIRS.kinds}
    shares = {kind: sum(line["weight"] for line in lines if line["kind"] == kind) for kind in wanted}
    total = sum(wanted[kind] for kind, share in shares.items() if share)
    for kind, share in shares.items():
        assert share == pytest.approx(wanted[kind] / total if share else 0, abs=1e-4)


def test_the_same_settings_make_the_same_pairs(pairs: Path, sources: Sources, tmp_path: Path) -> None:
    build_pairs(tmp_path, sources.folder, PAIRS, sources.concepts, sources.packages)
    for name in ("pictures.npy", "pairs.jsonl", "sources.json"):
        assert (tmp_path / name).read_bytes() == (pairs / name).read_bytes()


def test_no_picture_is_learned_from_and_kept_back(pairs: Path) -> None:
    learned, kept = EditPairs.load(pairs).split(5)
    rows = [set(part.before.tolist()) | set(part.after.tolist()) for part in (learned, kept)]
    assert rows[0] and rows[1] and not rows[0] & rows[1]
    assert len(learned) + len(kept) == len(lines_of(pairs))
    assert kept.weights.sum() == pytest.approx(1)


def test_a_share_is_told_nothing(pairs: Path) -> None:
    found = EditPairs.load(pairs)
    told = found.draw(np.random.default_rng(3), 20000, 0.05)
    assert np.mean([not words for words in told.instructions]) == pytest.approx(0.05, abs=0.006)
    assert all(found.draw(np.random.default_rng(3), 200, 0.0).instructions)
    named = found.draw(np.random.default_rng(3), 20000, 0.0, 0.25)
    captions = {(after, caption[1]) for after, caption in zip(found.after.tolist(), found.captions, strict=True)}
    told_one = [pair in captions for pair in zip(named.after.tolist(), named.instructions, strict=True)]
    assert np.mean(told_one) == pytest.approx(0.25, abs=0.015)


def test_damaged_pairs_are_told(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="segue train pairs"):
        EditPairs.load(tmp_path)
    copied = Path(shutil.copytree(pairs, tmp_path / "copy"))
    lines = lines_of(copied)
    (copied / "pairs.jsonl").write_text("\n".join(json.dumps({**line, "after": 10**6}) for line in lines))
    with pytest.raises(TrainingError, match="must name two of them"):
        EditPairs.load(copied)
    with (copied / "pictures.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\0")
    with pytest.raises(TrainingError, match="damaged"):
        EditPairs.load(copied)


def test_a_corpus_is_no_folder_of_pairs(sources: Sources, tmp_path: Path) -> None:
    build(tmp_path, sources.folder, SMALL, sources.concepts, sources.packages)
    with pytest.raises(TrainingError, match="damaged"):
        EditPairs.load(tmp_path)


def test_the_file_makes_an_instruction_model(config: Config, adapter: Path) -> None:
    model = load(config.model, "cpu")
    taught = load(config.model, "cpu", instruct=adapter)
    assert taught.instructs and not model.instructs
    assert taught.instruct_adapter == str(adapter.absolute())
    assert (config.out / f"sheet-{STEPS:06d}.png").exists()
    lines = said(config.out)
    alone = [set(line) & {"guess"} for line in lines if "loss" in line]
    assert alone == [set(), set(), {"guess"}, {"guess"}], "the first two steps learn the guess alone"
    assert set(lines[-1]) & set(KINDS)


def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(config: Config, adapter: Path, tmp_path: Path) -> None:
    again = dataclasses.replace(config, out=tmp_path)
    with cut_at(STEPS - 1):
        instruct.main(again)
    assert instruct.main(again).read_bytes() == adapter.read_bytes()
    assert said(tmp_path) == said(config.out)


def test_first_steps_leave_what_is_added_to_the_unet_alone(config: Config, tmp_path: Path) -> None:
    alone = dataclasses.replace(config, out=tmp_path, first_steps=STEPS, ema=0.5)
    learned = read_instruct(instruct.main(alone))
    assert all(float(value.abs().max()) == 0 for value in learned.taps.parameters())
    assert float(learned.guess.weight.abs().max()) > 0
    model = load(config.model, "cpu")
    x, now = torch.randn(1, 4, 8, 8), model.schedule(5, (64, 64)).step(torch.zeros(1, dtype=torch.int64))[0]
    cond = model.text(["a car"])
    taught = load(config.model, "cpu", instruct=tmp_path / instruct.FILE)
    shown = dataclasses.replace(cond, concat=torch.randn(1, 4, 8, 8))
    assert torch.equal(taught.denoiser(x, now, shown), model.denoiser(x, now, cond))


def test_it_learns_to_look_at_the_picture(config: Config, tmp_path: Path) -> None:
    """Of all that the loss could fall by, the picture is the largest part: without it nobody knows what is there."""
    longer = dataclasses.replace(
        config, out=tmp_path, steps=60, first_steps=30, decay=10, ema=0.9, lr=1e-2, dropped=0.0, captioned=0.0,
        bf16=False, noise_power=0.3, log_every=10, save_every=60, sheet_every=100,
    )  # fmt: skip
    instruct.main(longer)
    lines = [line for line in said(tmp_path) if "loss" in line]
    guesses, losses = [line["loss"] for line in lines[:3]], [line["loss"] for line in lines[3:]]
    assert guesses[-1] < 0.8 * guesses[0]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("change_", "message"),
    [
        ({"model": "emoji"}, "pictures of 64x64, and emoji draws 128x128"),
        ({"model": "emoji-x4"}, "nothing that this recipe can teach"),
        ({"validation_every": 1000}, "too few pictures that are changed"),
    ],
)
def test_what_cannot_be_learned_from_is_told(config: Config, change_, message, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=message):
        instruct.main(dataclasses.replace(config, out=tmp_path, **change_))


def test_a_model_that_was_taught_once_is_not_taught_again(
    config: Config, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = load(config.model, "cpu", instruct=adapter)
    monkeypatch.setattr(frozen, "load", lambda *_: taught)
    with pytest.raises(TrainingError, match="nothing that this recipe can teach"):
        frozen.read_frozen("taught", torch.device("cpu"), False, (instruct.UNetNetwork,))
