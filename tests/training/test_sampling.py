"""What recipes show and benchmarks measure are the pictures of `segue image`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import write_model

from segue.models.loading import load_model
from segue.tasks.image import Image
from segue.tasks.sampling import Sampling
from segue.training.sampling import decoded, sample


@pytest.mark.parametrize("solver", ["ddim", "euler_ancestral"])
def test_many_pictures_are_those_that_are_drawn_alone(solver: str, tmp_path: Path) -> None:
    """Also where the solver adds noise on the way, which belongs to a seed and not to a place in a batch."""
    model = load_model(write_model(tmp_path, prediction="v_prediction", length=24, vae="tiny"), device="cpu")
    prompts, seeds = ("a red apple", "cat", "red"), (3, 4, 3)
    latents = sample(model, prompts, seeds, steps=3, guidance_scale=2.5, solver=solver, batch=2)
    settings = Sampling(steps=3, guidance_scale=(2.5,), solver=solver)
    alone = [
        Image(prompt, seed=seed, sampling=settings).run(model) for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    torch.testing.assert_close(
        decoded(model, latents).clamp(0, 1), torch.cat([clip.frames[:] for clip in alone]), rtol=0, atol=1e-4
    )
