# pyright: basic
"""Inpainting models do, step by step, what diffusers' own pipeline does with them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint import StableDiffusionInpaintPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from ldm_layout import to_ldm
from tiny import write_model
from transformers import CLIPTokenizer

from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import denoise
from segue.diffusion.starts import from_seeds
from segue.errors import CheckpointError, TaskError
from segue.models import single_file
from segue.models.inpainting import inpainting
from segue.models.installed import folder_facts
from segue.models.loading import load_model
from segue.models.weights import quiet
from segue.tasks.image import Image
from segue.types import RowId

PROMPT, NEGATIVE, STEPS = "a red apple", "cat", 6
INDEX = {"_class_name": "StableDiffusionInpaintPipeline", "_diffusers_version": "0.30.0"}


def write_inpainting(folder: Path, **settings: Any) -> Path:
    write_model(folder, in_channels=9, **settings)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, **INDEX}))
    return folder


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inpainting(tmp_path_factory.mktemp("inpainting") / "kl", seed=4)


@pytest.fixture(scope="module")
def tiny_painter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its autoencoder draws no samples, so that diffusers encodes the picture exactly as we do."""
    return write_inpainting(tmp_path_factory.mktemp("inpainting") / "tiny", seed=5, vae="tiny", length=24)


def scene(size: tuple[int, int] = (64, 64), soft: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture and a mask whose edges lie inside latents."""
    width, height = size
    generator = torch.Generator().manual_seed(8)
    picture = torch.rand(3, height, width, generator=generator)
    mask = torch.zeros(height, width)
    mask[5 : height // 2 + 3, 12:43] = 1.0
    if soft:
        mask = torch.rand(height, width, generator=generator)
    return picture, mask


def ours(model, scale: float, size: tuple[int, int], soft: bool) -> tuple[list[torch.Tensor], torch.Tensor]:
    schedule = model.schedule(STEPS, size, solver="ddim")
    concat = inpainting(model.codec, *scene(size, soft))
    text = model.text([NEGATIVE, PROMPT])
    text = replace(text, concat=concat.expand(len(text), -1, -1, -1))
    state = from_seeds([11], [RowId("a")], schedule, (4, size[1] // 8, size[0] // 8), model.device)
    states = list(denoise(model.denoiser, state, schedule, classifier_free(text[[1]], text[[0]], scale)))
    return [state.x for state in states[1:]], model.codec.decode(states[-1].x)


def theirs(folder: Path, scale: float, size: tuple[int, int], soft: bool) -> tuple[list[torch.Tensor], torch.Tensor]:
    steps: list[torch.Tensor] = []

    def keep(pipeline: Any, number: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        steps.append(tensors["latents"])
        return {}

    with quiet():
        pipeline: Any = StableDiffusionInpaintPipeline.from_pretrained(folder, local_files_only=True)
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    picture, mask = scene(size, soft)
    given = {}
    if "AutoencoderKL" in type(pipeline.vae).__name__:
        # It would draw a sample of the posterior; we take its mode.
        blanked = (2 * picture - 1) * (mask < 0.5)
        given["masked_image_latents"] = pipeline.vae.encode(blanked[None]).latent_dist.mode() * 0.18215
    images = pipeline(
        PROMPT,
        image=picture[None],
        mask_image=mask[None, None],
        negative_prompt=NEGATIVE,
        num_inference_steps=STEPS,
        guidance_scale=scale,
        width=size[0],
        height=size[1],
        generator=torch.Generator().manual_seed(11),
        callback_on_step_end=keep,
        output_type="pt",
        **given,
    ).images
    return steps, images


@pytest.mark.parametrize("name", ["painter", "tiny_painter"])
@pytest.mark.parametrize(
    ("scale", "size", "soft"), [(5.0, (64, 64), False), (1.0, (64, 64), False), (3.0, (80, 48), True)]
)
def test_every_step_equals_diffusers(name, scale, size, soft, request):
    folder = request.getfixturevalue(name)
    expected, shown = theirs(folder, scale, size, soft)
    got, picture = ours(load_model(folder, device="cpu"), scale, size, soft)
    assert len(got) == len(expected) == STEPS
    for number, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert (a - b).abs().max() < 2e-4, f"step {number}"
    assert (picture - shown).abs().max() <= 1 / 255
    assert picture.std() > 0.01


def test_the_picture_and_the_mask_both_count(tiny_painter):
    """The comparison could not pass if either were dropped."""
    model = load_model(tiny_painter, device="cpu")
    picture, mask = scene()
    schedule = model.schedule(STEPS, (64, 64), solver="ddim")
    now, _ = schedule.step(torch.zeros(1, dtype=torch.int64))
    x, text = torch.ones(1, 4, 8, 8), model.text([PROMPT])

    def x0(picture: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return model.denoiser(x, now, replace(text, concat=inpainting(model.codec, picture, mask)))

    first = x0(picture, mask)
    assert (first - x0(1 - picture, mask)).abs().max() > 1e-3
    assert (first - x0(picture, 1 - mask)).abs().max() > 1e-3


def test_what_is_painted_is_not_shown(model):
    picture, mask = scene()
    other = torch.where(mask >= 0.5, 1 - picture, picture)
    concat = inpainting(model.codec, picture, mask)
    assert torch.equal(concat, inpainting(model.codec, other, mask))
    assert concat.shape == (1, 5, 8, 8)
    assert set(concat[:, 0].unique().tolist()) == {0.0, 1.0}
    with pytest.raises(ValueError, match="its mask"):
        inpainting(model.codec, picture, mask[:32])


def test_models_say_whether_they_inpaint(painter, model):
    assert load_model(painter).inpaints
    assert not model.inpaints
    assert folder_facts(painter).problem == ""


def test_an_inpainting_model_without_a_picture_says_what_it_needs(painter):
    with pytest.raises(TaskError, match=r"inpainting model: it takes 9 channels.*a picture and a mask"):
        Image(PROMPT).run(load_model(painter))


def test_another_model_with_picture_and_mask_appended_is_told(model):
    cond = replace(model.text(["a cat"]), concat=inpainting(model.codec, *scene()))
    now, _ = model.schedule(5, (64, 64)).step(torch.zeros(1, dtype=torch.int64))
    with pytest.raises(TaskError, match=r"takes 4 channels.*it is no inpainting model"):
        model.denoiser(torch.zeros(1, 4, 8, 8), now, cond)


def test_models_of_other_channels_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"takes 7 channels.*4 \(text to image\), 9 \(inpainting\) or 8"):
        load_model(write_model(tmp_path / "odd", in_channels=7))


def wide_answer(model) -> torch.Tensor:
    x = torch.randn(1, 9, 8, 8, generator=torch.Generator().manual_seed(2))
    return model.parts["unet"](x, torch.tensor([400.0]), encoder_hidden_states=model.text([PROMPT]).text).sample


@pytest.mark.parametrize("configured", ["as it is", "without a configuration of its own"])
def test_a_single_file_equals_its_folder(configured, painter, tmp_path, monkeypatch):
    single = to_ldm(painter, tmp_path / "model.safetensors")
    if configured == "as it is":
        model = load_model(single, config=painter)
    else:
        plain = Path(shutil.copytree(painter, tmp_path / "plain"))
        path = plain / "unet/config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "in_channels": 4}))
        monkeypatch.setattr(single_file, "_SHIPPED", {"": plain})
        monkeypatch.setattr(single_file, "clip_tokenizer", CLIPTokenizer.from_pretrained)
        model = load_model(single)
    folder = load_model(painter)
    assert model.inpaints
    assert torch.equal(wide_answer(model), wide_answer(folder))
    latents = torch.ones(1, 4, 8, 8)
    assert torch.equal(model.codec.decode(latents), folder.codec.decode(latents))


def test_the_inpainting_model_of_2_x_predicts_noise(painter, tmp_path, monkeypatch):
    """The only one that was published is made from the 512 px model."""
    single = to_ldm(painter, tmp_path / "model.safetensors")
    folder = Path(shutil.copytree(painter, tmp_path / "two"))
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "v_prediction"}))
    monkeypatch.setattr(single_file, "_SHIPPED", {"": folder})
    monkeypatch.setattr(single_file, "SD2", folder)
    monkeypatch.setattr(single_file, "clip_tokenizer", CLIPTokenizer.from_pretrained)
    model = load_model(single)
    assert model.denoiser.prediction == "epsilon"
    assert model.defaults.size == (512, 512)
    assert load_model(single, prediction="v_prediction").denoiser.prediction == "v_prediction"
