# pyright: basic
"""Motion adapters: parity with diffusers, and what stays as it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.unets.unet_motion_model import MotionAdapter, UNetMotionModel
from diffusers.pipelines.animatediff.pipeline_animatediff import AnimateDiffPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from safetensors.torch import save_file
from tiny import WIDTH
from tiny_upscaler import stir

from segue.cli.options import ModelChoice
from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.errors import CheckpointError, ModelError, ModelNotFoundError, TaskError
from segue.models.clip_rows import dialled
from segue.models.control import Control, controlled
from segue.models.control_files import load_control
from segue.models.denoiser import x0_from
from segue.models.families.animatediff import TRAINED, with_motion_adapter, with_strength
from segue.models.loading import load_model
from segue.models.lora import MOTION, merged
from segue.models.weights import quiet
from segue.tasks.record import ModelRecord
from segue.types import Call, RowId, State, silent

PROMPT, NEGATIVE, FRAMES = "a red apple", "cat", 4
SETTINGS: dict[str, Any] = {
    "block_out_channels": (WIDTH, 64),
    "motion_layers_per_block": 1,
    "motion_num_attention_heads": 8,
    "motion_norm_num_groups": 8,
    "motion_max_seq_length": 6,
}


def write_adapter(folder, **changes: Any):
    torch.manual_seed(8)
    adapter = MotionAdapter(**{**SETTINGS, **changes})
    stir(adapter)
    with quiet():
        adapter.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return write_adapter(tmp_path_factory.mktemp("models") / "motion")


@pytest.fixture(scope="module")
def moving(folder, adapter):
    return with_motion_adapter(load_model(folder, device="cpu"), adapter)


def ours(model, noise: torch.Tensor, steps=5, scale=6.0, frames=FRAMES) -> torch.Tensor:
    schedule = model.schedule(steps, (64, 64), solver="ddim")
    text = model.text([NEGATIVE, PROMPT])
    guided = classifier_free(text[[1] * len(noise)], text[[0] * len(noise)], scale)
    rows = tuple(RowId("clip", frame) for frame in range(len(noise)))
    state = State(noise * schedule.start_scale, torch.zeros(len(noise), dtype=torch.int64), rows)
    return collect(denoise(model.over(frames).denoiser, state, schedule, guided), schedule)


def start(seed: int = 4) -> torch.Tensor:
    return torch.randn(FRAMES, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def theirs(folder, adapter, noise: torch.Tensor) -> torch.Tensor:
    with quiet():
        levels: Any = DDIMScheduler
        base: Any = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
        motion = MotionAdapter.from_pretrained(adapter)
        pipeline: Any = AnimateDiffPipeline(
            vae=base.vae,
            text_encoder=base.text_encoder,
            tokenizer=base.tokenizer,
            unet=base.unet,
            motion_adapter=motion,
            scheduler=levels.from_config(base.scheduler.config, **TRAINED),
        )
    pipeline.set_progress_bar_config(disable=True)
    return (
        pipeline(
            PROMPT,
            negative_prompt=NEGATIVE,
            num_inference_steps=5,
            guidance_scale=6.0,
            height=64,
            width=64,
            num_frames=len(noise),
            latents=noise.transpose(0, 1)[None],
            output_type="latent",
        )
        .frames[0]
        .transpose(0, 1)
    )


def test_latents_of_a_clip_equal_diffusers(folder, adapter, moving):
    noise = start()
    expected, got = theirs(folder, adapter, noise), ours(moving, noise)
    assert expected.std() > 0.1
    assert (got - expected).abs().max() <= 1e-4
    still = replace(moving, denoiser=replace(moving.denoiser, network=moving.denoiser.network.network))
    assert (ours(still, noise) - expected).abs().max() > 1e-2


def test_an_adapter_without_a_middle_equals_diffusers(folder, tmp_path):
    adapter = write_adapter(tmp_path / "v1", use_motion_mid_block=False)
    moving = with_motion_adapter(load_model(folder, device="cpu"), adapter)
    assert (ours(moving, start()) - theirs(folder, adapter, start())).abs().max() <= 1e-4


def test_single_pictures_and_strength_0_are_those_of_the_model(folder, adapter, model, moving):
    levels = replace(model, scheduler={**model.scheduler, **TRAINED}, moving=moving.moving)
    expected = ours(levels, start(), frames=1)
    assert torch.equal(ours(moving, start(), frames=1), expected)
    off = with_motion_adapter(load_model(folder, device="cpu"), adapter, strength=0)
    assert (ours(off, start()) - expected).abs().max() < 1e-5
    half = with_motion_adapter(load_model(folder, device="cpu"), adapter, strength=0.5)
    assert torch.equal(ours(with_strength(moving, 0), start(), frames=FRAMES), ours(off, start()))
    away = [(ours(one, start()) - expected).abs().mean() for one in (half, moving)]
    assert 0 < away[0] < away[1]


def test_frames_at_dial_0_are_those_of_the_model_beside_others_that_move(model, moving):
    text = moving.text([NEGATIVE, PROMPT])
    told = classifier_free(text[[1] * FRAMES], text[[0] * FRAMES], 6.0)
    at = moving.schedule(5, (64, 64), solver="ddim").step(torch.zeros(FRAMES, dtype=torch.int64))[0]
    whole, plain = (one.denoiser(start(), at, told) for one in (moving.over(FRAMES), moving.over(1)))
    made = {
        dials: moving.over(FRAMES).denoiser(start(), at, dialled(told, dials))
        for dials in ((0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 0, 0.5))
    }
    assert torch.equal(made[0, 0, 0, 0], plain) and torch.allclose(made[1, 1, 1, 1], whole, atol=1e-3)
    some = made[0, 1, 0, 0.5]
    assert torch.equal(some[[0, 2]], plain[[0, 2]])
    assert all(float((some - plain)[frame].abs().max()) > 1e-3 for frame in (1, 3))


def test_the_unet_is_left_as_it_was(moving):
    ours(moving, start(), steps=1)
    assert not any(module._forward_hooks for module in moving.parts["unet"].modules())


def test_a_file_of_the_original_layout_is_the_same_adapter(folder, adapter, moving, tmp_path):
    weights = MotionAdapter.from_pretrained(adapter).state_dict()
    named = {}
    for key, value in weights.items():
        name = key.replace(".motion_modules.", ".MODULES.").replace(
            "transformer_blocks.", "temporal_transformer.transformer_blocks."
        )
        for part in ("norm.", "proj_in.", "proj_out."):
            name = name.replace(f".MODULES.0.{part}", f".MODULES.0.temporal_transformer.{part}")
            name = name.replace(f".MODULES.1.{part}", f".MODULES.1.temporal_transformer.{part}")
        name = name.replace(".attn1.", ".attention_blocks.0.").replace(".attn2.", ".attention_blocks.1.")
        name = name.replace(".norm1.", ".norms.0.").replace(".norm2.", ".norms.1.").replace(".norm3.", ".ff_norm.")
        name = name.replace(".pos_embed.pe", ".attention_blocks.0.pos_encoder.pe").replace(
            ".MODULES.", ".motion_modules."
        )
        named[f"module.{name}"] = value.contiguous()
    path = tmp_path / "mm.safetensors"
    save_file(named, path)
    read: Any = with_motion_adapter(load_model(folder, device="cpu"), path)
    assert read.moving.most == SETTINGS["motion_max_seq_length"]
    mine, expected = read.parts[MOTION].state_dict(), moving.parts[MOTION].state_dict()
    assert mine.keys() == expected.keys()
    assert all(torch.equal(mine[key], expected[key]) for key in expected)


def test_a_motion_lora_is_merged_into_the_adapter(folder, adapter, model, tmp_path):
    layer = "down_blocks.0.motion_modules.0.transformer_blocks.0.attn1"
    torch.manual_seed(2)
    up, down = torch.randn(WIDTH, 2), torch.randn(2, WIDTH)
    original = layer.replace("transformer_blocks", "temporal_transformer.transformer_blocks")
    original = original.replace("attn1", "attention_blocks.0")
    for number, name in enumerate((f"unet.{layer}", original)):
        path = tmp_path / f"{number}.safetensors"
        factors = {f"{name}.processor.to_q_lora.down.weight": down, f"{name}.processor.to_q_lora.up.weight": up}
        save_file(factors, path)
        fresh: Any = with_motion_adapter(load_model(folder, device="cpu"), adapter)
        before = fresh.parts[MOTION].get_submodule(f"{layer}.to_q").weight.clone()
        taught: Any = merged(fresh, {path: 0.5}).parts[MOTION]
        after = taught.get_submodule(f"{layer}.to_q").weight
        assert torch.allclose(after, before + 0.5 * up @ down, atol=1e-6)
        with pytest.raises(CheckpointError, match="another architecture"):
            merged(load_model(folder, device="cpu"), {path: 0.5})


def test_what_cannot_be_put_together_is_refused(folder, adapter, moving, model, short_model, tmp_path):
    with pytest.raises(ModelError, match="makes clips already"):
        with_motion_adapter(moving, adapter)
    with pytest.raises(TaskError, match="must be a number"):
        with_motion_adapter(model, adapter, strength=float("nan"))
    with pytest.raises(CheckpointError, match="32 channels, and the UNet 64"):
        with_motion_adapter(model, write_adapter(tmp_path / "wide", block_out_channels=(WIDTH, WIDTH)))
    with pytest.raises(CheckpointError, match="3 levels"):
        with_motion_adapter(model, write_adapter(tmp_path / "deep", block_out_channels=(WIDTH, 64, 64)))
    with pytest.raises(ModelNotFoundError, match="no motion adapter"):
        with_motion_adapter(model, tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="expected a motion adapter"):
        with_motion_adapter(model, folder / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(TaskError, match="6 frames at once"):
        moving.over(7)


def test_the_whole_motion_unet_of_diffusers_agrees(folder, adapter, moving):
    """One call, at rows that stand at different times for different clips."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    kind: Any = UNetMotionModel
    whole = kind.from_unet2d(unet, MotionAdapter.from_pretrained(adapter)).eval()
    text, noise = moving.text([PROMPT, NEGATIVE]), torch.cat([start(1), start(2)])
    times = torch.tensor([10.0, 700.0])
    expected = whole(
        noise.unflatten(0, (2, FRAMES)).transpose(1, 2), times, text.text.repeat_interleave(FRAMES, 0)
    ).sample
    rows = text[[0] * FRAMES + [1] * FRAMES]
    now, _ = moving.schedule(5, (64, 64)).step(torch.zeros(2 * FRAMES, dtype=torch.int64))
    call = Call(now, (), (0,) * 8, group=FRAMES)
    got = moving.denoiser.network(noise, times.repeat_interleave(FRAMES).double(), rows, call)
    assert (got - expected.transpose(1, 2).flatten(0, 1)).abs().max() < 1e-4


def test_an_adapter_is_loaded_with_a_model_and_stands_in_its_record(folder, adapter, moving):
    choice = ModelChoice(model=str(folder), device="cpu", motion_adapter=str(adapter))
    model = choice.load(silent)
    assert model.adapter == str(adapter)
    assert model.moving == moving.moving
    assert model.fingerprint == moving.fingerprint != load_model(folder, device="cpu").fingerprint
    again = ModelChoice().otherwise(ModelRecord.of(model))
    assert again.motion_adapter == str(adapter)


def test_controls_act_on_clips(folder, adapter, moving, tmp_path):
    """What a control adds goes through the layers along time as if it were the UNet's own."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    kind: Any = ControlNetModel
    control = kind.from_unet(unet, conditioning_embedding_out_channels=(16, 16, 32, 32))
    stir(control)
    with quiet():
        control.save_pretrained(tmp_path / "control")
    network = load_control(tmp_path / "control", moving)
    told = controlled(moving, [Control("edges", network)])
    pictures = torch.rand(FRAMES, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    rows = replace(moving.text([PROMPT] * FRAMES), residual_inputs={"edges": pictures})
    now, _ = moving.schedule(5, (64, 64)).step(torch.zeros(FRAMES, dtype=torch.int64))
    got = told.over(FRAMES).denoiser(start(), now, rows)
    assert (got - moving.over(FRAMES).denoiser(start(), now, replace(rows, residual_inputs={}))).abs().max() > 1e-3

    whole: Any = UNetMotionModel
    whole = whole.from_unet2d(unet, MotionAdapter.from_pretrained(adapter)).eval()
    times = now.time.float()
    down, middle = control.eval()(start(), times, rows.text, controlnet_cond=pictures, return_dict=False)
    raw = (
        whole(
            start().transpose(0, 1)[None],
            times[:1],
            rows.text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        )
        .sample[0]
        .transpose(0, 1)
    )
    assert (got - x0_from(raw, start(), now, "epsilon")).abs().max() < 1e-4
