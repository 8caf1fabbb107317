# pyright: basic
"""Instruction models do, step by step, what diffusers' own pipelines do with them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_instruct_pix2pix import (
    StableDiffusionInstructPix2PixPipeline,
)
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_instruct_pix2pix import (
    StableDiffusionXLInstructPix2PixPipeline,
)
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from ldm_layout import to_ldm
from tiny import write_model
from tiny_xl import write_xl
from transformers import CLIPTokenizer

from segue.diffusion.guidance import instructed
from segue.diffusion.loop import denoise
from segue.diffusion.starts import from_seeds
from segue.errors import CheckpointError, TaskError
from segue.models import instruction, single_file
from segue.models.bundle import LatentDiffusion
from segue.models.denoiser import Tally
from segue.models.installed import folder_facts
from segue.models.loading import load_model
from segue.models.weights import quiet
from segue.tasks.image import Image
from segue.types import Guided, RowId

PROMPT, NEGATIVE, STEPS = "a red apple", "cat", 6
PIPELINES = {"sd": StableDiffusionInstructPix2PixPipeline, "xl": StableDiffusionXLInstructPix2PixPipeline}


def write_instruction(folder: Path, kind: str, **settings: Any) -> Path:
    index = {"_class_name": PIPELINES[kind].__name__, "_diffusers_version": "0.30.0"}
    if kind == "xl":
        return write_xl(folder, in_channels=8, index=index, **settings)
    write_model(folder, in_channels=8, **settings)
    said = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**said, **index}))
    return folder


@pytest.fixture(scope="module", params=["sd", "xl"])
def editor(request, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, write_instruction(tmp_path_factory.mktemp("instruct") / request.param, request.param, seed=4)


@pytest.fixture(scope="module")
def editing(tmp_path_factory: pytest.TempPathFactory) -> LatentDiffusion:
    return load_model(write_instruction(tmp_path_factory.mktemp("instruct") / "one", "sd", seed=5), device="cpu")


def picture(size: tuple[int, int] = (64, 64), seed: int = 8) -> torch.Tensor:
    return torch.rand(1, 3, size[1], size[0], generator=torch.Generator().manual_seed(seed))


def ours(model: LatentDiffusion, scale: float, picture_scale: float, size: tuple[int, int], negative: str):
    schedule = model.schedule(STEPS, size, solver="ddim")
    text = model.text([negative, PROMPT])
    shown = instruction.shown(model.codec, picture(size))
    cond = instructed(text[[1]], text[[0]], shown, scale, picture_scale)
    state = from_seeds([11], [RowId("a")], schedule, (4, size[1] // 8, size[0] // 8), model.device)
    states = list(denoise(model.denoiser, state, schedule, cond))
    return [state.x for state in states[1:]], model.codec.decode(states[-1].x)


def theirs(kind: str, folder: Path, scale: float, picture_scale: float, size: tuple[int, int], negative: str):
    steps: list[torch.Tensor] = []

    def keep(pipeline: Any, number: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        steps.append(tensors["latents"])
        return {}

    def keep_xl(number: int, time: Any, latents: torch.Tensor) -> None:
        steps.append(latents)

    with quiet():
        pipeline: Any = PIPELINES[kind].from_pretrained(folder, local_files_only=True)
        pipeline.scheduler = DDIMScheduler.from_config({**pipeline.scheduler.config, "clip_sample": False})
    pipeline.set_progress_bar_config(disable=True)
    told: dict[str, Any] = {"callback_on_step_end": keep}
    if kind == "xl":
        told = {"callback": keep_xl, "callback_steps": 1, "width": size[0], "height": size[1]}
    with quiet():
        images = pipeline(
            PROMPT,
            image=picture(size),
            negative_prompt=negative or None,
            num_inference_steps=STEPS,
            guidance_scale=scale,
            image_guidance_scale=picture_scale,
            generator=torch.Generator().manual_seed(11),
            output_type="pt",
            **told,
        ).images
    return steps, images


@pytest.mark.parametrize(
    ("scale", "picture_scale", "size", "negative"),
    [(7.5, 1.5, (64, 64), ""), (5.0, 1.0, (64, 64), NEGATIVE), (3.0, 1.2, (80, 48), NEGATIVE)],
)
def test_every_step_equals_diffusers(scale, picture_scale, size, negative, editor):
    kind, folder = editor
    expected, shown = theirs(kind, folder, scale, picture_scale, size, negative)
    got, made = ours(load_model(folder, device="cpu"), scale, picture_scale, size, negative)
    assert len(got) == len(expected) == STEPS
    for number, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert (a - b).abs().max() < 5e-4, f"step {number}"
    assert (made - shown).abs().max() <= 1 / 255
    assert made.std() > 0.01


def test_the_picture_and_the_words_both_count(editing):
    """The comparison could not pass if either were dropped."""
    text = editing.text(["", PROMPT, "a cat"])
    schedule = editing.schedule(STEPS, (64, 64), solver="ddim")
    now, _ = schedule.step(torch.zeros(1, dtype=torch.int64))

    def x0(word: int, seed: int) -> torch.Tensor:
        cond = instructed(text[[word]], text[[0]], instruction.shown(editing.codec, picture(seed=seed)), 7.5, 1.5)
        return editing.denoiser(torch.ones(1, 4, 8, 8), now, cond)

    assert (x0(1, 1) - x0(1, 2)).abs().max() > 1e-3
    assert (x0(1, 1) - x0(2, 1)).abs().max() > 1e-3


def test_the_picture_is_not_scaled(editing):
    given = picture()
    expected = editing.parts["vae"].encode(2 * given - 1).latent_dist.mode()
    got = instruction.shown(editing.codec, given)
    assert (got - expected).abs().max() < 1e-5
    assert (got - editing.codec.encode(given)).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("scale", "picture_scale", "terms"), [(7.5, 1.5, 3), (7.5, 1.0, 2), (1.5, 1.5, 2), (1.0, 1.0, 1), (0.0, 1.0, 1)]
)
def test_terms_that_a_scale_makes_useless_are_not_computed(scale, picture_scale, terms, editing):
    text = editing.text(["", PROMPT])
    cond = instructed(text[[1]], text[[0]], torch.ones(1, 4, 8, 8), scale, picture_scale)
    now, _ = editing.schedule(STEPS, (64, 64)).step(torch.zeros(1, dtype=torch.int64))
    tally = Tally(timed=False)
    x0 = tally.watching(editing.denoiser)(torch.ones(1, 4, 8, 8), now, cond)
    assert tally.rows == terms
    e = [editing.denoiser(torch.ones(1, 4, 8, 8), now, term) for term in cond.terms]
    written = e[0] + picture_scale * (e[1] - e[0]) + scale * (e[2] - e[1])
    assert (x0 - written).abs().max() < 1e-4 * max(1, scale) * float(written.abs().max())


def test_rows_may_have_scales_of_their_own(editing):
    text, shown = editing.text(["", PROMPT]), torch.ones(2, 4, 8, 8)
    cond = instructed(text[[1, 1]], text[[0, 0]], shown, [7.5, 3.0], [1.5, 1.0])
    parts = [instructed(text[[1]], text[[0]], shown[:1], *scales) for scales in ((7.5, 1.5), (3.0, 1.0))]
    assert torch.equal(cond.weights, Guided.cat(parts).weights)
    now, _ = editing.schedule(STEPS, (64, 64)).step(torch.zeros(2, dtype=torch.int64))
    together = editing.denoiser(torch.ones(2, 4, 8, 8), now, cond)
    alone = torch.cat([editing.denoiser(torch.ones(1, 4, 8, 8), now[[0]], part) for part in parts])
    assert (together - alone).abs().max() < 1e-4


def test_models_say_whether_they_follow_instructions(editor, model):
    _, folder = editor
    found = load_model(folder, device="cpu")
    assert (found.instructs, found.inpaints, model.instructs) == (True, False, False)
    assert found.defaults.picture_scale == 1.5
    assert folder_facts(folder).problem == ""
    instruction.refuse_others(found)


def test_a_model_of_four_channels_is_refused_by_name(model):
    with pytest.raises(TaskError, match=rf"{model.name} does not follow instructions: it takes 4 channels"):
        instruction.refuse_others(model)
    with pytest.raises(TaskError, match="is an inpainting model"):
        instruction.refuse_others(replace(model, inpaints=True))


def test_without_its_picture_it_says_what_it_needs(editor):
    _, folder = editor
    with pytest.raises(TaskError, match=r"instruction model: it takes 8 channels, 4 of them latents.*the picture"):
        Image(PROMPT).run(load_model(folder, device="cpu"))


def test_a_picture_appended_to_another_model_is_told(model):
    cond = replace(model.text(["a cat"]), concat=instruction.shown(model.codec, picture()))
    now, _ = model.schedule(5, (64, 64)).step(torch.zeros(1, dtype=torch.int64))
    with pytest.raises(TaskError, match=r"takes 4 channels.*it is no instruction model"):
        model.denoiser(torch.zeros(1, 4, 8, 8), now, cond)


def test_cosxl_edit_is_refused(tmp_path):
    index = {"_class_name": "StableDiffusionXLInstructPix2PixPipeline", "is_cosxl_edit": True}
    with pytest.raises(CheckpointError, match="is CosXL Edit"):
        load_model(write_xl(tmp_path / "cos", in_channels=8, index=index), device="cpu")


@pytest.mark.parametrize("configured", ["as it is", "without a configuration of its own"])
def test_a_single_file_equals_its_folder(configured, tmp_path, monkeypatch):
    folder = write_instruction(tmp_path / "one", "sd", seed=6)
    single = to_ldm(folder, tmp_path / "model.safetensors")
    if configured == "as it is":
        model = load_model(single, config=folder, device="cpu")
    else:
        plain = Path(shutil.copytree(folder, tmp_path / "plain"))
        path = plain / "unet/config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "in_channels": 4}))
        monkeypatch.setattr(single_file, "_SHIPPED", {"": plain})
        monkeypatch.setattr(single_file, "clip_tokenizer", CLIPTokenizer.from_pretrained)
        model = load_model(single, device="cpu")
    assert model.instructs
    again = load_model(folder, device="cpu")
    for (name, mine), (_, its) in zip(
        model.parts["unet"].state_dict().items(), again.parts["unet"].state_dict().items(), strict=True
    ):
        assert torch.equal(mine, its), name


def test_copies_of_a_file_for_another_number_of_channels_stay_refused(folder, tmp_path):
    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    path = copied / "model_index.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "_class_name": "StableDiffusionInstructPix2PixPipeline"})
    )
    with pytest.raises(TaskError, match="it takes 4 channels"):
        instruction.refuse_others(load_model(copied, device="cpu"))
