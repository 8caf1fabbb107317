"""A transition that is watched while it is made: its pictures are the film's own, in order, and early."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from segue.errors import ExhaustedError, ExhaustedRunError, InterruptedRunError
from segue.media.clip import levels_of
from segue.media.writer import Writer
from segue.models.bundle import LatentDiffusion
from segue.models.denoiser import Tally
from segue.tasks.branching import Branching
from segue.tasks.pace import Pace
from segue.tasks.sampling import Execution
from segue.tasks.transition import Transition
from segue.tasks.transition_plan import TransitionPlan
from segue.tasks.transition_stream import Part
from segue.types import Call, Conditioning
from shown import pixels, record
from toy import PatchCodec, ToyNetwork, toy_model

FILM = Transition(("one", "two", "three"), seconds=2.0, fps=20, seeds=(1, 2, 3))
TASKS = {
    "adaptive": FILM,
    "fixed": replace(FILM, tree=Branching(branches=(2, 3, 5), at=(0, 3, 6))),
    "preset": replace(FILM, tree=Branching(preset="low")),
    "smooth": replace(FILM, tree=Branching(smoothness=0.03)),
    "loop": replace(FILM, pace=Pace(loop="loop")),
    "pingpong": replace(FILM, pace=Pace(loop="pingpong")),
    "blend": replace(FILM, fill="blend"),
    "crossfed": replace(FILM, tree=Branching(crossfeed=(0.3, 0.6, 0.9))),
}


@pytest.fixture
def model() -> LatentDiffusion:
    return toy_model()


def frames_of(parts: list[Part]) -> list[Part]:
    return [part for part in parts if part.number is not None]


@pytest.mark.parametrize("name", TASKS)
def test_a_film_that_is_watched_is_the_film(model: LatentDiffusion, name: str) -> None:
    task = TASKS[name]
    stream = task.stream(model)
    parts = list(stream)
    settled = frames_of(parts)
    assert [part.number for part in settled] == list(range(task.frames))
    clip, plain = stream.clip, task.run(model)
    assert torch.equal(pixels(clip), pixels(plain))
    assert record(clip) == record(plain)
    assert torch.equal(torch.stack([part.picture for part in settled]), levels_of(plain.frames, slice(0, len(plain))))


def test_a_file_can_be_written_while_the_film_is_drawn(model: LatentDiffusion, tmp_path: Path) -> None:
    stream = FILM.stream(model, glimpses=False)
    with Writer(tmp_path / "early.mp4", FILM.fps, (16, 16)) as writer:
        for part in stream:
            writer.append(part.picture[None])
    FILM.run(model).save(tmp_path / "late.mp4")
    assert (tmp_path / "early.mp4").read_bytes() == (tmp_path / "late.mp4").read_bytes()


def test_glimpses_come_coarse_to_fine_and_each_once(model: LatentDiffusion) -> None:
    parts = list(FILM.stream(model))
    first = next(number for number, part in enumerate(parts) if part.number is not None)
    glimpses = [part.position for part in parts[:first]]
    assert all(part.number is not None for part in parts[first:])
    assert glimpses[:3] == [0.0, 1.0, 2.0]
    assert len(glimpses) == len(set(glimpses)) > 10
    shown = {part.position: part.picture for part in parts[first:]}
    again = [(part.picture, shown[part.position]) for part in parts[:first] if part.position in shown]
    assert len(again) >= 3
    assert all(torch.equal(a, b) for a, b in again)


def test_frames_leave_while_later_ones_are_drawn() -> None:
    """What the network has still to do when the first frame is there, and how that falls from frame to frame."""
    tally = Tally(timed=False)
    model = toy_model()
    watched = replace(model, denoiser=tally.watching(model.denoiser))
    calls = [tally.calls for part in FILM.stream(watched, Execution(max_batch=8)) if part.number is not None]
    assert calls[0] < 0.6 * calls[-1]
    assert sum(b > a for a, b in pairwise(calls)) >= 4


def test_a_plan_is_known_from_the_start(model: LatentDiffusion) -> None:
    plan = TransitionPlan(**record(FILM.run(model))["plan"])
    stream = FILM.stream(model, plan=plan)
    parts = list(stream)
    assert parts == frames_of(parts)
    assert torch.equal(pixels(stream.clip), pixels(FILM.run(model)))


def test_what_looks_on_is_left_as_it_was(model: LatentDiffusion) -> None:
    threads = torch.get_num_threads()
    for _ in FILM.stream(model, Execution(threads=threads + 1)):
        assert torch.is_grad_enabled()
        assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert torch.get_num_threads() == threads


def test_no_gradients_are_kept_while_it_is_made() -> None:
    seen: list[bool] = []

    class Asked(ToyNetwork):
        def __call__(self, x: Tensor, time: Tensor, cond: Conditioning, call: Call) -> Tensor:
            seen.append(torch.is_grad_enabled())
            return super().__call__(x, time, cond, call)

    list(FILM.stream(toy_model(network=Asked())))
    assert seen and not any(seen)


def test_the_clip_can_be_had_without_looking(model: LatentDiffusion) -> None:
    assert torch.equal(pixels(FILM.stream(model).clip), pixels(FILM.run(model)))


@pytest.mark.parametrize("looked", [3, 12, 45])
def test_who_stops_keeps_what_is_finished(model: LatentDiffusion, looked: int) -> None:
    stream = FILM.stream(model)
    for _ in range(looked):
        next(stream)
    with pytest.raises(InterruptedRunError, match="were finished") as caught:
        stream.stop()
    assert caught.value.partial is not None
    assert len(caught.value.partial) >= 3
    assert not record(caught.value.partial)["complete"]


def test_ctrl_c_while_it_is_made_is_heard(model: LatentDiffusion) -> None:
    def progress(what: str, done: float, total: float) -> None:
        if what == "rendering frames" and done > 0.5 * total:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="pictures were finished"):
        list(FILM.stream(model, progress=progress))


class Batches(PatchCodec):
    """Remembers how many pictures it decoded at a time, and has no memory for one of these times."""

    def __init__(self, full: int = 0) -> None:
        self.decoded, self.full = list[int](), full

    def decode(self, latents: Tensor) -> Tensor:
        self.decoded.append(len(latents))
        if len(self.decoded) == self.full:
            raise ExhaustedError("out of memory while decoding")
        return super().decode(latents)


@pytest.mark.parametrize("name", ["adaptive", "fixed", "smooth", "blend", "crossfed"])
@pytest.mark.parametrize("glimpses", [True, False])
def test_who_looks_on_has_hardly_more_decoded(name: str, glimpses: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where several pictures are decoded together, a call that is not full is filled up, which costs as much."""
    monkeypatch.setattr(Execution, "decoded_at_once", lambda *_: 4)  # pyright: ignore[reportUnknownLambdaType]
    plain, watched = Batches(), Batches()
    clip = TASKS[name].run(replace(toy_model(), codec=plain))
    written = levels_of(clip.frames, slice(0, len(clip)))
    stream = TASKS[name].stream(replace(toy_model(), codec=watched), glimpses=glimpses)
    shown = [part.picture for part in frames_of(list(stream))]
    assert torch.equal(torch.stack(shown), written)
    assert set(watched.decoded) == {4}
    assert sum(watched.decoded) <= 1.25 * sum(plain.decoded)


@pytest.mark.parametrize("share", [0.1, 0.6, 1.0])
def test_memory_that_runs_out_while_one_looks_keeps_what_is_finished(model: LatentDiffusion, share: float) -> None:
    counted = Batches()
    list(FILM.stream(replace(model, codec=counted)))
    stream = FILM.stream(replace(model, codec=Batches(full=round(share * len(counted.decoded)))))
    with pytest.raises(ExhaustedRunError, match=r"out of memory while decoding; .* pictures were finished") as caught:
        list(stream)
    assert caught.value.partial is not None
    assert len(caught.value.partial) >= 3
