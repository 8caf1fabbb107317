# pyright: basic
"""Deflickering in the loop with every family of models: random networks of the real layouts."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.tiny import write_model
from models.tiny_flow import write_flux, write_sd3
from models.tiny_xl import write_xl
from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.solvers import find_solver
from segue.diffusion.starts import from_seeds
from segue.models.bundle import LatentDiffusion
from segue.models.loading import load_model
from segue.temporal.deflicker import Deflickering, Moments
from segue.types import Frames, RowId

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
FRAMES, SIZE = 3, (64, 64)
ALWAYS = Moments(stop=1.0, free=0)
WRITE: dict[str, Callable[[Path], Path]] = {
    "sd": write_model,
    "sd, tiny codec": lambda folder: write_model(folder, prediction="v_prediction", length=24, vae="tiny"),
    "sdxl": write_xl,
    "sd3": write_sd3,
    "flux": write_flux,
}


@pytest.fixture(scope="module", params=WRITE)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LatentDiffusion:
    return load_model(WRITE[request.param](tmp_path_factory.mktemp("family") / "model"), device="cpu")


@pytest.fixture(autouse=True)
def no_gradients() -> Generator[None]:
    with torch.no_grad():
        yield


def unchanged(pictures: Frames, noise: float) -> Iterator[tuple[int, Tensor, Tensor]]:
    for i in range(len(pictures)):
        yield i, pictures[i : i + 1][0], torch.ones(SIZE)


def agreeing(pictures: Frames, noise: float) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The left half becomes the mean of all frames; the right one stays."""
    whole = pictures[:]
    change = torch.zeros(SIZE)
    change[:, : SIZE[0] // 2] = 1
    for i in range(len(pictures)):
        yield i, torch.where(change > 0, whole.mean(0), whole[i]), change


def film(model: LatentDiffusion, operator: Any, solver: str, steps: int = 4) -> Tensor:
    """The final latents of all frames."""
    chosen = find_solver(solver)
    schedule = model.schedule(steps, SIZE, solver=solver)
    texts = model.text(["a red apple", ""])
    scale = 1.0 if model.denoiser.embeds_guidance else 2.0
    cond = classifier_free(texts[[0] * FRAMES], texts[[1] * FRAMES], scale)
    shape = (model.codec.channels, SIZE[1] // model.codec.scale, SIZE[0] // model.codec.scale)
    ids = [RowId("clip", i) for i in range(FRAMES)]
    start = from_seeds(range(FRAMES), ids, schedule, shape, model.device)
    operators = [operator] if operator else []
    return collect(denoise(model.denoiser, start, schedule, cond, solver=chosen.solver, operators=operators), schedule)


def test_identity_changes_nothing_and_a_change_is_the_solvers(model: LatentDiffusion) -> None:
    solvers = ["euler"] if model.family in ("sd3", "flux") else ["ddim", "dpmpp_2m", "lcm"]
    assert model.family in ("sd", "sdxl", "sd3", "flux")
    for solver in solvers:
        plain = film(model, None, solver)
        idle = Deflickering(model.codec, unchanged, ALWAYS, "clip", masked=False)
        assert torch.equal(film(model, idle, solver), plain)
        made = film(model, Deflickering(model.codec, agreeing, Moments(start=0.25), "clip", batch=2), solver)
        assert bool(made.isfinite().all())
        assert not torch.equal(made, plain)


def test_what_is_left_alone_comes_back_bit_for_bit(model: LatentDiffusion) -> None:
    """Autoencoders with norms and attention see the whole picture; the mask does not."""
    side = SIZE[0] // model.codec.scale
    x0 = torch.randn((FRAMES, model.codec.channels, side, side), generator=torch.Generator().manual_seed(1))
    now, _ = model.schedule(4, SIZE).step(torch.zeros(FRAMES, dtype=torch.int64), [RowId("clip", i) for i in range(3)])
    half = side // 2
    for reach in (0, 1):
        made = Deflickering(model.codec, agreeing, ALWAYS, "clip", reach=reach).on_denoised(x0, now)
        assert torch.equal(made[..., half + reach :], x0[..., half + reach :])
        assert bool((made[..., :half] != x0[..., :half]).any())


def test_calls_of_any_size_are_seen_as_one_clip(model: LatentDiffusion) -> None:
    """The denoiser cuts its rows into calls; the operator gets all of them."""
    seen: list[int] = []

    def counting(pictures: Frames, noise: float) -> Iterator[tuple[int, Tensor, Tensor]]:
        seen.append(len(pictures))
        return agreeing(pictures, noise)

    small = replace(model, denoiser=replace(model.denoiser, max_batch=1))
    solver = "euler" if model.family in ("sd3", "flux") else "ddim"
    film(small, Deflickering(model.codec, counting, ALWAYS, "clip", batch=1), solver)
    assert seen == [FRAMES] * 4
