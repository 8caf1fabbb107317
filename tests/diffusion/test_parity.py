"""Step-by-step parity with the schedulers of diffusers, in float32, on every timestep spacing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
)
from torch import Tensor

from segue.diffusion.betas import training_levels
from segue.diffusion.schedule import Grid, Schedule
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
COSINE = {"euler": 5e-4, "dpmpp_2m": TOLERANCE}

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
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # else it begins at the second of two equal times
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


def agree(ours: list[Tensor], theirs: list[Tensor], tolerance: float = TOLERANCE) -> None:
    assert len(ours) == len(theirs)
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        worst = float((a - b).abs().max())
        assert worst <= tolerance, f"states differ by {worst:.1e} after step {index}"


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


@pytest.mark.parametrize("karras", [False, True])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("grid", ["ddim", "sigmas", "multistep"])
def test_euler_of_continuous_levels(spacing: Any, karras: bool, grid: Grid, noise: Tensor) -> None:
    """As of Stable Video Diffusion: told a quarter of the logarithm of their noise, which goes up to 700 there."""
    bounds = {"sigma_min": 0.002, "sigma_max": 700.0} if karras else {}
    told: dict[str, Any] = {"timestep_spacing": spacing, "prediction_type": "v_prediction", **bounds}
    scheduler = EulerDiscreteScheduler(**BETAS, **told, use_karras_sigmas=karras, timestep_type="continuous")
    schedule = Schedule.from_config(saved(scheduler), 12, grid=grid)
    assert torch.allclose(schedule.now.time, 0.25 * schedule.now.ratio.log())
    ours = run_ours(schedule, SOLVERS["euler"].solver, "v_prediction", noise)
    agree(ours, run_diffusers(scheduler, 12, noise, True))


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


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("karras", [False, True])
@pytest.mark.parametrize("steps", [20, 30])
def test_cosine_betas_without_clipping(steps: int, karras: bool, kind: Any, noise: Tensor) -> None:
    """The last level keeps alpha^2 = 2.4e-9: noise of 20291 in the picture of Karras et al., and no zero SNR."""
    cosine: Any = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": kind, "use_karras_sigmas": karras}
    stretched: list[tuple[Any, Grid, str]] = [
        (EulerDiscreteScheduler(**cosine), "sigmas", "euler"),
        (DPMSolverMultistepScheduler(**cosine), "multistep", "dpmpp_2m"),
    ]
    for scheduler, grid, name in stretched:
        schedule = Schedule.from_config(saved(scheduler), steps, grid=grid)
        scheduler.set_timesteps(steps)
        assert float(schedule.now.ratio[0]) == pytest.approx(20291, abs=1)
        assert np.allclose(schedule.now.ratio, scheduler.sigmas[:-1], rtol=1e-5)
        theirs = scheduler.timesteps.double()
        # Under Karras sigmas, diffusers cuts 998.9999 off at its first time: a rounding, which is not repeated here.
        assert abs(float(schedule.now.time[0] - theirs[0])) <= karras
        assert torch.allclose(schedule.now.time[1:], theirs[1:], rtol=0, atol=1e-3)
        schedule = replace(schedule, now=replace(schedule.now, time=theirs))
        if kind == "epsilon":
            continue  # float32 leaves nothing of x0 = (x - sigma eps) / 5e-5 that could be compared
        ours = run_ours(schedule, SOLVERS[name].solver, kind, noise)
        # Euler's step takes 20271 from 20291 noises: what is left of float32 there is a few 1e-4.
        agree(ours, run_diffusers(scheduler, steps, noise, name == "euler"), COSINE[name])


def test_trained_and_sigmoid_betas() -> None:
    given = np.linspace(1e-4, 0.03, 500).tolist()
    for theirs in (
        DDIMScheduler(trained_betas=given, num_train_timesteps=500),
        # Only the scheduler of training has these.
        DDPMScheduler(beta_schedule="sigmoid"),
    ):
        levels = training_levels(saved(theirs))
        assert torch.allclose(levels.alpha**2, theirs.alphas_cumprod.double(), atol=1e-15)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(
    ("kind", "grid"),
    [
        (DDIMScheduler, "ddim"),
        (EulerDiscreteScheduler, "sigmas"),
        (EulerAncestralDiscreteScheduler, "sigmas"),
        (DPMSolverMultistepScheduler, "multistep"),
    ],
)
def test_times_for_every_number_of_steps(kind: Any, grid: Grid, spacing: Any) -> None:
    scheduler = kind(**BETAS, timestep_spacing=spacing)
    config = saved(scheduler)
    odd: list[int] = []
    for steps in range(1, 201):
        ours = Schedule.from_config(config, steps, grid=grid).now.time
        scheduler.set_timesteps(steps)
        theirs = scheduler.timesteps.double()
        if steps == 1 and spacing == "linspace" and grid != "multistep":
            assert (ours.tolist(), theirs.tolist()) == ([999], [0])
            continue
        if len(theirs) != steps:
            # One time too many, which no model knows.
            odd.append(steps)
            assert theirs[steps:].tolist() == [-1]
        assert torch.allclose(ours, theirs[:steps], rtol=0, atol=1e-4), steps
    assert len(odd) < 20


def test_times_of_lcm_for_every_number_of_steps() -> None:
    scheduler = LCMScheduler(**BETAS)
    for steps in range(1, 51):
        scheduler.set_timesteps(steps)
        assert (
            Schedule.from_config(saved(scheduler), steps, grid="lcm").now.time.tolist() == scheduler.timesteps.tolist()
        )


@pytest.mark.parametrize("steps", STEPS)
def test_trailing_steps_of_clipped_betas(steps: int, noise: Tensor) -> None:
    scheduler = DPMSolverMultistepScheduler(
        beta_schedule="squaredcos_cap_v2",
        lambda_min_clipped=-5.1,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )
    schedule = Schedule.from_config(saved(scheduler), steps, grid="multistep")
    theirs = run_diffusers(scheduler, steps, noise, False)
    agree(run_ours(schedule, SOLVERS["dpmpp_2m"].solver, "v_prediction", noise), theirs)


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


@pytest.mark.parametrize("steps", STEPS)
def test_flow_match_in_equal_steps_to_the_data(steps: int, noise: Tensor) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    schedule = Schedule.from_config({**saved(scheduler), "timestep_spacing": "trailing"}, steps)
    ours = run_ours(schedule, SOLVERS["euler"].solver, "flow_prediction", noise)
    agree(ours, run_diffusers(scheduler, steps, noise, False, sigmas=[1 - i / steps for i in range(steps)]))


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_flow_match_with_resolution_dependent_shift(kind: Any, noise: Tensor) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=kind, shift_terminal=0.02)
    schedule = Schedule.from_config(saved(scheduler), 20, mu=0.8)
    solver = SOLVERS["euler"].solver
    agree(run_ours(schedule, solver, "flow_prediction", noise), run_diffusers(scheduler, 20, noise, False, mu=0.8))
