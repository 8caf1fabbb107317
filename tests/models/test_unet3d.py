# pyright: basic
"""Text to video of the layout of ModelScope's equals diffusers' own pipeline on the same folder."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from diffusers.pipelines.deprecated.text_to_video_synthesis.pipeline_text_to_video_synth import TextToVideoSDPipeline
from tiny import WIDTH, write_model
from tiny_upscaler import stir

from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.models.loading import load_model
from segue.models.weights import quiet
from segue.types import RowId, State

PROMPT, NEGATIVE, FRAMES = "a red apple", "cat", 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("models") / "unet3d")
    unet = UNet3DConditionModel(
        sample_size=8,
        block_out_channels=(WIDTH, 64),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    )
    stir(unet)
    with quiet():
        unet.save_pretrained(folder / "unet")
    index = json.loads((folder / "model_index.json").read_text())
    kept = {key: index[key] for key in ("scheduler", "text_encoder", "tokenizer", "vae")}
    kept |= {"_class_name": "TextToVideoSDPipeline", "unet": ["diffusers", "UNet3DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(kept))
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder, device="cpu")


def start(seed: int) -> torch.Tensor:
    return torch.randn(FRAMES, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def ours(model, noise: torch.Tensor, steps: int, scale: float) -> torch.Tensor:
    """Latents of clips, whose frames stand one after another."""
    schedule = model.schedule(steps, (64, 64))
    rows = tuple(RowId(f"clip {frame // FRAMES}", frame % FRAMES) for frame in range(len(noise)))
    text = model.text([NEGATIVE, PROMPT])
    guided = classifier_free(text[[1] * len(noise)], text[[0] * len(noise)], scale)
    state = State(noise * schedule.start_scale, torch.zeros(len(noise), dtype=torch.int64), rows)
    return collect(denoise(model.over(FRAMES).denoiser, state, schedule, guided), schedule)


def test_latents_of_a_clip_equal_diffusers(folder, model):
    with quiet():
        pipeline: Any = TextToVideoSDPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    noise = start(4)
    expected = pipeline(
        PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=5,
        guidance_scale=6.0,
        height=64,
        width=64,
        num_frames=FRAMES,
        latents=noise.transpose(0, 1)[None],
        output_type="latent",
    ).frames
    got = ours(model, noise, 5, 6.0)
    assert expected.std() > 0.1
    assert (got - expected[0].transpose(0, 1)).abs().max() <= 1e-4


def test_clips_of_a_batch_are_as_one_by_one(model):
    both = ours(model, torch.cat([start(1), start(2)]), 3, 4.0)
    alone = torch.cat([ours(model, start(seed), 3, 4.0) for seed in (1, 2)])
    assert (both - alone).abs().max() < 1e-4
    assert (both[:FRAMES] - both[FRAMES:]).abs().max() > 0.1


def test_what_it_says_about_itself(model):
    assert (model.family, model.moving.words, model.moving.given) == ("unet3d", True, ())
    assert model.defaults.size == (64, 64)
