"""Clips show what their captions say, whichever way they are played, and their movement is known exactly."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from segue.errors import TrainingError
from segue.evaluation.motion_words import MEANT, MOTIONS, WORDINGS, Motion, asked
from segue.models.travel import Carrying, Way, places
from segue.motion.warp import warp
from segue.training.captions import Concept, Look
from segue.training.clip_corpus import ClipsConfig, build_clips, changes, rendered, scene_of
from segue.training.clip_stack import ClipStack
from segue.training.clips import GIVEN, Augmentation, Clips, augmented, decided, given_frames, ways_of
from segue.training.corpus import ConceptList
from segue.training.motion_paths import Course, course
from segue.training.moving import shape
from segue.training.moving_words import (
    EVALUATION_CAPTIONS,
    HELD_OUT,
    LONGEST,
    Speed,
    may_move,
    moving_caption,
)
from segue.training.pictures import Picture, ground
from segue.training.recipes.clips import Config, main

from .conftest import Sources

SMALL = ClipsConfig(size=32, frames=8, clips=12)
SPEEDS: tuple[Speed, ...] = get_args(Speed)
SIZE = 64


def built(folder: Path, sources: Sources, config: ClipsConfig = SMALL) -> int:
    return build_clips(folder, sources.folder, config, sources.concepts, sources.packages)


@pytest.fixture(scope="module")
def folder(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("clips")
    built(out, sources)
    return out


@pytest.fixture(scope="module")
def clips(folder: Path) -> Clips:
    return Clips.load(folder)


def manifest(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines()]


def thing(side: int = 160) -> Picture:
    """A soft textured thing, its colours not multiplied by alpha."""
    return shape(np.random.default_rng(3), side).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("motion", MOTIONS)
def test_warped_by_the_flow_a_frame_is_the_next_one(motion: Motion) -> None:
    """Off the occlusions, to 1e-3 in the mean, and without the rounding of stored pictures."""
    for speed in SPEEDS:
        way = course(motion, speed, 16, np.random.default_rng(5))
        scene = scene_of(thing(), way, ground("blue", 128))
        shown = torch.from_numpy(rendered(thing(), way, ground("blue", 128))).permute(0, 3, 1, 2).float() / 255
        for frame in (0, 6, 14):
            here, there = scene.frames[frame : frame + 1], scene.frames[frame + 1 : frame + 2]
            known = scene.visible(frame, frame + 1, margin=3)
            assert float(known.float().mean()) > 0.5
            brought = warp(there, scene.flow(frame, frame + 1))
            assert float((brought - here).abs().amax(1)[known].mean()) < 1e-3
            assert float((shown[frame] - here[0]).abs().mean()) < 4e-3, "what is stored is not that scene"


def smooth(picture: Picture) -> Picture:
    """Without what is finer than interpolation can follow, so that only the flow can be wrong."""
    import cv2

    blurred = np.asarray(cv2.GaussianBlur(picture[..., :3], (0, 0), 6), np.float32)
    return np.concatenate([blurred, picture[..., 3:]], -1)


@pytest.mark.parametrize("motion", MOTIONS)
def test_within_the_thing_it_is_as_exact(motion: Motion) -> None:
    for speed in SPEEDS:
        way = course(motion, speed, 16, np.random.default_rng(5))
        scene = scene_of(smooth(thing(64)), way, ground("white", 128))
        here, there = scene.frames[6:7], scene.frames[7:8]
        own = scene.visible(6, 7, margin=3) & (scene.owner(6) == 1)
        assert int(own.sum()) > 500
        left, apart = ((other - here).abs().amax(1)[own].mean() for other in (warp(there, scene.flow(6, 7)), there))
        assert float(left) < 1e-3
        assert motion == "still" or float(apart) > 5 * float(left)


@pytest.mark.parametrize("motion", MOTIONS)
def test_things_stay_in_the_picture(motion: Motion) -> None:
    """All of what is round, and nearly all of a square's corners where it turns."""
    for seed in range(30):
        way = course(motion, SPEEDS[seed % 3], 16, np.random.default_rng(seed))
        poses = way.poses(100, SIZE)
        around = np.array([[50 + 45 * np.cos(a), 50 + 45 * np.sin(a), 1] for a in np.linspace(0, 6.3, 32)])
        places = np.einsum("tij,nj->tni", poses, around)
        assert places.min() > -0.06 * SIZE
        assert places.max() < 1.06 * SIZE


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_manifest_says_how_things_move(motion: Motion) -> None:
    for seed, speed in enumerate(SPEEDS):
        way = course(motion, speed, 16, np.random.default_rng(seed))
        flow, turn, zoom = (np.array(values) for values in changes(way, SIZE))
        assert np.allclose(np.cumsum(turn), way.angle[1:] - way.angle[0], atol=0.02)
        match motion.split():
            case ["slide", way_]:
                along = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[way_]
                assert np.allclose(flow / np.abs(flow).max(), np.tile(along, (15, 1)))
            case ["spin", way_]:
                assert (turn * (1 if way_ == "clockwise" else -1) > 5).all()
                assert np.abs(flow).max() < 1e-3
            case ["grow"] | ["shrink"]:
                assert ((zoom > 1) == (motion == "grow")).all()
            case ["still"]:
                assert np.abs(flow).max() == np.abs(turn).max() == 0
            case ["bounce"]:
                assert np.sign(flow[:, 1]).min() == -1 and np.sign(flow[:, 1]).max() == 1
                assert np.abs(flow[:, 0]).max() < 1e-3
            case _:
                assert turn.min() < -1 and turn.max() > 1


def test_carried_along_its_way_a_thing_is_where_the_clip_has_it(clips: Clips) -> None:
    """There and back; both ways undo each other, and none is between a frame and itself."""
    missed, apart = list[float](), list[float]()
    for row in range(len(clips)):
        frames = torch.from_numpy(clips.frames[row].copy()).permute(0, 3, 1, 2).float() / 255
        for first, other in ((0, 5), (5, 0), (2, 7)):
            way, back = clips.way(row, first, other), clips.way(row, other, first)
            assert way is not None and back is not None
            assert np.allclose(way, np.negative(back)) and clips.way(row, first, first) == (0, 0, 0, 0)
            here, there = frames[first : first + 1], frames[other : other + 1]
            mask = ((here - here[:, :, :1, :1]).abs().amax(1, keepdim=True) > 0.05).float()
            middle = (places(*clips.size)[mask[0, 0] > 0].amax(0) + places(*clips.size)[mask[0, 0] > 0].amin(0)) / 2
            numbers = torch.tensor([way])
            found = Way(numbers[:, :2].float(), numbers[:, 2].float(), numbers[:, 3].float())
            missed.append(float((Carrying(found, mask, middle[None]).carried(here) - there).abs().mean()))
            apart.append(float((here - there).abs().mean()))
    moved = np.array(apart) > 0.02
    assert moved.sum() > 20
    assert np.mean(np.array(missed)[moved]) < 0.4 * np.mean(np.array(apart)[moved])
    assert (np.array(missed) < np.array(apart))[moved].mean() > 0.9


def test_captions_ask_for_the_movement_that_is_shown_however_a_clip_is_played(folder: Path) -> None:
    ways = Counter[str]()
    for entry in manifest(folder):
        motion: Motion = entry["motion"]
        wording = WORDINGS[motion]
        shown = {
            "forward": motion,
            "backward": wording.undone,
            "mirrored": wording.mirrored,
            "both": WORDINGS[wording.mirrored].undone,
        }
        for way, captions in entry["captions"].items():
            for caption in captions:
                assert len(caption.split()) <= LONGEST
                assert not asked(caption) or shown[way] in asked(caption), (caption, shown[way])
                assert (", mirrored" in caption) == (shown_mirrored(entry) != (way in ("mirrored", "both")))
                ways[way] += 1
                ways["silent"] += not asked(caption)
        assert bool(entry["captions"]["mirrored"]) == (entry["concept"] != "⭐")
    assert set(ways) == {"forward", "backward", "mirrored", "both", "silent"}
    assert 0.05 < ways["silent"] / sum(ways[way] for way in ways if way != "silent") < 0.15


def shown_mirrored(entry: dict[str, Any]) -> bool:
    return any(", mirrored" in caption for caption in entry["captions"]["forward"])


def test_every_wording_is_understood_and_the_way_of_a_slide_may_be_left_open() -> None:
    for motion, wording in WORDINGS.items():
        for words in wording.before:
            assert motion in asked(f"a {words} red ball")
        for words in (*wording.after, *wording.verbs):
            assert motion in asked(f"a red ball {words} on a blue background")
    assert asked("a sliding car") == {m for m in MOTIONS if m.startswith("slide")}
    assert asked("a spinning top") == {"spin clockwise", "spin counterclockwise"}
    assert asked("A red car SLIDES to the left.") == {"slide left"}
    assert asked("a red car") == frozenset()


def test_what_is_held_out_is_never_shown_either_way() -> None:
    listed = ConceptList.read()
    for (character, colour, motion), (caption, meant) in zip(HELD_OUT, EVALUATION_CAPTIONS, strict=True):
        line = listed.concepts[character]
        concept = Concept(**vars(line), character=character, name="")
        assert meant == motion
        assert asked(caption) == {motion}
        for way in (motion, WORDINGS[motion].undone, WORDINGS[motion].mirrored):
            assert not may_move(concept, colour, way)
        other: Motion = "grow" if motion not in ("grow", "shrink") else "bounce"
        assert may_move(concept, colour, other)


def test_words_that_leave_the_way_open_are_said_of_one_way_only(clips: Clips, folder: Path) -> None:
    open_ways = ("the top spinning", "a spinning top spins clockwise", "a top")
    assert decided(open_ways, "spin clockwise") == open_ways
    assert decided(open_ways, "spin counterclockwise") == open_ways[1:]
    assert decided(("a sliding car", "a car slides left"), "slide left") == ("a car slides left",)
    assert decided(("a sliding car", "a car slides right"), "slide right") == ("a sliding car", "a car slides right")
    assert decided(open_ways, "") == open_ways, "of footage nobody knows"
    assert decided(("a spinning top",), "spin counterclockwise") == ("a spinning top",), "rather that than nothing"
    assert ways_of("slide left") == ("slide left", "slide right", "slide right", "slide left")
    assert ways_of("somersault") == ("", "", "", "")
    for line, entry in zip(clips.lines, manifest(folder), strict=True):
        shown = zip(vars(line.captions).items(), ways_of(entry["motion"]), strict=True)
        for (way, captions), motion in shown:
            assert set(captions) <= set(entry["captions"][way])
            unclear = {caption for caption in captions if len(asked(caption)) > 1}
            assert not unclear or motion in MEANT or len(unclear) == len(entry["captions"][way])


def test_round_things_do_not_turn() -> None:
    ball = Concept("ball", turn=False, character="x", name="ball")
    assert not any(may_move(ball, "", motion) for motion in ("spin clockwise", "swing", "wobble"))
    assert may_move(ball, "", "bounce")


def test_captions_have_all_forms_and_articles_fit() -> None:
    apple = Concept("apple", "red", character="x", name="red apple")
    rng = np.random.default_rng(0)
    said = {moving_caption(apple, Look("red"), "bounce", "fast", rng) for _ in range(3000)}
    assert {"a quickly bouncing apple", "an apple bouncing quickly", "the red apple bounces fast"} <= said
    assert all("fast" in one or "quickly" in one for one in said), "at what pace was not said"
    usual = {moving_caption(apple, Look("red"), "bounce", "usual", rng) for _ in range(3000)}
    assert {"a bouncing apple", "an apple bounces"} <= usual
    assert not [caption for caption in said if "icon" in caption or "an bouncing" in caption or " fast fast" in caption]
    silent = {moving_caption(apple, Look("red", "blue"), None, "fast", rng) for _ in range(200)}
    assert not any(asked(caption) for caption in silent)
    assert "an apple on a blue background" in silent


def test_the_same_seed_is_the_same_folder_and_a_cut_build_goes_on(
    folder: Path, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, count = ClipStack.append, 0

    def cut(self: ClipStack, clip: Any, line: str) -> None:
        nonlocal count
        count += 1
        if count > 17:
            raise KeyboardInterrupt
        append(self, clip, line)

    monkeypatch.setattr(ClipStack, "append", cut)
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path, sources)
    monkeypatch.undo()
    assert not (tmp_path / "sources.json").exists()
    with pytest.raises(TrainingError, match=r"no clips in .*segue train clips"):
        Clips.load(tmp_path)
    with (tmp_path / "frames.npy.part").open("ab") as file:
        file.write(b"\1" * 999)  # A kill may cut a clip anywhere, also before its line is written.
    made = 0

    def counted(self: ClipStack, clip: Any, line: str) -> None:
        nonlocal made
        made += 1
        append(self, clip, line)

    monkeypatch.setattr(ClipStack, "append", counted)
    assert built(tmp_path, sources) == 48
    assert made == 48 - 17
    for name in ("frames.npy", "manifest.jsonl", "sources.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames.npy", "manifest.jsonl", "sources.json"]


def test_parts_of_another_recipe_are_not_gone_on_with(sources: Sources, tmp_path: Path) -> None:
    stack = ClipStack(tmp_path, (2, 4, 4, 3), "one")
    with stack:
        stack.append(np.zeros((2, 4, 4, 3), np.uint8), "{}")
    with ClipStack(tmp_path, (2, 4, 4, 3), "one") as same:
        assert same.count == 1
    wrong: Any = np.zeros((2, 4, 4, 3))
    with ClipStack(tmp_path, (2, 4, 4, 3), "two") as other:
        assert other.count == 0
        with pytest.raises(TrainingError, match=r"takes clips of uint8 \(2, 4, 4, 3\); got float64"):
            other.append(wrong, "{}")
        with pytest.raises(TrainingError, match="there is no clip to keep"):
            other.close({})


def test_the_recipe_builds_what_it_is_told(sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def build(*given: Any) -> None:
        seen.append(given)

    monkeypatch.setattr("segue.training.recipes.clips.build_clips", build)
    main(Config(out=tmp_path, clips=3, fps=4.0, motions={"bounce": 1.0}))
    out, _, config, _ = seen[0]
    assert out == tmp_path
    assert config == ClipsConfig(clips=3, fps=4.0, motions={"bounce": 1.0})


def test_movements_have_their_shares(folder: Path, sources: Sources, tmp_path: Path) -> None:
    seen = Counter(entry["motion"] for entry in manifest(folder))
    assert set(seen) == set(MOTIONS)
    assert seen["bounce"] > seen["still"]
    built(tmp_path, sources, replace(SMALL, clips=4, motions={"grow": 3.0, "spin clockwise": 1.0}))
    by_thing = Counter((entry["concept"], entry["motion"]) for entry in manifest(tmp_path))
    assert by_thing[("🍎", "grow")] == 3 and by_thing[("🍎", "spin clockwise")] == 1
    assert by_thing[("🐘", "grow")] == 4, "what does not turn"


def test_windows_are_of_their_clips(clips: Clips) -> None:
    rng = np.random.default_rng(1)
    taken = clips.choose(rng, 200, 4, reversed=0.5, flipped=0.5, said=0.8)
    assert {len(one.frames) for one in taken} == {4}
    assert {one.fps for one in taken} == {8.0, 4.0}
    assert 0.1 < sum(one.flipped for one in taken) / 200 < 0.5
    assert 0.1 < sum(one.caption == "" for one in taken) / 200 < 0.3
    pictures = clips.pictures(taken)
    assert pictures.shape == (200, 4, 3, 32, 32)
    for one, shown in zip(taken, pictures, strict=True):
        steps = np.diff(one.frames)
        line = clips.lines[one.row]
        assert len(set(steps)) == 1 and abs(steps[0]) == 8 / one.fps
        said = line.captions
        kinds = {
            (False, False): said.forward,
            (True, False): said.backward,
            (False, True): said.mirrored,
            (True, True): said.both,
        }
        assert one.caption == "" or one.caption in kinds[bool(steps[0] < 0), one.flipped]
        whole = clips.frames[one.row][one.frames[0]].astype(np.float32) / 255
        whole = whole[:, ::-1] if one.flipped else whole
        assert np.allclose(shown[0].permute(1, 2, 0).numpy(), whole)
    again = clips.choose(np.random.default_rng(1), 200, 4, reversed=0.5, flipped=0.5, said=0.8)
    assert [one.caption for one in again] == [one.caption for one in taken]


def test_too_short_clips_are_refused_and_long_strides_left_out(clips: Clips) -> None:
    assert {one.fps for one in clips.choose(np.random.default_rng(0), 40, 6)} == {8.0}
    with pytest.raises(
        TrainingError, match=r"windows of 12 frames at strides \(1, 2\) need longer clips: .* of 8 frames"
    ):
        clips.choose(np.random.default_rng(0), 1, 12)


def test_parts_of_the_clips_keep_their_rows(clips: Clips) -> None:
    learned, kept = clips.split(5)
    assert len(learned) + len(kept) == len(clips)
    rows = {one.row for one in kept.choose(np.random.default_rng(0), 100, 4)}
    assert rows <= set(range(4, len(clips), 5))


def test_damage_is_found(folder: Path, tmp_path: Path) -> None:
    for name in ("frames.npy", "manifest.jsonl", "sources.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    lines = (tmp_path / "manifest.jsonl").read_text("utf-8")
    (tmp_path / "manifest.jsonl").write_text(lines.partition("\n")[2], "utf-8")
    with pytest.raises(TrainingError, match="48 clips, 47 lines"):
        Clips.load(tmp_path)
    silent = json.loads(lines.partition("\n")[0])
    silent["captions"] = asdict(Clips.load(folder).lines[0].captions) | {"forward": []}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(silent) + "\n" + lines.partition("\n")[2], "utf-8")
    with pytest.raises(TrainingError, match="every clip needs captions"):
        Clips.load(tmp_path)
    (tmp_path / "frames.npy").write_bytes((folder / "frames.npy").read_bytes()[:-1] + b"\0")
    with pytest.raises(TrainingError, match="not the file that sources"):
        Clips.load(tmp_path)


def test_chance_is_the_same_for_all_frames() -> None:
    window = torch.rand(1, 1, 3, 24, 20).expand(2, 5, -1, -1, -1).clone()
    made = augmented(window, Augmentation(crop=0.6, colour=0.3), np.random.default_rng(0))
    assert made.shape == window.shape
    for frames in made:
        assert torch.equal(frames, frames[:1].expand_as(frames))
    assert not torch.equal(made[0], made[1])
    assert not torch.allclose(made[0], window[0], atol=0.05)
    assert torch.equal(augmented(window, Augmentation(), np.random.default_rng(0)), window)
    with pytest.raises(TrainingError, match="a crop above 0"):
        Augmentation(crop=0)


def test_given_frames_are_those_of_their_kind() -> None:
    rng = np.random.default_rng(0)
    for kind, numbers in GIVEN.items():
        mask = given_frames(rng, 3, 6, {kind: 1.0})
        expected = torch.zeros(6, dtype=torch.bool)
        expected[list(numbers)] = True
        assert torch.equal(mask, expected.expand(3, 6))
    counts = given_frames(rng, 400, 6, {"none": 1, "first": 1, "two": 2}).sum(1).bincount().tolist()
    assert counts == pytest.approx([100, 100, 200], rel=0.25)
    with pytest.raises(TrainingError, match="expected shares of none, first"):
        given_frames(rng, 1, 6, {"last": 1.0})
    with pytest.raises(TrainingError, match="two or more, got 1"):
        given_frames(rng, 1, 1, {"ends": 1.0})


def test_a_pose_is_where_the_course_says() -> None:
    way = Course(np.array([[0.25, -0.125]]), np.array([[0.5, 0.5]]), np.array([90.0]))
    corner = way.poses(10, 64)[0] @ np.array([4.5, -0.5, 1.0])  # the middle of the upper edge
    assert corner == pytest.approx([31.5 + 16 + 16, 31.5 - 8]), "turned to the right"
