"""Noise that ddib hands over in a file: two runs with it are the one run without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flickers import saved, textured
from segue.errors import CheckpointError, InterruptedRunError, TaskError
from segue.media import Clip, read
from segue.media.clip import ScratchFrames, levels_of
from segue.models.inverted import InvertedLatents
from segue.tasks.edit import Edit
from segue.tasks.edit_settings import Change, EditArea
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Sampling
from segue.tasks.stylize_settings import Agreement, Shape
from shown import record
from toy import PatchCodec, toy_model

SIZE = (48, 32)
SHAPE = Shape(cuts="none", window=4, overlap=1)


def pixels(clip: Clip) -> Tensor:
    return levels_of(clip.frames, slice(None))


@pytest.fixture
def film(tmp_path: Path) -> str:
    return saved(tmp_path / "film.apng", textured(6, SIZE))


def asked(source: str, prompt: str, **change: Any) -> Edit:
    agreement = Agreement("self", deflicker=0, blend=0.0)
    said = Sampling(8, size=SIZE) if "latent" not in change else Sampling()
    return Edit(source, prompt, "ddib", change=Change(**change), agreement=agreement, shape=SHAPE, sampling=said)


@pytest.mark.parametrize(("exact", "strength"), [(False, 1.0), (True, 0.7)])
def test_two_runs_are_one(exact: bool, strength: float, film: str, tmp_path: Path) -> None:
    model, noise = toy_model(), tmp_path / "noise.safetensors"
    said: dict[str, Any] = {"source_prompt": "two", "exact": exact, "strength": strength}
    whole = asked(film, "one", **said).run(model)
    source = asked(film, "two", **said)
    source.run(model, save_latent=noise)
    target = asked(film, "one", latent=str(noise)).run(model)
    assert torch.equal(pixels(target), pixels(whole))
    kept = InvertedLatents.read(noise)
    assert (kept.origin.prompt, kept.origin.exact, kept.steps) == ("two", exact, 8)
    assert kept.latents.shape == (6, 12, 16, 24) and (kept.increment is not None) == exact
    fields = record(target)["fields"]
    assert (fields["sampling"]["steps"], fields["sampling"]["size"]) == (8, SIZE)
    frames = sum(stop - first for first, stop in record(whole)["plan"]["parts"])
    more = source.prepared(model).more_evaluations * frames
    assert record(target)["scores"]["evaluations"] == record(whole)["scores"]["evaluations"] - more
    assert any("the noise was found by toy, told 'two'" in note for note in record(target)["notes"])
    target.save(tmp_path / "a.apng")
    again = Rerun.read(tmp_path / "a.json").run(toy_model())
    assert torch.equal(pixels(again), pixels(target)) and record(again) == record(target)
    replace(kept, latents=-kept.latents).save(noise)
    with pytest.raises(TaskError, match="is not what this was made with"):
        Rerun.read(tmp_path / "a.json").run(toy_model())


def test_a_run_that_goes_on_saves_the_same_noise(film: str, tmp_path: Path) -> None:
    """Also of parts that were finished before, and of a run before that was not asked for it."""
    task, whole, noise = asked(film, "one", source_prompt="two"), tmp_path / "whole.safetensors", tmp_path / "x.st"
    task.run(toy_model(), save_latent=whole)
    for earlier in (None, tmp_path / "other.safetensors"):
        calls = 0

        def stop(what: str, done: float, total: float) -> None:
            nonlocal calls
            calls += what == "drawing frames"
            if calls == 12:
                raise KeyboardInterrupt

        with pytest.raises(InterruptedRunError, match="frames are finished"):
            task.run(toy_model(), progress=stop, work=tmp_path, save_latent=earlier)
        done = task.run(toy_model(), work=tmp_path, save_latent=noise).frames
        assert isinstance(done, ScratchFrames)
        done.discard()
        assert noise.read_bytes() == whole.read_bytes()


def test_a_mask_keeps_what_is_black(film: str, tmp_path: Path) -> None:
    white = torch.zeros(1, 3, SIZE[1], SIZE[0], dtype=torch.uint8)
    white[..., 8:24, 16:40] = 255
    area = EditArea((saved(tmp_path / "mask.png", white),), 0, still=True)
    noise = tmp_path / "noise.safetensors"
    asked(film, "two", source_prompt="two").run(toy_model(), save_latent=noise)
    made = pixels(replace(asked(film, "one", latent=str(noise)), area=area).run(toy_model()))
    before, outside = pixels(read(film)), white[0, 0] == 0
    assert torch.equal(made[..., outside], before[..., outside]) and not torch.equal(made, before)


def test_what_does_not_fit_is_refused(film: str, tmp_path: Path) -> None:
    noise = tmp_path / "noise.safetensors"
    asked(film, "two", source_prompt="two", strength=0.5).run(toy_model(), save_latent=noise)
    name = str(noise)
    target = asked(film, "one", latent=name)
    picture = saved(tmp_path / "picture.png", textured(1, SIZE))
    cases: list[tuple[type[Exception], str, Edit, Any]] = [
        (TaskError, "is of 6 frames, and the input has 1", replace(target, input=picture), toy_model()),
        (
            TaskError,
            "has 4 of 8 steps before it, and strength 0.7",
            asked(film, "one", latent=name, strength=0.7),
            None,
        ),
        (CheckpointError, "a run of 8 steps, and this run has 9", replace(target, sampling=Sampling(9)), None),
        (CheckpointError, "is of latents of", replace(target, sampling=Sampling(size=(32, 32))), None),
        (CheckpointError, "is of latents of", target, replace(toy_model(), codec=PatchCodec(4))),
    ]
    for kind, expected, task, model in cases:
        with pytest.raises(kind, match=expected):
            task.run(model or toy_model())
    with pytest.raises(TaskError, match="is found already, and the file says how: leave out source_prompt, or latent"):
        asked(film, "one", latent=name, source_prompt="two")
    with pytest.raises(TaskError, match="sdedit has none"):
        Edit(film, "one").run(toy_model(), save_latent=noise)
    with pytest.raises(TaskError, match="nothing goes into noise"):
        target.run(toy_model(), save_latent=tmp_path / "other.safetensors")
