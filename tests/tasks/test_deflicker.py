"""Films whose frames are made to agree: what is kept, what is refused, and what a run leaves for another."""

from __future__ import annotations

import gc
import json
import wave
from collections.abc import Callable
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flickers import COUNT, SIZE, flicker, flickering, made, saved, task, textured
from segue.errors import RecordError, TaskError
from segue.media import Audio, Clip, TensorFrames, read
from segue.media.clip import levels_of
from segue.tasks.deflicker import Deflicker
from segue.tasks.deflicker_inputs import Inputs
from segue.tasks.deflicker_known import Measured
from segue.tasks.image import Image
from segue.tasks.rerun import Rerun
from segue.tasks.upscale import Upscale
from toy import toy_model


@pytest.fixture
def film(tmp_path: Path) -> str:
    return saved(tmp_path / "film.apng", flickering(textured()))


@pytest.mark.parametrize("matching", ["flow", "patchmatch"])
def test_flicker_goes_and_sharpness_stays(film: str, matching: Any) -> None:
    clip = task(film, matching=matching, window=4).run()
    assert flicker(levels_of(clip.frames, slice(None))) < 0.5 * flicker(levels_of(read(film).frames, slice(None)))
    assert clip.provenance is not None
    scores = clip.provenance.record["scores"]
    assert scores["change"] < 0.7 * scores["change_before"]
    assert scores["sharpness_kept"] > 0.9


@pytest.mark.parametrize("matching", ["flow", "patchmatch"])
def test_a_film_that_stands_still_is_left_as_it_is(tmp_path: Path, matching: Any) -> None:
    frames = textured(1).expand(6, -1, -1, -1).contiguous()
    still = saved(tmp_path / "still.apng", frames)
    assert torch.equal(made(task(still, matching=matching)), frames)


def test_what_is_made_is_the_blend_and_nothing_else(film: str) -> None:
    from segue.motion.blend import Blending, blended
    from segue.motion.fields import Fields
    from segue.motion.flow_match import FlowMatcher
    from segue.motion.guide import Levelled

    frames = read(film).frames
    fields = Fields(FlowMatcher(), Levelled(frames))
    wanted = torch.stack([picture for _, picture, _ in blended(frames, fields, Blending(2, grain=0.5, detail="auto"))])
    assert torch.equal(made(task(film, grain=0.5)), TensorFrames.rounded(wanted).pixels)


CHANGES: dict[str, dict[str, Any]] = {
    "window": {"window": 1},
    "mode": {"mode": "balanced", "window": 3},
    "matching": {"matching": "patchmatch"},
    "grain": {"grain": 0.0},
    "detail": {"detail": "carried"},
    "strength": {"strength": 0.5},
    "contrast": {"contrast": 1.2},
    "sharpness": {"sharpness": 1.5},
    "cuts": {"cuts": (4,)},
    "coarse": {"coarse": 2},
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_changes_the_film(name: str, film: str) -> None:
    change = CHANGES[name]
    plain = task(film, **({"window": 3} if name == "mode" else {}))
    before, after = made(plain), made(replace(plain, **change))
    assert before.shape == after.shape
    assert not torch.equal(before, after)


def test_accurate_looks_for_each_pair_by_itself(film: str) -> None:
    made_by = {mode: made(task(film, window=3, mode=mode)) for mode in ("balanced", "accurate")}
    assert not torch.equal(made_by["balanced"], made_by["accurate"])


def test_a_guide_says_what_moves(tmp_path: Path) -> None:
    """A restyled film shows nothing of what moves, here: only its source does."""
    source = saved(tmp_path / "source.apng", textured())
    draw = torch.Generator().manual_seed(3)
    noise = (textured().float() * 0.2 + 200 * torch.rand(COUNT, 3, *SIZE[::-1], generator=draw)).clamp(0, 255).byte()
    restyled = saved(tmp_path / "restyled.apng", noise)
    alone, guided = (task(restyled, guide=guide, window=4).run() for guide in (None, source))
    assert guided.provenance is not None

    def alike(clip: Clip) -> float:
        """The correlation of neighbours along the true movement, which blur does not raise."""
        frames = levels_of(clip.frames, slice(None)).float()
        pair = torch.stack([frames[1:, :, :, 8:-8].flatten(), frames[:-1, :, :, 6:-10].flatten()])
        return float(torch.corrcoef(pair)[0, 1])

    assert alike(guided) > 0.8
    assert alike(alone) < 0.6
    assert guided.provenance.record["plan"]["guide"]


def test_nothing_is_blended_over_a_cut(tmp_path: Path) -> None:
    size = (64, 48)
    shots = torch.cat([flickering(textured(8, size, seed)) for seed in (1, 5)])
    film = saved(tmp_path / "film.apng", shots)
    parts = [saved(tmp_path / f"{part}.apng", shots[8 * part :][:8]) for part in (0, 1)]
    clip = task(film, cuts="auto", window=3).run()
    assert clip.provenance is not None
    assert clip.provenance.record["plan"]["shots"] == [0, 8]
    apart = torch.cat([made(task(part, window=3)) for part in parts])
    assert torch.equal(levels_of(clip.frames, slice(None)), apart)
    assert torch.equal(made(task(film, cuts="8", window=3)), apart)
    assert not torch.equal(made(task(film, cuts="none", window=3)), apart)


def test_rate_sound_range_and_odd_sizes_are_kept(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(2 * 8000))
    frames = textured(6, (47, 33))
    frames[:, :, :8], frames[:, :, -8:] = 0, 255
    source = Clip(TensorFrames(frames), 29.97, Audio(tmp_path / "tone.wav")).save(tmp_path / "in.mp4")
    clip = task(str(source)).run()
    back = read(clip.save(tmp_path / "out.mp4"))
    assert back.fps == read(source).fps == Fraction(30000, 1001)
    assert back.size == (47, 33)
    assert back.audio is not None
    assert len(back) == 6
    low, high = (float(value) for value in back.frames[:].aminmax())
    assert low < 0.02
    assert high > 0.98


@pytest.mark.parametrize("name", ["out.apng", "out.mp4", "out"])
def test_a_rerun_is_the_same_file(name: str, film: str, tmp_path: Path) -> None:
    first = task(film, cuts="auto", strength=0.8).run().save(tmp_path / name)
    again = Rerun.read(tmp_path / "out.json")
    assert again.record.model is None
    second = again.run().save(tmp_path / name.replace("out", "again"))
    files = [sorted(path.iterdir()) if path.is_dir() else [path] for path in (first, second)]
    assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]
    assert (tmp_path / "again.json").read_text() == (tmp_path / "out.json").read_text()
    assert again.differences() == []
    with pytest.raises(RecordError, match="uses no model"):
        again.run(toy_model())
    saved(tmp_path / "film.apng", flickering(textured(), seed=7))
    with pytest.raises(TaskError, match=r"film\.apng is not what this was made with"):
        Rerun.read(tmp_path / "out.json").run()


def test_a_record_of_a_model_asks_for_it(tmp_path: Path) -> None:
    Image("a boat").run(toy_model()).save(tmp_path / "boat.png")
    with pytest.raises(RecordError, match="made with a model"):
        Rerun.read(tmp_path / "boat.json").run()


@pytest.mark.parametrize(
    ("cuts", "shots", "expected"),
    [
        ("none", [3, 1], "shots begin at 0"),
        ("auto", [0, 99], "film of 9 frames, 0 to 8: no shot begins at 99"),
        ("none", [0, 6], r"cuts none makes shots that begin at \[0\], and the plan has \[0, 6\]"),
        ("6", [0], r"cuts 6 makes shots that begin at \[0, 6\], and the plan has \[0\]"),
    ],
)
def test_other_shots_than_the_task_or_the_film_has_are_refused(
    cuts: str, shots: list[int], expected: str, film: str
) -> None:
    plan = replace(task(film).contents("cpu"), shots=shots)
    with pytest.raises(TaskError, match=expected):
        task(film, cuts=cuts).run(plan=plan)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "input": ({"input": ""}, "input must be the name"),
    "guide": ({"guide": ""}, "guide must be the name"),
    "window": ({"window": 0}, "window must be a number of frames from 1"),
    "mode": ({"mode": "slow"}, "mode must be fast, balanced or accurate, got 'slow'"),
    "matching": ({"matching": "raft"}, "matching must be flow or patchmatch"),
    "grain": ({"grain": 1.5}, r"grain must be in \[0, 1\]"),
    "strength": ({"strength": 0.0}, r"strength must be in \(0, 1\]"),
    "contrast": ({"contrast": 11.0}, "contrast must be in"),
    "sharpness": ({"sharpness": -1.0}, "sharpness must be in"),
    "cuts": ({"cuts": "first"}, "cuts must be auto, none, or the frames"),
    "cut at 0": ({"cuts": (0, 4)}, "cuts must be auto"),
    "coarse": ({"coarse": 3}, "coarse must be one of 1, 2, 4, 8"),
    "balanced of whole pixels": ({"matching": "patchmatch", "mode": "balanced"}, "makes what fast makes"),
    "guide and keys": ({"guide": "a.mp4", "keys": "b"}, "leave out guide, or keys"),
    "keys and window": ({"window": 3, "keys": "b"}, "leave out window 3"),
    "keys and mode": ({"mode": "accurate", "keys": "b"}, "leave out mode accurate"),
}


@pytest.mark.parametrize("case", BAD)
def test_fields_are_checked(case: str) -> None:
    changes, expected = BAD[case]
    with pytest.raises(TaskError, match=expected):
        replace(Deflicker("film.mp4"), **changes)


@pytest.mark.parametrize(
    ("cuts", "spelled"), [("Auto", "auto"), ((48, 12), "12,48"), ("48, 12 48", "12,48"), ("none", "none")]
)
def test_cuts_are_kept_in_one_spelling(cuts: Any, spelled: str) -> None:
    assert Deflicker("film.mp4", cuts=cuts).cuts == spelled


def guide_of(frames: Tensor, fps: float = 5) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {"guide": saved(folder / "guide.apng", frames, fps)}


MISFITS: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "length": (guide_of(textured(7)), "has 9 frames, and .*guide.apng has 7"),
    "proportions": (guide_of(textured(COUNT, (48, 48))), "48x32 pixels, and .*guide.apng has 48x48"),
    "the film itself": (lambda folder: {"guide": str(folder / "film.apng")}, "is the film itself"),
    "cut behind the end": (lambda folder: {"cuts": (9,)}, "frames, 0 to 8: no shot begins at 9"),
    "one frame": (lambda folder: {"input": saved(folder / "one.png", textured(1))}, "has one frame"),
    "tiny": (lambda folder: {"input": saved(folder / "tiny.apng", textured(3, (40, 12)))}, "has 40x12"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_refused_by_name(case: str, film: str, tmp_path: Path) -> None:
    changes, expected = MISFITS[case]
    with pytest.raises(TaskError, match=expected):
        task(film, **changes(tmp_path)).run()


def test_what_is_fitted_is_said(film: str, tmp_path: Path) -> None:
    guide = saved(tmp_path / "guide.apng", textured(COUNT, (96, 64)), 10)
    clip = task(film, guide=guide, window=20).run()
    assert clip.provenance is not None
    notes = clip.provenance.record["notes"]
    assert any("96x64 pixels: it is resized to the film's 48x32" in note for note in notes)
    assert any("10 frames a second and the film at 5" in note for note in notes)
    assert any("a window of 20 is all of them" in note for note in notes)
    assert clip.provenance.record["fields"]["window"] == 8
    assert torch.equal(levels_of(clip.frames, slice(None)), made(task(film, guide=guide, window=8)))


def test_a_variable_rate_is_sampled_and_said(tmp_path: Path) -> None:
    from PIL import Image as Picture

    pictures = [Picture.fromarray(frame.permute(1, 2, 0).numpy()) for frame in textured(4)]
    pictures[0].save(tmp_path / "v.gif", save_all=True, append_images=pictures[1:], duration=[100, 100, 300, 100])
    inputs = Inputs.of(task(str(tmp_path / "v.gif")))
    assert any("no constant rate: it is sampled 10 times a second, 6 frames" in note for note in inputs.notes)


def test_large_frames_are_matched_smaller_and_it_is_said() -> None:
    plain = Deflicker("film.mp4")
    found = {size: plain.resolved(size, 9).coarse for size in ((512, 512), (1280, 720), (1920, 1080), (3840, 2160))}
    assert list(found.values()) == [1, 1, 2, 4]
    assert plain.notes((1280, 720)) == ()
    (note,) = plain.notes((1920, 1080))
    assert "matched at 960x540" in note
    assert replace(plain, coarse=2).notes((1920, 1080)) == ()


def test_progress_is_one_number_that_ends_where_it_said(film: str) -> None:
    said: list[tuple[float, float]] = []

    def note(what: str, done: float, total: float) -> None:
        if what == "making frames agree":
            said.append((done, total))

    task(film, window=3).run(progress=note)
    assert [done for done, _ in said] == sorted(done for done, _ in said)
    pairs = (COUNT - 1) + (COUNT - 2)
    assert {total for _, total in said} == {said[-1][0]} == {COUNT + pairs}


def test_an_upscaler_does_not_take_its_record_for_that_of_a_model(film: str, tmp_path: Path) -> None:
    task(film).run().save(tmp_path / "out.apng")
    assert Upscale(str(tmp_path / "out.apng"), method="same-model").usual_model() is None


def test_its_fields_are_plain_values(film: str) -> None:
    again = Deflicker(**json.loads(json.dumps(asdict(task(film, cuts=(2, 5))))))
    assert again == task(film, cuts=(2, 5))


def most_alive(film: str) -> int:
    """The most bytes of tensors that are held at any time while a film is made."""
    most = 0

    def look(what: str, done: float, total: float) -> None:
        nonlocal most
        # Looking at every object that there is takes long; the second half of a film stands for all of it.
        if what == "making frames agree" and done > total / 2 and done % 16 == 0:
            held = {
                x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()
                for x in gc.get_objects()
                if type(x) is Tensor
            }
            most = max(most, sum(held.values()))

    gc.collect()
    task(film, window=1).run(progress=look)
    return most


def test_memory_does_not_grow_with_the_film(tmp_path: Path) -> None:
    """Of one picture as floats for each frame more, it would be half as much again."""
    size = (32, 32)
    short, long = (most_alive(saved(tmp_path / f"{n}.mp4", textured(n, size))) for n in (40, 90))
    assert 0 < long < 1.1 * short


def test_frames_are_not_matched_too_small_for_flow(film: str) -> None:
    with pytest.raises(TaskError, match=r"with coarse 4 those of .*film\.apng, 48x32, are 12x8"):
        task(film, coarse=4).run()
    assert len(made(task(film, coarse=4, matching="patchmatch"))) == COUNT
    # Of their area, eight times smaller.
    assert Deflicker("film.mp4").resolved((1_000_000, 40), 9).coarse == 2
    assert Deflicker("film.mp4").resolved((2_000_000, 20), 9).coarse == 1


def test_memory_of_keys_that_are_far_apart_is_counted() -> None:
    plain = Deflicker("film.mp4", keys="painted")
    assert plain.memory((100, 10), 500, 400) - plain.memory((100, 10), 500, 200) == 200 * 4 * 1000


def notes_of(clip: Clip) -> list[str]:
    assert clip.provenance is not None
    return clip.provenance.record["notes"]


def test_a_guide_that_shows_something_else_is_told(tmp_path: Path) -> None:
    source = textured(COUNT, (64, 48))
    film, right = (
        saved(tmp_path / f"{name}.apng", frames) for name, frames in (("film", flickering(source)), ("right", source))
    )
    assert notes_of(task(film, guide=right).run()) == []
    assert notes_of(task(film).run()) == []
    mirrored = saved(tmp_path / "mirrored.apng", source.flip(0).contiguous())
    (said,) = notes_of(task(film, guide=mirrored).run())
    assert "along the movement of the guide the film changes by" in said


@pytest.mark.parametrize("level", [None, 0])
def test_a_guide_that_stands_still_or_is_black_is_told_before_the_run(tmp_path: Path, level: int | None) -> None:
    source = textured(COUNT, (64, 48))
    still = source[:1].expand_as(source) if level is None else torch.full_like(source, level)
    noise = torch.randint(0, 3, source.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    film = saved(tmp_path / "film.apng", flickering(source))
    guide = saved(tmp_path / "guide.apng", still.clamp(max=250) + noise)
    (said,) = Inputs.of(task(film, guide=guide)).notes
    assert said.startswith(f"nothing moves in {guide}")
    assert said in notes_of(task(film, guide=guide).run())
    small = still.clone()
    small[-1, :, 20:24, 30:34] += 30  # Something small in one corner, at the end, is enough.
    assert Inputs.of(task(film, guide=saved(tmp_path / "small.apng", small))).notes == ()


def test_movement_that_could_not_be_followed_is_told(tmp_path: Path) -> None:
    measured = Measured(tmp_path / "measured.jsonl", 0)
    for along in (None, 0.1, None, None, None):
        measured.add((along, along, 1.0, along))
    (said,) = measured.doubts(4, guided=True)
    assert said.startswith("movement could be followed in 1 of 4 pairs")
    assert "the guide" not in measured.doubts(4, guided=False)[0]
    assert measured.doubts(2, guided=True) == ()
