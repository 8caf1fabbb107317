"""What a schedule promises, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from segue.diffusion.betas import training_levels
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import SOLVERS, find_solver, solver_for
from segue.errors import ScheduleError

SD: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FLOW: dict[str, Any] = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
GRIDS = sorted({choice.grid for choice in SOLVERS.values()})


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_levels_preserve_variance_and_fall(grid: Any, spacing: str) -> None:
    schedule = Schedule.from_config({**SD, "timestep_spacing": spacing}, 20, grid=grid)
    for levels in (schedule.now, schedule.then):
        assert torch.allclose(levels.alpha**2 + levels.sigma**2, torch.ones(20, dtype=torch.float64), atol=1e-6)
        assert bool((levels.sigma.diff() < 0).all())
    assert bool((schedule.then.sigma < schedule.now.sigma).all())
    assert float(schedule.then.sigma[-1]) == 0


def test_ddim_lands_beside_the_next_time_unless_steps_divide_the_trained_times() -> None:
    even = Schedule.from_config({**SD, "timestep_spacing": "trailing"}, 20)
    odd = Schedule.from_config({**SD, "timestep_spacing": "trailing"}, 30)
    assert torch.equal(even.then.time[:-1], even.now.time[1:])
    assert not torch.equal(odd.then.time[:-1], odd.now.time[1:])


def test_reversed_climbs_from_the_least_trained_noise() -> None:
    schedule = Schedule.from_config(SD, 10)
    up = schedule.reversed()
    assert len(up) == 9
    assert float(up.now.sigma[0]) == float(schedule.now.sigma[-1]) > 0
    assert float(up.then.sigma[-1]) == float(schedule.now.sigma[0])
    assert bool((up.then.sigma > up.now.sigma).all())


def test_a_coarser_schedule_visits_some_of_the_levels_and_leaves_no_gap() -> None:
    schedule = Schedule.from_config(SD, 30)
    coarse = schedule.every(4)
    assert len(coarse) == 8
    assert torch.equal(coarse.now.time, schedule.now.time[::4])
    assert torch.equal(coarse.then.sigma[:-1], coarse.now.sigma[1:])
    assert float(coarse.then.sigma[-1]) == float(schedule.then.sigma[-1])
    assert schedule.every(1) is schedule
    with pytest.raises(ValueError, match="a stride must be 1 or more"):
        schedule.every(0)


def test_flow_is_a_straight_line() -> None:
    schedule = Schedule.from_config(FLOW, 8)
    assert torch.allclose(schedule.now.alpha + schedule.now.sigma, torch.ones(8, dtype=torch.float64))


def test_rows_may_stand_at_different_steps() -> None:
    schedule = Schedule.from_config(SD, 10)
    now, then = schedule.step(torch.tensor([0, 9]))
    assert now.progress.tolist() == [0, 0.9]
    assert then.progress.tolist() == [0.1, 1]
    assert float(now.alpha[1]) == float(schedule.now.alpha[9])
    with pytest.raises(IndexError):
        schedule.step(torch.tensor([10]))


@pytest.mark.parametrize(
    ("config", "steps", "expected"),
    [
        (SD, 0, "1 or more"),
        (SD, 1001, "at most 1000"),
        ({**SD, "beta_schedule": "cubic"}, 10, "beta_schedule must be"),
        ({**SD, "timestep_spacing": "middle"}, 10, "timestep_spacing must be"),
        ({**SD, "rescale_betas_zero_snr": True}, 10, "zero terminal SNR"),
        ({**SD, "use_exponential_sigmas": True}, 10, "use_exponential_sigmas"),
        ({**SD, "thresholding": True}, 10, "thresholding"),
        ({**SD, "trained_betas": [0.1] * 9, "num_train_timesteps": 8}, 4, "9 values"),
        ({**FLOW, "use_dynamic_shifting": True}, 10, "pass mu"),
    ],
)
def test_refusals_name_the_setting(config: dict[str, Any], steps: int, expected: str) -> None:
    with pytest.raises(ScheduleError, match=expected):
        Schedule.from_config(config, steps)


def test_zero_terminal_snr_is_fine_for_v_prediction() -> None:
    levels = training_levels({**SD, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"})
    plain = training_levels(SD)
    assert float(levels.alpha[-1]) == 0
    assert torch.allclose(levels.alpha[0], plain.alpha[0])


def test_solvers_are_found_by_name_and_by_config() -> None:
    assert solver_for({"_class_name": "PNDMScheduler"}) == "ddim"
    assert solver_for({"_class_name": "EulerAncestralDiscreteScheduler"}) == "euler_ancestral"
    assert solver_for({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"}).endswith(
        "sde"
    )
    assert solver_for(FLOW) == "euler"
    with pytest.raises(ScheduleError, match="ddim, euler"):
        find_solver("heun")


@pytest.mark.parametrize("config", [SD, FLOW])
def test_mu_is_not_ignored(config: dict[str, Any]) -> None:
    with pytest.raises(ScheduleError, match="leave mu out"):
        Schedule.from_config(config, 10, mu=0.5)


def test_trailing_steps_that_do_not_fit_are_refused() -> None:
    clipped = {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1, "timestep_spacing": "trailing"}
    assert float(Schedule.from_config(clipped, 20, grid="multistep").now.time[-1]) >= 0
    with pytest.raises(ScheduleError, match="lambda_min_clipped"):
        Schedule.from_config(clipped, 500, grid="multistep")


def test_only_what_keeps_no_signal_at_all_is_refused() -> None:
    cosine = {"beta_schedule": "squaredcos_cap_v2"}
    assert 0 < float(training_levels(cosine).alpha[-1]) < 1e-4
    ends_in_noise = {"trained_betas": [0.1, 0.5, 1.0], "num_train_timesteps": 3}
    with pytest.raises(ScheduleError, match="zero terminal SNR"):
        training_levels(ends_in_noise)
    for_v = {**ends_in_noise, "prediction_type": "v_prediction"}
    assert float(Schedule.from_config(for_v, 3, grid="ddim").now.alpha[0]) == 0
    with pytest.raises(ScheduleError, match="rescale_betas_zero_snr"):
        Schedule.from_config(for_v, 3, grid="sigmas")


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"algorithm_type": "dpmsolver++"}, "dpmpp_2m"),
        ({"algorithm_type": "dpmsolver"}, "dpmpp_2m"),
        ({"solver_order": 3}, "dpmpp_2m"),
        ({"solver_type": "heun"}, "dpmpp_2m"),
        ({"algorithm_type": "sde-dpmsolver"}, "dpmpp_2m_sde"),
        ({"_class_name": "UniPCMultistepScheduler"}, "ddim"),
    ],
)
def test_solvers_that_segue_has_not_are_stood_in_for(settings: dict[str, Any], name: str) -> None:
    assert solver_for({"_class_name": "DPMSolverMultistepScheduler", **settings}) == name


def test_continuous_levels_are_those_of_models_that_predict_v() -> None:
    with pytest.raises(ScheduleError, match="set prediction_type to v_prediction"):
        Schedule.from_config({**SD, "timestep_type": "continuous"}, 5, grid="sigmas")
    with pytest.raises(ScheduleError, match="set interpolation_type to linear"):
        Schedule.from_config({**SD, "interpolation_type": "log_linear"}, 5, grid="sigmas")
