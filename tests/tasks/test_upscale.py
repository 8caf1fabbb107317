"""Pictures and films made larger: one loop, one noise, frames that agree, memory that does not grow."""

from __future__ import annotations

import gc
import wave
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_flow import write_flux
from torch import Tensor

from flickers import saved
from footage import moving
from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import noise, start_noise
from segue.evaluation.movement import movement
from segue.media import Audio, Clip, TensorFrames, read
from segue.media.enlarge import lanczos, low_band
from segue.models.denoiser import NetworkDenoiser
from segue.models.loading import load_model
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.upscale import Coherence, Tiling, Upscale
from segue.tasks.upscale_frames import EnlargedFrames, padded
from segue.temporal.keys import ANY_KEY
from segue.types import Call, Conditioning, RowId, State, silent
from toy import toy_model
from toy_upscaler import SIZE, Repeats, toy_upscaler

MODEL = "model"
"""`colours`, where what the model makes is looked at."""


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
    still = saved(tmp_path / "film.apng", moving(1, SIZE).expand(9, -1, -1, -1).contiguous())
    sampling = Sampling(solver="euler_ancestral")
    clip = Upscale(still, seed=2, noise_level=90, colours=MODEL, sampling=sampling).run(toy_upscaler())
    frames = clip.frames[:]
    assert (frames - frames[:1]).abs().max() < 1e-6
    other = Upscale(still, seed=3, noise_level=90, colours=MODEL, sampling=sampling).run(toy_upscaler()).frames[0:1]
    assert (other - frames[:1]).abs().max() > 0.01


def test_a_film_that_stands_still_does_not_flicker(tmp_path: Path) -> None:
    """Moving footage is measured with the embedded upscaler: the toy repeats pixels, which shimmer when they move."""
    still = saved(tmp_path / "film.apng", moving(1, (48, 48)).expand(5, -1, -1, -1).contiguous())
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
    task = Upscale(saved(tmp_path / "own.png", moving(1, model.defaults.size)), ("a boat",), method="same-model")
    settled = task.resolved(model, task.story(1))
    assert settled.scale is not None
    assert settled.tiling.window == settled.scale * max(model.defaults.size)


def test_sizes_off_the_grid_are_mirrored_and_cut_and_said(tmp_path: Path) -> None:
    odd = saved(tmp_path / "odd.png", moving(1, (23, 15)))
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


def test_progress_ends_where_it_said(film: str) -> None:
    said: list[tuple[float, float]] = []
    task = Upscale(film, ("a boat",), coherence=Coherence(4, 0.5))
    task.run(toy_upscaler(), progress=lambda what, done, total: said.append((done, total))).frames[:]
    assert [done for done, _ in said] == sorted(done for done, _ in said)
    assert {total for _, total in said} == {said[-1][0]} == {3 * 10 + 6 * 5}


def test_the_other_method_takes_any_size_for_a_model_of_patches(tmp_path: Path) -> None:
    """40 x 24 pixels, three times larger, are on the grid of the codec, and not on that of its tokens."""
    model = load_model(write_flux(tmp_path / "flux"), device="cpu")
    odd = saved(tmp_path / "odd.png", moving(1, (40, 24)))
    task = Upscale(odd, ("a cat",), method="same-model", scale=3, tiling=Tiling(64), sampling=Sampling(steps=2))
    assert padded(task.resolved(model, task.story(1)), model, (40, 24)) == (48, 32)
    assert task.run(model).frames[:].shape == (1, 3, 72, 120)
