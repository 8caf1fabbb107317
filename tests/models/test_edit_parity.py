# pyright: basic
"""Edits equal what diffusers' own pipelines make of the same picture, words, seed and settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import StableDiffusionImg2ImgPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint import StableDiffusionInpaintPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_instruct_pix2pix import (
    StableDiffusionInstructPix2PixPipeline,
)
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img import (
    StableDiffusionXLImg2ImgPipeline,
)
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_inpaint import (
    StableDiffusionXLInpaintPipeline,
)
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from test_inpainting import write_inpainting
from test_instruction import write_instruction
from tiny import write_model
from tiny_xl import write_xl

from segue.media import Clip, TensorFrames
from segue.media.clip import levels_of
from segue.models.loading import load_model
from segue.models.weights import quiet
from segue.tasks.edit import Edit
from segue.tasks.edit_settings import Change, EditArea
from segue.tasks.sampling import Sampling

PROMPT, NEGATIVE, STEPS, SCALE = "a red apple", "cat", 10, 4.0
SIZE = (64, 48)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("edit") / "plain", vae="tiny", length=24, seed=2)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_diffusers_version": "0.30.0"}))
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Of the layout of XL."""
    return write_xl(tmp_path_factory.mktemp("edit") / "xl", vae="tiny", seed=6)


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    return write_inpainting(tmp_path_factory.mktemp("edit") / "painter", vae="tiny", length=24, seed=3)


@pytest.fixture(scope="module")
def editor(tmp_path_factory):
    return write_instruction(tmp_path_factory.mktemp("edit") / "editor", "sd", length=24, seed=4)


def scene(folder: Path) -> tuple[str, str, torch.Tensor, torch.Tensor]:
    """A picture and a mask along latents, as files and as numbers."""
    coarse = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(8))
    picture = torch.nn.functional.interpolate(coarse, SIZE[::-1], mode="bilinear").mul(255).round().byte()
    mask = torch.zeros(1, 3, SIZE[1], SIZE[0], dtype=torch.uint8)
    mask[..., 8:32, 16:48] = 255
    names = [str(Clip(TensorFrames(item), fps=1).save(folder / f"{name}.png")) for name, item in
             (("picture", picture), ("mask", mask))]  # fmt: skip
    return names[0], names[1], picture.float() / 255, mask[:, :1].float() / 255


def theirs(kind: Any, folder: Path, **told: Any) -> torch.Tensor:
    with quiet():
        pipeline = kind.from_pretrained(folder, local_files_only=True)
        pipeline.scheduler = DDIMScheduler.from_config({**pipeline.scheduler.config, "clip_sample": False})
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(
            PROMPT, negative_prompt=NEGATIVE, num_inference_steps=STEPS, guidance_scale=SCALE,
            generator=torch.Generator().manual_seed(5), output_type="pt", **told,
        ).images  # fmt: skip


def ours(folder: Path, picture: str, method: Any = "sdedit", **told: Any) -> torch.Tensor:
    sampling = Sampling(STEPS, (SCALE,), solver="ddim", size=SIZE)
    task = Edit(picture, PROMPT, method, negative=NEGATIVE, seed=5, sampling=sampling, **told)
    return levels_of(task.run(load_model(folder, device="cpu")).frames, slice(None)).float()


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert theirs.std() > 0.01
    return float((ours - (theirs * 255)).abs().max())


@pytest.mark.parametrize("strength", [0.3, 0.8, 1.0])
def test_sdedit_is_image_to_image(strength, model, tmp_path):
    picture, _, numbers, _ = scene(tmp_path)
    expected = theirs(StableDiffusionImg2ImgPipeline, model, image=numbers, strength=strength)
    assert apart(ours(model, picture, change=Change(strength)), expected) <= 1


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_inpainting_with_any_model_is_diffusers(strength, model, tmp_path):
    picture, name, numbers, mask = scene(tmp_path)
    expected = theirs(
        StableDiffusionInpaintPipeline, model, image=numbers, mask_image=mask, strength=strength,
        width=SIZE[0], height=SIZE[1],
    )  # fmt: skip
    made = ours(model, picture, "inpaint", change=Change(strength), area=EditArea((name,), 0))
    inside = mask[0, 0] > 0
    # Theirs decodes what is kept, ours is the picture itself.
    assert apart(made[..., inside], expected[..., inside]) <= 1
    assert torch.equal(made[..., ~inside], numbers[..., ~inside] * 255)


@pytest.mark.parametrize("strength", [0.4, 0.9])
def test_edits_of_xl_are_diffusers(strength, large, tmp_path):
    """Image to image, and inpainting with a model that was not made for it."""
    picture, name, numbers, mask = scene(tmp_path)
    expected = theirs(StableDiffusionXLImg2ImgPipeline, large, image=numbers, strength=strength)
    assert apart(ours(large, picture, change=Change(strength)), expected) <= 1
    expected = theirs(
        StableDiffusionXLInpaintPipeline, large, image=numbers, mask_image=mask, strength=strength,
        width=SIZE[0], height=SIZE[1],
    )  # fmt: skip
    made = ours(large, picture, "inpaint", change=Change(strength), area=EditArea((name,), 0))
    inside = mask[0, 0] > 0
    assert apart(made[..., inside], expected[..., inside]) <= 1


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_inpainting_with_a_model_made_for_it_is_diffusers(strength, painter, tmp_path):
    picture, name, numbers, mask = scene(tmp_path)
    expected = theirs(
        StableDiffusionInpaintPipeline, painter, image=numbers, mask_image=mask, strength=strength,
        width=SIZE[0], height=SIZE[1],
    )  # fmt: skip
    made = ours(painter, picture, "inpaint", change=Change(strength), area=EditArea((name,), 0))
    inside = mask[0, 0] > 0
    assert apart(made[..., inside], expected[..., inside]) <= 1


@pytest.mark.parametrize("scale", [1.5, 1.0])
def test_instructions_are_diffusers(scale, editor, tmp_path):
    picture, _, numbers, _ = scene(tmp_path)
    expected = theirs(StableDiffusionInstructPix2PixPipeline, editor, image=numbers, image_guidance_scale=scale)
    made = ours(editor, picture, "instruct", change=Change(picture_guidance=scale))
    assert apart(made, expected) <= 1
    assert json.loads((editor / "unet" / "config.json").read_text())["in_channels"] == 8
