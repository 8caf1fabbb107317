# pyright: basic
"""CycleDiffusion on whole models: the pipeline of diffusers at batch 1, and batches, which that one gets wrong."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch

from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.models.weights import quiet
from segue.temporal.cycle import POSTERIOR, encoded, eta_solver
from segue.types import RowId, over_rows

SOURCE, TARGET = "a red apple", "a cat"


class DrawnInOrder:
    """The noise of one generator, as it is asked for: what diffusers draws."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, like, now, then, std):
        return over_rows(std, like) * torch.randn(like.shape, generator=self.generator)


def latents(count: int = 1, size: int = 8) -> torch.Tensor:
    return torch.randn(count, 4, size, size, generator=torch.Generator().manual_seed(5)) * 0.7


def told(model, prompt: str, count: int, scale: float):
    text = model.text(["", prompt])
    return classifier_free(text[[1] * count], text[[0] * count], scale)


def ours(model, x0, *, steps=12, strength=0.75, eta=0.1, scale=3.0, source_scale=1.5, target=TARGET):
    run, ids = model.schedule(steps, (64, 64), solver="ddim"), [RowId("a", i) for i in range(len(x0))]
    draw = DrawnInOrder(11)
    eps = draw(x0, None, None, torch.ones(len(x0)))
    way = encoded(
        model.denoiser,
        x0,
        run,
        told(model, SOURCE, len(x0), source_scale),
        ids,
        noise=eps,
        strength=strength,
        solver=eta_solver(eta),
        kick=draw,
    )
    out = denoise(model.denoiser, way.state, run, told(model, target, len(x0), scale), solver=way.solver, kick=way.kick)
    return collect(out, run)


def theirs(folder, x0, *, steps=12, strength=0.75, eta=0.1, scale=3.0, source_scale=1.5):
    try:
        from diffusers.pipelines.deprecated.stable_diffusion_variants.pipeline_cycle_diffusion import (
            CycleDiffusionPipeline,
        )
    except ImportError:
        pytest.skip("this version of diffusers has CycleDiffusionPipeline no longer")
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline: Any = CycleDiffusionPipeline.from_pretrained(
            folder, local_files_only=True, safety_checker=None, feature_extractor=None
        )
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        # Latents are taken as they are; its own preprocessing would bring them from [0, 1] to [-1, 1].
        pipeline.image_processor.preprocess = lambda image: image
        return pipeline(
            TARGET,
            SOURCE,
            image=x0,
            strength=strength,
            num_inference_steps=steps,
            guidance_scale=scale,
            source_guidance_scale=source_scale,
            eta=eta,
            generator=torch.Generator().manual_seed(11),
            output_type="latent",
        ).images


@pytest.mark.parametrize(
    "given",
    [{}, {"steps": 20, "strength": 1.0, "eta": 1.0}, {"scale": 7.5, "source_scale": 1.0, "eta": 0.01}],
    ids=["a little noise", "all of it", "next to none"],
)
def test_a_single_picture_equals_diffusers(folder, model, given):
    expected = theirs(folder, latents(), **given)
    got = ours(model, latents(), **given)
    assert (expected - latents()).abs().mean() > 0.01
    # It divides by eta what it multiplies with it again.
    assert (got - expected).abs().max() <= 2e-4


def test_the_comparison_can_fail(folder, model):
    assert (ours(model, latents(), scale=3.2) - theirs(folder, latents())).abs().max() > 1e-3


@pytest.mark.parametrize("which", ["model", "short_model"])
def test_a_batch_of_four_equals_four_times_one(which, request):
    """Where diffusers mixes the rows of a guided batch up."""
    model = request.getfixturevalue(which)
    x0, noise = latents(4), latents(4).flip(0)

    def rows(which):
        run, ids = model.schedule(8, (64, 64), solver="ddim"), [RowId("a", i) for i in which]
        way = encoded(
            model.denoiser,
            x0[which],
            run,
            told(model, SOURCE, len(which), 1.5),
            ids,
            noise=noise[which],
            strength=0.8,
            solver=eta_solver(0.1),
            kick=POSTERIOR,
        )
        cond = told(model, TARGET, len(which), 4.0)
        return collect(denoise(model.denoiser, way.state, run, cond, solver=way.solver, kick=way.kick), run)

    together = rows([0, 1, 2, 3])
    alone = torch.cat([rows([row]) for row in range(4)])
    assert (together - alone).abs().max() < 2e-3
    assert (together - x0).abs().mean() > 0.02
    assert (model.codec.decode(together) - model.codec.decode(alone)).abs().max() <= 1 / 255


@pytest.mark.parametrize("eta", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("which", ["model", "short_model"])
def test_a_real_network_told_the_same_returns_the_latents(which, eta, request):
    """Random weights, float32, all steps; also in a batch that is not that of the way in."""
    model = request.getfixturevalue(which)
    back = ours(model, latents(2), steps=20, strength=1.0, eta=eta, scale=1.5, target=SOURCE)
    assert (back - latents(2)).abs().max() < 5e-4
    small = replace(model.denoiser, max_batch=1)
    run, ids = model.schedule(20, (64, 64), solver="ddim"), [RowId("a", i) for i in range(2)]
    cond = model.text([SOURCE])[[0, 0]]
    way = encoded(model.denoiser, latents(2), run, cond, ids, noise=latents(2).flip(0), solver=eta_solver(eta))
    again = collect(denoise(small, way.state, run, cond, solver=way.solver, kick=way.kick), run)
    assert (again - latents(2)).abs().max() < 5e-4
