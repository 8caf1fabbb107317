# pyright: basic
"""Films made larger by an upscaler that looks along time: windows that fade, and the upscaler of pictures beneath."""

from __future__ import annotations

import gc
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_upscaler import write_upscaler

from flickers import saved
from footage import moving
from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import ClipNoise, noise
from segue.diffusion.solvers import find_solver
from segue.diffusion.starts import from_clip_seed
from segue.diffusion.tiles import TiledDenoiser
from segue.errors import TaskError
from segue.evaluation.loops import seam_ratio
from segue.media import read
from segue.models.bundle import LatentDiffusion
from segue.models.codec import AutoencoderCodec
from segue.models.loading import load_model
from segue.models.time_decoder import DecoderSettings, with_time_decoder
from segue.models.time_files import save_time
from segue.models.time_inserted import FPS, TimeSettings, time_layers, with_time
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.upscale import Coherence, Tiling, Upscale
from segue.tasks.upscale_time import FramesTogether
from segue.temporal.keys import ANY_KEY
from segue.temporal.overlapping import Overlapping, shared_frames
from segue.types import RowId, silent
from segue.zoo import load
from toy import toy_model

SIZE = (16, 16)
LENGTH = 8
SMALL = TimeSettings(
    inner=4, heads=2, head_width=4, window=2, vector=8, queries=2, context=0, frames=LENGTH, shared_noise=1.0
)
STEPS = Sampling(steps=2, guidance_scale=(2.0,))


@pytest.fixture(scope="module", autouse=True)
def no_gradients() -> Generator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_upscaler(tmp_path_factory.mktemp("models") / "x4", vae="tiny")


@pytest.fixture(scope="module")
def plain(folder: Path) -> LatentDiffusion:
    return load_model(folder, device="cpu")


def taught(model: LatentDiffusion, settings: TimeSettings = SMALL, share: float = 0.3) -> LatentDiffusion:
    """With layers along time that learned something, at random."""
    made = with_time(model, settings)
    generator = torch.Generator().manual_seed(5)
    for value in time_layers(made).parameters():
        value.copy_(share * torch.randn(value.shape, generator=generator))
    return made


def film(folder: Path, frames: int = 11) -> str:
    return saved(folder / f"film{frames}.apng", moving(frames, SIZE))


def task(source: str, **changes: Any) -> Upscale:
    return replace(Upscale(source, ("a boat",), seed=3, colours="model", sampling=STEPS), **changes)


def test_layers_that_learned_nothing_and_motion_0_are_the_upscaler_of_pictures(
    plain: LatentDiffusion, tmp_path: Path
) -> None:
    asked = task(film(tmp_path))
    by_picture = replace(asked, coherence=Coherence(every=1)).run(plain).frames[:]
    for model, coherence in (
        (with_time(plain, SMALL), Coherence()),
        (taught(plain), Coherence(motion=0)),
        (taught(plain), Coherence(every=1, together=4, motion=0)),
    ):
        made = replace(asked, coherence=coherence).run(model).frames[:]
        assert (made - by_picture).abs().max() < 1e-5
    assert (asked.run(taught(plain)).frames[:] - by_picture).abs().mean() > 1e-3


@pytest.mark.parametrize("solver", ["ddim", "euler_ancestral"])
@pytest.mark.parametrize("shared", [1.0, 0.5])
def test_a_window_is_the_loop_and_nothing_else(
    solver: str, shared: float, plain: LatentDiffusion, tmp_path: Path
) -> None:
    """Its frames share noise as the layers learned, one field noises all small pictures, by one level."""
    count, model = 5, taught(plain, replace(SMALL, shared_noise=shared))
    source = film(tmp_path, count)
    asked = task(source, negative="fog", sampling=replace(STEPS, solver=solver), noise_level=30, tiling=Tiling(32))
    made = asked.run(model).frames[:]
    assert model.upscaling is not None
    schedule, texts = model.schedule(2, (32, 32), solver=solver), model.text(["a boat", "fog"])
    field = noise(3, "low resolution", 0, ANY_KEY, (3, 16, 16))
    shown = model.upscaling.shown(read(source).frames[:], field, 30)
    speed = torch.full((count,), float(read(source).fps))
    wanted, unwanted = (
        replace(texts[[row] * count], concat=shown, label=torch.full((count,), 30), extra={FPS: speed})
        for row in (0, 1)
    )
    rows = tuple(RowId("clip" if shared < 1 else "frame", number) for number in range(count))
    state = from_clip_seed(3, rows, schedule, (4, 16, 16), model.device, shared)
    if shared < 1:
        rows = tuple(RowId("frame", number) for number in range(count))
        kick: Any = ClipNoise(3, shared)
    else:
        kick = asked_kick
    states = denoise(
        TiledDenoiser(model.over(count).denoiser, 8, 2),
        replace(state, ids=rows),
        schedule,
        classifier_free(wanted, unwanted, 2.0),
        solver=find_solver(solver).solver,
        kick=kick,
    )
    assert (made - model.codec.decode(collect(states, schedule))).abs().max() < 1e-5


def asked_kick(like: torch.Tensor, now: Any, then: Any, std: torch.Tensor) -> torch.Tensor:
    """Where all noise is shared, a solver adds what it adds to the frames of an upscaler of pictures."""
    drawn = noise(3, "kick", int(now.index[0]), ANY_KEY, like.shape[1:])
    return std[:, None, None, None].to(like) * drawn


def test_with_one_step_windows_are_those_that_are_mixed_at_every_step(plain: LatentDiffusion, tmp_path: Path) -> None:
    count, model = 19, taught(plain)
    source = film(tmp_path, count)
    made = task(source, sampling=replace(STEPS, steps=1, guidance_scale=(1.0,))).run(model).frames[:]
    assert model.upscaling is not None
    schedule, texts = model.schedule(1, (64, 64)), model.text(["a boat"])
    field = noise(3, "low resolution", 0, ANY_KEY, (3, 16, 16))
    shown = model.upscaling.shown(read(source).frames[:], field, 20)
    told = replace(
        texts[[0] * count], concat=shown, label=torch.full((count,), 20),
        extra={FPS: torch.full((count,), float(read(source).fps))},
    )  # fmt: skip
    state = from_clip_seed(3, [RowId("x", row) for row in range(count)], schedule, (4, 16, 16), model.device, 1.0)
    mixed = Overlapping(model.over(LENGTH).batched(64).denoiser, shared_frames(LENGTH))
    assert (made - model.codec.decode(collect(denoise(mixed, state, schedule, told), schedule))).abs().max() < 1e-5


def test_a_frame_is_the_same_in_whatever_order_and_batch(plain: LatentDiffusion, tmp_path: Path) -> None:
    asked, model = task(film(tmp_path)), taught(plain)
    in_order = asked.run(model).frames[:]
    for order in ([10, 3, 5, 0], [6], [1, 8, 1]):
        frames = asked.run(model).frames
        assert all(torch.equal(frames[number : number + 1][0], in_order[number]) for number in order)
    assert (asked.run(model, Execution(max_batch=64)).frames[:] - in_order).abs().max() < 1e-5
    assert (asked.run(model, Execution(max_batch=1)).frames[:] - in_order).abs().max() < 1e-5
    tiled = task(film(tmp_path, 3), tiling=Tiling(32))
    alone, more = (tiled.run(model, Execution(max_batch=most)).frames[:] for most in (1, 64))
    assert (alone - more).abs().max() < 1e-5, "parts of a picture may share calls, each with all of its frames"


def test_a_film_of_one_frame_is_a_picture(plain: LatentDiffusion, tmp_path: Path) -> None:
    one = film(tmp_path, 1)
    made = task(one).run(taught(plain, replace(SMALL, shared_noise=0.3)))
    assert torch.equal(made.frames[:], task(one).run(plain).frames[:])
    (note,) = task(one, coherence=Coherence(together=4, motion=1.0)).notes(taught(plain))
    assert "--together has no effect" in note


@pytest.mark.parametrize(("frames", "together", "windows"), [(3, None, 1), (8, None, 1), (9, None, 2), (11, 4, 4)])
def test_films_of_any_length(
    frames: int, together: int | None, windows: int, plain: LatentDiffusion, tmp_path: Path
) -> None:
    said: list[tuple[float, float]] = []
    asked = task(film(tmp_path, frames), coherence=Coherence(together=together))
    clip = asked.run(taught(plain), progress=lambda what, done, total: said.append((done, total)))
    assert clip.frames[:].shape == (frames, 3, 64, 64)
    assert clip.provenance is not None
    length = min(frames, together or LENGTH)
    assert clip.provenance.record["scores"] == {
        "frames": frames, "windows": windows, "window": length, "row_steps": 2 * windows * length,
    }  # fmt: skip
    assert [done for done, _ in said] == sorted(done for done, _ in said)
    assert said[-1] == (2 * windows * length,) * 2


def test_windows_meet_without_a_seam(plain: LatentDiffusion, tmp_path: Path) -> None:
    """Layers that answer by where in a window a frame is would show where windows meet, if these did not fade."""
    model, count = taught(plain, share=0.5), 14
    frames = task(saved(tmp_path / "still.apng", moving(1, SIZE).expand(count, -1, -1, -1).contiguous())).run(model)
    made, enlarged = frames.frames[:], frames.frames
    assert isinstance(enlarged, FramesTogether)
    borders = [span.frames.start for span in enlarged.spans[1:]]
    assert borders == [6]

    def steps(pictures: torch.Tensor) -> list[float]:
        return pictures.diff(dim=0).abs().mean((1, 2, 3)).tolist()

    cut = [enlarged._run_window(model, place) for place in (0, 1)]
    hard = model.codec.decode(torch.cat([cut[0][:7], cut[1][1:]]))
    ratios = [max(seam_ratio(steps(one), at) for at in range(5, 10)) for one in (hard, made)]
    assert ratios[1] < 1.25 < 1.45 < ratios[0]


def most_alive(model: LatentDiffusion, count: int) -> int:
    """The most numbers in latents that are held at any time while a film is read in order."""
    source, most = moving(16, SIZE) / 255, 0

    class Long:
        size = SIZE

        def __len__(self) -> int:
            return count

        def __getitem__(self, window: slice, /) -> torch.Tensor:
            numbers = range(count)[window]
            assert len(numbers) <= LENGTH
            return source[[number % 16 for number in numbers]]

    asked = replace(task("x"), sampling=replace(STEPS, guidance_scale=(1.0,)))
    story = asked.story(count)
    frames = FramesTogether(Long(), asked.resolved(model, story), model, story, Execution(8), silent, 8.0)
    for number in range(count):
        frames[number : number + 1]
        if number > count // 2:
            held = (x for x in gc.get_objects() if type(x) is torch.Tensor and x.shape[-3:] == (4, 16, 16))
            sizes = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in held}
            most = max(most, sum(sizes.values()))
    return most


def test_memory_does_not_grow_with_the_film(plain: LatentDiffusion) -> None:
    model = with_time(plain, SMALL)
    short, long = most_alive(model, 20), most_alive(model, 32)
    assert 0 < long <= short


def test_a_decoder_along_time_sees_windows(plain: LatentDiffusion, tmp_path: Path) -> None:
    assert isinstance(plain.codec, AutoencoderCodec)
    codec = with_time_decoder(plain.codec, DecoderSettings(inner=4))
    untaught = replace(taught(plain), codec=codec)
    asked = task(film(tmp_path))
    frame_by_frame = asked.run(taught(plain)).frames[:]
    # Only where windows fade is it another mix: of pictures, and not of what they are decoded from.
    assert (asked.run(untaught).frames[:3] - frame_by_frame[:3]).abs().max() < 1e-5
    for value in codec.layers.parameters():
        value.copy_(0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))
    assert (asked.run(untaught).frames[:] - frame_by_frame).abs().mean() > 1e-4


CHANGES: dict[str, Coherence] = {"together": Coherence(together=4), "motion": Coherence(motion=0.5)}


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_changes_the_film(name: str, plain: LatentDiffusion, tmp_path: Path) -> None:
    asked, model = task(film(tmp_path)), taught(plain)
    before, after = (each.run(model).frames[:] for each in (asked, replace(asked, coherence=CHANGES[name])))
    assert not torch.equal(before, after)


def test_what_does_not_go_together_is_refused_by_name(plain: LatentDiffusion, tmp_path: Path) -> None:
    source, model = film(tmp_path, 3), taught(plain)
    for coherence, said in ((Coherence(every=4), "leave out every 4"), (Coherence(depth=0.2), "leave out depth 0.2")):
        with pytest.raises(TaskError, match=said):
            task(source, coherence=coherence).run(model)
    with pytest.raises(TaskError, match=r"leave out together 4 and motion 0\.5, or give it layers along time"):
        task(source, coherence=Coherence(together=4, motion=0.5)).run(plain)
    with pytest.raises(TaskError, match="gone over one by one; leave this out"):
        task(source, method="same-model", coherence=Coherence(motion=0.5))
    for values, said in (({"together": 1}, "from 2, got 1"), ({"motion": -1}, "from 0, got -1")):
        with pytest.raises(TaskError, match=said):
            Coherence(**values)
    moving_still = replace(toy_model(), moving=model.moving)
    assert any("sees no film" in note for note in task(source, method="same-model").notes(moving_still))


def test_a_file_and_a_record_make_it_again(folder: Path, plain: LatentDiffusion, tmp_path: Path) -> None:
    save_time(tmp_path / "time.safetensors", taught(plain))
    model = load(folder, "cpu", motion=tmp_path / "time.safetensors")
    clip = task(film(tmp_path)).run(model)
    clip.save(tmp_path / "x.apng")
    again = Rerun.read(tmp_path / "x.json")
    made = again.record.model
    assert made is not None and made.motion_adapter == str(tmp_path / "time.safetensors")
    assert again.record.fields["coherence"] == {"every": 1, "depth": None, "together": LENGTH, "motion": 1.0}
    same = load(made.name, "cpu", motion=made.motion_adapter)
    assert again.differences(same) == []
    assert torch.equal(again.run(same).frames[:], clip.frames[:])
