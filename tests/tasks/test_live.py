"""The live stream as its users see it: prompts in from anywhere, pictures out, the same again from what was said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import islice, pairwise
from pathlib import Path
from threading import Lock, Thread
from time import sleep
from typing import Any

import pytest
import torch
from torch import Tensor

from segue.errors import ExhaustedError, ExhaustedRunError, InterruptedRunError, ScheduleError, TaskError
from segue.media.clip import to_uint8
from segue.models.bundle import LatentDiffusion
from segue.models.denoiser import Tally
from segue.tasks.branching import Branching
from segue.tasks.image import Image
from segue.tasks.live import Live
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.transition import Transition
from segue.types import Call, Conditioning
from shown import pixels, record
from toy import HashedText, ToyNetwork, toy_model

STEPS = 10  # of the toy
LIVE = Live("one", seed=3, between=6)


@pytest.fixture
def model() -> LatentDiffusion:
    return toy_model()


def heard(task: Live, model: LatentDiffusion, count: int, said: dict[int, str] | None = None) -> list[Tensor]:
    """The first pictures of a stream; what is said before some of them."""
    stream, shown = task.start(model), list[Tensor]()
    for number in range(count):
        if said and number in said:
            stream.say(said[number])
        shown.append(next(stream))
    return shown


def test_a_prompt_turns_the_stream_after_one_run_and_is_reached_a_segment_later(model: LatentDiffusion) -> None:
    plain, turned = heard(LIVE, model, 60), heard(LIVE, model, 60, {21: "two"})
    changed = [number for number in range(60) if not torch.equal(plain[number], turned[number])]
    assert changed[0] == 21 + STEPS - 1
    picture = pixels(Image("two", seed=3).run(model))[0]
    arrival = 21 + STEPS + LIVE.between - 2
    assert [number for number in range(60) if torch.equal(turned[number], picture)] == [arrival]


def test_a_stream_begins_with_the_picture_of_its_prompt(model: LatentDiffusion) -> None:
    assert torch.equal(heard(LIVE, model, 1)[0], pixels(Image("one", seed=3).run(model))[0])


def test_what_was_said_from_another_thread_is_repeated_to_the_bit(model: LatentDiffusion) -> None:
    stream, shown = LIVE.start(model), list[Tensor]()
    threads = [Thread(target=stream.say, args=(prompt, seed)) for prompt, seed in (("two", None), ("three", 8))]
    for number, picture in enumerate(islice(stream, 50)):
        shown.append(picture)
        if number in (14, 30):
            threads[number == 30].start()
        if number == 40:
            for thread in threads:
                thread.join()
    again = stream.replay.run(model)
    assert len(stream.log) == 2
    assert stream.log[1].split("=")[0].endswith("@8")
    assert torch.equal(pixels(again), torch.stack(shown))


def test_words_are_read_while_the_network_rests() -> None:
    """Whoever speaks in the middle of a picture waits for it, and a stream that never rests hears them all the same."""
    busy, clashes = Lock(), list[str]()

    class Busy(ToyNetwork):
        def __call__(self, x: Tensor, time: Tensor, cond: Conditioning, call: Call) -> Tensor:
            if not busy.acquire(blocking=False):
                clashes.append("network")
                return super().__call__(x, time, cond, call)
            try:
                sleep(0.002)
                return super().__call__(x, time, cond, call)
            finally:
                busy.release()

    class Reading(HashedText):
        def __call__(self, prompts: Sequence[str]) -> Conditioning:
            if not busy.acquire(blocking=False):
                clashes.append("text")
                return super().__call__(prompts)
            try:
                sleep(0.002)
                return super().__call__(prompts)
            finally:
                busy.release()

    stream = LIVE.start(replace(toy_model(network=Busy()), text=Reading()))
    speaking = [Thread(target=stream.say, args=(f"prompt {number}",)) for number in range(6)]
    for thread in speaking:
        thread.start()
    pictures = 0
    while any(thread.is_alive() for thread in speaking):
        next(stream)
        pictures += 1
    assert pictures < 60
    next(stream)
    assert len(stream.log) == 6
    assert clashes == []


def test_a_script_is_what_is_said(model: LatentDiffusion) -> None:
    by_hand = heard(LIVE, model, 50, {15: "two", 30: "three"})
    script = replace(LIVE, say=("15=two", "30=three"), seconds=50 / LIVE.fps).run(model)
    assert torch.equal(pixels(script), torch.stack(by_hand))


def test_a_film_of_it_is_made_again_from_its_record(model: LatentDiffusion, tmp_path: Path) -> None:
    task = replace(LIVE, say=("15=two", "20@8=three"), seconds=4.0)
    clip = task.run(model)
    path = clip.save(tmp_path / "x.apng").with_suffix(".json")
    assert json.loads(path.read_text("utf-8"))["fields"]["say"] == ["15=two", "20@8=three"]
    again = Rerun.read(path).run(model)
    assert torch.equal(pixels(again), pixels(clip))
    assert len(clip) == 48


def test_its_pictures_are_those_of_a_transition(model: LatentDiffusion) -> None:
    """The branches of a tree whose second level forks at one step, evenly; bit for bit."""
    tree = Branching(branches=(2, LIVE.between + 1), at=(0, LIVE.fork(STEPS)))
    film = Transition(("one", "two"), seeds=(3,), seconds=1.0, tree=tree).stream(model)
    expected = {part.position: part.picture for part in film if part.number is None}
    shown = heard(replace(LIVE, idle="hold"), model, 21 + STEPS + LIVE.between - 1, {21: "two"})
    for step in range(LIVE.between + 1):
        picture = shown[21 + STEPS - 2 + step]
        assert torch.equal(to_uint8(picture[None])[0], expected[step / LIVE.between]), step


def test_each_picture_costs_one_call_of_the_network(model: LatentDiffusion) -> None:
    tally = Tally(timed=False)
    watched = replace(model, denoiser=tally.watching(model.denoiser))
    stream = replace(LIVE, between=4).start(watched)
    next(stream)
    for _ in range(40):
        before = tally.calls
        next(stream)
        assert tally.calls - before == 1
    fork = 4
    # One row for each step after the fork, and one for the key ahead, each with and without its prompt.
    assert set(tally.sizes[-20:]) == {2 * (STEPS - fork + 1)}


def test_calls_can_be_of_one_shape(model: LatentDiffusion) -> None:
    tally = Tally(timed=False)
    watched = replace(model, denoiser=tally.watching(model.denoiser))
    stream = LIVE.start(watched, Execution(max_batch=16, deterministic_batch=True))
    for _ in range(30):
        next(stream)
    assert set(tally.sizes) == {16}


def test_what_comes_too_fast_is_left_out_unless_there_is_a_queue(model: LatentDiffusion) -> None:
    said = {20: "two", 21: "three", 22: "four"}
    pictures = {name: pixels(Image(name, seed=3).run(model))[0] for name in said.values()}

    def reached(task: Live) -> list[str]:
        shown = heard(task, model, 70, said)
        return [name for picture in shown for name, own in pictures.items() if torch.equal(picture, own)]

    assert reached(replace(LIVE, idle="hold"))[0] == "four"
    assert set(reached(replace(LIVE, idle="hold"))) == {"four"}
    assert list(dict.fromkeys(reached(replace(LIVE, idle="hold", queue=True)))) == ["two", "three", "four"]


def test_it_says_when_it_has_arrived(model: LatentDiffusion) -> None:
    stream = replace(LIVE, idle="hold").start(model)
    next(stream)
    assert stream.reached
    next(stream)
    stream.say("two")
    assert not stream.reached
    waited = 0
    while not stream.reached:
        next(stream)
        waited += 1
    assert waited == STEPS + LIVE.between - 1


def test_drifting_goes_on_and_holding_stands_still(model: LatentDiffusion) -> None:
    drift, hold = heard(LIVE, model, 40), heard(replace(LIVE, idle="hold"), model, 40)
    assert all(torch.equal(picture, hold[0]) for picture in hold)
    assert not any(torch.equal(a, b) for a, b in pairwise(drift[10:]))
    other = pixels(Image("one", seed=4).run(model))[0]
    assert any(torch.equal(picture, other) for picture in drift)


@pytest.mark.parametrize("solver", ["ddim", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_sde", "lcm"])
def test_every_solver_streams(model: LatentDiffusion, solver: str) -> None:
    """The key that is reached is the picture that the solver makes alone, though its run was interrupted."""
    task = replace(LIVE, sampling=Sampling(solver=solver))
    shown = heard(task, model, 21 + STEPS + LIVE.between - 1, {21: "two"})
    alone = pixels(Image("two", seed=3, sampling=Sampling(solver=solver)).run(model))[0]
    if solver in ("ddim", "euler", "dpmpp_2m"):
        assert torch.equal(shown[-1], alone)
    assert not torch.equal(shown[-1], shown[-2])


class Shaped(ToyNetwork):
    """Its sums depend on the shape of the call, as those of real networks do."""

    def __call__(self, x: Tensor, time: Tensor, cond: Conditioning, call: Call) -> Tensor:
        return super().__call__(x, time, cond, call) + 1e-7 * len(x)


def test_the_same_words_give_the_same_bits_on_a_network_that_sees_its_batch() -> None:
    model = toy_model(network=Shaped())
    one, two = (heard(LIVE, model, 50, {20: "two"}) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    other = list(islice(LIVE.start(model, Execution(max_batch=1)), 20))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=False))


CHANGES: dict[str, Any] = {
    "prompt": "four",
    "say": ("5=two",),
    "negative": "ugly",
    "seed": 5,
    "between": 9,
    "depth": 0.7,
    "idle": "hold",
    "queue": True,
    "seconds": 3.0,
    "fps": 20.0,
    "sampling": Sampling(steps=8),
}


def test_every_field_is_tried() -> None:
    assert {item.name for item in fields(Live)} == set(CHANGES)


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_every_field_changes_the_film(model: LatentDiffusion, name: str) -> None:
    """Nothing that a user sets is silently ignored."""
    task = replace(LIVE, seconds=4.0, say=("10=two", "12=three", "13=four"))
    before, after = (pixels(each.run(model)) for each in (task, replace(task, **{name: CHANGES[name]})))
    assert before.shape != after.shape or not torch.equal(before, after)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prompt": " "}, "prompt must be words"),
        ({"prompt": "a (red:0s:1, 1s:2) apple"}, "a weight in a prompt of a stream is a number"),
        ({"say": ("two",)}, "say must be PICTURES=PROMPT"),
        ({"say": ("0=two",)}, "from 1 picture on"),
        ({"say": ("3=",)}, "must be words"),
        ({"say": ("9=two", "5=three")}, r"must be in order; got pictures \[9, 5\]"),
        ({"seed": -1}, "a seed must be"),
        ({"between": 0}, "between must be 1 or more"),
        ({"depth": 1.0}, r"depth must be in \[0, 1\)"),
        ({"idle": "sleep"}, 'idle must be "drift" or "hold"'),
        ({"fps": 0.0}, "fps must be above 0"),
        ({"seconds": 0.0}, "seconds must make from 1"),
        ({"sampling": Sampling(guidance_scale=("0s:1, 1s:2",))}, "guidance_scale of a stream is one number"),
    ],
)
def test_impossible_streams_are_refused_before_any_work(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        replace(LIVE, **settings)


def test_what_does_not_fit_the_model_is_refused(model: LatentDiffusion) -> None:
    with pytest.raises(TaskError, match="a film has an end: give seconds"):
        LIVE.run(model)
    with pytest.raises(TaskError, match="2 or more steps"):
        replace(LIVE, sampling=Sampling(steps=1)).start(model)
    with pytest.raises(ScheduleError, match="solver must be one of"):
        replace(LIVE, sampling=Sampling(solver="heun")).start(model)
    with pytest.raises(TaskError, match="prompt must be words"):
        LIVE.start(model).say("")
    with pytest.raises(TaskError, match="LoRA follows a curve"):
        LIVE.start(replace(model, loras=((Path("x.safetensors"), "0s:0, 1s:1"),)))


def test_a_prompt_of_another_length_is_refused_where_it_is_said() -> None:
    def longer(prompts: Sequence[str]) -> Conditioning:
        return Conditioning(torch.zeros(len(prompts), max(len(prompt) for prompt in prompts), 4))

    stream = LIVE.start(replace(toy_model(), text=longer))
    with pytest.raises(TaskError, match="this one is of 4 tokens where the first made 3: shorten it"):
        stream.say("four")


def test_an_interrupted_film_keeps_what_was_made(model: LatentDiffusion) -> None:
    def progress(what: str, done: float, total: float) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="7 of 48 pictures were finished") as caught:
        replace(LIVE, seconds=4.0).run(model, progress=progress)
    assert caught.value.partial is not None
    assert len(caught.value.partial) == 7
    assert not record(caught.value.partial)["complete"]


def test_memory_that_runs_out_keeps_what_was_made_and_its_record_makes_it_again(
    model: LatentDiffusion, tmp_path: Path
) -> None:
    def progress(what: str, done: float, total: float) -> None:
        if done == 7:
            raise ExhaustedError("out of memory")

    with pytest.raises(ExhaustedRunError, match="out of memory; 7 of 48 pictures were finished") as caught:
        replace(LIVE, seconds=4.0).run(model, progress=progress)
    partial = caught.value.partial
    assert partial is not None
    again = Rerun.read(partial.save(tmp_path / "x.apng").with_suffix(".json")).run(model)
    assert torch.equal(pixels(again), pixels(partial))
