"""Frames that look at each other while they are drawn: over parts of a film, and from one film to another."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from attending import attending_model
from flickers import saved, textured
from footage import real_clip
from segue.errors import InterruptedRunError, TaskError
from segue.media import Clip, fit, read
from segue.media.clip import levels_of, to_uint8
from segue.models.bundle import LatentDiffusion
from segue.models.denoiser import Tally
from segue.tasks.sampling import Sampling
from segue.tasks.stylize import Stylize
from segue.tasks.stylize_plan import StylizePlan
from segue.tasks.stylize_settings import Agreement, Beginning, References, Shape
from segue.zoo.load import load
from shown import record

SIZE = (64, 32)
LOOKS = Agreement("first, previous, self", deflicker=0, blend=0.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LatentDiffusion:
    return attending_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def film(tmp_path: Path) -> str:
    return saved(tmp_path / "film.apng", textured(6, SIZE))


def task(film: str, **changes: Any) -> Stylize:
    sampling = Sampling(steps=3, size=SIZE)
    usual = Stylize(
        film, "a cat", agreement=LOOKS, beginning=Beginning(strength=0.7), shape=Shape(cuts="none"), sampling=sampling
    )
    return replace(usual, **changes)


def pixels(clip: Clip) -> Tensor:
    return levels_of(clip.frames, slice(None))


def bank(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.offset_keys()}, dict(file.metadata())


def apart(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).abs().mean())


def test_frames_look_at_each_other(film: str, model: LatentDiffusion) -> None:
    alone = pixels(task(film, agreement=replace(LOOKS, attention="self")).run(model))
    first = pixels(task(film, agreement=replace(LOOKS, attention="first, self")).run(model))
    both = pixels(task(film).run(model))
    # Nobody goes before the first frame.
    assert torch.equal(alone[0], first[0]) and torch.equal(alone[0], both[0])
    assert apart(alone[1:], first[1:]) > 0.1
    assert torch.equal(first[1], both[1]) or apart(first[1:], both[1:]) > 0.01


def test_later_parts_look_at_the_first_frame_of_the_film(film: str, model: LatentDiffusion) -> None:
    """Where all look at the first frame and nobody at a neighbour, parts change nothing but roundings."""
    looks = replace(LOOKS, attention="first, self")
    whole = pixels(task(film, agreement=looks).run(model))
    cut = task(film, agreement=looks, shape=Shape(cuts="none", window=3, overlap=1)).run(model)
    assert record(cut)["plan"]["parts"] == [(0, 3), (2, 4), (3, 6)]
    assert int((pixels(cut).int() - whole.int()).abs().max()) <= 1


@pytest.mark.parametrize("at", [2, 4, 6])
def test_what_was_looked_at_is_gone_on_with(film: str, model: LatentDiffusion, tmp_path: Path, at: int) -> None:
    cut = task(film, shape=Shape(cuts="none", window=3, overlap=1), agreement=replace(LOOKS, deflicker=1, around=1))
    whole = cut.run(model, save_bank=tmp_path / "whole.safetensors")
    calls = 0

    def stop(what: str, done: float, total: float) -> None:
        nonlocal calls
        calls += what == "drawing frames"
        if calls == at:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError):
        cut.run(model, progress=stop, work=tmp_path, save_bank=tmp_path / "x.safetensors")
    again = cut.run(model, work=tmp_path, save_bank=tmp_path / "again.safetensors")
    assert torch.equal(pixels(again), pixels(whole))
    (kept, said), (wanted, told) = (bank(tmp_path / f"{name}.safetensors") for name in ("again", "whole"))
    assert said == told and kept.keys() == wanted.keys()
    assert all(torch.equal(part, wanted[name]) for name, part in kept.items())


@pytest.fixture
def shots(tmp_path: Path) -> str:
    """A film of three shots: the second shows something else, and the third what the first does."""
    shown = textured(6, SIZE)
    return saved(tmp_path / "shots.apng", torch.cat([shown[:3], textured(4, SIZE, seed=9), shown[:2]]))


ANCHORS = replace(LOOKS, attention="anchors, self")
CUT = Shape(cuts="3,7")


def test_a_shot_that_shows_something_else_has_anchors_of_its_own(shots: str, model: LatentDiffusion) -> None:
    asked, tally = task(shots, agreement=ANCHORS, shape=CUT), Tally(timed=False)
    clip = asked.run(replace(model, denoiser=tally.watching(model.denoiser)))
    plan = StylizePlan(**record(clip)["plan"])
    first, second = ([one for one in plan.anchors if one in shot] for shot in (range(3), range(3, 7)))
    assert first and second and [*first, *second] == plan.anchors, "what was seen before needs no others"
    assert record(clip)["scores"]["evaluations"] == tally.rows
    # As it was made before there were such anchors; the same plan still makes it.
    before = asked.run(model, plan=replace(plan, anchors=first))
    assert record(before)["plan"]["anchors"] == first
    assert torch.equal(pixels(clip)[:3], pixels(before)[:3])
    assert apart(pixels(clip)[3:], pixels(before)[3:]) > 0.1
    again = asked.run(model, plan=plan)
    assert torch.equal(pixels(again), pixels(clip)) and record(again) == record(clip)


@pytest.mark.parametrize("clips", [("bigbuckbunny", "portrait"), ("portrait", "wolf")])
def test_frames_of_a_later_shot_are_more_alike_with_an_anchor_of_their_own(
    clips: tuple[str, str], tmp_path: Path
) -> None:
    """On the embedded model; before, they looked at what another shot shows, each in another way."""
    shots = [fit(read(real_clip(f"{name}.mp4")).frames, (64, 64), "crop") for name in clips]
    frames = torch.cat([shots[0][0:9:3], shots[1][0:30:5]])
    film = saved(tmp_path / "film.apng", to_uint8(frames))
    asked = Stylize(
        film, "a koala", control=("softedge@0-0.5",), beginning=Beginning(0.8), agreement=ANCHORS,
        shape=Shape(cuts="3"), sampling=Sampling(steps=4, size=(64, 64)),
    )  # fmt: skip
    model = load("emoji-fast")
    clip = asked.run(model)
    plan = StylizePlan(**record(clip)["plan"])
    before = asked.run(model, plan=replace(plan, anchors=[one for one in plan.anchors if one < 3]))
    assert torch.equal(pixels(clip)[:3], pixels(before)[:3])
    own, other = (pixels(one)[3:].float() for one in (clip, before))
    assert apart(own, own.mean(0)) < 0.93 * apart(other, other.mean(0))


@pytest.mark.parametrize("at", [3, 5, 7, 9])
def test_anchors_of_all_shots_are_gone_on_with(shots: str, model: LatentDiffusion, tmp_path: Path, at: int) -> None:
    asked, calls = task(shots, agreement=ANCHORS, shape=CUT), 0
    whole = asked.run(model, save_bank=tmp_path / "whole.safetensors")
    anchors = record(whole)["plan"]["anchors"]

    def stop(what: str, done: float, total: float) -> None:
        nonlocal calls
        calls += what == "drawing frames"
        if calls == at:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError):
        asked.run(model, progress=stop, work=tmp_path)
    again = asked.run(model, work=tmp_path, save_bank=tmp_path / "again.safetensors")
    assert torch.equal(pixels(again), pixels(whole)) and record(again) == record(whole)
    (kept, said), (wanted, told) = (bank(tmp_path / f"{name}.safetensors") for name in ("again", "whole"))
    assert said == told and [row["name"] for row in json.loads(said["run"])["anchors"]] == [
        ["clip", number] for number in anchors
    ]
    assert all(torch.equal(part, wanted[name]) for name, part in kept.items())


def test_a_second_film_looks_at_the_bank_of_the_first(film: str, model: LatentDiffusion, tmp_path: Path) -> None:
    bank = tmp_path / "bank.safetensors"
    task(film).run(model, save_bank=bank)
    other = saved(tmp_path / "other.apng", textured(4, SIZE, seed=9))
    plain = pixels(task(other).run(model))
    clip = task(other, agreement=replace(LOOKS, attention="bank, first, previous, self", bank=str(bank))).run(model)
    assert apart(pixels(clip)[0], plain[0]) > 0.1
    assert record(clip)["plan"]["others"].keys() == {str(bank)}
    with pytest.raises(TaskError, match="add bank"):
        task(other, agreement=replace(LOOKS, bank=str(bank))).run(model)
    with pytest.raises(TaskError, match="recorded at 64x32"):
        task(other, agreement=Agreement(bank=str(bank), blend=0, deflicker=0), sampling=Sampling(3, size=(32, 32))).run(
            model
        )
    with pytest.raises(TaskError, match="steps"):
        task(other, agreement=Agreement(bank=str(bank)), sampling=Sampling(4, size=SIZE)).run(model)


def test_colours_go_towards_those_of_the_bank_as_far_as_is_said(
    film: str, model: LatentDiffusion, tmp_path: Path
) -> None:
    bank = tmp_path / "bank.safetensors"
    task(film).run(model, save_bank=bank)
    other = saved(tmp_path / "other.apng", textured(4, SIZE, seed=9))
    looks = replace(LOOKS, attention="bank, first, previous, self", bank=str(bank))

    def made(power: float | None, **shape: Any) -> Clip:
        shape = {"cuts": "none", **shape}
        return task(other, agreement=replace(looks, bank_power=power), shape=Shape(**shape)).run(model)

    none, half, whole = (pixels(made(power)) for power in (0.0, 0.5, 1.0))
    assert 0 < apart(half, none) < apart(whole, none)
    usual = made(None)
    assert torch.equal(pixels(usual), whole) and record(usual)["fields"]["agreement"]["bank_power"] == 1
    # Later parts go towards it, too.
    parts = (pixels(made(power, window=3, overlap=1)) for power in (0.0, 1.0))
    assert all(apart(one, other) > 0.1 for one, other in zip(*parts, strict=True))
    with pytest.raises(TaskError, match="name one"):
        Agreement(bank_power=0.5)
    with pytest.raises(TaskError, match=r"bank_power must be in \[0, 1\]"):
        Agreement(bank=str(bank), bank_power=2)


def test_a_bank_needs_frames_that_others_look_at(film: str, model: LatentDiffusion, tmp_path: Path) -> None:
    alone = task(film, agreement=replace(LOOKS, attention="previous, self"))
    with pytest.raises(TaskError, match="add first, anchors or every K"):
        alone.run(model, save_bank=tmp_path / "x.safetensors")


def test_references_are_looked_at(film: str, model: LatentDiffusion, tmp_path: Path) -> None:
    picture = saved(tmp_path / "picture.png", textured(1, (50, 40), seed=5))
    plain = pixels(task(film).run(model))
    pictures = References((picture,))
    clip = task(film, agreement=replace(LOOKS, attention=None), references=pictures).run(model)
    assert record(clip)["fields"]["agreement"]["attention"] == "anchors, reference, self"
    assert any("is cut to the proportions of 64x32" in note for note in record(clip)["notes"])
    assert apart(pixels(clip)[0], plain[0]) > 0.1
    with pytest.raises(TaskError, match="reference pictures that nothing goes by"):
        task(film, references=pictures).run(model)
    with pytest.raises(TaskError, match="goes by reference pictures"):
        task(film, agreement=replace(LOOKS, attention="reference, self")).run(model)
    with pytest.raises(TaskError, match="a reference is one picture"):
        task(film, agreement=Agreement(), references=References((film,))).run(model)


def test_a_run_backwards_is_not_kept_for_later_parts(film: str, model: LatentDiffusion, tmp_path: Path) -> None:
    beginning = Beginning(strength=0.7, start="inverted")
    looks, bank_file = replace(LOOKS, attention="anchors, self"), tmp_path / "bank.safetensors"
    cut = task(film, agreement=looks, beginning=beginning, shape=Shape(cuts="none", window=3, overlap=1))
    clip = cut.run(model, save_bank=bank_file)
    assert len(record(clip)["plan"]["parts"]) == 3
    kept, _ = bank(bank_file)
    # Of three steps two are run, and as many are in the bank.
    assert {part.shape[1] for name, part in kept.items() if name.endswith("latents")} == {2}
    whole = task(film, agreement=looks, beginning=beginning).run(model)
    assert int((pixels(clip)[:2].int() - pixels(whole)[:2].int()).abs().max()) <= 40


def test_an_inverted_film_comes_back(film: str, model: LatentDiffusion) -> None:
    """Run back and forth by the same words, without guidance, a film is about what it was."""
    unguided = Sampling(steps=8, guidance_scale=(1.0,), size=SIZE)
    plain = Agreement("self", deflicker=0, blend=0.0)

    def made(**beginning: Any) -> Tensor:
        return pixels(task(film, agreement=plain, sampling=unguided, beginning=Beginning(**beginning)).run(model))

    through_codec = made(strength=0.01)
    back = made(strength=0.8, start="inverted", source_prompt="a cat")
    noised = made(strength=0.8)
    assert apart(back, through_codec) < 0.5 * apart(noised, through_codec)
