"""Pictures and films made larger: one loop, one noise, frames that agree, memory that does not grow."""

from __future__ import annotations

import gc
import json
import wave
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_flow import write_flux
from torch import Tensor

from footage import moving
from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import noise, start_noise
from segue.errors import InterruptedRunError, RecordError, TaskError
from segue.evaluation.movement import movement
from segue.media import Audio, Clip, TensorFrames, read
from segue.media.enlarge import lanczos, low_band
from segue.models.denoiser import NetworkDenoiser
from segue.models.loading import load_model
from segue.tasks.image import Image
from segue.tasks.live import Live
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.transition import Transition
from segue.tasks.upscale import Coherence, Tiling, Upscale, UpscalePlan
from segue.tasks.upscale_run import EnlargedFrames, padded
from segue.temporal.keys import ANY_KEY
from segue.temporal.texts import mixed
from segue.types import Call, Conditioning, RowId, State, silent
from toy import ToyNetwork, toy_model
from toy_upscaler import Repeats, toy_upscaler

SIZE = (24, 16)
MODEL = "model"
"""`colours`, where what the model makes is looked at."""


def saved(folder: Path, frames: Tensor, name: str = "film.apng") -> str:
    return str(Clip(TensorFrames(frames), fps=5).save(folder / name))


@pytest.fixture
def film(tmp_path: Path) -> str:
    return saved(tmp_path, moving(9, SIZE))


@pytest.fixture
def picture(tmp_path: Path) -> str:
    return saved(tmp_path, moving(1, SIZE), "picture.png")


def with_picture(text: Conditioning, shown: Tensor, level: int) -> Conditioning:
    return replace(text, concat=shown, label=torch.tensor([level]))


def test_it_is_the_loop_and_nothing_else(picture: str) -> None:
    model = toy_upscaler()
    clip = Upscale(picture, ("a boat",), negative="fog", seed=3, colours=MODEL).run(model)
    schedule, texts = model.schedule(10, SIZE), model.text(["a boat", "fog"])
    assert model.upscaling is not None
    small = read(picture).frames[0:1]
    shown = model.upscaling.shown(small, noise(3, "low resolution", 0, ANY_KEY, (3, 16, 24)), 10)
    wanted, unwanted = (with_picture(texts[[row]], shown, 10) for row in (0, 1))
    state = State(start_noise(3, (12, 16, 24))[None], torch.zeros(1, dtype=torch.int64), (RowId("x"),))
    states = denoise(model.denoiser, state, schedule, classifier_free(wanted, unwanted, 2.0))
    assert torch.equal(clip.frames[0:1], model.codec.decode(collect(states, schedule)))
    assert clip.size == (48, 32)


def test_frames_that_are_alike_stay_alike(tmp_path: Path) -> None:
    """Also with a solver that adds noise, and with much noise on the small pictures: all of it stands still."""
    still = saved(tmp_path, moving(1, SIZE).expand(9, -1, -1, -1).contiguous())
    sampling = Sampling(solver="euler_ancestral")
    clip = Upscale(still, seed=2, noise_level=90, colours=MODEL, sampling=sampling).run(toy_upscaler())
    frames = clip.frames[:]
    assert (frames - frames[:1]).abs().max() < 1e-6
    other = Upscale(still, seed=3, noise_level=90, colours=MODEL, sampling=sampling).run(toy_upscaler()).frames[0:1]
    assert (other - frames[:1]).abs().max() > 0.01


def test_a_film_that_stands_still_does_not_flicker(tmp_path: Path) -> None:
    """Moving footage is measured with the embedded upscaler: the toy repeats pixels, which shimmer when they move."""
    still = saved(tmp_path, moving(1, (48, 48)).expand(5, -1, -1, -1).contiguous())
    frames = TensorFrames.rounded(Upscale(still, noise_level=90).run(toy_upscaler()).frames[:])
    assert float(movement(frames).noise.nanmean()) < 1e-3


def test_frames_between_keys_begin_where_the_keys_were_mixed(film: str) -> None:
    network = Repeats(remembers=True)
    Upscale(film, ("x",), coherence=Coherence(4, 0.3), tiling=Tiling(64)).run(toy_upscaler(network)).frames[:]
    steps = dict.fromkeys(range(9), 0)
    for call, _, _ in network.seen:
        for row in call.rows[: len(call.rows) // 2]:
            steps[row.frame] += 1
    assert steps == {number: 10 if number in (0, 4, 8) else 7 for number in range(9)}


def test_each_frame_is_shown_its_own_picture(film: str) -> None:
    network, frames = Repeats(remembers=True), read(film).frames
    model = toy_upscaler(network)
    assert model.upscaling is not None
    Upscale(film, ("x",), seed=1).run(model).frames[:]
    still = noise(1, "low resolution", 0, ANY_KEY, (3, 16, 24))
    for call, cond, _ in network.seen:
        assert cond.concat is not None
        for row, shown in zip(call.rows, cond.concat, strict=True):
            wanted = model.upscaling.shown(frames[row.frame : row.frame + 1], still, 10)[0]
            assert (shown - wanted).abs().max() < 1e-6


def test_a_frame_is_the_same_in_whatever_order_frames_are_read(film: str) -> None:
    task = Upscale(film, seed=1)
    in_order = task.run(toy_upscaler()).frames[:]
    for order in ([8, 3, 5, 0], [6], [1, 7, 1]):
        frames = task.run(toy_upscaler()).frames
        assert all(torch.equal(frames[number : number + 1][0], in_order[number]) for number in order)


@dataclass
class Watching:
    """Frames that remember how many of them were asked for at once."""

    count: int
    size: tuple[int, int] = SIZE
    windows: list[int] = field(default_factory=list[int])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, window: slice, /) -> Tensor:
        numbers = range(self.count)[window]
        self.windows.append(len(numbers))
        return moving(16, SIZE)[[number % 16 for number in numbers]] / 255


def most_alive(count: int) -> tuple[int, int]:
    """The most latents, and the most small pictures, that are held at any time while a film is read in order."""
    model, source = toy_upscaler(), Watching(count)
    task = Upscale("x", ("a boat",), coherence=Coherence(4))
    story = task.story(count)
    most = 0

    def count_latents(what: str, done: float, total: float) -> None:
        nonlocal most
        held = (x for x in gc.get_objects() if type(x) is Tensor and x.shape[-3:] == (12, 16, 24))
        # What is a part of another is not held twice.
        most = max(most, sum({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in held}.values()))

    frames = EnlargedFrames(source, task.resolved(model, story), model, story, Execution(8), silent)
    for number in range(count):
        # The last half of a film stands for all of it: looking at every object that there is takes long.
        frames.progress = count_latents if number > count // 2 else silent
        frames[number : number + 1]
    return most, max(source.windows)


def test_memory_does_not_grow_with_the_film() -> None:
    short, long = most_alive(9), most_alive(17)
    assert long == short
    assert short[1] == 5
    assert short[0] > 0


@pytest.mark.parametrize("method", ["upscaler", "same-model"])
def test_tiles_make_what_the_whole_makes(picture: str, method: Any) -> None:
    """Where pixels do not look at each other; `test_upscale_looks` measures the seams of a real one."""
    model = (
        toy_upscaler()
        if method == "upscaler"
        else replace(toy_model(), denoiser=NetworkDenoiser(Pixelwise(), "sample"))
    )
    whole, tiled = (
        Upscale(picture, method=method, colours=MODEL, tiling=Tiling(tile)).run(model).frames[:] for tile in (512, 16)
    )
    assert (whole - tiled).abs().max() < 1e-6


@dataclass(frozen=True)
class Pixelwise:
    """A network that knows no places."""

    def __call__(self, x: Tensor, time: Tensor, cond: Conditioning, call: Call) -> Tensor:
        return torch.tanh(x)


def test_tiles_are_no_larger_than_asked(picture: str) -> None:
    network = Repeats(remembers=True)
    Upscale(picture, ("x",), tiling=Tiling(16, 0.5)).run(toy_upscaler(network), Execution(max_batch=8)).frames[:]
    assert {shape[-2:] for _, _, shape in network.seen} == {(8, 8)}
    assert max(shape[0] for _, _, shape in network.seen) <= 8


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


CHANGES: dict[str, dict[str, Any]] = {
    "prompt": {"prompt": ("a cup",)},
    "negative": {"negative": "fog"},
    "seed": {"seed": 5},
    "noise_level": {"noise_level": 50},
    "colours": {"colours": MODEL},
    "every": {"coherence": Coherence(every=2)},
    "depth": {"coherence": Coherence(depth=0.8)},
    "steps": {"sampling": Sampling(steps=4)},
    "guidance": {"sampling": Sampling(guidance_scale=(5.0,))},
    "guidance_start": {"sampling": Sampling(guidance_start=0.5)},
    "solver": {"sampling": Sampling(solver="euler_ancestral")},
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_changes_the_film(name: str, film: str) -> None:
    task = Upscale(film, ("a boat",))
    before, after = (each.run(toy_upscaler()).frames[:] for each in (task, replace(task, **CHANGES[name])))
    assert before.shape == after.shape
    assert not torch.equal(before, after)


@pytest.mark.parametrize("changes", [{"strength": 0.8}, {"scale": 3}, {"seed": 5}])
def test_every_field_of_the_other_method_changes_the_picture(changes: dict[str, Any], picture: str) -> None:
    task = Upscale(picture, ("a boat",), method="same-model", scale=2, colours=MODEL)
    before, after = (each.run(toy_model()).frames[:] for each in (task, replace(task, **changes)))
    assert before.shape != after.shape or not torch.equal(before, after)


def test_the_other_method_goes_over_the_enlarged_picture(picture: str) -> None:
    """The less it may, the nearer it stays."""
    plain = lanczos(read(picture).frames[:], 2)
    task = Upscale(picture, ("a boat",), method="same-model", scale=2, colours=MODEL)
    away = [
        float((replace(task, strength=strength).run(toy_model()).frames[:] - plain).abs().mean())
        for strength in (0.1, 0.5, 1.0)
    ]
    assert away == sorted(away)
    assert away[0] < 0.5 * away[2]


def test_a_film_of_its_own_size_is_gone_over_in_one_window(tmp_path: Path) -> None:
    model = toy_model()
    task = Upscale(saved(tmp_path, moving(1, model.defaults.size), "own.png"), ("a boat",), method="same-model")
    settled = task.resolved(model, task.story(1))
    assert settled.scale is not None
    assert settled.tiling.window == settled.scale * max(model.defaults.size)


def test_sizes_off_the_grid_are_mirrored_and_cut_and_said(tmp_path: Path) -> None:
    odd = saved(tmp_path, moving(1, (23, 15)), "odd.png")
    task = Upscale(odd, ("a boat",))
    clip = task.run(toy_upscaler())
    assert clip.size == (46, 30)
    assert clip.frames[:].shape == (1, 3, 30, 46)
    (note,) = task.notes(toy_upscaler())
    assert "23x15" in note
    assert "24x16, mirrored" in note
    assert clip.provenance is not None
    assert note in clip.provenance.record["notes"]


def test_colours_are_those_of_the_input(film: str) -> None:
    small = read(film).frames[:]
    drift = {
        (colours, band): float((low_band(made, (16, 24), band) - low_band(small, (16, 24), band)).abs().mean())
        for colours, made in ((colours, _run(film, colours)) for colours in ("model", "input", "pixels"))
        for band in (1, 8)
    }
    assert drift["input", 8] < 0.01
    assert drift["model", 8] > 0.03
    assert drift["pixels", 1] < 0.3 * drift["input", 1]


def _run(film: str, colours: Any) -> Tensor:
    return Upscale(film, ("a boat",), colours=colours).run(toy_upscaler()).frames[:]


def test_rate_sound_and_range_are_kept(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(2 * 8000))
    frames = torch.tensor([16, 128, 235, 255, 0], dtype=torch.uint8).reshape(5, 1, 1, 1).expand(5, 3, 16, 24)
    source = Clip(TensorFrames(frames.contiguous()), 29.97, Audio(tmp_path / "tone.wav")).save(tmp_path / "in.mp4")
    clip = Upscale(str(source), ("x",)).run(toy_upscaler())
    back = read(clip.save(tmp_path / "out.mp4"))
    assert back.fps == read(source).fps == clip.fps
    assert back.audio is not None
    assert len(back) == 5
    means = back.frames[:].mean((1, 2, 3)) - read(source).frames[:].mean((1, 2, 3))
    assert means.abs().max() < 0.02


@pytest.mark.parametrize(("name", "out"), [("picture.png", "large.png"), ("film.apng", "large.apng")])
def test_a_rerun_is_the_same_file(name: str, out: str, tmp_path: Path) -> None:
    source = saved(tmp_path, moving(1 if name.endswith("png") and "picture" in name else 9, SIZE), name)
    task = Upscale(source, seed=4, sampling=Sampling(solver="euler_ancestral"))
    first = task.run(toy_upscaler()).save(tmp_path / out).read_bytes()
    again = Rerun.read(tmp_path / "large.json")
    assert again.run(toy_upscaler()).save(tmp_path / f"again-{out}").read_bytes() == first
    saved(tmp_path, moving(9, SIZE).flip(0)[:1] if "picture" in name else moving(9, SIZE).flip(0), name)
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


def test_progress_ends_where_it_said(film: str) -> None:
    said: list[tuple[float, float]] = []
    task = Upscale(film, ("a boat",), coherence=Coherence(4, 0.5))
    task.run(toy_upscaler(), progress=lambda what, done, total: said.append((done, total))).frames[:]
    assert [done for done, _ in said] == sorted(done for done, _ in said)
    assert {total for _, total in said} == {said[-1][0]} == {3 * 10 + 6 * 5}


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
        assert record["fields"]["coherence"] == {"every": 1, "depth": None}
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


def test_the_other_method_takes_any_size_for_a_model_of_patches(tmp_path: Path) -> None:
    """40 x 24 pixels, three times larger, are on the grid of the codec, and not on that of its tokens."""
    model = load_model(write_flux(tmp_path / "flux"), device="cpu")
    odd = saved(tmp_path, moving(1, (40, 24)), "odd.png")
    task = Upscale(odd, ("a cat",), method="same-model", scale=3, tiling=Tiling(64), sampling=Sampling(steps=2))
    assert padded(task.resolved(model, task.story(1)), model, (40, 24)) == (48, 32)
    assert task.run(model).frames[:].shape == (1, 3, 72, 120)
