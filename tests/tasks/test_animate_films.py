# pyright: basic
"""Clips by tiny models that were made for films: what each family is told, and that its laws hold through the task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flickers import saved, textured
from models.test_animatediff import write_adapter
from models.test_time_inserted import SMALL, taught
from models.tiny_svd import write_svd
from segue.errors import TaskError
from segue.models.bundle import LatentDiffusion
from segue.models.families.animatediff import with_motion_adapter
from segue.models.loading import load_model
from segue.tasks.animate import Animate
from segue.tasks.animate_settings import Movement
from segue.tasks.image import Image
from segue.tasks.sampling import Sampling
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
        (replace(task, seconds=9.0), "make it in parts"),
        (replace(task, movement=Movement(motion=3.0)), "motion must be from 0 to 2"),
        (Animate("a cat", sampling=task.sampling), "takes no words"),
    ):
        with pytest.raises(TaskError, match=match):
            wrong.run(svd)


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
