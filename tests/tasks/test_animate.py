"""Clips of words and pictures: what is kept of these, what every field does, and that a run can be gone on with."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flickers import saved, textured
from segue.errors import InterruptedRunError, MediaError, TaskError
from segue.media import read
from segue.models.bundle import LatentDiffusion, Moving
from segue.models.loading import load_model
from segue.tasks.animate import Animate
from segue.tasks.animate_long_settings import Long
from segue.tasks.animate_settings import Movement
from segue.tasks.image import Image
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Execution, Sampling
from segue.types import Call, Conditioning
from shown import pixels, record
from toy import ToyNetwork, toy_model

SIZE = (32, 24)
ALONE = Movement(attention="self")
"""A toy has no attention that could be stepped into."""
SHORT: dict[str, Any] = {"seconds": 0.5, "fps": 8.0, "movement": ALONE, "sampling": Sampling(steps=4, size=SIZE)}


@dataclass(frozen=True)
class FilmNetwork:
    """Frames of a clip lean to their mean: a network that looks along time."""

    inner: ToyNetwork = field(default_factory=ToyNetwork)

    def __call__(self, x: Tensor, time: Tensor, cond: Conditioning, call: Call) -> Tensor:
        raw = self.inner(x, time, cond, call)
        clips = raw.unflatten(0, (-1, call.group))
        return (0.5 * clips + 0.5 * clips.mean(1, keepdim=True)).flatten(0, 1)


def film_model(**said: Any) -> LatentDiffusion:
    usual: dict[str, Any] = {"frames": 6, "fps": 4.0, "engine": "toy"}
    return replace(toy_model(network=FilmNetwork()), moving=Moving(**{**usual, **said}))


@pytest.fixture
def picture(tmp_path: Path) -> str:
    return saved(tmp_path / "picture.png", textured(1, SIZE))


@pytest.fixture
def video(tmp_path: Path) -> str:
    return saved(tmp_path / "video.apng", textured(4, SIZE), fps=8)


def test_the_first_frame_is_the_picture_that_the_model_makes() -> None:
    clip = Animate("one", seed=3, **SHORT).run(toy_model())
    image = Image("one", seed=3, sampling=SHORT["sampling"]).run(toy_model())
    assert (len(clip), clip.size, clip.fps) == (4, SIZE, 8)
    assert torch.equal(pixels(clip)[:1], (pixels(image) * 255).round() / 255)
    assert not torch.equal(pixels(clip)[1], pixels(clip)[0])


def test_a_given_picture_is_the_first_frame_and_all_of_them_where_nothing_moves(picture: str) -> None:
    task = Animate("one", image=picture, **SHORT)
    moving, still = task.run(toy_model()), replace(task, movement=replace(ALONE, motion=0)).run(toy_model())
    assert torch.equal(pixels(moving)[0], pixels(read(picture))[0])
    assert not torch.equal(pixels(moving)[1], pixels(moving)[0])
    assert torch.allclose(pixels(still), pixels(read(picture)).expand(4, -1, -1, -1), atol=1.01 / 255)


def test_a_picture_moves_where_the_words_say(picture: str) -> None:
    """Next to nothing is drawn anew, so that frames are the picture, moved."""
    sampling = Sampling(steps=20, size=SIZE)
    for words, way in (("it slides to the right", 1), ("it slides to the left", -1)):
        movement = replace(ALONE, motion=8 / 3, strength=0.05)
        clip = Animate(words, image=picture, seconds=0.5, fps=8, movement=movement, sampling=sampling).run(toy_model())
        assert record(clip)["fields"]["movement"]["way"] == ("right" if way > 0 else "left")
        first, second = pixels(clip)[0], pixels(clip)[2]
        far = 3  # 2 frames of 12 of 512 widths of a square of 24 pixels, 8 / 3 times
        shares = {by: float((second - first.roll(by * far, 2))[..., 6:-6].abs().mean()) for by in (way, -way)}
        assert shares[way] < 0.5 * shares[-way]


CHANGES: dict[str, Any] = {
    "prompt": "two",
    "image": "PICTURE",
    "last_image": TaskError,
    "negative": "grey",
    "seed": 4,
    "seconds": 0.25,
    "fps": 4.0,
    "control": TaskError,
    "movement.engine": TaskError,
    "movement.motion": 3.0,
    "movement.loop": True,
    "movement.context_guidance": TaskError,
    "movement.window": TaskError,
    "movement.way": "grow",
    "movement.begun": "latents",
    "movement.strength": 0.9,
    "movement.attention": "reference, self",
    "long.long": "keys",
    "long.levels": "2",
    "long.fill": "flow",
    "long.pin": 0.0,
    "sampling": Sampling(steps=5, size=SIZE),
}
WRONG: dict[str, Any] = {
    "last_image": "x.png",
    "control": "canny:x.mp4",
    "engine": "joint",
    "context_guidance": 2.0,
    "window": 4,
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_changes_the_clip_or_is_refused(name: str, picture: str, written: Path) -> None:
    task, (head, _, tail) = Animate("one", **SHORT), name.partition(".")
    value = CHANGES[name]
    if value is TaskError:
        value = WRONG[tail or head]
        changed = {head: Movement(**{tail: value}) if tail else value}
        with pytest.raises((TaskError, MediaError)):
            replace(task, **changed).run(toy_model())
        return
    value = picture if value == "PICTURE" else value
    if head == "long" and tail != "long":
        task = replace(task, long=Long("keys"))
    other = replace(task, **{head: replace(getattr(task, head), **{tail: value}) if tail else value})
    if name == "movement.attention":
        task, other = (replace(one, sampling=Sampling(steps=4)) for one in (task, other))
    make = toy_model if name != "movement.attention" else partial(load_model, written, device="cpu")
    before, after = (one.run(make()) for one in (task, other))
    assert len(before) != len(after) or before.fps != after.fps or not torch.equal(pixels(before), pixels(after))


def test_every_field_is_tried() -> None:
    tried = {name.partition(".")[0] for name in CHANGES}
    assert tried == {item.name for item in fields(Animate)}
    for head, kind in (("movement", Movement), ("long", Long)):
        assert {name.partition(".")[2] for name in CHANGES if name.startswith(f"{head}.")} == {
            item.name for item in fields(kind)
        }


def test_latents_that_move_early_leave_the_first_frame_as_it_is_alone() -> None:
    task = Animate("one", seed=3, **SHORT)
    clip = replace(task, movement=replace(ALONE, begun="latents")).run(toy_model())
    image = Image("one", seed=3, sampling=SHORT["sampling"]).run(toy_model())
    assert torch.allclose(pixels(clip)[0], pixels(image)[0], atol=1.01 / 255)


def test_frames_are_denoised_together_by_a_model_that_was_made_for_that(picture: str) -> None:
    task, model = Animate("one", sampling=SHORT["sampling"]), film_model()
    clip = task.run(model)
    assert (len(clip), clip.fps) == (6, 4) and record(clip)["scores"] == {"engine": "toy", "window": 6}
    alone = Animate("one", seconds=0.25, sampling=SHORT["sampling"]).run(model)
    image = Image("one", sampling=SHORT["sampling"]).run(toy_model(network=FilmNetwork()))
    assert torch.equal(pixels(alone), (pixels(image) * 255).round() / 255)
    long = replace(task, seconds=4.0).run(model)
    assert len(long) == 16 and record(long)["scores"]["window"] == 6
    looped = replace(task, seconds=4.0, movement=Movement(loop=True)).run(model)
    assert not torch.equal(pixels(looped), pixels(long))
    single = replace(task, movement=replace(ALONE, engine="zero-shot")).run(model)
    assert record(single)["scores"]["engine"] == "zero-shot"
    for wrong, match in (
        (replace(task, image=picture), "can be given no frame as a picture"),
        (replace(task, movement=Movement(motion=2.0)), "cannot be told how strongly"),
        (replace(task, movement=Movement(context_guidance=2.0)), "give --image"),
    ):
        with pytest.raises(TaskError, match=match):
            wrong.run(model)


def test_what_a_stochastic_solver_adds_is_shared_as_the_noise_is_in_which_frames_begin() -> None:
    """A model whose frames have all noise in common, and that tells them nothing apart, makes them alike."""
    for solver in ("euler_ancestral", "dpmpp_2m_sde"):
        task = Animate("one", sampling=Sampling(steps=4, size=SIZE, solver=solver))
        alike, apart = (pixels(task.run(film_model(shared_noise=share))) for share in (1.0, 0.0))
        assert torch.equal(alike, alike[:1].expand_as(alike))
        assert float((apart[1:] - apart[:-1]).abs().mean()) > 0.01


def test_a_model_is_asked_for_what_it_was_made_for_alone(picture: str) -> None:
    silent = film_model(words=False, given=("first",))
    for task, model, match in (
        (Animate("one"), silent, "takes no words"),
        (Animate(image=picture, last_image=picture), silent, "the first frame alone"),
        (Animate(image=picture), toy_model(), "draws frames after words"),
        (Animate("one", movement=Movement(engine="zero-shot")), silent, "no pictures of words"),
        (Animate("one", movement=Movement(engine="joint")), toy_model(), "made for single pictures"),
        (Animate("one", image=picture, movement=Movement(begun="latents")), toy_model(), "no latents early"),
        (Animate("one", sampling=Sampling(size=(31, 24))), toy_model(), "multiple of"),
    ):
        with pytest.raises(TaskError, match=match):
            task.run(model)


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({}, "what is to move"),
        ({"prompt": " "}, "prompt must be words"),
        ({"prompt": "(a:2s:1, 1s:2)"}, "times of a curve must increase"),
        ({"prompt": "a", "fps": 0}, "fps must be above 0"),
        ({"prompt": "a", "seconds": -1}, "seconds must be above 0"),
        ({"prompt": "a", "seed": -1}, "a seed must be"),
        ({"prompt": "a", "image": ""}, "image must be the name"),
        ({"prompt": "a", "control": "canny"}, "name it, as canny:dance.mp4"),
        ({"prompt": "a", "control": "canny:x.mp4", "movement": Movement(motion=2.0)}, "leave out way and motion"),
        ({"prompt": "a", "sampling": Sampling(guidance_scale=(1, 2))}, "one number for the whole clip"),
    ],
)
def test_what_cannot_be_is_refused(said: dict[str, Any], match: str) -> None:
    with pytest.raises(TaskError, match=match):
        Animate(**said)


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"motion": -1}, "motion must be in"),
        ({"window": 1}, "window must be 2"),
        ({"strength": 0.0}, "strength must be in"),
        ({"way": "away"}, "way must be right, left"),
        ({"engine": "joint", "way": "up"}, "way say how a model of single pictures"),
        ({"begun": "latents", "strength": 0.5}, "leave it out, or begun latents"),
        ({"context_guidance": -1}, "context_guidance must be"),
    ],
)
def test_a_movement_that_cannot_be_is_refused(said: dict[str, Any], match: str) -> None:
    with pytest.raises(TaskError, match=match):
        Movement(**said)


def test_it_is_made_again_byte_for_byte(picture: str, tmp_path: Path) -> None:
    clip = Animate("one", image=picture, **SHORT).run(toy_model())
    clip.save(tmp_path / "a.apng")
    rerun = Rerun.read(tmp_path / "a.json")
    again = rerun.run(toy_model())
    assert torch.equal(pixels(again), pixels(clip)) and record(again) == record(clip)
    saved(Path(picture), textured(1, SIZE, seed=9))
    with pytest.raises(TaskError, match="contents have changed"):
        rerun.run(toy_model())


def test_a_run_that_is_stopped_is_gone_on_with(tmp_path: Path) -> None:
    task = Animate("one", **SHORT)
    whole, asked = task.run(toy_model()), list[str]()

    def stop(what: str, done: float, total: float) -> None:
        asked.append(what)
        if what == "drawing frames" and done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="goes on from there"):
        task.run(toy_model(), progress=stop, work=tmp_path)
    assert "drawing the first frame" in asked
    seen = list[tuple[str, float]]()

    def tell(what: str, done: float, total: float) -> None:
        seen.append((what, done))

    clip = task.run(toy_model(), progress=tell, work=tmp_path)
    assert torch.equal(pixels(clip), pixels(whole))
    drawn = [done for what, done in seen if what == "drawing frames"]
    assert min(drawn) >= 4 and ("drawing the first frame", 1) not in seen


def test_calls_may_be_cut_anywhere() -> None:
    task = Animate("one", **SHORT)
    few = task.run(toy_model(), Execution(max_batch=2))
    assert torch.allclose(pixels(few), pixels(task.run(toy_model())), atol=1.01 / 255)


def test_what_is_good_to_know_is_said(picture: str) -> None:
    task = Animate("one", image=picture, seconds=1, fps=8)
    with pytest.raises(TaskError, match="attention is made of"):
        replace(task, movement=Movement(attention="nobody")).run(toy_model())
    assert any("scaled and cut" in note for note in replace(task, sampling=Sampling(size=(16, 16))).notes(toy_model()))
    (line,) = task.outlook(toy_model())
    assert line == "8 frames at 8 per second, of a picture that moves (right; zero-shot): about 80 evaluations"
    (line,) = Animate("one").outlook(film_model())
    assert line == "6 frames at 4 per second, by toy: about 120 evaluations"
