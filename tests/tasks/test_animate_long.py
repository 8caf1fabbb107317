# pyright: basic
"""Long clips: gaps depend on their key frames alone, whoever makes them and when; what drifts is pinned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flickers import saved, textured
from models.test_time_inserted import SMALL, taught
from models.tiny_svd import write_svd
from segue.errors import InterruptedRunError, TaskError
from segue.models.bundle import LatentDiffusion
from segue.models.loading import load_model
from segue.tasks.animate import Animate
from segue.tasks.animate_long import Keys
from segue.tasks.animate_long_parts import Parts
from segue.tasks.animate_long_settings import Long
from segue.tasks.animate_settings import Movement
from segue.tasks.animate_told import Over
from segue.tasks.sampling import Execution, Sampling
from segue.temporal.clock import Clock
from segue.temporal.prompts import Prompts
from segue.types import silent
from shown import pixels, record
from toy import toy_model

SIZE = (32, 24)
ALONE = Movement(attention="self", way="spin")
TASK = Animate(
    "one", seconds=2.5, fps=8.0, movement=ALONE, long=Long("keys", "2,2"), sampling=Sampling(steps=4, size=SIZE)
)


def keys_of(task: Animate, model: LatentDiffusion, folder: Path) -> Keys:
    folder.mkdir()
    return Keys(task.resolved(model), model, Execution(), folder, silent)


def test_key_frames_are_those_of_the_whole_clip() -> None:
    whole = replace(TASK, long=Long("whole")).run(toy_model())
    clip = replace(TASK, long=Long("keys", "2,2", pin=0.0)).run(toy_model())
    told = record(clip)["scores"]
    assert len(clip) == 20 and told["long"] == "keys" and told["outline"] == 6
    at = [0, 4, 8, 11, 15, 19]
    assert torch.allclose(pixels(clip)[at], pixels(whole)[at], atol=1.01 / 255)
    assert not torch.allclose(pixels(clip), pixels(whole), atol=1.01 / 255)


def test_a_long_clip_is_made_key_frames_first_by_itself() -> None:
    many = replace(TASK, long=Long(), seconds=12.5)
    assert many.resolved(toy_model()).long == Long("keys", (4, 4), ("branches", "branches"), 1.0)
    assert replace(many, seconds=12.0).resolved(toy_model()).long == Long("whole")
    assert many.resolved(toy_model()).resolved(toy_model()) == many.resolved(toy_model())
    (line, *_) = many.outlook(toy_model())
    assert line.startswith("100 frames at 8 per second, 8 key frames first, 4 times as many by branches, then 4 times")


def test_gaps_are_the_same_in_any_order_and_whoever_makes_them(tmp_path: Path) -> None:
    model = toy_model()
    with torch.no_grad():
        one, other = (keys_of(TASK, model, tmp_path / name) for name in "ab")
        forwards = torch.cat(list(one.pictures(0)))
        other.prepare()
        for number in reversed(range(len(other.plan.gaps()))):
            assert other.make_next(number)
        assert other.finished and not other.make_next()
        assert torch.equal(torch.cat(list(other.pictures(0))), forwards)


def test_a_gap_that_somebody_is_at_is_left_to_them(tmp_path: Path) -> None:
    with torch.no_grad():
        keys = keys_of(TASK, toy_model(), tmp_path / "a")
        keys.prepare()
        gaps = keys.plan.gaps()
        with keys.claimed(gaps[0]) as mine:
            assert mine and keys.make_next()
        found = [keys.path(gap).exists() for gap in gaps[:2]]
        keys.close()
    assert found == [False, True]


def test_a_stopped_run_goes_on_and_half_a_gap_counts_for_nothing(tmp_path: Path) -> None:
    whole = TASK.run(toy_model())

    def stop(what: str, done: float, total: float) -> None:
        if what == "filling" and done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="goes on from there"):
        TASK.run(toy_model(), progress=stop, work=tmp_path)
    (folder,) = tmp_path.glob(".segue-*")
    (folder / "gap-000003.safetensors").write_bytes(b"half a gap")
    seen = list[str]()

    def tell(what: str, done: float, total: float) -> None:
        seen.append(what)

    assert torch.equal(pixels(TASK.run(toy_model(), progress=tell, work=tmp_path)), pixels(whole))
    assert "drawing key frames" not in seen and seen.count("filling") < 5


def test_where_nothing_moves_all_frames_are_the_picture(tmp_path: Path) -> None:
    picture = saved(tmp_path / "picture.png", textured(1, SIZE))
    for how in (Long("keys", "2,2"), Long("parts"), Long("keys", "4", "flow")):
        task = replace(TASK, image=picture, movement=replace(ALONE, motion=0.0), long=how)
        clip = pixels(task.run(toy_model()))
        assert torch.allclose(clip, clip[:1].expand_as(clip), atol=2.01 / 255)


def test_a_loop_leads_back_to_its_first_frame() -> None:
    movement = replace(ALONE, loop=True)
    clip = pixels(replace(TASK, movement=movement).run(toy_model()))
    steps = (clip - clip.roll(1, 0)).abs().mean((1, 2, 3))
    assert len(clip) == 20 and float(steps[0]) < 2 * float(steps[1:].mean())


@pytest.mark.parametrize("how", [Long("whole"), Long("keys", "2,2", pin=0.0)])
def test_guidance_and_words_follow_curves(how: Long) -> None:
    model, task = toy_model(), replace(TASK, long=how)

    def made(scale: float | str) -> Tensor:
        return pixels(replace(task, sampling=Sampling(steps=4, size=SIZE, guidance_scale=(scale,))).run(model))

    plain, level, curved = made(4.0), made("0s:4, 2s:4"), made("step 0s:4, 1s:1")
    assert torch.equal(level, plain)
    assert torch.allclose(curved[0], plain[0], atol=1.01 / 255) and not torch.equal(curved[12:], plain[12:])


def test_words_weigh_at_each_frame_what_their_curve_says() -> None:
    prompts = Prompts.of("a (red:0s:1, 2s:2) ball")
    over = Over(prompts, Prompts.of(""), "0s:1, 2s:5", "2s:0, 4s:1", 8.0, 100)
    assert over.scales([0, 8, 16, 99]) == [1.0, 3.0, 5.0, 5.0]
    assert over.dials([0, 16, 24, 99]) == [0.0, 0.0, 0.5, 1.0] and over.changes
    wanted, unwanted = over.texts(toy_model(), [0, 8, 16])
    assert len(wanted) == len(unwanted) == 3
    said = [prompts.at(number / 8, Clock(8.0))[0][0] for number in (0, 8, 16)]
    assert said == [f"a (red:{weight:.6f}) ball" for weight in (1.0, 1.5, 2.0)]


def test_parts_go_on_from_the_last_frame(tmp_path: Path) -> None:
    task, model = replace(TASK, long=Long("parts"), seconds=5.0), toy_model()
    clip = task.run(model)
    assert len(clip) == 40 and record(clip)["scores"]["part"] == 16
    maker = Parts(task.resolved(model), model, Execution(), tmp_path, silent)
    assert [len(part) for part in maker.parts()] == [16, 15, 9]
    assert not torch.equal(pixels(clip), pixels(replace(task, long=Long("parts", pin=0.0)).run(model)))

    def stop(what: str, done: float, total: float) -> None:
        if what == "decoding" and done > 16:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="goes on from there"):
        task.run(model, progress=stop, work=tmp_path)
    assert torch.equal(pixels(task.run(model, work=tmp_path)), pixels(clip))


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"long": "often"}, "whole, keys or parts"),
        ({"levels": "4,1"}, "by 2 to 64"),
        ({"levels": "four"}, "whole numbers with commas"),
        ({"fill": "paint"}, "joint, branches, flow"),
        ({"levels": "4,4", "fill": "branches,branches,flow"}, "one for each of 2"),
        ({"fill": "flow,branches"}, "what flow has filled"),
        ({"pin": 2.0}, "pin must be in"),
        ({"long": "parts", "levels": "4"}, "levels say how key frames are filled"),
        ({"long": "whole", "pin": 1.0}, "nothing is pinned"),
    ],
)
def test_what_cannot_be_is_refused(said: dict[str, Any], match: str) -> None:
    with pytest.raises(TaskError, match=match):
        Long(**said)


def test_a_model_that_was_made_for_films_fills_what_lies_between_its_own_key_frames(written: Path) -> None:
    with torch.no_grad():
        model = taught(load_model(written, device="cpu"), SMALL)
        sampling = Sampling(steps=2)
        task = Animate("a red apple that bounces", seconds=1.25, fps=8, sampling=sampling, long=Long("keys", "3"))
        clip = task.run(model)
        told = record(clip)
        assert len(clip) == 10 and (told["scores"]["engine"], told["scores"]["outline"]) == ("joint", 4)
        assert told["fields"]["long"]["fill"] == ("joint",)
        branched = replace(task, long=Long("keys", "3", "branches", 0.0)).run(model)
        unpinned = replace(task, long=Long("keys", "3", "joint", 0.0)).run(model)
        outline = Animate("a red apple that bounces", seconds=0.5 * 3, fps=8 / 3, sampling=sampling).run(model)
        # Key frames are a clip of their own, at a third of the speed.
        assert len(outline) == 4
        for other in (branched, unpinned):
            assert torch.allclose(pixels(other)[::3][1:3], pixels(unpinned)[::3][1:3], atol=1.01 / 255)
            assert not torch.equal(pixels(other), pixels(clip))
        going = replace(task, seconds=1.5, long=Long("parts"), movement=Movement(window=6)).run(model)
        assert len(going) == 12 and record(going)["scores"]["part"] == 6


def test_svd_goes_on_in_parts_by_itself(tmp_path: Path) -> None:
    with torch.no_grad():
        svd = load_model(write_svd(tmp_path / "svd"), device="cpu")
        assert svd.moving is not None
        picture = saved(tmp_path / "picture.png", textured(1, (48, 48)))
        count = svd.moving.frames + 3
        task = Animate(image=picture, seconds=count / 7, fps=7, sampling=Sampling(steps=2, size=(48, 48)))
        clip = task.run(svd)
    assert len(clip) == count and record(clip)["scores"]["long"] == "parts"


def test_what_does_not_go_together_is_refused() -> None:
    model = toy_model()
    for task, workers, match in (
        (replace(TASK, long=Long("keys", fill="joint")), 1, "both a first and a last frame"),
        (replace(TASK, long=Long("parts"), movement=replace(ALONE, loop=True)), 1, "nothing of the end"),
        (replace(TASK, long=Long(pin=0.5)), 1, "nothing is pinned"),
        (TASK, 2, "by its name"),
        (TASK, 0, "workers must be"),
        (replace(TASK, long=Long("parts")), 2, "made by one process"),
    ):
        with pytest.raises(TaskError, match=match):
            task.run(model, workers=workers)
