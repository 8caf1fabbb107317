# pyright: basic
"""Long clips and loops of one picture whose thing is carried along: parts begin with it, or go on; none is worse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import segue.models.time_carried
from flickers import saved, textured
from segue.errors import InterruptedRunError
from segue.media import read
from segue.models.bundle import LatentDiffusion
from segue.tasks.animate import Animate
from segue.tasks.animate_settings import Movement
from segue.tasks.sampling import Execution, Sampling
from shown import pixels, record
from tasks.test_animate_films import Watched, mover_of, watched_model

EXECUTION = Execution(max_batch=4)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def picture(tmp_path: Path) -> str:
    return saved(tmp_path / "picture.png", textured(1, (64, 64)))


@pytest.fixture
def mover(written: Path) -> tuple[LatentDiffusion, Watched]:
    model = mover_of(written)
    assert model.moving is not None
    return watched_model(replace(model, moving=replace(model.moving, strength=0.5)))


def task_of(frames: int, picture: str | None = None, **changes: Any) -> Animate:
    sampling = Sampling(steps=2, guidance_scale=(1.0,))
    task = Animate("a bouncing red apple", picture, seconds=frames / 8, fps=8, seed=3, sampling=sampling)
    return replace(task, **changes)


def goes(monkeypatch: pytest.MonkeyPatch, on: bool) -> None:
    """Let all ways be even ones, or none."""
    true = segue.models.time_carried.evened

    def evened(*told: Any) -> Any:
        numbers, even = true(*told)
        return numbers, torch.full_like(even, on)

    monkeypatch.setattr(segue.models.time_carried, "evened", evened)


@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("on", [True, False])
def test_parts_begin_with_the_first_picture_or_where_the_last_one_ended(
    mover: tuple[LatentDiffusion, Watched], picture: str, monkeypatch: pytest.MonkeyPatch, on: bool, drawn: bool
) -> None:
    """Windows of four frames: one is known, three are new."""
    goes(monkeypatch, on)
    model, watched = mover
    task = task_of(10, None if drawn else picture)
    assert "in parts, all of the first picture" in " ".join(task.resolved(model).outlook(model))
    clip = task.run(model, EXECUTION)
    assert len(clip) == 10 and record(clip)["scores"]["long"] == "parts"
    assert watched.frames == [4, 4, 4]
    starts = [known[0, :4] for known in watched.known]
    for place, start in zip((3, 6), starts[1:], strict=True):
        shown = clip.frames[place : place + 1] if on else clip.frames[0:1]
        assert torch.allclose(start, model.codec.encode(shown)[0], atol=1e-5)
    if not drawn:
        assert torch.equal(clip.frames[0:1], read(picture).frames[0:1]), "to the pixel"


def test_what_comes_back_is_no_worse_after_many_parts(
    mover: tuple[LatentDiffusion, Watched], picture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes(monkeypatch, False)
    clip = task_of(40, picture).run(mover[0], EXECUTION).frames[:]
    apart = (clip[0::3] - clip[0]).abs().flatten(1).mean(1)
    assert float(apart[-4:].mean()) < 1.5 * float(apart[1:5].mean()) + 1e-3


@pytest.mark.parametrize("at", [3, 7])
def test_a_stopped_run_goes_on_to_the_same_bytes(
    mover: tuple[LatentDiffusion, Watched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    goes(monkeypatch, False)
    model, watched = mover
    whole = task_of(10).run(model, EXECUTION)
    made = len(watched.frames)

    def stop(what: str, done: float, total: float) -> None:
        if what == "decoding" and done >= at:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="goes on from there"):
        task_of(10).run(model, EXECUTION, progress=stop, work=tmp_path)
    again = task_of(10).run(model, EXECUTION, work=tmp_path)
    assert torch.equal(pixels(again), pixels(whole))
    assert len(watched.frames) < 3 * made, "what was finished is not made again"


def test_words_that_change_begin_anew_in_every_part(mover: tuple[LatentDiffusion, Watched], picture: str) -> None:
    """Where things go on as they are told at each time, nothing is known of the whole clip's course."""
    model, watched = mover
    task = task_of(10, picture, prompt="0s: a bouncing apple, 1s: a swinging apple")
    assert "each from the last" in " ".join(task.resolved(model).outlook(model))
    clip = task.run(model, EXECUTION)
    starts = [known[0, :4] for known in watched.known]
    assert torch.allclose(starts[-1], model.codec.encode(clip.frames[6:7])[0], atol=1e-5)


def test_loops_lead_back_and_know_no_frame(mover: tuple[LatentDiffusion, Watched], picture: str) -> None:
    """A frame before the first would be told to go there as it goes from there."""
    model, watched = mover
    clip = task_of(9, picture, movement=Movement(loop=True)).run(model, EXECUTION).frames[:]
    assert len(clip) == 9 and not any(known.any() for known in watched.known)
    steps = (clip[1:] - clip[:-1]).abs().flatten(1).mean(1)
    assert float((clip[0] - clip[-1]).abs().mean()) < 1.5 * float(steps.max()) + 1e-3
    assert torch.equal(clip[0:1], read(picture).frames[0:1])


def test_frames_that_do_not_move_are_not_carried(mover: tuple[LatentDiffusion, Watched], picture: str) -> None:
    """One frame, and dials at 0, are the image model's own."""
    still = task_of(4, picture, movement=Movement(motion=0.0)).run(mover[0], EXECUTION)
    drawn = task_of(4, picture, movement=Movement(motion=0.0, strength=1.0)).run(mover[0], EXECUTION)
    assert torch.equal(pixels(still), pixels(drawn))
    one = task_of(1).run(mover[0], EXECUTION)
    assert torch.equal(pixels(one), pixels(task_of(1, movement=Movement(strength=1.0)).run(mover[0], EXECUTION)))
