"""What makes pictures and films larger is told, and tells: texts, records, reruns, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flickers import saved
from footage import moving
from segue.errors import InterruptedRunError, RecordError, TaskError
from segue.media import read
from segue.tasks.image import Image
from segue.tasks.live import Live
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.transition import Transition
from segue.tasks.upscale import Coherence, Tiling, Upscale, UpscalePlan
from segue.temporal.texts import mixed
from segue.types import Call, Conditioning
from toy import ToyNetwork, toy_model
from toy_upscaler import SIZE, Repeats, toy_upscaler


def told(film: str, prompts: Sequence[str], **changes: Any) -> dict[int, Tensor]:
    """The text that each frame's network was told."""
    network = Repeats(remembers=True)
    Upscale(film, tuple(prompts), **changes).run(toy_upscaler(network)).frames[:]
    found: dict[int, Tensor] = {}
    for call, cond, _ in network.seen:
        found |= {row.frame: text for row, term, text in zip(call.rows, call.term, cond.text, strict=True) if term == 1}
    return found


def test_texts_pass_from_the_first_prompt_to_the_last(film: str) -> None:
    """Forwards: the two-stage procedure of latent blending ran them backwards."""
    texts = told(film, ["a boat", "a tree", "a cup"])
    ends = toy_model().text(["a boat", "a tree", "a cup"]).text
    for frame, prompt in ((0, 0), (4, 1), (8, 2)):
        assert torch.allclose(texts[frame], ends[prompt])
    away = [float((texts[frame] - ends[0]).norm()) for frame in range(5)]
    assert away == sorted(away)
    assert away[0] < away[1]


def test_the_record_beside_a_transition_says_what_each_frame_shows(tmp_path: Path) -> None:
    task = Transition(("a boat", "a tree"), seconds=1, fps=7)
    task.run(toy_model()).save(tmp_path / "film.apng")
    plan = json.loads((tmp_path / "film.json").read_text())["plan"]
    texts = told(str(tmp_path / "film.apng"), ())
    ends = toy_model().text(["a boat", "a tree"]).text
    assert torch.allclose(texts[0], ends[0])
    assert torch.allclose(texts[6], ends[1])
    places = [plan["nodes"][left][0] for left, _, _ in plan["shots"]]
    found = Upscale(str(tmp_path / "film.apng")).story(7)
    assert found.prompts == ("a boat", "a tree")
    assert list(found.positions) == pytest.approx(places)
    assert list(found.positions) == sorted(found.positions)
    # Cut to another length, all that is known is the order.
    assert "7 frames, and it has 5" in Upscale(str(tmp_path / "film.apng")).story(5).note


@pytest.mark.parametrize("queue", [False, True])
def test_the_record_beside_a_live_film_says_what_each_frame_shows(queue: bool, tmp_path: Path) -> None:
    """What was said last is reached where the stream reaches it, and what was told on the way is what it was told."""
    network = Listens()
    say, words = ("3=two", "5=three"), ("one", "two", "three")
    task = Live("one", say=say, between=6, seconds=40, fps=1, idle="hold", queue=queue)
    task.run(toy_model(network=network), Execution(64)).save(tmp_path / "live.apng")
    found = Upscale(str(tmp_path / "live.apng")).story(40)
    assert found.prompts == words
    mixes = [found.points[int(position)] for position in found.positions]
    assert mixes[0] == (1, 0, 0)
    assert mixes[-1] == (0, 0, 1)
    assert mixes[3 + 10 - 2] == (1, 0, 0) != mixes[3 + 10 - 1]
    assert ((0, 1, 0) in mixes) == queue
    texts = toy_model().text(words)
    for mix in {mix for mix in mixes if 0 in mix}:
        assert any(torch.allclose(mixed(texts, mix, "tokens").text[0], text, atol=0.02) for text in network.heard)
    assert "40 frames, and it has 30" in Upscale(str(tmp_path / "live.apng")).story(30).note


@dataclass(frozen=True)
class Listens(ToyNetwork):
    """A network that remembers the texts that it was told."""

    heard: list[Tensor] = field(default_factory=list[Tensor])

    def __call__(self, x: Tensor, time: Tensor, cond: Conditioning, call: Call) -> Tensor:
        self.heard.extend(cond.text)
        return super().__call__(x, time, cond, call)


def test_the_record_beside_a_picture_says_what_it_shows(tmp_path: Path) -> None:
    Image("a boat").run(toy_model()).save(tmp_path / "boat.png")
    task = Upscale(str(tmp_path / "boat.png"))
    assert task.story(1).prompts == ("a boat",)
    assert task.usual_model() == "emoji-x4"
    assert replace(task, method="same-model").usual_model() == "toy"
    large = task.run(toy_upscaler())
    large.save(tmp_path / "large.png")
    assert Upscale(str(tmp_path / "large.png")).story(1).prompts == ("a boat",)


def test_a_record_that_is_none_is_said_aloud(film: str) -> None:
    Path(film).with_suffix(".json").write_text("{}")
    notes = Upscale(film).notes(toy_upscaler())
    assert any("does not say what it shows" in note for note in notes)
    assert any("--prompt" in note for note in notes)


@pytest.mark.parametrize(("name", "out"), [("picture.png", "large.png"), ("film.apng", "large.apng")])
def test_a_rerun_is_the_same_file(name: str, out: str, tmp_path: Path) -> None:
    source = saved(tmp_path / name, moving(1 if name.endswith("png") and "picture" in name else 9, SIZE))
    task = Upscale(source, seed=4, sampling=Sampling(solver="euler_ancestral"))
    first = task.run(toy_upscaler()).save(tmp_path / out).read_bytes()
    again = Rerun.read(tmp_path / "large.json")
    assert again.run(toy_upscaler()).save(tmp_path / f"again-{out}").read_bytes() == first
    saved(tmp_path / name, moving(9, SIZE).flip(0)[:1] if "picture" in name else moving(9, SIZE).flip(0))
    with pytest.raises(TaskError, match="contents have changed"):
        Rerun.read(tmp_path / "large.json").run(toy_upscaler())


def test_a_rerun_needs_no_record_of_the_input(tmp_path: Path) -> None:
    Transition(("a boat", "a tree"), seconds=1, fps=5).run(toy_model()).save(tmp_path / "film.apng")
    first = Upscale(str(tmp_path / "film.apng")).run(toy_upscaler()).save(tmp_path / "large.apng").read_bytes()
    (tmp_path / "film.json").unlink()
    assert Rerun.read(tmp_path / "large.json").run(toy_upscaler()).save(tmp_path / "b.apng").read_bytes() == first
    with pytest.raises(RecordError, match="positions"):
        record = json.loads((tmp_path / "large.json").read_text())
        record["plan"]["positions"] = "none"
        (tmp_path / "large.json").write_text(json.dumps(record))
        Rerun.read(tmp_path / "large.json")


def test_what_is_finished_is_kept(film: str, tmp_path: Path) -> None:
    def stop(what: str, done: float, total: float) -> None:
        assert 0 <= done <= total
        if what == "upscaling" and done > 50:
            raise KeyboardInterrupt

    clip = Upscale(film, ("a boat",)).run(toy_upscaler(), progress=stop)
    with pytest.raises(InterruptedRunError) as caught:
        clip.save(tmp_path / "large.apng")
    kept = read(tmp_path / "large.apng")
    whole = Upscale(film, ("a boat",)).run(toy_upscaler()).frames[:]
    assert caught.value.frames == len(kept) == 5
    assert (kept.frames[:] - whole[:5]).abs().max() <= 1 / 255
    assert not json.loads((tmp_path / "large.json").read_text())["complete"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input": ""}, "input must be"),
        ({"prompt": ("a", " ")}, "prompt 2 must be words"),
        ({"prompt": ("a (red:0s:1, 1s:2) cup",)}, "is a number"),
        ({"seed": -1}, "seed must be"),
        ({"method": "magic"}, "upscaler or same-model"),
        ({"colours": "none"}, "input or pixels or model"),
        ({"strength": 0.5}, "strength is for"),
        ({"method": "same-model", "noise_level": 3}, "noise_level is for"),
        ({"method": "same-model", "strength": 0.0}, r"in \(0, 1\]"),
        ({"method": "same-model", "scale": 9}, "between 2 and 8"),
        ({"method": "same-model", "coherence": Coherence(every=2)}, "leave out every 2"),
        ({"method": "same-model", "coherence": Coherence(depth=0.5)}, "leave out depth 0.5"),
        ({"sampling": Sampling(size=(64, 64))}, "size follows from the input"),
    ],
)
def test_bad_fields_are_refused(changes: dict[str, Any], said: str) -> None:
    values: dict[str, Any] = {"input": "x.png", **changes}
    with pytest.raises(TaskError, match=said):
        Upscale(**values)


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (Tiling, {"window": 0}, "window must be"),
        (Tiling, {"overlap": 0.9}, "overlap must be"),
        (Coherence, {"every": 0}, "every must be"),
        (Coherence, {"depth": 1.0}, "depth must be"),
    ],
)
def test_bad_parts_are_refused(kind: Any, values: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        kind(**values)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scale": 4}, "enlarges 2 times, got scale 4"),
        ({"noise_level": 100}, "between 0 and 99"),
        ({"tiling": Tiling(20)}, "multiple of 16 pixels.*16 and 32"),
        ({"sampling": Sampling(guidance_scale=("0s:1, 1s:2",))}, "must be a number"),
        ({"method": "same-model"}, "toy-x2 is an upscaler"),
    ],
)
def test_what_does_not_fit_the_upscaler_is_refused(changes: dict[str, Any], said: str, picture: str) -> None:
    with pytest.raises(TaskError, match=said):
        Upscale(picture, **changes).run(toy_upscaler())


def test_models_that_cannot_are_refused_by_name(picture: str) -> None:
    with pytest.raises(TaskError, match="toy draws pictures from words, and is no upscaler"):
        Upscale(picture).run(toy_model())
    with pytest.raises(TaskError, match="toy is an inpainting model"):
        Upscale(picture, method="same-model").run(replace(toy_model(), inpaints=True))


def test_a_depth_without_frames_between_others_is_refused_but_for_records_of_before(film: str) -> None:
    """They have had one beside every 1, which nobody asked for."""
    prompt = ("a boat",)
    both = ((toy_upscaler(), Upscale(film, prompt)), (toy_model(), Upscale(film, prompt, method="same-model", scale=2)))
    for model, task in both:
        clip = replace(task, coherence=Coherence(1)).run(model)
        assert clip.provenance is not None
        record = clip.provenance.record
        assert record["fields"]["coherence"] == {"every": 1, "depth": None, "together": None, "motion": None}
        older = replace(task, coherence=Coherence(1, 0.3))
        with pytest.raises(TaskError, match=r"with every 1 .* leave out depth 0.3"):
            older.run(model)
        again = older.run(model, plan=UpscalePlan(**record["plan"]))
        assert torch.equal(again.frames[:], clip.frames[:])


def test_more_prompts_than_frames_are_refused(film: str, picture: str) -> None:
    with pytest.raises(TaskError, match=r"there are 10 prompts, and film[.]apng has 9 frames:"):
        Upscale(film, ("x",) * 10).run(toy_upscaler())
    with pytest.raises(TaskError, match=r"there are 2 prompts, and picture[.]png has 1 frame:"):
        Upscale(picture, ("x", "y")).run(toy_upscaler())


def test_a_negative_prompt_that_nothing_hears_is_refused_or_said(picture: str) -> None:
    model, task = toy_upscaler(), Upscale(picture, ("a boat",), negative="fog")
    told = replace(model, denoiser=replace(model.denoiser, embeds_guidance=True))
    with pytest.raises(TaskError, match="Leave 'fog' out"):
        task.run(told)
    assert not task.notes(model)
    (note,) = replace(task, sampling=Sampling(guidance_scale=(1.0,))).notes(model)
    assert "'fog' has no effect" in note


def test_coherence_that_leaves_no_step_out_is_said(film: str, picture: str) -> None:
    one = Sampling(steps=1)
    (note,) = Upscale(film, ("x",), coherence=Coherence(2, 0.5), sampling=one).notes(toy_upscaler())
    assert "--every and --depth leave no step out: of 1" in note
    for quiet in (
        Upscale(film, ("x",), sampling=one),
        Upscale(film, ("x",), coherence=Coherence(2, 0.5)),
        Upscale(picture, ("x",), coherence=Coherence(2, 0.5), sampling=one),
    ):
        assert not quiet.notes(toy_upscaler())
