# pyright: basic
"""Upscalers of the x4 layout: parity with diffusers, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_upscale import StableDiffusionUpscalePipeline
from tiny_upscaler import write_upscaler

from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.errors import CheckpointError, ModelError, ModelNotFoundError, TaskError
from segue.models.families import upscaler
from segue.models.loading import load_model
from segue.models.weights import quiet
from segue.tasks.image import Image
from segue.tasks.transition import Transition
from segue.types import RowId, State

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_upscaler(tmp_path_factory.mktemp("models") / "x4")


@pytest.fixture(scope="module")
def small() -> torch.Tensor:
    return torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(1))


def noises(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """The noise of the picture and that of the latents, in the order in which diffusers draws them."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(shape, generator=generator), torch.randn((1, 4, *shape[2:]), generator=generator)


def ours(model, small, steps: int, scale: float, level: int) -> torch.Tensor:
    shown_noise, start = noises(small.shape)
    schedule = model.schedule(steps, (64, 96))
    texts = model.text(["a red apple", "blurry"])
    shown = model.upscaling.shown(small, shown_noise[0], level)
    wanted, unwanted = (with_picture(texts[[row]], shown, level) for row in (0, 1))
    cond = classifier_free(wanted, unwanted, scale)
    state = State(start * schedule.start_scale, torch.zeros(1, dtype=torch.int64), (RowId("x"),))
    return model.codec.decode(collect(denoise(model.denoiser, state, schedule, cond), schedule))


def with_picture(text, shown, level):
    return replace(text, concat=shown, label=torch.tensor([level]))


def theirs(folder: Path, small, steps: int, scale: float, level: int) -> torch.Tensor:
    with quiet():
        pipe = StableDiffusionUpscalePipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    _, start = noises(small.shape)
    made: Any = pipe(
        prompt="a red apple",
        negative_prompt="blurry",
        image=small,
        num_inference_steps=steps,
        guidance_scale=scale,
        noise_level=level,
        generator=torch.Generator().manual_seed(3),
        latents=start,
        output_type="pt",
    )
    return made.images


@pytest.mark.parametrize(("steps", "scale", "level"), [(7, 9.0, 20), (3, 1.0, 0), (5, 4.0, 350)])
def test_it_is_the_upscaler_of_diffusers(folder, small, steps: int, scale: float, level: int) -> None:
    expected = theirs(folder, small, steps, scale, level)
    got = ours(load_model(folder, device="cpu"), small, steps, scale, level)
    assert got.shape == (1, 3, 64, 96)
    assert expected.std() > 0.01
    assert (got - expected).abs().max() <= 1e-4


def test_the_comparison_can_fail(folder, small) -> None:
    model = load_model(folder, device="cpu")
    one, other = (ours(model, small, 4, 9.0, level) for level in (20, 21))
    assert (one - other).abs().max() > 1e-3
    assert (one - ours(model, small.flip(-1), 4, 9.0, 20)).abs().max() > 1e-3


def test_what_it_says_about_itself(folder) -> None:
    model = load_model(folder, device="cpu")
    assert model.upscaling is not None
    assert (model.upscaling.factor, model.upscaling.grid, model.upscaling.noise_level) == (4, 2, 20)
    assert model.upscaling.max_noise_level == 350
    assert (model.defaults.size, model.defaults.steps, model.defaults.guidance_scale) == ((64, 64), 75, 9.0)
    with pytest.raises(TaskError, match="between 0 and 350 for this upscaler, got 351"):
        model.upscaling.shown(torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8), 351)


def test_the_fingerprint_follows_how_pictures_are_noised(folder, tmp_path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "x4"))
    path = copy / "low_res_scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "beta_schedule": "linear"}))
    assert load_model(copy, device="cpu").fingerprint != load_model(folder, device="cpu").fingerprint


def test_words_may_be_those_of_another_model(folder, tmp_path) -> None:
    bare = write_upscaler(tmp_path / "bare", shared=True)
    with pytest.raises(ModelNotFoundError, match="text_encoder"):
        load_model(bare, device="cpu")
    shared = upscaler.from_folder(bare, name="bare", device=CPU, dtype=torch.float32, text_from=folder)
    assert shared.fingerprint == load_model(folder, device="cpu").fingerprint


def test_other_tasks_refuse_it_by_name(folder) -> None:
    model = load_model(folder, device="cpu", name="big")
    for task in (Image("a cat"), Transition(("a cat", "a dog"))):
        with pytest.raises(TaskError, match="big is an upscaler: it enlarges pictures"):
            task.run(model)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"in_channels": 9}, "7 in all; this UNet takes 9"),
        ({"num_class_embeds": None}, "no class embedding"),
        ({"cross_attention_dim": 16}, "text of width 16"),
    ],
)
def test_parts_that_do_not_fit(changes, said: str, tmp_path) -> None:
    with pytest.raises(CheckpointError, match=said):
        load_model(write_upscaler(tmp_path / "odd", **changes), device="cpu")


def test_what_cannot_be_predicted_is_the_askers_mistake(folder) -> None:
    made: Any = load_model
    with pytest.raises(ModelError, match=r"prediction must be one of epsilon.*got 'noise'") as caught:
        made(folder, device="cpu", prediction="noise")
    assert not isinstance(caught.value, CheckpointError)
    assert load_model(folder, device="cpu", prediction="epsilon").denoiser.prediction == "epsilon"


def test_an_upscaler_that_cannot_be_noised(folder, tmp_path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "x4"))
    path = copy / "low_res_scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "beta_schedule": "sideways"}))
    with pytest.raises(CheckpointError, match="low_res_scheduler makes no noise levels"):
        load_model(copy, device="cpu")


def test_an_autoencoder_of_the_small_kind(tmp_path, small) -> None:
    model = load_model(write_upscaler(tmp_path / "tiny", vae="tiny"), device="cpu")
    assert model.upscaling is not None
    assert model.upscaling.factor == model.codec.scale == 4
    assert ours(model, small, 2, 3.0, 20).shape == (1, 3, 64, 96)
