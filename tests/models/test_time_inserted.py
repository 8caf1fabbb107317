# pyright: basic
"""Time put into image models: what stays as it is, what frames learn of each other, and what a file keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import denoise
from segue.errors import CheckpointError, ModelError, TaskError
from segue.models.bundle import LatentDiffusion
from segue.models.clip_rows import dialled
from segue.models.temporal_layers import Carry
from segue.models.time_files import save_time, with_time_file
from segue.models.time_inserted import CONTEXT, FPS, TimeSettings, continuing, time_layers, with_motion, with_time
from segue.types import Conditioning, Point, RowId, State

SMALL = TimeSettings(inner=8, heads=2, head_width=4, window=2, vector=16, queries=2, context=6, frames=4)
FRAMES = 4


def taught(model: LatentDiffusion, settings: TimeSettings = SMALL, seed: int = 5) -> LatentDiffusion:
    """The model with layers along time that learned something, at random."""
    made = with_time(model, settings)
    generator = torch.Generator().manual_seed(seed)
    for value in time_layers(made).parameters():
        value.copy_(0.3 * torch.randn(value.shape, generator=generator))
    return made


def noisy(model: LatentDiffusion, rows: int = FRAMES, seed: int = 3) -> tuple[torch.Tensor, Point, Conditioning]:
    now, _ = model.schedule(10, model.defaults.size).step(torch.full((rows,), 4))
    x = torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    at = replace(now, rows=tuple(RowId("clip", frame) for frame in range(rows)))
    return x, at, model.text(["a red apple"] * rows)


def test_layers_that_learned_nothing_change_nothing(model: LatentDiffusion):
    x, at, cond = noisy(model)
    assert torch.equal(with_time(model, SMALL).over(FRAMES).denoiser(x, at, cond), model.denoiser(x, at, cond))


def test_single_frames_motion_0_and_alpha_1_are_the_image_model_to_the_bit(model: LatentDiffusion):
    x, at, cond = noisy(model)
    plain, moving = model.denoiser(x, at, cond), taught(model)
    assert not torch.allclose(moving.over(FRAMES).denoiser(x, at, cond), plain, atol=1e-3)
    assert torch.equal(moving.denoiser(x, at, cond), plain)
    assert torch.equal(with_motion(moving, 0).over(FRAMES).denoiser(x, at, cond), plain)
    assert torch.equal(model.denoiser(x, at, cond), plain)
    for name, value in time_layers(moving).named_parameters():
        if name.endswith(".mix"):
            value.fill_(torch.inf)
    assert torch.equal(moving.over(FRAMES).denoiser(x, at, cond), plain)


def test_frames_at_dial_0_are_the_image_models_to_the_bit_beside_others_that_move(model: LatentDiffusion):
    x, at, cond = noisy(model)
    moving = taught(model).over(FRAMES)
    plain, moved = model.denoiser(x, at, cond), moving.denoiser(x, at, cond)

    def made(*dials: float) -> torch.Tensor:
        told = classifier_free(cond, cond, 1.0)
        return moving.denoiser(x, at, dialled(told, dials))

    assert torch.equal(made(0, 0, 0, 0), plain) and torch.equal(made(1, 1, 1, 1), moved)
    assert torch.equal(made(0.5, 0.5, 0.5, 0.5), with_motion(moving, 0.5).denoiser(x, at, cond))
    some = made(0, 1, 0, 0.5)
    assert torch.equal(some[[0, 2]], plain[[0, 2]])
    for frame in (1, 3):
        assert not torch.allclose(some[frame], plain[frame], atol=1e-3)
        assert not torch.allclose(some[frame], moved[frame], atol=1e-4)
    assert torch.equal(
        with_motion(moving, 0).denoiser(x, at, dialled(classifier_free(cond, cond, 1.0), [1] * 4)), plain
    )


def test_clips_of_a_batch_do_not_see_each_other(model: LatentDiffusion):
    x, at, cond = noisy(model, 2 * FRAMES)
    moving = taught(model).over(FRAMES)
    whole = moving.denoiser(x, at, cond)
    for first in (0, FRAMES):
        rows = range(first, first + FRAMES)
        alone = moving.denoiser(x[list(rows)], at[rows], cond[rows])
        assert torch.allclose(whole[first : first + FRAMES], alone, atol=1e-4)


def test_a_file_keeps_the_layers(model: LatentDiffusion, tmp_path):
    x, at, cond = noisy(model)
    moving = taught(model).over(FRAMES)
    made = moving.denoiser(x, at, cond)
    save_time(tmp_path / "whole.safetensors", moving, whole=True)
    save_time(tmp_path / "bytes.safetensors", moving)
    again = with_time_file(model, tmp_path / "whole.safetensors")
    assert torch.equal(again.over(FRAMES).denoiser(x, at, cond), made)
    assert again.moving == moving.moving and again.fingerprint != model.fingerprint
    near = with_time_file(model, tmp_path / "bytes.safetensors").over(FRAMES)
    kept = dict(time_layers(near).named_parameters())
    for name, value in time_layers(moving).named_parameters():
        # Half a step of 127 to the largest weight of each output.
        most = value.flatten(1).abs().amax(1) if value.ndim > 1 else value.abs()
        apart = (kept[name] - value).abs()
        assert ((apart.flatten(1).amax(1) if value.ndim > 1 else apart) <= 0.51 / 127 * most).all()
    change = (made - model.denoiser(x, at, cond)).square().mean()
    assert (near.denoiser(x, at, cond) - made).square().mean() < 0.15**2 * change
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "bytes")]
    assert sizes[1] < 0.45 * sizes[0]


def test_layers_of_another_architecture_are_refused(model: LatentDiffusion, folder, tmp_path):
    save_time(tmp_path / "time.safetensors", taught(model))
    with pytest.raises(ModelError, match="together already"):
        with_time_file(taught(model), tmp_path / "time.safetensors")
    with pytest.raises(CheckpointError, match="no layers along time"):
        with_time_file(model, folder / "unet" / "diffusion_pytorch_model.safetensors")


def test_speed_and_known_frames_are_heard(model: LatentDiffusion):
    x, at, cond = noisy(model)
    moving = taught(model).over(FRAMES)
    made = moving.denoiser(x, at, cond)
    usual = replace(cond, extra={FPS: torch.full((FRAMES,), SMALL.fps)})
    assert torch.equal(moving.denoiser(x, at, usual), made)
    fast = replace(cond, extra={FPS: torch.full((FRAMES,), 24.0)})
    assert not torch.allclose(moving.denoiser(x, at, fast), made, atol=1e-4)
    nothing = replace(cond, extra={CONTEXT: torch.zeros(FRAMES, 5, 8, 8)})
    assert torch.equal(moving.denoiser(x, at, nothing), made)
    given = torch.zeros(FRAMES, 5, 8, 8)
    given[0] = 1
    assert not torch.allclose(moving.denoiser(x, at, replace(cond, extra={CONTEXT: given})), made, atol=1e-4)
    with pytest.raises(TaskError, match="never learned"):
        deaf = taught(model, replace(SMALL, context=0)).over(FRAMES)
        deaf.denoiser(x, at, replace(cond, extra={CONTEXT: given}))


def test_what_learns_is_the_layers_alone(model: LatentDiffusion):
    moving = with_time(model, SMALL).over(FRAMES)
    x, at, cond = noisy(model)
    with torch.enable_grad():
        moving.denoiser(x, at, cond).square().mean().backward()
    layers = time_layers(moving)
    learned = [name for name, value in layers.named_parameters() if value.grad is not None and value.grad.any()]
    assert len([name for name in learned if name.endswith("last.weight")]) == len(layers.layers)
    assert all(value.grad is None for value in model.parts["unet"].parameters())


def test_the_dial_is_refused_where_there_is_none(model: LatentDiffusion):
    with pytest.raises(ModelError, match="no layers along time"):
        with_motion(model, 0.5)
    with pytest.raises(TaskError, match="from 0"):
        with_motion(with_time(model, SMALL), -1)


def test_a_stream_of_frames_is_the_whole_clip(model: LatentDiffusion):
    moving = taught(model, replace(SMALL, blocks="recurrence", transformers=None))
    x, _, cond = noisy(model, 2 * FRAMES)
    empty = model.text([""] * 2 * FRAMES)
    ids = [RowId(clip, frame) for clip in ("one", "other") for frame in range(FRAMES)]
    schedule = model.schedule(3, model.defaults.size)

    def drawn(model: LatentDiffusion, rows: list[int]) -> torch.Tensor:
        state = State(x[rows], torch.zeros(len(rows), dtype=torch.int64), tuple(ids[row] for row in rows))
        guided = classifier_free(cond[rows], empty[rows], 2.0)
        *_, last = denoise(model.denoiser, state, schedule, guided)
        return last.x

    whole = drawn(moving.over(FRAMES), list(range(2 * FRAMES)))
    with continuing(moving, Carry()):
        frames = [drawn(moving, [frame, FRAMES + frame]) for frame in range(FRAMES)]
    assert torch.allclose(torch.stack(frames, 1).flatten(0, 1), whole, atol=1e-3 * float(whole.abs().max()))
    alone = torch.stack([drawn(moving, [frame, FRAMES + frame]) for frame in range(FRAMES)], 1).flatten(0, 1)
    assert not torch.allclose(alone, whole, atol=1e-2 * float(whole.abs().max()))
    with pytest.raises(ModelError, match="look ahead"), continuing(taught(model), Carry()):
        pass
