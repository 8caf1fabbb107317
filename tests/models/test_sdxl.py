# pyright: basic
"""Stable Diffusion XL: text to image equals diffusers' own pipeline, and what does not belong to it is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from tiny_xl import WIDTHS, write_xl

from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.solvers import find_solver
from segue.diffusion.starts import from_seeds
from segue.errors import CheckpointError, TaskError
from segue.models.families.sdxl import TIME_IDS
from segue.models.loading import load_model
from segue.models.weights import quiet
from segue.types import Call, RowId, over_rows

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
PROMPT, NEGATIVE = "a red apple", "cat"
SEED = 11
SCHEDULERS: dict[str, Any] = {
    "euler": EulerDiscreteScheduler,
    "euler_ancestral": EulerAncestralDiscreteScheduler,
    "ddim": DDIMScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "lcm": LCMScheduler,
}


@pytest.fixture(scope="module")
def xl(tmp_path_factory) -> Path:
    return write_xl(tmp_path_factory.mktemp("xl") / "xl")


@pytest.fixture(scope="module")
def xl_model(xl):
    return load_model(xl, device="cpu")


@pytest.fixture(scope="module")
def pipeline(xl) -> Any:
    with quiet():
        found: Any = StableDiffusionXLPipeline.from_pretrained(xl, local_files_only=True, add_watermarker=False)
    found.set_progress_bar_config(disable=True)
    return found


def from_generator(shape: tuple[int, ...]):
    """The noise that diffusers' generator goes on with, after it has drawn the start."""
    generator = torch.Generator().manual_seed(SEED)
    torch.randn(shape, generator=generator)

    def kick(like, now, then, std):
        return over_rows(std, like) * torch.randn(like.shape, generator=generator)

    return kick


def ours(
    model,
    steps: int,
    scale: float,
    size=(64, 64),
    *,
    solver: str = "euler",
    negative: str = NEGATIVE,
    extra=None,
    scheduler=None,
) -> torch.Tensor:
    model = replace(model, scheduler={**model.scheduler, **(scheduler or {})})
    schedule = model.schedule(steps, size, solver=solver)
    text = model.text([negative, PROMPT])
    if extra is not None:
        text = replace(text, extra={TIME_IDS: torch.tensor([extra, extra])})
    shape = (4, size[1] // 8, size[0] // 8)
    state = from_seeds([SEED], [RowId("a")], schedule, shape, model.device)
    guided = classifier_free(text[[1]], text[[0]], scale)
    kick = from_generator((1, *shape))
    latents = collect(
        denoise(model.denoiser, state, schedule, guided, solver=find_solver(solver).solver, kick=kick), schedule
    )
    return torch.cat([latents.flatten(), model.codec.decode(latents).flatten()])


def theirs(
    pipeline,
    steps: int,
    scale: float,
    size=(64, 64),
    *,
    solver: str = "euler",
    negative: str | None = NEGATIVE,
    scheduler=None,
    **told: Any,
) -> torch.Tensor:
    kind = SCHEDULERS[solver]
    own: Any = EulerDiscreteScheduler.load_config(f"{pipeline.name_or_path}/scheduler", local_files_only=True)
    pipeline.scheduler = kind.from_config({**own, "clip_sample": False, **(scheduler or {})})
    with quiet():
        latents = pipeline(
            PROMPT,
            negative_prompt=negative,
            num_inference_steps=steps,
            guidance_scale=scale,
            width=size[0],
            height=size[1],
            generator=torch.Generator().manual_seed(SEED),
            output_type="latent",
            **told,
        ).images
    decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    return torch.cat([latents.flatten(), (decoded / 2 + 0.5).clamp(0, 1).flatten()])


@pytest.mark.parametrize(
    ("solver", "steps", "scale", "size", "scheduler"),
    [
        ("euler", 7, 5.0, (64, 64), {}),
        ("euler", 6, 5.0, (80, 48), {}),
        ("euler", 4, 1.0, (64, 64), {"timestep_spacing": "trailing"}),
        ("euler_ancestral", 4, 1.0, (64, 64), {"timestep_spacing": "trailing"}),
        ("euler_ancestral", 1, 1.0, (64, 64), {"timestep_spacing": "trailing"}),
        ("ddim", 4, 1.0, (64, 64), {"timestep_spacing": "trailing"}),
        ("ddim", 7, 5.0, (48, 64), {"prediction_type": "epsilon"}),
        ("dpmpp_2m", 8, 4.0, (64, 64), {"use_karras_sigmas": True}),
        ("lcm", 4, 1.5, (64, 64), {}),
    ],
)
def test_a_picture_equals_diffusers(xl_model, pipeline, solver, steps, scale, size, scheduler):
    settings: dict[str, Any] = {"solver": solver, "scheduler": scheduler}
    expected = theirs(pipeline, steps, scale, size, **settings)
    got = ours(xl_model, steps, scale, size, **settings)
    assert expected.std() > 0.01
    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_the_comparison_can_fail(xl_model, pipeline):
    expected = theirs(pipeline, 7, 5.0)
    assert (ours(xl_model, 7, 5.0, negative="apple") - expected).abs().max() > 1e-2
    assert (ours(xl_model, 7, 5.0, extra=[64.0, 64, 0, 0, 64, 65]) - expected).abs().max() > 1e-3


def test_sizes_can_be_told_row_by_row(xl_model, pipeline):
    told: Any = {"original_size": (96, 80), "crops_coords_top_left": (8, 16), "target_size": (64, 72)}
    expected = theirs(pipeline, 5, 4.0, **told)
    assert torch.allclose(ours(xl_model, 5, 4.0, extra=[96.0, 80, 8, 16, 64, 72]), expected, rtol=1e-4, atol=1e-4)
    cond = replace(xl_model.text(["a cat"]), extra={TIME_IDS: torch.zeros(1, 5)})
    with pytest.raises(ValueError, match=r"time_ids must be 6 numbers for each of 1 rows; got \(1, 5\)"):
        asked(xl_model, cond)


def test_a_prompt_without_words_is_what_the_index_says(xl, pipeline, xl_model, tmp_path):
    blank = xl_model.text(["", PROMPT])
    assert not bool(blank.text[0].any()) and not bool(blank.pooled[0].any()) and bool(blank.pooled[1].any())
    assert torch.allclose(ours(xl_model, 5, 4.0, negative=""), theirs(pipeline, 5, 4.0, negative=None), atol=1e-4)
    other = load_model(copied(xl, tmp_path, {"force_zeros_for_empty_prompt": False}), device="cpu")
    assert torch.allclose(ours(other, 5, 4.0, negative=""), theirs(pipeline, 5, 4.0, negative=""), atol=1e-4)
    assert other.fingerprint != xl_model.fingerprint


def test_what_the_encoders_say(xl_model, pipeline):
    text, pooled = xl_model.text([PROMPT]).text, xl_model.text([PROMPT]).pooled
    expected = pipeline.encode_prompt(PROMPT, do_classifier_free_guidance=False)
    assert torch.allclose(text, expected[0], atol=1e-5) and torch.allclose(pooled, expected[2], atol=1e-5)
    assert text.shape == (1, 77, sum(WIDTHS)) and pooled.shape == (1, WIDTHS[1])


def test_weights_and_long_prompts_work_in_both_encoders(xl_model):
    plain, heavy = xl_model.text(["a red apple"]), xl_model.text(["a (red:1.5) apple"])
    for half in (slice(0, WIDTHS[0]), slice(WIDTHS[0], None)):
        assert not torch.equal(plain.text[..., half], heavy.text[..., half])
    assert torch.equal(plain.pooled, heavy.pooled)
    words = ["cat", "red", "apple"] * 40  # 120 words of one token; a chunk holds 75
    long = xl_model.text([" ".join(words), "a red apple"])
    first, second = (xl_model.text([" ".join(part)]) for part in (words[:75], words[75:]))
    assert torch.equal(long.text[[0]], torch.cat([first.text, second.text], dim=1))
    assert torch.equal(long.pooled[[0]], first.pooled)
    assert torch.equal(long.text[1, :77], plain.text[0]) and torch.equal(long.pooled[[1]], plain.pooled)


def copied(folder: Path, place: Path, index: dict[str, Any]) -> Path:
    copy = Path(shutil.copytree(folder, place / f"copy{len(list(place.iterdir()))}"))
    path = copy / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **index}))
    return copy


def called(model) -> Any:
    now, _ = model.schedule(5, (64, 64)).step(torch.zeros(1, dtype=torch.int64))
    return torch.zeros(1, 4, 8, 8), now.time, model.text(["a cat"]), Call(now, now.rows, (0,))


def asked(model, cond) -> torch.Tensor:
    now, _ = model.schedule(5, (64, 64)).step(torch.zeros(1, dtype=torch.int64))
    return model.denoiser(torch.zeros(1, 4, 8, 8), now, cond)


def test_what_the_network_has_no_place_for_is_refused(xl_model):
    row = torch.zeros(1, 1)
    cond = xl_model.text(["a cat"])
    for name, part in [
        ("text_mask", row),
        ("label", row.long()),
        ("extra guidance", {"extra": {"guidance": row}}),
        ("residual_inputs canny", {"residual_inputs": {"canny": row}}),
    ]:
        changes = part if isinstance(part, dict) else {name: part}
        with pytest.raises(ValueError, match=f"the conditioning also has {name}"):
            asked(xl_model, replace(cond, **changes))
    with pytest.raises(ValueError, match="the conditioning has no pooled"):
        asked(xl_model, replace(cond, pooled=None))
    with pytest.raises(TaskError, match="it is no inpainting model"):
        asked(xl_model, replace(cond, concat=torch.zeros(1, 5, 8, 8)))


def test_an_inpainting_model_takes_a_picture_and_a_mask(tmp_path):
    model = load_model(
        write_xl(tmp_path / "i", in_channels=9, index={"_class_name": "StableDiffusionXLInpaintPipeline"}), device="cpu"
    )
    assert model.inpaints
    cond = model.text(["a cat"])
    blank, shown = (asked(model, replace(cond, concat=value * torch.ones(1, 5, 8, 8))) for value in (0, 1))
    assert (blank - shown).abs().max() > 1e-3
    with pytest.raises(TaskError, match="this is an inpainting model"):
        asked(model, cond)


@pytest.mark.parametrize(
    ("index", "unet", "said"),
    [
        ({"requires_aesthetics_score": True}, {}, "is the refiner of Stable Diffusion XL"),
        ({"text_encoder": [None, None]}, {}, "is the refiner of Stable Diffusion XL"),
        ({}, {"addition_embed_type": None}, "has no UNet of Stable Diffusion XL"),
        ({}, {"cross_attention_dim": 48}, "expects text of width 48, the text encoders give 80"),
        ({}, {"projection_class_embeddings_input_dim": 5 * 8 + 48}, "is told 5 numbers beside the text; expected 6"),
        ({}, {"in_channels": 7}, "takes 7 channels"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(index, unet, said, tmp_path):
    folder = write_xl(tmp_path / "odd", index=index, **unet)
    with pytest.raises(CheckpointError, match=said):
        load_model(folder, device="cpu")


def test_one_family_in_the_folder_of_another(xl, folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "mixed"))
    shutil.rmtree(copy / "unet")
    shutil.copytree(xl / "unet", copy / "unet")
    with pytest.raises(CheckpointError, match=r"has the UNet of Stable Diffusion XL, and the rest of 1\.x or 2\.x"):
        load_model(copy, device="cpu")


def test_half_precision_stays_close(xl, xl_model):
    half = load_model(xl, device="cpu", dtype="bfloat16")
    assert all(part.dtype == torch.bfloat16 for part in half.parts.values())
    assert (ours(half, 4, 3.0) - ours(xl_model, 4, 3.0))[-64 * 64 * 3 :].abs().mean() < 0.05


def test_a_full_lcm_is_told_its_guidance_scale(tmp_path):
    folder = write_xl(tmp_path / "lcm", time_cond_proj_dim=8)
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": "LCMScheduler"}))
    model = load_model(folder, device="cpu")
    assert model.denoiser.embeds_guidance
    assert (model.profile, model.defaults.guidance_scale, model.defaults.steps) == ("lcm", 8.5, 4)
    with quiet():
        theirs_: Any = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True, add_watermarker=False)
    theirs_.set_progress_bar_config(disable=True)
    for scale in (8.5, 2.0):
        expected = theirs(theirs_, 4, scale, solver="lcm", negative=None)
        assert torch.allclose(ours(model, 4, scale, solver="lcm", negative=""), expected, rtol=1e-4, atol=1e-4)
    assert (ours(model, 4, 5.0, solver="lcm", negative="") - expected).abs().max() > 1e-2
    with pytest.raises(ValueError, match="told its guidance scale, and the conditioning has none"):
        model.denoiser.network(*called(model))
