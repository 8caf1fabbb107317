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
from segue.errors import InterruptedRunError, TaskError
from segue.media import read
from segue.models.bundle import LatentDiffusion
from segue.models.time_carried import Course
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


WAY = {
    # A slide by a third of the picture in a clip of four frames; and there and back in three.
    True: [[0.0, 0.0, 0.0, 0.0], [0.22, 0.0, 0.0, 0.0], [0.44, 0.0, 0.0, 0.0], [0.66, 0.0, 0.0, 0.0]],
    False: [[0.0, 0.0, 0.0, 0.0], [0.4, 0.1, 0.0, 0.0], [-0.3, 0.2, 0.0, 0.0], [0.02, 0.0, 0.0, 0.0]],
}


def goes(monkeypatch: pytest.MonkeyPatch, on: bool) -> None:
    """Let all of a picture go on at one speed, or there and back, and far; a codec of noise be believed."""

    def evened(numbers: torch.Tensor, elapsed: Any) -> Any:
        way = torch.tensor(WAY[on])
        return way.repeat(-(-len(numbers) // 4), 1)[: len(numbers)], torch.tensor([on, False, False, False])

    def completed(mask: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
        middle = torch.zeros_like(mask)
        middle[..., 16:48, 16:48] = 1
        return middle

    monkeypatch.setattr(segue.models.time_carried, "evened", evened)
    monkeypatch.setattr(segue.models.time_carried, "completed", completed)
    monkeypatch.setattr(segue.models.time_carried, "ALIKE", 100.0)


def moves(clip: torch.Tensor) -> torch.Tensor:
    """How much each frame differs from the one before."""
    steps = (clip[1:] - clip[:-1]).abs().flatten(1).mean(1)
    assert float(steps.mean()) > 2 / 255, "it moves"
    return steps


@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("on", [True, False])
def test_parts_are_of_the_first_picture(
    mover: tuple[LatentDiffusion, Watched], picture: str, monkeypatch: pytest.MonkeyPatch, on: bool, drawn: bool
) -> None:
    """Windows of four frames: one is known, as it is carried there, and three are new."""
    goes(monkeypatch, on)
    model, watched = mover
    task = task_of(10, None if drawn else picture)
    assert "in parts, all of the first picture" in " ".join(task.resolved(model).outlook(model))
    clip = task.run(model, EXECUTION)
    assert len(clip) == 10 and record(clip)["scores"]["long"] == "parts"
    assert watched.frames == [4, 4, 4]
    starts = [known[0, :4] for known in watched.known]
    way, even = torch.tensor(WAY[on]), torch.tensor([on, False, False, False])
    mask = segue.models.time_carried.completed(torch.zeros(1, 1, 64, 64), clip.frames[0:1])
    first = Course(clip.frames[0:1][0], mask, torch.zeros(1, 2), way, even)
    for place, start in zip((3, 6), starts[1:], strict=True):
        shown = first.carried(first.at([place])) if on else clip.frames[0:1]
        middle = model.codec.encode(shown)[0]
        assert float((start - middle).abs().mean()) < 0.25 * float((start - starts[0]).abs().mean()) + 1e-4
    if not drawn:
        moves(clip.frames[:])
        assert torch.equal(clip.frames[0:1], read(picture).frames[0:1]), "to the pixel"


def test_what_comes_back_is_no_worse_after_many_parts(
    mover: tuple[LatentDiffusion, Watched], picture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes(monkeypatch, False)
    clip = task_of(40, picture).run(mover[0], EXECUTION).frames[:]
    apart = (clip[3::3] - clip[0]).abs().flatten(1).mean(1)
    assert float(apart.max()) < 0.5 * float(moves(clip).mean()), "back at each third frame"
    assert float(apart[-4:].mean()) < 1.2 * float(apart[:4].mean()) + 1e-3


def test_what_goes_on_keeps_its_tone(
    mover: tuple[LatentDiffusion, Watched], picture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pins would hand what one part has lost to the next, were it shown what was drawn."""
    goes(monkeypatch, True)
    clip = task_of(37, picture).run(mover[0], EXECUTION).frames[:]
    gone = clip[12:].mean((2, 3))
    assert float((gone - gone[0]).abs().max()) < 0.02, "the ground alone is left"


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("at", [3, 7])
def test_a_stopped_run_goes_on_to_the_same_bytes(
    mover: tuple[LatentDiffusion, Watched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, on: bool
) -> None:
    goes(monkeypatch, on)
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
    assert len(watched.frames) == 2 * made, "what was finished is not made again"


def test_a_first_picture_that_is_damaged_is_made_again(
    mover: tuple[LatentDiffusion, Watched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes(monkeypatch, False)
    whole = task_of(10).run(mover[0], EXECUTION)

    def stop(what: str, done: float, total: float) -> None:
        if what == "decoding" and done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError):
        task_of(10).run(mover[0], EXECUTION, progress=stop, work=tmp_path)
    (file,) = tmp_path.glob(".segue-*/first.safetensors")
    file.write_bytes(b"half of it")
    assert torch.equal(pixels(task_of(10).run(mover[0], EXECUTION, work=tmp_path)), pixels(whole))


def test_words_that_change_begin_anew_in_every_part(mover: tuple[LatentDiffusion, Watched], picture: str) -> None:
    """Where things go on as they are told at each time, nothing is known of the whole clip's course."""
    model, watched = mover
    task = task_of(10, picture, prompt="0s: a bouncing apple, 1s: a swinging apple")
    assert "each from the last" in " ".join(task.resolved(model).outlook(model))
    clip = task.run(model, EXECUTION)
    starts = [known[0, :4] for known in watched.known]
    assert torch.allclose(starts[-1], model.codec.encode(clip.frames[6:7])[0], atol=1e-5)


@pytest.mark.parametrize(
    ("on", "told"),
    [
        (True, {}), (False, {}), (True, {"motion": 0.5}), (True, {"motion": "0s:1, 0.5s:0.6, 1s:1"}),
        (False, {"last": True}), (True, {"last": True}),
    ],
)  # fmt: skip
def test_loops_lead_back_and_know_no_frame(
    mover: tuple[LatentDiffusion, Watched],
    picture: str,
    monkeypatch: pytest.MonkeyPatch,
    on: bool,
    told: dict[str, Any],
) -> None:
    """A frame before the first would be told to go there as it goes from there."""
    goes(monkeypatch, on)
    model, watched = mover
    changes: dict[str, Any] = {"movement": Movement(loop=True, motion=told.get("motion"))}
    if told.get("last"):
        changes |= {"image": None, "last_image": picture}
    clip = task_of(9, picture, **changes).run(model, EXECUTION).frames[:]
    assert len(clip) == 9 and not any(known.any() for known in watched.known)
    assert float((clip[0] - clip[-1]).abs().mean()) < 1.5 * float(moves(clip).max())
    shown = clip[-1:] if told.get("last") else clip[:1]
    assert torch.equal(shown, read(picture).frames[0:1])


def test_how_long_clips_are_made_goes_by_whether_one_picture_is_carried(
    mover: tuple[LatentDiffusion, Watched], picture: str
) -> None:
    def made(**changes: Any) -> str | None:
        return task_of(200, **changes).resolved(mover[0]).long.long

    assert made() == "parts" and made(movement=Movement(loop=True)) == "whole"
    assert made(last_image=picture) == "whole"
    assert made(movement=Movement(strength=1.0)) == made(movement=Movement(motion="0s:1, 9s:2")) == "keys"
    assert made(prompt="0s: an apple, 1s: a bell") == made(movement=Movement(motion=0.0)) == "keys"


def test_the_outlook_counts_what_is_carried_and_what_is_not(
    mover: tuple[LatentDiffusion, Watched], picture: str
) -> None:
    def told(**changes: Any) -> str:
        task = task_of(4, picture, **changes)
        mover[1].frames.clear()
        task.run(mover[0], EXECUTION)
        counted = sum(mover[1].frames) or 8
        said = " ".join(task.resolved(mover[0]).outlook(mover[0]))
        assert f"about {counted} evaluations" in said
        return said

    assert told() != told(last_image=picture) and told(movement=Movement(motion=0.0)) != told()


def test_a_loop_that_is_carried_is_not_held_to_its_picture(
    mover: tuple[LatentDiffusion, Watched], picture: str
) -> None:
    with pytest.raises(TaskError, match="told of none: leave it out, or the loop"):
        task_of(9, picture, movement=Movement(loop=True, context_guidance=2.0)).run(mover[0])


def test_frames_that_do_not_move_are_not_carried(mover: tuple[LatentDiffusion, Watched], picture: str) -> None:
    """One frame, and dials at 0, are the image model's own."""
    still = task_of(4, picture, movement=Movement(motion=0.0)).run(mover[0], EXECUTION)
    drawn = task_of(4, picture, movement=Movement(motion=0.0, strength=1.0)).run(mover[0], EXECUTION)
    assert torch.equal(pixels(still), pixels(drawn))
    one = task_of(1).run(mover[0], EXECUTION)
    assert torch.equal(pixels(one), pixels(task_of(1, movement=Movement(strength=1.0)).run(mover[0], EXECUTION)))
