"""The transition as its users see it, on a model that can be reasoned about."""

from __future__ import annotations

import json
import wave
from dataclasses import asdict, fields, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from segue.errors import InterruptedRunError, RecordError, ScheduleError, SegueError, TaskError
from segue.media.clip import Clip, TensorFrames
from segue.media.reader import read
from segue.models.bundle import LatentDiffusion
from segue.models.perceptual import Lpips
from segue.models.perceptual.lpips import STAGES
from segue.tasks.branching import Branching
from segue.tasks.image import Image
from segue.tasks.likeness import Likeness
from segue.tasks.pace import Pace
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.transition import Transition
from segue.tasks.transition_plan import TransitionPlan
from segue.types import Call, Conditioning
from shown import pixels, record
from toy import PatchCodec, ToyNetwork, toy_model

SMALL = Transition(("one", "two", "three"), seconds=1.0, fps=20, seeds=(1, 2, 3))


@pytest.fixture
def model() -> LatentDiffusion:
    return toy_model()


def test_counts_are_exact_and_all_frames_are_native(model: LatentDiffusion) -> None:
    clip = SMALL.run(model)
    scores = record(clip)["scores"]
    assert len(clip) == 20
    assert clip.seconds == 1.0
    assert clip.size == (16, 16)
    assert scores["native_share"] == 1.0
    assert pixels(clip).shape == (20, 3, 16, 16)


def test_no_frame_is_shown_twice_and_keys_are_plain_pictures(model: LatentDiffusion) -> None:
    clip = SMALL.run(model)
    shown = pixels(clip)
    assert all(not torch.equal(a, b) for a, b in pairwise(shown))
    keys = [Image(prompt, seed=seed).run(model) for prompt, seed in (("one", 1), ("three", 3))]
    assert torch.equal(shown[0], pixels(keys[0])[0])
    assert torch.equal(shown[-1], pixels(keys[1])[0])


def test_speed_is_even(model: LatentDiffusion) -> None:
    scores = record(replace(SMALL, fps=40).run(model))["scores"]
    assert scores["unevenness"] < 1.5
    assert 0 < scores["largest_step"] < 0.5


def test_a_film_is_the_same_at_any_batch_size(model: LatentDiffusion) -> None:
    one = SMALL.run(model, Execution(max_batch=1))
    many = SMALL.run(model, Execution(max_batch=64))
    assert torch.equal(pixels(one), pixels(many))
    assert record(one)["plan"] == record(many)["plan"]


class Shaped(ToyNetwork):
    """Its sums depend on the shape of the call, as those of real networks do."""

    def __call__(self, x: torch.Tensor, time: torch.Tensor, cond: Conditioning, call: Call) -> torch.Tensor:
        return super().__call__(x, time, cond, call) + 1e-7 * len(x)


@pytest.mark.parametrize("tree", [Branching(), Branching(crossfeed=(0.3, 0.6, 0.9)), Branching(preset="medium")])
def test_rounding_does_not_change_a_plan(tree: Branching) -> None:
    task = replace(SMALL, tree=tree)
    one = task.run(toy_model(network=Shaped()), Execution(max_batch=2))
    many = task.run(toy_model(network=Shaped()), Execution(max_batch=64))
    assert not torch.equal(pixels(one), pixels(many))
    assert torch.allclose(pixels(one), pixels(many), atol=1 / 255)
    assert record(one)["plan"] == record(many)["plan"]


def test_frames_are_decoded_with_the_threads_of_the_record() -> None:
    seen: list[int] = []

    class Watching(PatchCodec):
        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            return super().decode(latents)

    before = torch.get_num_threads()
    model = replace(toy_model(), codec=Watching())
    pixels(SMALL.run(model, Execution(threads=before + 1)))
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


def test_deterministic_batches_decode_one_by_one() -> None:
    seen: list[int] = []

    class Watching(PatchCodec):
        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            seen.append(len(latents))
            return super().decode(latents)

    model = replace(toy_model(), codec=Watching())
    pixels(SMALL.run(model, Execution(deterministic_batch=True)))
    assert set(seen) == {1}


def test_blending_is_asked_for_and_counted(model: LatentDiffusion) -> None:
    tree = Branching(max_branches=4)
    blended = replace(SMALL, tree=tree, fill="blend").run(model)
    scores = record(blended)["scores"]
    assert scores["native_frames"] <= 3 + 4
    shots = record(blended)["plan"]["shots"]
    assert sum(left == right for left, right, _ in shots) == scores["native_frames"]
    assert record(replace(SMALL, tree=tree).run(model))["scores"]["native_share"] == 1.0


@pytest.mark.parametrize("solver", ["ddim", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_sde", "lcm"])
def test_every_solver_makes_a_smooth_film(model: LatentDiffusion, solver: str) -> None:
    scores = record(replace(SMALL, sampling=Sampling(solver=solver)).run(model))["scores"]
    ends = record(replace(SMALL, seconds=3 / 20, sampling=Sampling(solver=solver)).run(model))["scores"]
    assert scores["largest_step"] < 0.4 * ends["largest_step"]


CHANGES: dict[str, Any] = {
    "prompts": ("one", "two", "four"),
    "negative": ("ugly",),
    "seeds": (1, 2, 4),
    "seconds": 1.5,
    "fps": 30.0,
    "fill": "blend",
    "weights": "1,0,0; 1,1,1; 0,0,1",
    "sampling.steps": 9,
    "sampling.guidance_scale": (3.0,),
    "sampling.guidance_start": 0.5,
    "sampling.solver": "dpmpp_2m",
    "sampling.size": (24, 16),
    "tree.depth": 0.7,
    "tree.crossfeed": (0.5, 0.6, 0.9),
    "tree.first_crossfeed": (0.5, 0.6, 0.9),
    "tree.damper": 0.5,
    "tree.branches": (2, 3, 5),
    "tree.at": (0, 0.3, 0.6),
    "tree.preset": "low",
    "tree.max_branches": 3,
    "tree.budget": 1e-9,
    "likeness.shared_noise": 0.5,
    "likeness.shared_statistics": 0.5,
    "likeness.mix": "linear",
    "likeness.words": "line",
    "pace.easing": "smooth",
    "pace.loop": "pingpong",
}


def changed(name: str) -> Transition:
    head, _, tail = name.partition(".")
    if not tail:
        return replace(SMALL, **{head: CHANGES[name]})
    values = {tail: CHANGES[name]}
    if tail in ("branches", "at"):
        values = {"branches": CHANGES["tree.branches"], "at": CHANGES["tree.at"]}
    return replace(SMALL, **{head: replace(getattr(SMALL, head), **values)})


def test_every_field_is_tried() -> None:
    names = {field.name for field in fields(Transition)} - {"sampling", "tree", "pace", "likeness", "area"}
    names |= {f"likeness.{field.name}" for field in fields(Likeness)}
    names |= {f"sampling.{field.name}" for field in fields(Sampling)}
    names |= {f"tree.{field.name}" for field in fields(Branching)}
    names |= {f"pace.{field.name}" for field in fields(Pace)}
    assert names == {
        *CHANGES,
        *("likeness.structure", "likeness.shared_attention", "likeness.interpolation", "likeness.fusion"),
        "key_image",
        "pace.audio",
        "tree.distance",
        "tree.ghosting",
        "tree.smoothness",
    }  # which have tests of their own


@cache
def unchanged() -> Tensor:
    """What many are compared with."""
    return pixels(SMALL.run(toy_model()))


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_every_field_changes_the_film(model: LatentDiffusion, name: str) -> None:
    """Nothing that a user sets is silently ignored."""
    before, after = unchanged(), pixels(changed(name).run(model))
    assert before.shape != after.shape or not torch.equal(before, after)


class Cliff:
    """A distance to which all of the way is gone where the first number of a picture passes a value."""

    name = "cliff"
    domain = "latents"

    def __call__(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        low, high = ((60 * x[:, 0, 0, 0]).sigmoid() + x[:, 0, 0, 0] / 100 for x in (a, b))
        return (low - high).abs()


def test_a_smoothness_is_reached_or_told(model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """A film of the same length that is more even, its score and its reason in the record; it repeats."""

    def cliff(tree: Branching) -> Cliff:
        return Cliff()

    monkeypatch.setattr(Branching, "perceptual", cliff)
    rough = replace(SMALL, tree=Branching(preset="lowest"))
    plain = record(rough.run(model))["scores"]
    wanted = 1.2 * plain["mean_step"]
    task = replace(SMALL, tree=Branching(preset="lowest", smoothness=wanted))
    clip = task.run(model)
    found = record(clip)
    assert len(clip) == plain["frames"] == found["scores"]["native_frames"]
    assert found["scores"]["largest_step"] < plain["largest_step"]
    assert f"smoothness {wanted:g} is" in found["plan"]["ended"] and "cliff" in found["plan"]["ended"]
    assert found["scores"]["ended"] == found["plan"]["ended"]
    assert torch.equal(pixels(task.run(model, plan=TransitionPlan(**found["plan"]))), pixels(clip))


def test_a_smoothness_has_nothing_to_say_about_cross_fades() -> None:
    with pytest.raises(TaskError, match='leave them out, or fill "branches"'):
        replace(SMALL, fill="blend", tree=Branching(smoothness=0.1))


def test_a_distance_between_pictures_places_the_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are random here: what counts is that pictures are made, compared, and named in the scores."""
    torch.manual_seed(0)

    def load(backbone: str) -> Lpips:
        return Lpips(f"random {backbone}", STAGES[backbone])

    monkeypatch.setattr(Lpips, "load", load)
    task = replace(SMALL, sampling=Sampling(size=(64, 64)), tree=Branching(distance="lpips-alex"))
    model = toy_model()
    clip, plain = task.run(model), replace(task, tree=Branching()).run(model)
    assert record(clip)["scores"]["distance"] == "random alex"
    assert not torch.equal(pixels(clip), pixels(plain))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"prompts": ()}, "two or more prompts, got 0"),
        ({"prompts": ("one",)}, "two or more prompts, got 1"),
        ({"prompts": ("one", " ")}, "prompt 2 must be words"),
        ({"seeds": (1, 2)}, "seeds must be given once, or once per key picture"),
        ({"seeds": (-1,)}, "from 0 to"),
        ({"negative": ("a", "b")}, "negative must be given once"),
        ({"seconds": 0.0}, "seconds must be above 0"),
        ({"seconds": 1e9}, "at most 100000 frames"),
        ({"seconds": 0.1, "fps": 20}, "3 key pictures need at least 3 frames, got 2"),
        ({"fps": 0.0}, "fps must be above 0"),
        ({"fill": "hold"}, "fill must be"),
    ],
)
def test_impossible_tasks_are_refused_before_any_work(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(TaskError, match=expected):
        replace(SMALL, **settings)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"depth": 1.0}, r"depth must be in \[0, 1\)"),
        ({"damper": 0.0}, "damper must be above 0"),
        ({"crossfeed": (2.0, 0.5, 0.5)}, "power of a crossfeed"),
        ({"crossfeed": (0.5, 0.5)}, "power, range and decay"),
        ({"crossfeed": ("0s:0.5, 1s:-0.1", 0.5, 0.5)}, "at all times"),
        ({"crossfeed": ("0s:0.5, 1s:1.5", 0.5, 0.5)}, "power of a crossfeed"),
        ({"crossfeed": (0.5, "0s:0.5, 1s:1", 0.5)}, "range of crossfeed is one number for the whole film"),
        ({"max_branches": -1}, "max_branches"),
        ({"budget": 0.0}, "budget"),
        ({"branches": (2, 3)}, "both branches and at"),
        ({"branches": (2, 3), "at": (0, 3), "preset": "low"}, "not by both"),
        ({"preset": "low", "budget": 3.0}, "trees that grow"),
    ],
)
def test_impossible_trees_are_refused_before_any_work(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(TaskError, match=expected):
        Branching(**settings)


def test_what_does_not_fit_the_model_is_refused(model: LatentDiffusion) -> None:
    with pytest.raises(TaskError, match=r"multiple of 2 on both sides .* got 15x16; the nearest are 14x16 and 16x16"):
        replace(SMALL, sampling=Sampling(size=(15, 16))).run(model)
    with pytest.raises(ScheduleError, match="solver must be one of"):
        replace(SMALL, sampling=Sampling(solver="heun")).run(model)
    for tree in (Branching(), Branching(branches=(2,), at=(0,)), Branching(preset="low")):
        with pytest.raises(TaskError, match="2 or more steps"):
            replace(SMALL, tree=tree, sampling=Sampling(steps=1)).run(model)
    with pytest.raises(TaskError, match="steps must be 1 or more"):
        Sampling(steps=0)
    with pytest.raises(TaskError, match="guidance_scale"):
        Sampling(guidance_scale=(-1.0,))
    with pytest.raises(TaskError, match=r"guidance_start must be in \[0, 1\)"):
        Sampling(guidance_start=1.0)


def test_progress_reaches_its_end(model: LatentDiffusion) -> None:
    seen: dict[str, tuple[float, float]] = {}

    def progress(what: str, done: float, total: float) -> None:
        assert 0 <= done <= total
        seen[what] = (done, total)

    SMALL.run(model, progress=progress)
    assert set(seen) == {"growing the tree", "rendering frames", "measuring"}
    assert all(done == total for done, total in seen.values())


@pytest.mark.parametrize(
    "tree",
    [
        Branching(),
        Branching(budget=60.0),
        Branching(depth=0.0),
        Branching(branches=(2,), at=(0,)),
        Branching(preset="medium", crossfeed=(0.3, 0.6, 0.9), first_crossfeed=(0.2, 0.5, 1.0)),
    ],
)
def test_a_rerun_is_the_same_film_bit_for_bit(model: LatentDiffusion, tree: Branching, tmp_path: Path) -> None:
    task = replace(SMALL, tree=tree, sampling=Sampling(solver="dpmpp_2m_sde"))
    clip = task.run(model)
    path = clip.save(tmp_path / "film.mp4")
    again = Rerun.read(tmp_path / "film.json")
    assert again.record.model is not None
    assert again.record.model.name == "toy"
    assert again.differences(model) == []
    repeated = again.run(model)
    assert torch.equal(pixels(clip), pixels(repeated))
    assert record(repeated) == record(clip)
    assert repeated.save(tmp_path / "again.mp4").read_bytes() == path.read_bytes()
    assert (tmp_path / "again.json").read_text() == (tmp_path / "film.json").read_text()


def test_a_budget_in_seconds_repeats_because_its_plan_is_stored(tmp_path: Path) -> None:
    class Slow(ToyNetwork):
        def __call__(self, x: torch.Tensor, time: torch.Tensor, cond: Conditioning, call: Call) -> torch.Tensor:
            sleep(0.02)
            return super().__call__(x, time, cond, call)

    task = replace(SMALL, tree=Branching(max_branches=40, budget=0.5))
    slow = task.run(toy_model(network=Slow()))
    assert "seconds was used" in record(slow)["plan"]["ended"]
    assert record(slow)["plan"]["grown"] < 43
    slow.save(tmp_path / "film.mp4")
    assert torch.equal(pixels(Rerun.read(tmp_path / "film.json").run(toy_model())), pixels(slow))


def test_records_that_cannot_be_repeated_say_why(model: LatentDiffusion, tmp_path: Path) -> None:
    SMALL.run(model).save(tmp_path / "film.mp4")
    good = json.loads((tmp_path / "film.json").read_text())

    def refuse(expected: str, **changes: Any) -> None:
        path = tmp_path / "changed.json"
        path.write_text(json.dumps({**good, **changes}))
        with pytest.raises(RecordError, match=expected):
            Rerun.read(path).run(model)

    refuse("record format 99, this Segue .* reads format 1", format=99)
    refuse("has no format", format=None)
    refuse("task 'film'", task="film")
    refuse("was interrupted", complete=False)
    refuse("other_field", other_field=1)
    refuse("strange", fields={**good["fields"], "strange": 1})
    refuse("two or more prompts", fields={**good["fields"], "prompts": ["one"]})
    refuse("was made with abc", model={**good["model"], "sha256": "abc"})
    for text, expected in (("{", "not JSON"), ("[]", "no format")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(RecordError, match=expected):
            Rerun.read(tmp_path / "bad.json")
    with pytest.raises(RecordError, match="cannot read"):
        Rerun.read(tmp_path / "missing.json")


def test_a_plan_of_another_task_is_refused(model: LatentDiffusion) -> None:
    plan = Transition.plan_type(**record(SMALL.run(model))["plan"])
    with pytest.raises(TaskError, match="does not belong"):
        replace(SMALL, seconds=2.0).run(model, plan=plan)
    for shot in ((999, 999, 0.0), (-1, -1, 0.0), (0, 3, 5.0)):
        with pytest.raises(TaskError, match="damaged"):
            SMALL.run(model, plan=replace(plan, shots=[shot, *plan.shots[1:]]))


def test_interrupting_keeps_what_is_finished(model: LatentDiffusion, tmp_path: Path) -> None:
    def stop(what: str, done: float, total: float) -> None:
        if what == "rendering frames" and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="whole film has 20 frames") as caught:
        SMALL.run(model, Execution(max_batch=4), progress=stop)
    partial = caught.value.partial
    assert partial is not None
    assert 2 < len(partial) < 20
    whole = {tuple(frame.flatten().tolist()) for frame in pixels(SMALL.run(model, Execution(max_batch=4)))}
    placed = sum(tuple(frame.flatten().tolist()) in whole for frame in pixels(partial))
    assert placed > len(partial) / 2
    assert partial.save(tmp_path / "part.mp4").stat().st_size > 0
    assert json.loads((tmp_path / "part.json").read_text())["complete"] is False


def test_interrupting_before_anything_is_finished_says_so(model: LatentDiffusion) -> None:
    def stop(what: str, done: float, total: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="nothing to keep") as caught:
        SMALL.run(model, progress=stop)
    assert caught.value.partial is None


def test_tasks_are_plain_values() -> None:
    assert Transition(**json.loads(json.dumps({"prompts": ["a", "b"], "seeds": [1, 2]}))).seeds == (1, 2)
    assert json.loads(json.dumps(asdict(SMALL)))["tree"]["depth"] == SMALL.tree.depth


def photograph(tmp_path: Path, side: int = 16, seed: int = 3) -> Path:
    """A picture that no model here would make."""
    levels = torch.randint(0, 256, (1, 3, side, side), generator=torch.Generator().manual_seed(seed)).byte()
    path = tmp_path / f"photo-{side}-{seed}.png"
    Clip(TensorFrames(levels), 1).save(path)
    return path


@pytest.mark.parametrize("place", ["first", "last", "2"])
@pytest.mark.parametrize("prompt", ["a photograph", ""])
def test_a_given_picture_is_shown_as_it_is(model: LatentDiffusion, tmp_path: Path, place: str, prompt: str) -> None:
    path = photograph(tmp_path)
    number = {"first": 0, "last": 2, "2": 1}[place]
    prompts = list(SMALL.prompts)
    prompts[number] = prompt
    clip = replace(SMALL, prompts=tuple(prompts), key_image=(f"{place}={path}",)).run(model)
    picture = pixels(read(path))[0]
    where = [torch.equal(frame, picture) for frame in pixels(clip)]
    assert sum(where) == 1
    if number != 1:
        assert where[0 if number == 0 else -1]


def test_no_step_from_a_given_picture_is_larger_than_the_others(model: LatentDiffusion, tmp_path: Path) -> None:
    task = replace(SMALL, prompts=("one", "two"), seeds=(1, 2), key_image=(f"first={photograph(tmp_path)}",))
    shown = pixels(task.run(model))
    steps = (shown[1:] - shown[:-1]).square().mean((1, 2, 3)).sqrt()
    assert float(steps[0]) <= 1.02 * float(steps[1:].max())


def test_a_film_with_a_given_picture_repeats_until_the_file_changes(model: LatentDiffusion, tmp_path: Path) -> None:
    path = photograph(tmp_path)
    task = replace(SMALL, key_image=(f"first={path}",))
    clip = task.run(model)
    plan = TransitionPlan(**record(clip)["plan"])
    assert torch.equal(pixels(task.run(model, plan=plan)), pixels(clip))
    photograph(tmp_path, seed=4).rename(path)
    with pytest.raises(TaskError, match="contents have changed"):
        task.run(model, plan=plan)


def test_a_picture_of_another_size_is_fitted_and_said(model: LatentDiffusion, tmp_path: Path) -> None:
    task = replace(SMALL, key_image=(f"first={photograph(tmp_path, side=40)}",))
    assert any("scaled and cut to 16x16" in note for note in record(task.run(model))["notes"])


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("photo.png", "KEY=FILE"),
        ("4=photo.png", "the keys are 1 to 3"),
        ("0=photo.png", "the keys are 1 to 3"),
        ("first=nowhere.png", "there is no such file"),
    ],
)
def test_bad_key_pictures_are_told(model: LatentDiffusion, entry: str, expected: str) -> None:
    with pytest.raises(SegueError, match=expected):
        replace(SMALL, key_image=(entry,)).run(model)


def test_a_key_has_one_picture() -> None:
    with pytest.raises(TaskError, match="key 1 has two pictures"):
        replace(SMALL, key_image=("first=a.png", "1=b.png"))


def steps_of(clip: Clip) -> torch.Tensor:
    shown = pixels(clip)
    return (shown[1:] - shown[:-1]).square().mean((1, 2, 3)).sqrt()


def test_a_loop_has_no_seam(model: LatentDiffusion) -> None:
    """The step from the last frame to the first is one like the others, and no frame is shown twice."""
    clip = replace(SMALL, seconds=2.0, pace=Pace(loop="loop")).run(model)
    shown = pixels(clip)
    assert len(clip) == 40
    seam = (shown[0] - shown[-1]).square().mean().sqrt()
    assert 0.5 * steps_of(clip).mean() < seam < 1.5 * steps_of(clip).mean()
    assert all(not torch.equal(a, b) for a, b in pairwise(shown))


def test_a_loop_through_a_given_picture_has_no_seam(model: LatentDiffusion, tmp_path: Path) -> None:
    task = replace(SMALL, seconds=2.0, pace=Pace(loop="loop"), key_image=(f"first={photograph(tmp_path)}",))
    clip = task.run(model)
    shown = pixels(clip)
    assert (shown[0] - shown[-1]).square().mean().sqrt() < 1.5 * steps_of(clip).max()
    assert torch.equal(shown[0], pixels(read(tmp_path / "photo-16-3.png"))[0])


def test_there_and_back_shows_the_same_pictures(model: LatentDiffusion) -> None:
    clip = replace(SMALL, pace=Pace(loop="pingpong")).run(model)
    shown = pixels(clip)
    assert torch.equal(shown[1:], shown[1:].flip(0))
    assert record(clip)["scores"]["native_frames"] == 20


def test_held_keys_stand_still_and_the_count_is_exact(model: LatentDiffusion) -> None:
    clip = replace(SMALL, pace=Pace(easing="hold:0.15")).run(model)
    assert len(clip) == 20
    assert [int(step == 0) for step in steps_of(clip)].count(1) == 6  # three keys, three frames each


def test_smoothness_works_in_loops(model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    def cliff(tree: Branching) -> Cliff:
        return Cliff()

    monkeypatch.setattr(Branching, "perceptual", cliff)
    for loop in ("loop", "pingpong"):
        rough = replace(SMALL, seconds=2.0, tree=Branching(preset="lowest"), pace=Pace(loop=loop))
        plain = record(rough.run(model))["scores"]
        clip = replace(rough, tree=Branching(preset="lowest", smoothness=1.2 * plain["mean_step"])).run(model)
        assert len(clip) == 40
        # What decides is rounded to three digits.
        assert record(clip)["scores"]["largest_step"] <= 1.2 * plain["mean_step"] + 5e-4 < plain["largest_step"]
        assert "is reached" in record(clip)["plan"]["ended"]


def clicks(path: Path, bpm: float, seconds: float) -> Path:
    """A sound with a click on every beat."""
    rate = 22050
    samples = np.zeros(int(rate * seconds), np.int16)
    for beat in np.arange(0.1, seconds - 0.05, 60 / bpm):
        first = int(beat * rate)
        samples[first : first + 400] = (20000 * np.sin(np.arange(400) * 0.4) * np.exp(-np.arange(400) / 80)).astype(
            np.int16
        )
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


def test_sound_goes_into_the_film_and_keys_onto_its_beats(model: LatentDiffusion, tmp_path: Path) -> None:
    sound = clicks(tmp_path / "clicks.wav", bpm=120, seconds=6)
    plain = replace(SMALL, seconds=3.0, pace=Pace(audio=str(sound)))
    clip = plain.run(model)
    assert clip.audio is not None and clip.audio.path == sound
    clip.save(tmp_path / "film.mp4")
    assert read(tmp_path / "film.mp4").audio is not None
    beaten = replace(plain, pace=Pace("beats", audio=str(sound))).run(model)
    key = pixels(Image("two", seed=2).run(model))[0]
    frames = [i for i, frame in enumerate(pixels(beaten)) if torch.equal(frame, key)]
    assert len(frames) == 1
    assert abs(2 * (frames[0] / 20 - 0.1) - round(2 * (frames[0] / 20 - 0.1))) < 0.11  # beats are half a second apart


@pytest.mark.parametrize(
    ("pace", "expected"),
    [
        ({"easing": "bouncy"}, "easing"),
        ({"easing": "beats"}, "needs a sound"),
        ({"loop": "twice"}, "loop must be"),
        ({"audio": "nowhere.wav", "easing": "beats"}, "nowhere.wav"),
    ],
)
def test_an_impossible_pace_is_refused(model: LatentDiffusion, pace: dict[str, Any], expected: str) -> None:
    with pytest.raises(SegueError, match=expected):
        replace(SMALL, pace=Pace(**pace)).run(model)


def test_smoothness_and_an_easing_exclude_each_other() -> None:
    with pytest.raises(TaskError, match="leave one of them out"):
        replace(SMALL, pace=Pace("smooth"), tree=Branching(smoothness=0.1))


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling": Sampling(guidance_scale=("0s:1, 1s:6",))},
        {"sampling": Sampling(guidance_scale=("smooth 0f:1, 20f:6",))},
        {"tree": Branching(damper="0s:1, 0.5s:0.3, 1s:1")},
        {"tree": Branching(depth="0s:0.1, 1s:0.9")},
        {"tree": Branching(crossfeed=("0s:0, 1s:0.9", 0.6, 0.9))},
        {"tree": Branching(first_crossfeed=("0s:0, 1s:0.9", 0.6, 0.9))},
        {"likeness": Likeness(shared_noise="0s:0, 1s:0.9")},
        {"likeness": Likeness(shared_statistics="0s:0, 1s:0.9")},
    ],
)
def test_a_number_may_change_over_the_film(model: LatentDiffusion, changes: dict[str, Any], tmp_path: Path) -> None:
    task = replace(SMALL, **changes)
    clip = task.run(model)
    assert not torch.equal(pixels(clip), pixels(SMALL.run(model)))
    clip.save(tmp_path / "film.mp4")
    assert torch.equal(pixels(Rerun.read(tmp_path / "film.json").run(model)), pixels(clip))


def test_a_curve_has_the_value_of_its_time() -> None:
    """At a curve's end its value is what counts: the film's last key is the picture of that guidance scale."""
    model = toy_model()
    clip = replace(SMALL, sampling=Sampling(guidance_scale=("0s:1, 1s:6",))).run(model)
    last = Image("three", seed=3, sampling=Sampling(guidance_scale=(6.0,))).run(model)
    first = Image("one", seed=1, sampling=Sampling(guidance_scale=(1.0,))).run(model)
    assert torch.allclose(pixels(clip)[-1], pixels(last)[0], atol=1e-6)
    assert torch.allclose(pixels(clip)[0], pixels(first)[0], atol=1e-6)


def test_a_flat_curve_is_its_number(model: LatentDiffusion) -> None:
    flat = replace(SMALL, tree=Branching(depth="0s:0.4, 1s:0.4"), sampling=Sampling(guidance_scale=("0s:3, 1s:3",)))
    plain = replace(SMALL, sampling=Sampling(guidance_scale=(3.0,)))
    assert torch.equal(pixels(flat.run(model)), pixels(plain.run(model)))
    feeds: list[tuple[float | str, float, float]] = [("0s:0.3, 1s:0.3", 0.6, 0.9), (0.3, 0.6, 0.9)]
    flat, plain = (replace(SMALL, tree=Branching(crossfeed=feed, first_crossfeed=feed)) for feed in feeds)
    assert torch.equal(pixels(flat.run(model)), pixels(plain.run(model)))
    shared: list[float | str] = ["0s:0.3, 1s:0.3", 0.3]
    flat, plain = (replace(SMALL, likeness=Likeness(shared_noise=much, shared_statistics=much)) for much in shared)
    assert torch.equal(pixels(flat.run(model)), pixels(plain.run(model)))


def test_keys_are_as_alike_as_the_curve_says_at_their_time(model: LatentDiffusion) -> None:
    """The second of three keys stands in the middle of the film, with the first one's noise; the last has its own."""
    clip = replace(SMALL, seeds=(1, 2, 3), likeness=Likeness(shared_noise="step 0s:1, 0.6s:0")).run(model)
    shown, keys = pixels(clip), [Image(text, seed=seed).run(model) for text, seed in (("two", 1), ("three", 3))]
    assert any(torch.equal(frame, pixels(keys[0])[0]) for frame in shown)
    assert torch.equal(shown[-1], pixels(keys[1])[0])


def test_a_crossfeed_acts_where_its_curve_is_above_zero(model: LatentDiffusion) -> None:
    film = replace(SMALL, likeness=Likeness(words="line"))
    fed = pixels(replace(film, tree=Branching(crossfeed=("step 0s:0, 0.6s:0.9", 1.0, 1.0))).run(model))
    plain = pixels(film.run(model))
    same = [torch.equal(a, b) for a, b in zip(fed, plain, strict=True)]
    assert not all(same) and sum(same) >= 5


def test_curves_that_make_no_sense_are_refused(model: LatentDiffusion) -> None:
    curved: dict[str, Any] = {"steps": "0s:3, 1s:4"}
    for make, expected in (
        (lambda: Branching(depth="0s:0.4, 1s:1.4"), "depth"),
        (lambda: Branching(depth="0s:0.4, 1s:0.5", preset="low"), "one depth"),
        (lambda: Sampling(guidance_scale=("0s:3, 1s:4", "5")), "one curve"),
        (lambda: replace(Sampling(), **curved), "steps must be the same for the whole film"),
        (lambda: Likeness(structure="0s:0, 1s:2"), "structure must be in"),
        (lambda: replace(SMALL, weights="1,0,0;1,1,1", likeness=Likeness("0s:0, 1s:1")), "as numbers, no curves"),
        (lambda: Image("x", sampling=Sampling(guidance_scale=("0s:3, 1s:4",))).run(model), "has no time"),
        (lambda: replace(SMALL, tree=Branching(depth="0b:0.3, 4b:0.5")).run(model), "beat"),
    ):
        with pytest.raises(TaskError, match=expected):
            make()


def test_ghosts_are_told_and_the_film_repeats() -> None:
    """What is corrected is in the plan: the film is made again from it, bit for bit."""
    model = toy_model()
    task = replace(SMALL, sampling=Sampling(size=(64, 64)), tree=Branching(depth=0.8, ghosting=0.01))
    clip = task.run(model)
    plan = TransitionPlan(**record(clip)["plan"])
    assert "ghosting 0.01 is" in plan.ended
    assert len(plan.nodes) > len(record(replace(task, tree=Branching(depth=0.8)).run(model))["plan"]["nodes"])
    assert torch.equal(pixels(task.run(model, plan=plan)), pixels(clip))


def test_attention_is_shared_where_there_is_a_network() -> None:
    for likeness in (Likeness(structure=0.5), Likeness(interpolation=1.0), Likeness(shared_attention=0.2)):
        with pytest.raises(TaskError, match="attention of a network, and toy has none"):
            replace(SMALL, likeness=likeness).run(toy_model())


@pytest.mark.parametrize("values", [{"structure": 1.5}, {"fusion": "both"}, {"mix": "none"}, {"shared_noise": -1}])
def test_an_impossible_likeness_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(TaskError, match=next(iter(values))):
        Likeness(**values)
