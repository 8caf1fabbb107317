# pyright: basic
"""Clips by tiny models that were made for films: what each family is told, and that its laws hold through the task."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch import nn

from flickers import saved, textured
from models.test_animatediff import write_adapter
from models.test_time_inserted import SMALL, taught
from models.tiny_svd import write_svd
from segue.errors import TaskError
from segue.media import read
from segue.models.bundle import LatentDiffusion
from segue.models.families.animatediff import with_motion_adapter
from segue.models.loading import load_model
from segue.models.time_inserted import CONTEXT, FPS, time_layers
from segue.tasks.animate import Animate
from segue.tasks.animate_long_settings import Long
from segue.tasks.animate_outlook import taken_bytes
from segue.tasks.animate_settings import Movement
from segue.tasks.image import Image
from segue.tasks.sampling import Execution, Sampling
from segue.types import Call, Conditioning, Network
from shown import pixels, record

QUICK = Sampling(steps=2)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def videoldm(written: Path) -> LatentDiffusion:
    with torch.no_grad():
        return taught(load_model(written, device="cpu"), SMALL)


@pytest.fixture(scope="module")
def svd(tmp_path_factory: pytest.TempPathFactory) -> LatentDiffusion:
    return load_model(write_svd(tmp_path_factory.mktemp("films") / "svd"), device="cpu")


@pytest.fixture
def picture(tmp_path: Path) -> str:
    return saved(tmp_path / "picture.png", textured(1, (64, 64)))


def test_video_ldm_makes_clips_of_words_of_pictures_and_of_both_ends(videoldm: LatentDiffusion, picture: str) -> None:
    task = Animate("a red apple that bounces", seconds=0.5, sampling=QUICK)
    words = task.run(videoldm)
    assert len(words) == 4 and record(words)["scores"]["engine"] == "Video LDM"
    first = replace(task, image=picture).run(videoldm)
    both = replace(task, image=picture, last_image=picture).run(videoldm)
    harder = replace(task, image=picture, movement=Movement(context_guidance=3.0)).run(videoldm)
    faster = replace(task, seconds=0.25, fps=16).run(videoldm)
    for one, other in ((words, first), (first, both), (first, harder), (words, faster)):
        assert not torch.equal(pixels(one), pixels(other))
    none = replace(task, image=picture, movement=Movement(context_guidance=0.0)).run(videoldm)
    assert record(none)["fields"]["movement"]["context_guidance"] == 0


def test_a_still_dial_and_single_frames_are_the_image_model(videoldm: LatentDiffusion, written: Path) -> None:
    task = Animate("a red apple", seconds=0.5, sampling=QUICK)
    image = Image("a red apple", sampling=QUICK).run(load_model(written, device="cpu"))
    alone = replace(task, seconds=0.125).run(videoldm)
    assert torch.equal(pixels(alone), (pixels(image) * 255).round() / 255)
    still, moving = (replace(task, movement=Movement(motion=m)).run(videoldm) for m in (0.0, 1.0))
    assert not torch.equal(pixels(still), pixels(moving))


def test_longer_clips_are_made_in_windows_that_overlap(videoldm: LatentDiffusion, picture: str) -> None:
    clip = Animate("a red apple", image=picture, seconds=1.25, sampling=QUICK).run(videoldm)
    assert len(clip) == 10 and record(clip)["scores"]["window"] == 4
    whole = Animate("a red apple", image=picture, seconds=1.25, sampling=QUICK, movement=Movement(window=10))
    assert not torch.equal(pixels(whole.run(videoldm)), pixels(clip))


def test_svd_sets_a_picture_in_motion(svd: LatentDiffusion, picture: str) -> None:
    task = Animate(image=picture, sampling=Sampling(steps=2, size=(48, 48)))
    clip = task.run(svd)
    assert svd.moving is not None
    assert len(clip) == svd.moving.frames and clip.fps == svd.moving.fps
    for other in (
        replace(task, movement=Movement(motion=2.0)),
        replace(task, movement=Movement(loop=True)),
        replace(task, last_image=picture),
        replace(task, fps=12.0, seconds=svd.moving.frames / 12),
    ):
        assert not torch.equal(pixels(other.run(svd)), pixels(clip))
    for wrong, match in (
        (replace(task, prompt="a cat"), "takes no words"),
        (replace(task, seconds=9.0, long=Long("whole")), "take long parts"),
        (replace(task, movement=Movement(motion=3.0)), "motion must be from 0 to 2"),
        (Animate("a cat", sampling=task.sampling), "takes no words"),
    ):
        with pytest.raises(TaskError, match=match):
            wrong.run(svd)


def test_a_loop_by_svd_ends_where_it_begins_and_shows_that_once(svd: LatentDiffusion, picture: str) -> None:
    """It is the clip between the picture and the picture, without its last frame."""
    task = Animate(image=picture, seconds=4 / 7, fps=7, sampling=Sampling(steps=2, size=(48, 48)))
    loop = replace(task, movement=Movement(loop=True)).run(svd)
    there_and_back = replace(task, seconds=5 / 7, last_image=picture, movement=Movement(window=5)).run(svd)
    assert (len(loop), len(there_and_back)) == (4, 5)
    assert torch.equal(pixels(loop), pixels(there_and_back)[:4])


def test_motion_adapters_move_words_alone(written: Path, tmp_path: Path, picture: str) -> None:
    model = with_motion_adapter(load_model(written, device="cpu"), write_adapter(tmp_path / "adapter"))
    task = Animate("a red apple", seconds=0.5, fps=8, sampling=QUICK)
    clip, still = task.run(model), replace(task, movement=Movement(motion=0.0)).run(model)
    assert "AnimateDiff" in record(clip)["scores"]["engine"]
    assert not torch.equal(pixels(clip), pixels(still))
    longer = replace(task, seconds=1.5).run(model)
    assert len(longer) == 12 and record(longer)["scores"]["window"] == 6
    with pytest.raises(TaskError, match="no frame as a picture"):
        replace(task, image=picture).run(model)


@dataclass(frozen=True)
class Watched:
    """A network, and what it was told of known frames, of speed, and of how many frames a clip has."""

    network: Network
    known: list[torch.Tensor] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)

    def __call__(self, x: torch.Tensor, time: torch.Tensor, cond: Conditioning, call: Call) -> torch.Tensor:
        if CONTEXT in cond.extra:
            self.known.append(cond.extra[CONTEXT])
            self.speeds.append(float(cond.extra[FPS][0]))
            self.frames.append(call.group)
        return self.network(x, time, cond, call)


def test_what_lies_between_two_pictures_is_filled(videoldm: LatentDiffusion, picture: str, tmp_path: Path) -> None:
    """In every call the layers along time are shown both, in the first frame and in the last, and no other."""
    other = saved(tmp_path / "other.png", textured(1, (64, 64), seed=7))
    watched = Watched(videoldm.denoiser.network)
    model = replace(videoldm, denoiser=replace(videoldm.denoiser, network=watched))
    task = Animate("a red apple", image=picture, last_image=other, seconds=0.5, sampling=QUICK)
    assert len(task.run(model)) == 4
    ends = torch.cat([videoldm.codec.encode(read(name).frames[:]) for name in (picture, other)])
    assert watched.known
    for known in watched.known:
        for clip in known.unflatten(0, (-1, 4)):
            assert clip[:, 4, 0, 0].tolist() == [1, 0, 0, 1]
            assert torch.allclose(clip[[0, 3], :4], ends, atol=1e-5) and not clip[1:3].any()


def mover_of(written: Path) -> LatentDiffusion:
    """A model that sets pictures in motion."""
    model = taught(load_model(written, device="cpu"), replace(SMALL, moves=(16, 16), heard=(("bouncing", ""),)))
    assert model.moving is not None and model.moving.from_still and model.moving.frames == 4
    for value in cast(nn.Module, time_layers(model).moves).parameters():
        value.mul_(0.1)
    return model


def watched_model(model: LatentDiffusion) -> tuple[LatentDiffusion, Watched]:
    watched = Watched(model.denoiser.network)
    return replace(model, denoiser=replace(model.denoiser, network=watched)), watched


def test_a_clip_of_words_begins_with_a_picture_that_is_set_in_motion(written: Path, picture: str) -> None:
    """The first frame is known to be what the image model draws of the words that it hears."""
    image, mover = load_model(written, device="cpu"), mover_of(written)
    model, watched = watched_model(mover)
    task = Animate("a bouncing red apple", seconds=0.5, seed=3, sampling=QUICK)
    made = task.run(model)
    assert len(made) == 4 and watched.known
    still = Image("a red apple", seed=3, sampling=QUICK).run(image).frames[:]
    for known in watched.known:
        assert known[:, 4, 0, 0].tolist() == [1, 0, 0, 0] * (len(known) // 4)
        assert torch.allclose(image.codec.decode(known[:1, :4]).clamp(0, 1), still, atol=2 / 255)
    other = replace(task, prompt="a bouncing cat").run(mover)
    assert not torch.equal(pixels(other), pixels(made))
    watched.known.clear()
    replace(task, image=picture).run(model)
    own = image.codec.encode(read(picture).frames[:])[0]
    assert torch.allclose(watched.known[0][0, :4], own, atol=1e-5), "a given picture is the one that moves"


def test_a_clip_may_begin_with_what_its_first_frame_is_carried_to(written: Path, picture: str) -> None:
    """`strength` of the run, with one known frame that moves; the usual one is the model's own."""
    steps = Sampling(steps=4)
    mover = mover_of(written)
    assert mover.moving is not None
    usual = replace(mover, moving=replace(mover.moving, strength=0.5))

    def calls(model: LatentDiffusion, **changes: Any) -> int:
        model, watched = watched_model(model)
        task = Animate("a bouncing red apple", picture, seconds=0.5, seed=3, sampling=steps)
        replace(task, **changes).run(model)
        return len(watched.known)

    whole, half = calls(mover), calls(usual)
    assert (whole, half) == (2 * half, calls(mover, movement=Movement(strength=0.5)))
    assert calls(usual, movement=Movement(strength=1.0)) == whole
    assert calls(usual, last_image=picture) == whole, "between two pictures either would jump"
    assert calls(usual, movement=Movement(motion="0s:0, 0.4s:1")) == whole, "what does not move is not carried"
    assert "about 24 evaluations" in " ".join(
        Animate("a cat", seconds=0.5, sampling=steps).resolved(usual).outlook(usual)
    )


def test_strength_is_of_models_that_move_pictures(videoldm: LatentDiffusion) -> None:
    task = Animate("a red apple", movement=Movement(strength=0.5, engine="joint"), sampling=QUICK)
    with pytest.raises(TaskError, match="moves none: leave it out"):
        task.run(videoldm)


def test_parts_that_follow_set_the_last_frame_in_motion_and_draw_no_picture(written: Path) -> None:
    """Four frames from a drawn picture, then three and two more, each from the frame that was last."""
    model, watched = watched_model(mover_of(written))
    assert model.moving is not None
    task = Animate("a bouncing red apple", seconds=9 / 8, fps=8, sampling=Sampling(steps=2, guidance_scale=(1.0,)))
    clip = task.run(model, Execution(max_batch=4))
    assert len(clip) == 9 and record(clip)["scores"]["long"] == "parts"
    assert (watched.frames, set(watched.speeds)) == ([4, 4, 4, 4, 3, 3], {8.0})
    for known in watched.known:
        assert known[:, 4, 0, 0].tolist() == [1, 0, 0, 0][: len(known)]
    starts = [known[0, :4] for known in watched.known[::2]]
    for place, start in zip((3, 6), starts[1:], strict=True):
        assert torch.allclose(start, model.codec.encode(clip.frames[place : place + 1])[0], atol=1e-5)
    still = Image("a red apple", sampling=task.sampling).run(load_model(written, device="cpu")).frames[:]
    assert torch.allclose(model.codec.decode(starts[0][None]).clamp(0, 1), still, atol=2 / 255)


def test_the_outline_is_told_its_own_speed_and_what_is_filled_both_of_its_ends(written: Path, picture: str) -> None:
    model, watched = watched_model(mover_of(written))
    sampling, how = Sampling(steps=2, guidance_scale=(1.0,)), Long("keys", "2", pin=0.0)
    task = Animate("a bouncing red apple", seconds=13 / 8, fps=8, sampling=sampling, long=how)
    clip = task.run(model, Execution(max_batch=4))
    assert len(clip) == 13 and record(clip)["scores"]["outline"] == 7
    # Seven key frames in parts of four, at half the speed; then six times one frame between two.
    assert watched.frames == [4, 4, 4, 4] + [3] * 6
    assert watched.speeds == [4.0] * 4 + [8.0] * 6
    for known in watched.known[:4]:
        assert known[:, 4, 0, 0].tolist() == [1, 0, 0, 0]
    for place, known in enumerate(watched.known[4:]):
        assert known[:, 4, 0, 0].tolist() == [1, 0, 1]
        ends = model.codec.encode(clip.frames[2 * place : 2 * place + 3])[[0, 2]]
        assert torch.allclose(known[[0, 2], :4], ends, atol=1e-5)
    watched.frames.clear()
    replace(task, seconds=7 / 8, long=Long("keys", "6", pin=0.0)).run(model, Execution(max_batch=4))
    assert watched.frames == [2, 2, 7], "a stretch is denoised as a whole, however few frames a window has"
    watched.known.clear()
    replace(task, image=picture, last_image=picture, seconds=7 / 8).run(model, Execution(max_batch=4))
    own = model.codec.encode(read(picture).frames[:])[0]
    assert watched.known[0][:, 4, 0, 0].tolist() == [1, 0, 0, 1]
    assert torch.allclose(watched.known[0][[0, 3], :4], own.expand(2, -1, -1, -1), atol=1e-5)


def test_what_sets_pictures_in_motion_goes_on_in_parts_by_itself(
    written: Path, videoldm: LatentDiffusion, picture: str
) -> None:
    mover, task = mover_of(written), Animate("a bouncing ball", seconds=9 / 8, fps=8, sampling=QUICK)
    for other, model, how in (
        (task, mover, "parts"),
        (task, videoldm, "whole"),
        (replace(task, seconds=0.5), mover, "whole"),
        (replace(task, last_image=picture), mover, "whole"),
        (replace(task, movement=Movement(loop=True)), mover, "whole"),
        (replace(task, movement=Movement(window=9)), mover, "whole"),
        (replace(task, movement=Movement(engine="zero-shot")), mover, "whole"),
        (replace(task, seconds=20.0), mover, "keys"),
    ):
        assert other.resolved(model).long.long == how, other
    assert replace(task, movement=Movement(context_guidance=2.0)).resolved(mover).movement.context_guidance == 2
    said = replace(task, seconds=0.5).outlook(mover)
    assert said[0] == "4 frames at 8 per second, by Video LDM, from a picture that is drawn first: about 20 evaluations"
    assert "in parts, each from the last frames of the one before: about 48 evaluations" in task.outlook(mover)[0]


def test_pictures_of_all_kinds_begin_to_move(videoldm: LatentDiffusion, tmp_path: Path) -> None:
    """Transparent, of 16 bits, turned by its camera, of another shape: what cannot be kept is told."""
    plain = np.asarray(Picture.open(saved(tmp_path / "plain.png", textured(1, (64, 64)))).convert("RGB"))
    alpha = np.full((64, 64, 1), 255, np.uint8)
    alpha[:8] = 0
    white, grey = plain.copy(), plain[..., :1].repeat(3, 2)
    white[:8] = 255
    turned = Picture.fromarray(np.ascontiguousarray(plain[::-1, ::-1]))
    exif = turned.getexif()
    exif[0x0112] = 3
    wide = np.concatenate([plain[:, :16], plain, plain[:, :16]], 1)
    Picture.fromarray(np.concatenate([plain, alpha], 2)).save(tmp_path / "clear.png")
    Picture.fromarray(plain[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    turned.save(tmp_path / "turned.png", exif=exif)
    Picture.fromarray(wide).save(tmp_path / "wide.png")
    sampling = replace(QUICK, size=(64, 64))
    for name, as_if, note in (
        ("clear", white, "is transparent in part"),
        ("deep", grey, "has 16 bits a colour"),
        ("turned", plain, ""),
        ("wide", plain, "it is scaled and cut to 64x64"),
    ):
        Picture.fromarray(as_if).save(tmp_path / "as_if.png")
        clips = list[torch.Tensor]()
        for shown in (name, "as_if"):
            task = Animate("a red apple", image=str(tmp_path / f"{shown}.png"), seconds=0.25, sampling=sampling)
            clips.append(pixels(task.run(videoldm)))
            if shown == name:
                assert any(note in line for line in task.notes(videoldm)) or not note, name
        assert torch.equal(*clips), name


def test_an_instruction_model_is_refused(videoldm: LatentDiffusion, picture: str) -> None:
    with pytest.raises(TaskError, match="changes pictures that it is shown: take segue edit"):
        Animate("turn it", image=picture, sampling=QUICK).run(replace(videoldm, instructs=True))


def test_what_a_clip_takes_is_told_before(videoldm: LatentDiffusion, svd: LatentDiffusion, picture: str) -> None:
    """Evaluations, those of both ways among them; and memory, which grows with the frames and with their size."""
    task = Animate("a red apple", seconds=0.5, fps=8, sampling=QUICK)
    said = task.outlook(videoldm)
    assert said[0] == "4 frames at 8 per second, by Video LDM: about 16 evaluations"
    assert re.fullmatch(r"\d+ MB of memory or more are taken at once beside the model", said[1])
    (one, longer, larger, apart) = (
        taken_bytes(other.resolved(videoldm), videoldm, 2, Execution(max_batch=4))
        for other in (
            task,
            replace(task, seconds=4.0),
            replace(task, sampling=replace(QUICK, size=(128, 128))),
            replace(task, movement=Movement(engine="zero-shot")),
        )
    )
    assert 1e6 < one < longer and 3 * one < larger and apart > 0
    loop = Animate(image=picture, seconds=4 / 7, fps=7, movement=Movement(loop=True), sampling=QUICK)
    assert "forwards and backwards: about 32 evaluations" in loop.outlook(svd)[0]
