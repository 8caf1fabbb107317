"""Footage becomes clips with its captions; what cannot be learned from is left out, counted and named."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from segue.errors import TrainingError
from segue.evaluation.footage import motion_score, shots
from segue.media.clip import Clip, TensorFrames
from segue.training.clip_filters import Limits, Quality, lettering, quality, sharpness
from segue.training.clip_folders import Faults, footage
from segue.training.clip_footage import FootageConfig, build_footage, mirrored, spread
from segue.training.clips import Clips
from segue.training.moving import Camera, moving_clip, texture
from segue.training.recipes.clips import Config, main

CONFIG = FootageConfig(size=32, frames=4, fps=8.0, limits=Limits(sharpness=0.01))
SIZE = (64, 48)


def moving(seed: int = 1, frames: int = 12, speed: float = 1.5) -> Tensor:
    return moving_clip(seed, SIZE, frames, camera=Camera(pan=(speed, 0.0)), speed=0.02).frames[0:frames]


def save(path: Path, pictures: Tensor, fps: float = 8) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Clip(TensorFrames.rounded(pictures), fps).save(path)
    path.with_suffix(".json").unlink(missing_ok=True)
    return path.read_bytes()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return save(tmp_path_factory.mktemp("video") / "one.mp4", moving())


def shard(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines()]


def test_captions_are_found_beside_videos_in_lists_and_in_shards(tmp_path: Path, video: bytes) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.mp4", "deep/b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(video)
    (tmp_path / "a.txt").write_text("a meadow\n\n a field \n", "utf-8")
    (tmp_path / "deep" / "captions.jsonl").write_text('{"file": "b.mp4", "caption": "a lake"}\n', "utf-8")
    members = {"x/1.mp4": video, "x/1.txt": b"a hill", "x/2.json": b'{"captions": ["a", "b"]}', "x/2.mp4": video}
    shard(tmp_path / "s.tar", members)
    faults, found, there = Faults(), dict[str, tuple[str, ...]](), list[bool]()
    for one in footage(tmp_path, faults):
        found[one.name] = one.captions
        there.append(one.path.read_bytes() == video)
    assert found == {
        "a.mp4": ("a meadow", "a field"),
        "c.mp4": (),
        "deep/b.mp4": ("a lake",),
        "s.tar/x/1": ("a hill",),
        "s.tar/x/2": ("a", "b"),
    }
    assert all(there)
    assert not faults.counts
    assert [one.captions for one in footage(tmp_path / "s.tar", faults)] == [("a hill",), ("a", "b")]


def test_what_is_corrupt_in_a_shard_is_skipped_and_counted(tmp_path: Path, video: bytes) -> None:
    members = {
        "1.mp4": video,
        "1.json": b"{no json",
        "2.txt": b"words without a video",
        "3.mp4": b"no video at all",
        "3.txt": b"a claim",
        "4.mp4": video,
        "4.txt": b"a hill",
        "5.txt": "a café".encode("latin-1"),
        "5.mp4": video,
        "6.mp4": video,
        "6.txt": b"cut off with the end of the shard",
    }
    whole = shard(tmp_path / "a.tar", members).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: whole.index(b"6.mp4") + 700])
    (tmp_path / "b.tar").write_bytes(b"no shard")
    faults = Faults()
    found = {one.name: one.captions for one in footage(tmp_path, faults)}
    assert found == {"a.tar/1": (), "a.tar/3": ("a claim",), "a.tar/4": ("a hill",), "a.tar/5": ()}
    assert faults.counts == {
        "its captions cannot be read": 2,
        "captions without a video": 1,
        "a shard is torn; what comes before is used": 2,
    }
    assert faults.names["captions without a video"] == ["a.tar/2"]
    report = build_footage(tmp_path / "out", tmp_path, CONFIG)
    assert {line["source"] for line in lines(tmp_path / "out")} == {"a.tar/4"}
    assert report.left_out["unreadable"] == 1
    assert report.left_out["without a caption"] == 2
    assert "1 unreadable" in str(report) and "2 a shard is torn" in str(report)
    sources = json.loads((tmp_path / "out" / "sources.json").read_text("utf-8"))
    assert sources["left_out"]["unreadable"] == 1
    assert sources["unreadable"]["its captions cannot be read"] == ["a.tar/1", "a.tar/5"]
    assert sources["unreadable"]["unreadable"] == ["a.tar/3"]


def test_members_of_shards_write_nowhere_else(tmp_path: Path, video: bytes) -> None:
    (tmp_path / "in").mkdir()
    shard(tmp_path / "in" / "s.tar", {"../../up.mp4": video})
    found = list(footage(tmp_path / "in", Faults()))
    assert [one.name for one in found] == ["s.tar/../../up"]
    assert not list(tmp_path.rglob("up.mp4"))
    assert not found[0].path.exists(), "it is there only while it is its turn"


def test_there_must_be_footage(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no folder or shard"):
        list(footage(tmp_path / "none", Faults()))
    with pytest.raises(TrainingError, match="holds neither videos"):
        list(footage(tmp_path, Faults()))
    (tmp_path / "captions.jsonl").write_text('{"name": "x.mp4"}\n', "utf-8")
    (tmp_path / "x.mp4").write_bytes(b"")
    with pytest.raises(TrainingError, match=r"captions\.jsonl, line 1: expected"):
        list(footage(tmp_path, Faults()))
    with pytest.raises(TrainingError, match=r"a folder of videos or a \.tar"):
        list(footage(tmp_path / "x.mp4", Faults()))


def test_shots_are_cut_and_windows_stay_within_them(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.mp4", torch.cat([moving(1, 11), moving(2, 9)]))
    (tmp_path / "in" / "a.txt").write_text("two shots", "utf-8")
    build_footage(tmp_path / "out", tmp_path / "in", CONFIG)
    starts = [line["start"] for line in lines(tmp_path / "out")]
    assert starts == [0, 5, 11, 15]
    clips = Clips.load(tmp_path / "out")
    assert clips.frames.shape == (4, 4, 32, 32, 3)
    own = torch.nn.functional.interpolate(moving(2, 9)[0:1, :, :, 8:56], (32, 32), mode="bicubic", antialias=True)
    assert float((clips.pictures(clips.choose(np.random.default_rng(0), 1, 4))).shape[1]) == 4
    shown = torch.from_numpy(clips.frames[2][0].copy()).permute(2, 0, 1).float() / 255
    assert float((shown - own[0]).abs().mean()) < 0.05, "the middle, as the codec left it"


def test_windows_are_spread_evenly() -> None:
    assert spread(range(10, 22), 4, 9) == [range(10, 14), range(14, 18), range(18, 22)]
    assert spread(range(30), 4, 2) == [range(5, 9), range(20, 24)]
    assert spread(range(3), 4, 2) == []


def test_what_is_not_worth_learning_is_left_out_by_why(tmp_path: Path) -> None:
    still = moving(1, 1).expand(12, -1, -1, -1)
    dark = moving(3) * 0.1
    tiny = torch.nn.functional.interpolate(moving(4, speed=3), scale_factor=1 / 16, mode="area")
    soft = torch.nn.functional.interpolate(tiny, SIZE[::-1], mode="bicubic").clamp(0, 1)
    scenes = {"still": still, "dark": dark, "soft": soft, "short": moving(5, 3), "good": moving(6)}
    scenes["small"] = moving(7)[:, :, ::4, ::4]
    for name, pictures in scenes.items():
        save(tmp_path / "in" / f"{name}.mp4", pictures)
        (tmp_path / "in" / f"{name}.txt").write_text(name, "utf-8")
    save(tmp_path / "in" / "silent.mp4", moving(6))
    save(tmp_path / "in" / "slow.mp4", moving(6), fps=2)
    (tmp_path / "in" / "slow.txt").write_text("slow", "utf-8")
    config = replace(CONFIG, windows=1)
    report = build_footage(tmp_path / "out", tmp_path / "in", config)
    assert [line["source"] for line in lines(tmp_path / "out")] == ["good.mp4"]
    assert {reason: count for reason, count in report.left_out.items() if count} == {
        "static": 1,
        "dark": 1,
        "blurred": 1,
        "shots that are too short": 1,
        "too small": 1,
        "without a caption": 1,
        "of too few frames a second": 1,
    }
    kept = build_footage(tmp_path / "all", tmp_path / "in", replace(config, uncaptioned="keep"))
    assert kept.kept == 2
    assert {tuple(line["captions"]["forward"]) for line in lines(tmp_path / "all")} == {("good",), ("",)}


def test_nothing_to_learn_from_is_said(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.mp4", moving())
    with pytest.raises(TrainingError, match=r"nothing to learn from: 0 clips are kept; left out: 1 without a caption"):
        build_footage(tmp_path / "out", tmp_path / "in", CONFIG)
    with pytest.raises(TrainingError, match="no clips in"):
        Clips.load(tmp_path / "out")


def test_a_cut_build_goes_on_with_the_next_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        save(tmp_path / "in" / f"{name}.mp4", moving(ord(name)))
        (tmp_path / "in" / f"{name}.txt").write_text(name, "utf-8")
    build_footage(tmp_path / "whole", tmp_path / "in", CONFIG)
    measured, calls = quality, list[int]()

    def cut(frames: Any, fps: float) -> Quality:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return measured(frames, fps)

    monkeypatch.setattr("segue.training.clip_footage.quality", cut)
    with pytest.raises(KeyboardInterrupt):
        build_footage(tmp_path / "out", tmp_path / "in", CONFIG)
    calls.extend([1] * 10)
    before = len(calls)
    report = build_footage(tmp_path / "out", tmp_path / "in", CONFIG)
    assert len(calls) - before == 6, "the first video is not measured again"
    assert report.kept == 9
    for name in ("frames.npy", "manifest.jsonl", "sources.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list((tmp_path / "out").glob("*.part"))


def test_the_recipe_takes_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "in" / "a.mp4", moving())
    (tmp_path / "in" / "a.txt").write_text("a bird turns left", "utf-8")
    main(Config(out=tmp_path / "out", folder=tmp_path / "in", size=32, frames=4, limits=Limits(sharpness=0.01)))
    assert "3 clips are kept; left out: nothing" in " ".join(capsys.readouterr().err.split())
    clips = Clips.load(tmp_path / "out")
    assert clips.lines[0].captions.mirrored == ("a bird turns right",)
    assert clips.lines[0].captions.backward == (), "nobody said what it looks like backwards"
    with pytest.raises(TrainingError, match="windows of 16 frames"):
        clips.choose(np.random.default_rng(0), 1, 16)


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("A car on the Left turns right", "A car on the right turns left"),
        ("spins clockwise, leftward", "spins counterclockwise, rightward"),
        ("bright lights", "bright lights"),
    ],
)
def test_mirrored_captions_exchange_left_and_right(said: str, seen: str) -> None:
    assert mirrored(said).lower() == seen.lower()
    assert mirrored(mirrored(said)).lower() == said.lower()


def written(text: str, rows: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    page = np.full((256, 384), 235, np.uint8)
    for row in range(rows):
        cv2.putText(page, text, (12, 34 + 28 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 20, 2, cv2.LINE_AA)
    return page


def test_lines_of_letters_are_seen_and_other_things_are_not() -> None:
    assert lettering(written("the quick brown fox jumps over", 7)) > 0.2
    assert 0 < lettering(written("a short line", 1)) < 0.07
    rng = np.random.default_rng(0)
    assert lettering((texture(rng, (384, 256)).mean(0).numpy() * 255).astype(np.uint8)) < 0.01
    bars = np.full((256, 384), 235, np.uint8)
    bars[::32] = bars[1::32] = bars[2::32] = bars[3::32] = bars[4::32] = bars[5::32] = 20
    assert lettering(bars) < 0.01
    discs = np.full((256, 384), 235, np.uint8)
    for place in range(40, 384, 80):
        cv2.circle(discs, (place, 128), 30, 20, -1)
    assert lettering(discs) < 0.01


def test_a_motion_score_is_a_speed() -> None:
    """In widths per second, whatever the size and the rate."""
    camera = Camera(pan=(2.0, 0.0))
    still = texture(np.random.default_rng(0), (300, 120))
    frames = moving_clip(1, (96, 64), 9, still=still, sprites=0, camera=camera).frames
    assert motion_score(frames, 8) == pytest.approx(2 / 96 * 8, rel=0.15)
    large = TensorFrames.rounded(
        torch.nn.functional.interpolate(frames[0:9], scale_factor=2, mode="bicubic").clamp(0, 1)
    )
    assert motion_score(large, 8) == pytest.approx(motion_score(frames, 8), rel=0.15)
    half = TensorFrames.rounded(frames[0:9:2])
    assert motion_score(half, 4) == pytest.approx(motion_score(frames, 8), rel=0.15)
    rest = TensorFrames.rounded(frames[0:1].expand(4, -1, -1, -1))
    assert motion_score(rest, 8) < 1e-3
    with pytest.raises(ValueError, match="two frames or more, got 1"):
        motion_score(TensorFrames.rounded(frames[0:1]), 8)


def test_shots_are_ranges_that_leave_nothing_out() -> None:
    two = TensorFrames.rounded(torch.cat([moving(1, 10), moving(2, 8)]))
    assert shots(two) == [range(10), range(10, 18)]
    assert shots(TensorFrames.rounded(moving(1, 5))) == [range(5)]


def test_blur_and_darkness_are_measured() -> None:
    sharp = (texture(np.random.default_rng(1), (128, 96)).mean(0).numpy() * 255).astype(np.uint8)
    blurred = np.asarray(cv2.GaussianBlur(sharp, (0, 0), 4), np.uint8)
    assert sharpness(sharp) > 3 * sharpness(blurred)
    found = quality(TensorFrames.rounded(moving(1) * 0.1), 8)
    assert found.light < 0.15
    assert found.faults(Limits(sharpness=0)) == ["dark"]
    assert Quality(0.0, 0.5, 0.0, 0.0).faults(Limits()) == ["static", "lettering", "blurred", "dark"]
