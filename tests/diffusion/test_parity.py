"""Step-by-step parity with the schedulers of diffusers, in float32, on every timestep spacing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
)
from torch import Tensor

from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import SOLVERS
from segue.types import History, Point, RowId, Solver, over_rows

STEPS = [7, 20, 24, 30, 50]
SPACINGS = ["leading", "trailing", "linspace"]
BETAS: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
SHAPE = (1, 4, 8, 8)
ROW = (RowId("only"),)
TOLERANCE = 1e-5

# diffusers hands torch tensors to numpy functions in a way that numpy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def predict(x: Tensor, time: float) -> Tensor:
    """Stands in for a network: smooth in the latents and the time, and near enough to x to keep x0 of order one.

    Dividing by alpha = 0.07 at the first step multiplies the rounding of float32 by 15 on both sides; a wilder
    function would compare that rounding and not the formulas.
    """
    return 0.97 * x + 0.05 * torch.tanh(x) * np.cos(time / 300)


def to_x0(kind: Any, x: Tensor, out: Tensor, at: Point) -> Tensor:
    alpha, sigma = over_rows(at.alpha, x), over_rows(at.sigma, x)
    if kind == "epsilon":
        return (x - sigma * out) / alpha
    if kind == "v_prediction":
        return alpha * x - sigma * out
    return x - sigma * out if kind == "flow_prediction" else out


class Replay:
    """A kick that hands out the noise that diffusers drew."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, like: Tensor, now: Point, then: Point, std: Tensor) -> Tensor:
        return over_rows(std, like) * torch.randn(like.shape, generator=self.generator)


def saved(scheduler: Any) -> dict[str, Any]:
    """The config as it stands in scheduler_config.json."""
    return {**scheduler.config, "_class_name": type(scheduler).__name__}


def run_ours(schedule: Schedule, solver: Solver, kind: Any, noise: Tensor) -> list[Tensor]:
    x, history, kick = noise * schedule.start_scale, History(), Replay(7)
    seen = [x]
    for index in range(len(schedule)):
        now, then = schedule.step(torch.tensor([index]), ROW)
        x0 = to_x0(kind, x, predict(x, float(now.time)), now)
        x, history = solver(x, x0, now, then, history, kick)
        seen.append(x)
    return seen


def run_diffusers(scheduler: Any, steps: int, noise: Tensor, stretched: bool, **kwargs: Any) -> list[Tensor]:
    """The trajectory of a diffusers scheduler, each state scaled to alpha^2 + sigma^2 = 1."""
    scheduler.set_timesteps(steps, **kwargs)
    generator = torch.Generator().manual_seed(7)
    x = noise * getattr(scheduler, "init_noise_sigma", 1.0)

    def normal(x: Tensor, index: int) -> Tensor:
        return x / (scheduler.sigmas[index] ** 2 + 1) ** 0.5 if stretched else x

    seen = [normal(x, 0)]
    for index, time in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(x, time) if hasattr(scheduler, "scale_model_input") else x
        more = {"generator": generator} if "generator" in scheduler.step.__code__.co_varnames else {}
        x = scheduler.step(predict(scaled, float(time)), time, x, **more).prev_sample
        seen.append(normal(x, index + 1))
    return seen


def agree(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs)
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        worst = float((a - b).abs().max())
        assert worst <= TOLERANCE, f"states differ by {worst:.1e} after step {index}"


@pytest.fixture
def noise() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_ddim(steps: int, spacing: Any, kind: Any, noise: Tensor) -> None:
    scheduler = DDIMScheduler(
        **BETAS,
        timestep_spacing=spacing,
        prediction_type=kind,
        clip_sample=False,
        set_alpha_to_one=spacing != "leading",
    )
    schedule = Schedule.from_config(saved(scheduler), steps, grid="ddim")
    agree(run_ours(schedule, SOLVERS["ddim"].solver, kind, noise), run_diffusers(scheduler, steps, noise, False))


@pytest.mark.parametrize("karras", [False, True])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_euler(steps: int, spacing: Any, karras: bool, noise: Tensor) -> None:
    scheduler = EulerDiscreteScheduler(**BETAS, timestep_spacing=spacing, use_karras_sigmas=karras)
    schedule = Schedule.from_config(saved(scheduler), steps, grid="sigmas")
    agree(run_ours(schedule, SOLVERS["euler"].solver, "epsilon", noise), run_diffusers(scheduler, steps, noise, True))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_euler_ancestral(steps: int, spacing: Any, kind: Any, noise: Tensor) -> None:
    scheduler = EulerAncestralDiscreteScheduler(**BETAS, timestep_spacing=spacing, prediction_type=kind)
    schedule = Schedule.from_config(saved(scheduler), steps, grid="sigmas")
    solver = SOLVERS["euler_ancestral"].solver
    agree(run_ours(schedule, solver, kind, noise), run_diffusers(scheduler, steps, noise, True))


@pytest.mark.parametrize("algorithm", ["dpmsolver++", "sde-dpmsolver++"])
@pytest.mark.parametrize("karras", [False, True])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_dpmpp_2m(steps: int, spacing: Any, karras: bool, algorithm: Any, noise: Tensor) -> None:
    scheduler = DPMSolverMultistepScheduler(
        **BETAS, timestep_spacing=spacing, use_karras_sigmas=karras, algorithm_type=algorithm
    )
    schedule = Schedule.from_config(saved(scheduler), steps, grid="multistep")
    solver = SOLVERS["dpmpp_2m_sde" if algorithm.startswith("sde") else "dpmpp_2m"].solver
    agree(run_ours(schedule, solver, "epsilon", noise), run_diffusers(scheduler, steps, noise, False))


@pytest.mark.parametrize("schedule_name", ["linear", "squaredcos_cap_v2"])
def test_other_betas(schedule_name: str, noise: Tensor) -> None:
    scheduler = DPMSolverMultistepScheduler(
        beta_schedule=schedule_name, lambda_min_clipped=-5.1, prediction_type="v_prediction"
    )
    schedule = Schedule.from_config(saved(scheduler), 20, grid="multistep")
    solver = SOLVERS["dpmpp_2m"].solver
    agree(run_ours(schedule, solver, "v_prediction", noise), run_diffusers(scheduler, 20, noise, False))


@pytest.mark.parametrize("steps", [7, 20, 30])
def test_zero_terminal_snr(steps: int, noise: Tensor) -> None:
    scheduler = DDIMScheduler(
        **BETAS,
        timestep_spacing="trailing",
        prediction_type="v_prediction",
        clip_sample=False,
        rescale_betas_zero_snr=True,
    )
    schedule = Schedule.from_config(saved(scheduler), steps, grid="ddim")
    assert float(schedule.now.alpha[0]) == 0
    solver = SOLVERS["ddim"].solver
    agree(run_ours(schedule, solver, "v_prediction", noise), run_diffusers(scheduler, steps, noise, False))


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_lcm(steps: int, noise: Tensor) -> None:
    scheduler = LCMScheduler(**BETAS)
    schedule = Schedule.from_config(saved(scheduler), steps, grid="lcm")
    ours = run_ours(schedule, SOLVERS["lcm"].solver, "epsilon", noise)
    agree(ours, run_diffusers(scheduler, steps, noise, False))


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", STEPS)
def test_flow_match_euler(steps: int, shift: float, noise: Tensor) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    schedule = Schedule.from_config(saved(scheduler), steps)
    solver = SOLVERS["euler"].solver
    agree(run_ours(schedule, solver, "flow_prediction", noise), run_diffusers(scheduler, steps, noise, False))


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_flow_match_with_resolution_dependent_shift(kind: Any, noise: Tensor) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=kind, shift_terminal=0.02)
    schedule = Schedule.from_config(saved(scheduler), 20, mu=0.8)
    solver = SOLVERS["euler"].solver
    agree(run_ours(schedule, solver, "flow_prediction", noise), run_diffusers(scheduler, 20, noise, False, mu=0.8))
