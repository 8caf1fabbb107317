# pyright: basic
"""What the frames of a clip are told at their time: prompts that follow each other, and how strongly they move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from flickers import saved, textured
from models.test_animatediff import write_adapter
from models.test_time_decoder import learned
from models.test_time_inserted import SMALL, taught
from models.tiny_svd import write_svd
from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.starts import from_clip_seed
from segue.errors import TaskError
from segue.models.bundle import LatentDiffusion
from segue.models.codec import AutoencoderCodec
from segue.models.families.animatediff import with_motion_adapter
from segue.models.loading import load_model
from segue.models.paused import taken_up
from segue.models.time_decoder import with_time_decoder
from segue.tasks.animate import Animate
from segue.tasks.animate_long import TONES, Keys
from segue.tasks.animate_long_settings import Long
from segue.tasks.animate_settings import Movement
from segue.tasks.record import read_record
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.upscale_words import story_of
from segue.types import Call, Conditioning, Network, RowId, silent
from shown import pixels, record
from toy import toy_model

QUICK = Sampling(steps=2, guidance_scale=(1.0,))
SIZE = (32, 24)
ALONE = Movement(attention="self", way="spin")
TOY = Animate("one", seconds=2.5, fps=8.0, movement=ALONE, sampling=Sampling(steps=4, size=SIZE))
STEP = "step 0s: one, 1s: two"


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def image(written: Path) -> LatentDiffusion:
    return load_model(written, device="cpu")


@pytest.fixture(scope="module")
def videoldm(image: LatentDiffusion) -> LatentDiffusion:
    with torch.no_grad():
        return taught(image, SMALL)


@dataclass(frozen=True)
class Heard:
    """A network, and the text that each row of each call was told, by the row's number."""

    network: Network
    texts: list[tuple[int, Tensor]] = field(default_factory=list)

    def __call__(self, x: Tensor, time: Tensor, cond: Conditioning, call: Call) -> Tensor:
        self.texts.extend((row.frame, text) for row, text in zip(call.rows, cond.text, strict=True))
        return self.network(x, time, cond, call)


def hearing(model: LatentDiffusion) -> tuple[LatentDiffusion, Heard]:
    heard = Heard(model.denoiser.network)
    return replace(model, denoiser=replace(model.denoiser, network=heard)), heard


@pytest.mark.parametrize("how", [Long("whole"), Long("keys", "2"), Long("parts")], ids=["whole", "keys", "parts"])
def test_each_frame_is_told_the_words_of_its_time(how: Long, videoldm: LatentDiffusion) -> None:
    """Whichever way the clip is made, and however often a frame is drawn."""
    model, heard = hearing(videoldm)
    prompt = "0s: a red apple, 0.5s: a green apple, 0.75s: a cat"
    clip = Animate(prompt, seconds=7 / 8, fps=8, sampling=QUICK, long=how).run(model)
    assert len(clip) == 7 and record(clip)["fields"]["prompt"] == prompt
    red, green, cat = model.text(["a red apple", "a green apple", "a cat"]).text
    assert {frame for frame, _ in heard.texts} == set(range(7))
    for frame, text in heard.texts:
        wanted = {0: red, 4: green, 6: cat}.get(frame)
        if wanted is not None:
            assert torch.equal(text, wanted), frame
    mixed = dict(heard.texts)
    to_green = [float((mixed[frame] - green).norm()) for frame in range(5)]
    assert to_green == sorted(to_green, reverse=True) and to_green[4] == 0
    # Mixed on the sphere, token by token: as long as the ends are, or between them.
    lengths = torch.stack([mixed[frame].norm(dim=-1) for frame in (0, 2, 4)])
    assert bool((lengths[1] > lengths[[0, 2]].min(0).values - 1e-3).all())


@pytest.mark.parametrize("how", [Long("whole"), Long("keys", "2,2", pin=0.0), Long("keys", "4", "flow", 0.0)])
def test_models_of_single_pictures_draw_each_frame_after_its_words(how: Long) -> None:
    model, task = toy_model(), replace(TOY, long=how)
    one, made = (pixels(replace(task, prompt=prompt).run(model)) for prompt in ("one", STEP))
    keys = [0, 4, 8, 11, 15, 19]
    assert torch.allclose(made[keys[:2]], one[keys[:2]], atol=1.01 / 255)
    assert all(float((made - one)[key].abs().max()) > 3 / 255 for key in keys[2:])
    level = pixels(replace(task, prompt="0s: one, 2s: one").run(model))
    assert torch.allclose(level, one, atol=1.01 / 255)


def test_what_words_change_is_not_taken_away_as_drift(tmp_path: Path) -> None:
    for name, prompt in (("one", "one"), ("several", STEP)):
        (tmp_path / name).mkdir()
        task = replace(TOY, prompt=prompt, long=Long("keys", "2,2")).resolved(toy_model())
        keys = Keys(task, toy_model(), Execution(), tmp_path / name, silent)
        keys.prepare()
        tones = taken_up(tmp_path / name / TONES)
        keys.close()
        assert tones is not None
        assert torch.equal(tones["mean"], tones["wanted mean"]) == (name == "several")
        assert ("drift" in keys.scores) == (name == "one")


def test_gaps_are_told_the_same_in_any_order(tmp_path: Path) -> None:
    """So that many processes make the same bytes of prompts in time, too."""
    movement = replace(ALONE, motion="0s:0, 1s:2")
    task = replace(TOY, prompt="0s: one, 2s: two", movement=movement, long=Long("keys", "2,2")).resolved(toy_model())
    made = list[Tensor]()
    for name in ("forwards", "backwards"):
        (tmp_path / name).mkdir()
        keys = Keys(task, toy_model(), Execution(), tmp_path / name, silent)
        keys.prepare()
        for number in reversed(range(len(keys.plan.gaps()))) if name == "backwards" else ():
            assert keys.make_next(number)
        made.append(torch.cat(list(keys.pictures(0))))
    assert torch.equal(*made)


def test_a_loop_is_told_at_its_end_what_it_is_told_at_its_beginning() -> None:
    """The last gap leads to the first frame, which keeps its words although a later time is past."""
    model, heard = hearing(toy_model())
    sampling = Sampling(steps=4, size=SIZE, guidance_scale=(1.0,))
    movement, how = replace(ALONE, loop=True), Long("keys", "4", "branches")
    replace(TOY, prompt=STEP, movement=movement, long=how, sampling=sampling).run(model)
    one, two = model.text(["one", "two"]).text
    for wanted, (_, text) in zip([two, two, two, two, one], heard.texts[-5:], strict=True):
        assert torch.equal(text, wanted)


def test_a_clip_lasts_until_its_last_prompt() -> None:
    model = toy_model()
    for said, frames in (("0s: one, 3s: two", 25), ("0s: one, 1s: two", 16), ("0f: one, 20f: two", 21)):
        assert Animate(said, movement=ALONE).resolved(model).frames == frames, said
    short = Animate("0s: one, 3s: two", seconds=1, movement=ALONE)
    assert short.resolved(model).frames == 8
    assert any("before 3 s, when a prompt would hold alone" in note for note in short.notes(model))
    assert not any("would hold" in note for note in Animate("0s: one, 3s: two", movement=ALONE).notes(model))


def test_prompts_in_time_are_made_again(tmp_path: Path) -> None:
    task = replace(TOY, prompt=STEP, negative="0s: grey, 1s: blue", movement=replace(ALONE, motion="0s:0, 1s:2"))
    clip = task.run(toy_model())
    other = replace(task, negative="grey").run(toy_model())
    assert not torch.equal(pixels(clip)[8:], pixels(other)[8:])
    clip.save(tmp_path / "a.apng")
    again = Rerun.read(tmp_path / "a.json").run(toy_model())
    assert torch.equal(pixels(again), pixels(clip)) and record(again) == record(clip)


def test_an_upscaler_is_told_the_words_of_each_frame(tmp_path: Path) -> None:
    replace(TOY, prompt="0s: a (red:0s:1, 1s:2) ball, 2s: a cube").run(toy_model()).save(tmp_path / "a.apng")
    written = read_record(tmp_path / "a.json")
    story, shorter = (story_of(written, frames) for frames in (20, 5))
    assert story is not None and shorter is not None
    assert story.prompts == ("a (red:1.000000) ball", "a cube") and story.points == ((1.0, 0.0), (0.0, 1.0))
    assert [story.positions[frame] for frame in (0, 4, 8, 16, 19)] == [0.0, 0.25, 0.5, 1.0, 1.0] and not story.note
    assert "20 frames, and it has 5" in shorter.note


def test_a_way_is_said_once_for_all_prompts() -> None:
    def way(prompt: str, said: Any = None) -> str | None:
        movement = Movement(way=said, attention="self")
        return Animate(prompt, movement=movement).resolved(toy_model()).movement.way

    assert way("0s: a red ball, 1s: a spinning green ball") == "spin"
    assert way("0s: a red ball, 1s: a green ball") == "right"
    assert way("0s: a bouncing ball, 1s: a spinning ball", "up") == "up"
    with pytest.raises(TaskError, match="the prompts say bounce and spin"):
        way("0s: a bouncing ball, 1s: a spinning ball")
    told = Animate("0s: a bouncing ball, 1s: a bouncing cube", movement=ALONE).resolved(toy_model()).prompts
    assert told.at_first == ("a ball", "a cube")


def still_frames(image: LatentDiffusion, task: Animate, frames: int) -> Tensor:
    """What the image model makes of each frame of a clip by itself, of 256 levels a colour."""
    size = image.defaults.size
    schedule = image.schedule(2, size)
    shape = (image.codec.channels, size[1] // image.codec.scale, size[0] // image.codec.scale)
    rows = tuple(RowId("clip", frame) for frame in range(frames))
    state = from_clip_seed(task.seed, rows, schedule, shape, image.device, 0.0)
    told = image.text([str(task.prompt)] * frames)
    cond = classifier_free(told, image.text([""] * frames), 1.0)
    made = image.codec.decode(collect(denoise(image.denoiser, state, schedule, cond), schedule))
    return (made * 255).round() / 255


def test_a_still_clip_is_the_image_model_frame_by_frame(image: LatentDiffusion, videoldm: LatentDiffusion) -> None:
    """With layers along time in the decoder, too."""
    both = replace(videoldm, codec=learned(with_time_decoder(cast(AutoencoderCodec, image.codec))))
    task = Animate("a red apple", seconds=0.5, seed=3, sampling=replace(QUICK, solver="ddim"))
    still = replace(task, movement=Movement(motion=0.0))
    alone = still_frames(image, task, 4)
    assert torch.allclose(pixels(still.run(videoldm)), alone, atol=1.01 / 255)
    assert torch.allclose(pixels(still.run(both)), alone, atol=1.01 / 255)
    assert float((pixels(task.run(both)) - pixels(task.run(videoldm))).abs().max()) > 2 / 255


@pytest.mark.parametrize("kind", ["layers", "layers and decoder", "adapter"])
def test_frames_where_motion_is_0_are_those_of_a_still_clip(
    kind: str, image: LatentDiffusion, videoldm: LatentDiffusion, tmp_path: Path
) -> None:
    """Beside others that move and look at them."""
    model = with_motion_adapter(image, write_adapter(tmp_path / "adapter")) if kind == "adapter" else videoldm
    if kind == "layers and decoder":
        model = replace(model, codec=learned(with_time_decoder(cast(AutoencoderCodec, image.codec))))
    task = Animate("a red apple", seconds=0.5, fps=8, sampling=QUICK)
    still, moving, late = (
        pixels(replace(task, movement=Movement(motion=motion)).run(model)) for motion in (0, 1, "step 0s:0, 0.25s:1")
    )
    assert torch.equal(late[:2], still[:2])
    for frame in (2, 3):
        assert float((late - still)[frame].abs().max()) > 1 / 255
        assert not torch.equal(late[frame], moving[frame])
    level = pixels(replace(task, movement=Movement(motion="0s:1, 1s:1")).run(model))
    assert torch.equal(level, moving)


def test_motion_counts_at_each_frames_time_in_long_clips_too(videoldm: LatentDiffusion) -> None:
    """Key frames at a motion of 0 are those that a still outline has."""
    task = Animate("a red apple", seconds=1.25, fps=8, sampling=QUICK, long=Long("keys", "3", pin=0.0))
    still, late = (
        pixels(replace(task, movement=Movement(motion=motion)).run(videoldm)) for motion in (0, "step 0s:0, 0.6s:1")
    )
    assert torch.allclose(late[[0, 3]], still[[0, 3]], atol=1.01 / 255)
    assert all(float((late - still)[key].abs().max()) > 1 / 255 for key in (6, 9))
    loop = replace(task, long=Long("keys", "3", "branches"), movement=Movement(motion="0s:0, 1s:1", loop=True))
    assert len(loop.run(videoldm)) == 10, "what is drawn between key frames knows no way"


def test_a_picture_begins_to_move_when_its_motion_does(tmp_path: Path) -> None:
    picture = saved(tmp_path / "picture.png", textured(1, SIZE))
    movement = replace(ALONE, motion="step 0s:0, 1s:1")
    clip = pixels(replace(TOY, image=picture, movement=movement).run(toy_model()))
    assert torch.allclose(clip[:8], clip[:1].expand(8, -1, -1, -1), atol=1.01 / 255)
    assert float((clip[12:] - clip[:1]).abs().amax((1, 2, 3)).min()) > 0.1


def test_what_a_model_is_told_once_is_refused_as_a_curve(videoldm: LatentDiffusion, tmp_path: Path) -> None:
    picture = saved(tmp_path / "picture.png", textured(1, (48, 48)))
    svd = load_model(write_svd(tmp_path / "svd"), device="cpu")
    assert videoldm.moving is not None
    once = replace(videoldm, moving=replace(videoldm.moving, one_text=True))
    curve = Movement(motion="0s:0, 1s:1")
    cases: list[tuple[Animate, Any, str]] = [
        (Animate(image=picture, movement=curve), svd, "give motion as one number, got '0s:0, 1s:1'"),
        (Animate("0s: a, 1s: b"), once, "one text for all frames"),
        (Animate("a (red:0s:1, 1s:2) ball"), once, "one text for all frames"),
        (Animate("a", negative="0s: a, 1s: b"), once, "one text for all frames"),
        (Animate("a", movement=replace(curve, loop=True)), toy_model(), "goes there and back by itself"),
        (Animate("0b: a, 1b: b"), toy_model(), "no sound with beats"),
        (Animate("a", movement=Movement(motion="0b:0, 1b:1")), videoldm, "no sound with beats"),
    ]
    for task, model, match in cases:
        with pytest.raises(TaskError, match=match):
            task.resolved(model)
    with pytest.raises(TaskError, match=r"motion must be in \[0, 10\] at all times"):
        Movement(motion="0s:0, 1s:11")
    with pytest.raises(TaskError, match="no prompt at 1s"):
        Animate("0s: a, 1s: , 2s: b")
