# pyright: basic
"""Text to image through our loop equals diffusers' own pipeline on the same folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.starts import from_seeds
from segue.errors import CheckpointError, ModelError, ScheduleError
from segue.models.families.sd import prediction_of
from segue.models.loading import load_model
from segue.models.weights import quiet
from segue.types import RowId

PROMPT, NEGATIVE = "a red apple", "cat"


def ours(model, steps: int, scale: float, seed: int, size=(64, 64), rescale: float = 0.0) -> torch.Tensor:
    schedule = model.schedule(steps, size, solver="ddim")
    text = model.text([NEGATIVE, PROMPT])
    shape = (model.codec.channels, size[1] // model.codec.scale, size[0] // model.codec.scale)
    state = from_seeds([seed], [RowId("a")], schedule, shape, model.device)
    guided = classifier_free(text[[1]], text[[0]], scale, rescale)
    return model.codec.decode(collect(denoise(model.denoiser, state, schedule, guided), schedule))


def theirs(folder, steps: int, scale: float, seed: int, size=(64, 64), rescale: float = 0.0) -> torch.Tensor:
    with quiet():
        pipeline: Any = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=steps,
        guidance_scale=scale,
        guidance_rescale=rescale,
        width=size[0],
        height=size[1],
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
    ).images


@pytest.mark.parametrize("name", ["folder", "short_folder"])
@pytest.mark.parametrize(("steps", "scale", "size"), [(7, 5.0, (64, 64)), (20, 1.0, (64, 64)), (10, 7.5, (80, 48))])
def test_a_picture_equals_diffusers(name, steps, scale, size, request):
    folder = request.getfixturevalue(name)
    expected = theirs(folder, steps, scale, 11, size)
    got = ours(load_model(folder, device="cpu"), steps, scale, 11, size)
    assert expected.std() > 0.01
    assert (got - expected).abs().max() <= 1 / 255


def test_rescaled_guidance_equals_diffusers(short_folder, short_model):
    got = ours(short_model, 8, 9.0, 3, rescale=0.7)
    assert (got - theirs(short_folder, 8, 9.0, 3, rescale=0.7)).abs().max() <= 1 / 255
    assert (got - ours(short_model, 8, 9.0, 3)).abs().max() > 1 / 255


def test_the_comparison_can_fail(folder, model):
    assert (ours(model, 7, 5.0, 11) - theirs(folder, 7, 5.0, 12)).abs().max() > 1 / 255


def test_what_a_model_says_about_itself(model, short_model, folder):
    assert model.denoiser.prediction == "epsilon"
    assert short_model.denoiser.prediction == "v_prediction"
    assert model.defaults.size == (64, 64)
    assert (model.name, model.dtype, model.device.type) == (str(folder), torch.float32, "cpu")
    for part in model.parts.values():
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_the_fingerprint_follows_the_weights(model, short_model, folder):
    assert model.fingerprint == load_model(folder).fingerprint
    assert len({model.fingerprint, short_model.fingerprint}) == 2
    assert len(model.fingerprint) == 64


def test_half_precision_runs_and_stays_close(folder, model):
    half = load_model(folder, device="cpu", dtype="bfloat16")
    assert half.parts["unet"].dtype == torch.bfloat16
    picture = ours(half, 5, 3.0, 1)
    assert picture.dtype == torch.float32
    assert (picture - ours(model, 5, 3.0, 1)).abs().mean() < 0.05


def test_predictions_by_config():
    assert prediction_of({}, "x") == "epsilon"
    assert prediction_of({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "x") == "flow_prediction"
    with pytest.raises(CheckpointError, match="has the scheduler EDMEulerScheduler, whose noise levels"):
        prediction_of({"_class_name": "EDMEulerScheduler", "prediction_type": "epsilon"}, "x")
    with pytest.raises(CheckpointError, match="got 'score'"):
        prediction_of({"prediction_type": "score"}, "x")


def test_the_scheduler_is_read_as_data(model, folder):
    assert dict(model.scheduler) == json.loads((folder / "scheduler/scheduler_config.json").read_text())


def test_the_fingerprint_follows_the_configurations_and_nothing_that_changes_no_answer(folder, model, tmp_path):
    def changed(part: str, **entries: Any) -> str:
        copy = Path(shutil.copytree(folder, tmp_path / f"{part.replace('/', '-')}-{next(iter(entries))}"))
        said = json.loads((copy / part).read_text())
        (copy / part).write_text(json.dumps({**said, **entries}))
        return load_model(copy, device="cpu").fingerprint

    scheduler = "scheduler/scheduler_config.json"
    prints = [
        model.fingerprint,
        load_model(folder, device="cpu", prediction="v_prediction").fingerprint,
        changed(scheduler, beta_end=0.02),
        changed("vae/config.json", scaling_factor=0.5),
    ]
    assert len(set(prints)) == 4
    assert changed(scheduler, _diffusers_version="0.1") == model.fingerprint


def test_a_prediction_that_was_given_is_checked_like_one_that_was_read(folder, short_folder, tmp_path):
    told = load_model(folder, device="cpu", prediction="v_prediction")
    assert told.denoiser.prediction == told.scheduler["prediction_type"] == told.prediction == "v_prediction"
    with pytest.raises(ModelError, match="prediction must be one of epsilon"):
        load_model(folder, device="cpu", prediction=cast("Any", "noise"))
    copy = Path(shutil.copytree(short_folder, tmp_path / "zero"))
    path = copy / "scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rescale_betas_zero_snr": True}))
    load_model(copy, device="cpu").schedule(5, (64, 64))
    with pytest.raises(ScheduleError, match="zero terminal SNR"):
        load_model(copy, device="cpu", prediction="epsilon").schedule(5, (64, 64))


def test_conditioning_that_the_network_has_no_place_for_is_refused(model):
    row = torch.zeros(1, 1)
    for name, part in [("pooled", row), ("text_mask", row), ("extra", {"a": row}), ("residual_inputs", {"a": row})]:
        cond = replace(model.text(["a cat"]), **{name: part})
        now, _ = model.schedule(5, (64, 64)).step(torch.zeros(1, dtype=torch.int64))
        with pytest.raises(ValueError, match=name):
            model.denoiser(torch.zeros(1, 4, 8, 8), now, cond)
