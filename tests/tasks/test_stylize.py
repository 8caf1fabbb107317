"""Films that are drawn anew: one loop, frames that agree, parts that join."""

from __future__ import annotations

import wave
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from flickers import saved, textured
from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import start_noise
from segue.diffusion.starts import from_latents
from segue.errors import InterruptedRunError, TaskError
from segue.media import Audio, Clip, TensorFrames, read
from segue.media.clip import as_floats, levels_of, to_uint8
from segue.models.denoiser import NetworkDenoiser
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Sampling
from segue.tasks.stylize import Stylize
from segue.tasks.stylize_agree import LITTLE
from segue.tasks.stylize_draw import moments
from segue.tasks.stylize_plan import StylizePlan, parts_of
from segue.tasks.stylize_settings import Agreement, Beginning, References, Shape
from segue.types import Condition, Point, RowId
from shown import record
from toy import PatchCodec, toy_model

SIZE = (48, 32)
ALONE = Agreement(attention="self", deflicker=0, blend=0.0)
"""Every frame by itself."""


@pytest.fixture
def film(tmp_path: Path) -> str:
    return saved(tmp_path / "film.apng", textured(9, SIZE))


def pixels(clip: Clip) -> Tensor:
    return levels_of(clip.frames, slice(None))


def small(film: str, **changes: Any) -> Stylize:
    """A quick one, drawn in the size of the film."""
    agreement = Agreement("self", deflicker=3, around=2)
    usual = Stylize(film, "one", agreement=agreement, shape=Shape(cuts="none"), sampling=Sampling(size=SIZE))
    return replace(usual, **changes)


def test_it_is_the_loop_and_nothing_else(film: str) -> None:
    model = toy_model()
    task = small(film, negative="two", seed=3, agreement=ALONE, beginning=Beginning(strength=0.5))
    clip = task.run(model)
    schedule, texts = model.schedule(10, SIZE), model.text(["one", "two"])
    frames = read(film).frames[:]
    noise = start_noise(3, (12, 16, 24)).expand(9, -1, -1, -1)
    rows = [RowId("clip", number) for number in range(9)]
    state = from_latents(model.codec.encode(frames), noise, schedule, 0.5, rows)
    cond = classifier_free(texts[[0] * 9], texts[[1] * 9], 2.0)
    drawn = model.codec.decode(collect(denoise(model.denoiser, state, schedule, cond), schedule))
    assert torch.equal(pixels(clip), to_uint8(drawn))
    assert (clip.size, clip.fps, len(clip)) == (SIZE, 5, 9)


def test_a_rerun_makes_the_same_film(film: str, tmp_path: Path) -> None:
    clip = small(film).run(toy_model())
    clip.save(tmp_path / "a.apng")
    again = Rerun.read(tmp_path / "a.json").run(toy_model())
    assert torch.equal(pixels(again), pixels(clip))
    assert record(again) == record(clip)


def test_parts_join(film: str) -> None:
    """Where frames do not look at each other, drawing them in parts changes nothing."""
    whole, parts = (
        small(film, agreement=ALONE, shape=Shape(cuts="none", window=window, overlap=1)).run(toy_model())
        for window in (9, 4)
    )
    assert record(parts)["plan"]["parts"] == [(0, 4), (3, 6), (5, 9)]
    assert int((pixels(whole).int() - pixels(parts).int()).abs().max()) <= 1


@pytest.mark.parametrize(
    ("shots", "frames", "window", "overlap", "expected"),
    [
        ([0], 5, 8, 2, [(0, 5)]),
        ([0], 9, 4, 0, [(0, 3), (3, 6), (6, 9)]),
        ([0], 65, 64, 8, [(0, 36), (28, 65)]),
        ([0], 121, 64, 8, [(0, 46), (38, 83), (75, 121)]),
        ([0], 8, 4, 0, [(0, 4), (4, 8)]),
        ([0, 3], 8, 8, 2, [(0, 3), (3, 8)]),
        ([0, 1], 7, 4, 1, [(0, 1), (1, 4), (3, 7)]),
    ],
)
def test_parts_cover_every_shot(
    shots: list[int], frames: int, window: int, overlap: int, expected: list[tuple[int, int]]
) -> None:
    assert parts_of(shots, frames, window, overlap) == expected


def test_parts_overlap_by_what_is_asked_for() -> None:
    for frames in range(1, 60):
        for window in range(1, 13):
            for overlap in range(window // 3 + 1):
                found = parts_of([0], frames, window, overlap)
                assert found[0][0] == 0 and found[-1][1] == frames
                for (first, stop), (later, end) in pairwise(found):
                    assert first < later and later == stop - overlap and stop < end
                    assert stop - first <= window and end - later <= window
                assert all(before[1] <= after[0] for before, after in zip(found, found[2:], strict=False))


def test_moments_are_spread_and_leave_the_end_free() -> None:
    assert moments(0, 8, 20) == ()
    assert moments(1, 8, 20) == (11,)
    assert moments(3, 8, 20) == (9, 10, 11)
    assert moments(6, 8, 20) == tuple(range(8, 14))
    assert moments(99, 8, 20) == tuple(range(8, 19))
    assert moments(2, 0, 4) == (0, 1)
    assert moments(5, 0, 1) == ()


@pytest.mark.parametrize("at", [3, 9, 13])
def test_what_is_drawn_is_gone_on_with(film: str, tmp_path: Path, at: int) -> None:
    task = small(film, shape=Shape(cuts="none", window=5, overlap=1))
    whole = task.run(toy_model())
    calls = 0

    def stop(what: str, done: float, total: float) -> None:
        nonlocal calls
        assert 0 <= done <= total
        calls += what == "drawing frames"
        if calls == at:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match=r"interrupted; \d of 9 frames are finished; the same") as caught:
        task.run(toy_model(), progress=stop, work=tmp_path)
    partial = caught.value.partial
    count = 0 if partial is None else len(partial)
    if partial is not None:
        assert torch.equal(pixels(partial), pixels(whole)[:count])
        assert not record(partial)["complete"]
    del partial, caught
    told: list[float] = []
    finished = task.run(
        toy_model(), progress=lambda what, done, total: told.append(done) if what == "drawing frames" else None,
        work=tmp_path,
    )  # fmt: skip
    assert told[0] > 0
    assert torch.equal(pixels(finished), pixels(whole))
    assert record(finished) == record(whole)
    (hidden,) = tmp_path.glob(".segue-*")
    finished.frames.discard()  # pyright: ignore
    assert not hidden.exists()


# Of every field, a value that changes the film; others are in test_stylize_looks and test_stylize_methods.
CHANGES: dict[str, Any] = {
    "prompt": "four",
    "negative": "five",
    "seed": 7,
    "beginning.strength": 0.3,
    "beginning.start": "inverted",
    "beginning.noise": "independent",
    "agreement.deflicker": 0,
    "agreement.around": 1,
    "agreement.blend": 0.5,
    "agreement.grain": 0.0,
    "shape.model_size": True,
    "shape.fit": "crop",
    "shape.window": 4,
    "shape.overlap": 0,
    "shape.cuts": "4",
    "sampling.steps": 9,
    "sampling.guidance_scale": (3.0,),
    "sampling.guidance_start": 0.8,
    "sampling.solver": "dpmpp_2m",
    "sampling.size": (40, 32),
}
ELSEWHERE = {
    *("preset", "method", "control", "references.reference", "references.ip_adapter", "references.image_scale"),
    *("beginning.source_prompt", "agreement.attention", "agreement.bank", "agreement.bank_power"),
    *("beginning.detail", "shape.own_size"),
}


def test_every_field_is_tried() -> None:
    parts = {"references": References, "beginning": Beginning, "agreement": Agreement, "shape": Shape}
    parts |= {"sampling": Sampling}
    names = {item.name for item in fields(Stylize)} - {"input", *parts}
    names |= {f"{name}.{item.name}" for name, kind in parts.items() for item in fields(kind)}
    assert names == {*CHANGES, *ELSEWHERE}


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(tmp_path_factory.mktemp("tried") / "film.apng", textured(9, SIZE))


@cache
def drawn_once(task: Stylize) -> Tensor:
    """What many are compared with."""
    return pixels(task.run(toy_model()))


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_changes_the_film(tried: str, name: str) -> None:
    start = small(tried, shape=Shape(cuts="none", window=5, overlap=1))
    if name in ("shape.fit", "shape.model_size"):
        start = replace(start, sampling=Sampling(size=(32, 32)))
    head, _, tail = name.partition(".")
    part = getattr(start, head)
    after = replace(start, **{head: replace(part, **{tail: CHANGES[name]}) if tail else CHANGES[name]})
    one, other = drawn_once(start), pixels(after.run(toy_model()))
    assert one.shape != other.shape or not torch.equal(one, other)


@pytest.mark.parametrize(
    ("shape", "size", "result"),
    [
        (Shape("stretch", cuts="none"), (32, 32), (48, 32)),
        (Shape("stretch", model_size=True, cuts="none"), (32, 32), (32, 32)),
        (Shape("crop", cuts="none"), (32, 32), (32, 32)),
        (Shape("crop", cuts="none"), (64, 64), (32, 32)),
        (Shape("pad", cuts="none"), (32, 32), (48, 32)),
        (Shape("pad", model_size=True, cuts="none"), (32, 32), (32, 21)),
    ],
)
def test_sizes_are_fitted_and_it_is_said(
    film: str, shape: Shape, size: tuple[int, int], result: tuple[int, int]
) -> None:
    clip = small(film, shape=shape, sampling=Sampling(size=size)).run(toy_model())
    assert clip.size == result
    said = "frames of 48x32 pixels are drawn at {}x{}".format(*size)
    assert any(note.startswith(said) for note in record(clip)["notes"])


def test_a_size_is_found_on_the_grid_in_the_proportions_of_the_film(tmp_path: Path) -> None:
    wide = saved(tmp_path / "wide.apng", textured(2, (160, 60)))
    clip = Stylize(wide, "one", agreement=ALONE, shape=Shape(cuts="none")).run(toy_model())
    assert record(clip)["fields"]["sampling"]["size"] == (26, 10)
    assert clip.size == (160, 60)


def test_a_film_may_be_drawn_in_its_own_size(tmp_path: Path) -> None:
    """Up to the grid there are bars; the record says the size that was found, and makes the same."""
    odd = saved(tmp_path / "odd.apng", textured(2, (160, 60))[..., :-1])
    task = Stylize(odd, "one", agreement=ALONE, beginning=Beginning(0.3), shape=Shape(own_size=True, cuts="none"))
    clip = task.run(toy_model())
    said = record(clip)["fields"]
    assert said["sampling"]["size"] == (160, 60) and clip.size == (159, 60)
    assert (said["shape"]["fit"], said["shape"]["own_size"]) == ("pad", False)
    assert any("drawn at 160x60, with bars" in note for note in record(clip)["notes"])
    clip.save(tmp_path / "a.apng")
    assert torch.equal(pixels(Rerun.read(tmp_path / "a.json").run(toy_model())), pixels(clip))
    with pytest.raises(TaskError, match="as large as they are: leave it out, or size 64x64"):
        replace(task, sampling=Sampling(size=(64, 64)))


@dataclass(frozen=True)
class Coarse(PatchCodec):
    """A codec that keeps the mean of every four neighbours, as real ones lose what is fine."""

    def encode(self, frames: Tensor) -> Tensor:
        return super().encode(avg_pool2d(frames, 2).repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_what_the_codec_loses_of_a_film_is_put_back(film: str, share: float) -> None:
    model = replace(toy_model(), codec=Coarse())
    drawn, detailed = (
        small(film, agreement=ALONE, beginning=Beginning(0.3, detail=detail)).run(model) for detail in (None, share)
    )
    shown = read(film).frames[:]
    lost = shown - model.codec.decode(model.codec.encode(shown))
    assert float(lost.abs().max()) > 0.05
    expected = (as_floats(pixels(drawn)) + share * lost).clamp(0, 1)
    assert (as_floats(pixels(detailed)) - expected).abs().max() <= 1.01 / 255
    with pytest.raises(TaskError, match="nothing of the film is left"):
        small(film, beginning=Beginning(1.0, detail=share)).filled_in()
    with pytest.raises(TaskError, match=r"detail must be in \[0, 1\], got 2"):
        Beginning(detail=2)


@dataclass(frozen=True)
class Known(NetworkDenoiser):
    """A model that draws what it is told to, whatever it is shown."""

    shown: Mapping[int, Tensor] = field(default_factory=dict[int, Tensor])

    def __call__(self, x: Tensor, at: Point, cond: Condition) -> Tensor:
        return torch.stack([self.shown[row.frame] for row in at.rows])


def test_how_far_a_drawing_moves_as_its_film_is_recorded_and_said_if_it_is_little(film: str) -> None:
    model, moving = toy_model(), read(film).frames[:]
    still = (textured(1, SIZE, seed=5) / 255).expand(9, -1, -1, -1)
    found: list[tuple[float, bool]] = []
    for frames in (moving, still):
        shown = dict(enumerate(model.codec.encode(frames)))
        drawing = replace(model, denoiser=Known(model.denoiser.network, "v_prediction", shown=shown))
        said = record(small(film, agreement=Agreement("self", deflicker=0, around=2)).run(drawing))
        found.append((said["scores"]["follows"], any("does not move as the film does" in one for one in said["notes"])))
    (along, strayed), (other, said_so) = found
    assert along > 0.95 and not strayed
    assert other < LITTLE and said_so


def test_a_film_of_one_frame_is_a_picture(tmp_path: Path) -> None:
    one = saved(tmp_path / "one.png", textured(1, SIZE))
    clip = small(one, agreement=Agreement("self")).run(toy_model())
    assert len(clip) == 1
    assert any("has one frame" in note for note in record(clip)["notes"])


def test_sound_and_rate_are_kept(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))
    source = Clip(TensorFrames(textured(5, SIZE)), 29.97, Audio(tmp_path / "tone.wav")).save(tmp_path / "film.mp4")
    clip = small(str(source), agreement=ALONE).run(toy_model())
    assert clip.fps == read(source).fps
    written = read(clip.save(tmp_path / "x.mp4"))
    assert len(written) == 5 and written.audio is not None


def test_a_changed_file_is_told(film: str, tmp_path: Path) -> None:
    small(film).run(toy_model()).save(tmp_path / "a.apng")
    again = Rerun.read(tmp_path / "a.json")
    saved(Path(film), textured(9, SIZE, seed=5))
    with pytest.raises(TaskError, match="its contents have changed"):
        again.run(toy_model())


def test_a_plan_of_another_film_is_told(film: str) -> None:
    task = small(film)
    plan = StylizePlan(task.contents("cpu").sha256, shots=[0], parts=[(0, 5)])
    with pytest.raises(TaskError, match="does not belong to this film of 9 frames"):
        task.run(toy_model(), plan=plan)
