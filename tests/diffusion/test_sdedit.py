"""SDEdit: passes, strengths and the variance-exploding form, against what is known of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from segue.diffusion.exploding import exploding_schedule, reverse_sde
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import NamedNoise, noise, start_noise
from segue.diffusion.schedule import Schedule
from segue.diffusion.sdedit import FoundStrength, find_strength, passes
from segue.diffusion.solvers import ddim, euler_ancestral
from segue.diffusion.starts import first_step, from_latents, renoise
from segue.errors import ScheduleError, TaskError
from segue.types import Denoiser, Point, RowId, Solver, State
from toy import GaussianDenoiser, RowwiseDenoiser, text_of

SHAPE = (4, 6, 5)
SCHEDULE = Schedule.from_config({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}, 12)


def rows(count: int) -> tuple[RowId, ...]:
    return tuple(RowId("row", number) for number in range(count))


def pictures(count: int) -> Tensor:
    return torch.stack([start_noise(7 + number, SHAPE) for number in range(count)])


def test_one_pass_is_a_run() -> None:
    x0, cond = pictures(2), text_of(0.2, -0.4)
    begin = from_latents(x0, pictures(2).flip(0), SCHEDULE, 0.5, rows(2))
    plain = list(denoise(RowwiseDenoiser(), begin, SCHEDULE, cond, solver=euler_ancestral))
    alone = list(passes(RowwiseDenoiser(), begin, SCHEDULE, cond, solver=euler_ancestral))
    assert len(plain) == len(alone) == 7
    assert all(torch.equal(a.x, b.x) for a, b in zip(plain, alone, strict=True))


def test_more_passes_are_runs_from_what_the_last_ended_with() -> None:
    x0, cond, fresh = pictures(2), text_of(0.2, -0.4), pictures(2) * 0.5
    begin = from_latents(x0, pictures(2).flip(0), SCHEDULE, 0.5, rows(2))
    states = list(passes(RowwiseDenoiser(), begin, SCHEDULE, cond, noise=[fresh]))
    once = list(denoise(RowwiseDenoiser(), begin, SCHEDULE, cond))[-1]
    again = list(denoise(RowwiseDenoiser(), renoise(once, SCHEDULE, 6, fresh), SCHEDULE, cond))
    assert len(states) == 14
    assert torch.equal(states[6].x, once.x)
    assert torch.equal(states[-1].x, again[-1].x)


def last_of(states: list[State], row: RowId) -> Tensor:
    """What a row ended the last pass with."""
    ended = [state for state in states if row in state.ids and int(state.step[state.ids.index(row)]) == len(SCHEDULE)]
    assert len(ended) == 3
    return ended[-1].x[ended[-1].ids.index(row)]


def test_rows_that_begin_at_different_steps_do_so_in_every_pass() -> None:
    x0, cond, fresh = pictures(2), text_of(0.2, -0.4), [pictures(2) * 0.5, pictures(2) * 0.7]
    begins = [
        from_latents(x0[[row]], x0.flip(0)[[row]], SCHEDULE, share, [rows(2)[row]])
        for row, share in ((0, 0.25), (1, 0.75))
    ]
    both = list(passes(RowwiseDenoiser(), State.cat(begins), SCHEDULE, cond, noise=fresh))
    for row, own in enumerate(rows(2)):
        alone = list(
            passes(RowwiseDenoiser(), begins[row], SCHEDULE, cond[[row]], noise=[part[[row]] for part in fresh])
        )
        assert torch.equal(last_of(both, own), alone[-1].x[0])


def test_no_pass_repeats_the_noise_of_another() -> None:
    asked: list[int] = []

    def kick(like: Tensor, now: Point, then: Point, std: Tensor) -> Tensor:
        asked.extend(now.index.tolist())
        return NamedNoise()(like, now, then, std)

    x0 = pictures(1)
    begin = from_latents(x0, x0, SCHEDULE, 0.25, rows(1))
    list(passes(RowwiseDenoiser(), begin, SCHEDULE, text_of(0.1), noise=[x0, x0], solver=euler_ancestral, kick=kick))
    assert asked == [9, 10, 11, 21, 22, 23, 33, 34, 35]


def test_more_passes_lead_further_and_nearer_to_the_model() -> None:
    """Of a model whose pictures are all alike, every pass leaves less of a picture that is none of them."""
    toy, x0 = GaussianDenoiser(0.3, 0.2), pictures(2) + 2
    begin = from_latents(x0, pictures(2).flip(0), SCHEDULE, 0.34, rows(2))
    fresh = [start_noise(seed, (2, *SHAPE)) for seed in (50, 51)]
    means = [
        float(
            list(passes(toy, begin, SCHEDULE, text_of(0.0, 0.0), noise=fresh[:more], solver=euler_ancestral))[
                -1
            ].x.mean()
        )
        for more in range(3)
    ]
    assert float(x0.mean()) > means[0] > means[1] > means[2] > 0.3


def far(of: Callable[[float], float]) -> tuple[Callable[[float], float], list[float]]:
    asked: list[float] = []

    def distance(strength: float) -> float:
        asked.append(strength)
        return of(strength)

    return distance, asked


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 37, 50, 100, 1000])
@pytest.mark.parametrize("budget", [0.08, 0.3001, 0.9, 2.0])
def test_the_strongest_that_fits_is_found(steps: int, budget: float) -> None:
    distance, asked = far(lambda strength: strength**2)
    fitting = [taken for taken in range(1, steps + 1) if (taken / steps) ** 2 <= budget]
    if not fitting:
        with pytest.raises(TaskError, match=r"the weakest edit, of strength 1|the weakest edit, of strength 0"):
            find_strength(distance, budget, steps, most_runs=20)
        return
    found = find_strength(distance, budget, steps, most_runs=20)
    assert found.strength == pytest.approx(fitting[-1] / steps)
    assert found.distance == pytest.approx(found.strength**2)
    assert found.steady
    assert len(asked) == len(set(asked)) <= math.log2(steps) + 3
    assert sorted(asked) == [strength for strength, _ in found.tried]


@pytest.mark.parametrize("steps", [10, 29, 50, 100, 1000])
def test_what_it_asks_for_is_so_many_steps_of_a_schedule(steps: int) -> None:
    """29 hundredths of 100 steps are 28, to a computer."""
    schedule = Schedule.from_config({}, steps)
    asked: list[float] = []
    for budget in range(1, steps + 1, 7):
        found = find_strength(lambda s: float(steps - first_step(schedule, s)), budget, steps, most_runs=30)
        asked += [strength for strength, _ in found.tried]
        assert steps - first_step(schedule, found.strength) == budget
    assert len(asked) > 3


def test_it_makes_no_more_runs_than_it_may() -> None:
    distance, asked = far(lambda strength: strength)
    found = find_strength(distance, 0.43, 1000, most_runs=5)
    assert len(asked) == 5
    assert found.distance <= 0.43
    assert "(5 runs)" in found.said()


def test_looking_between_two_strengths() -> None:
    distance, asked = far(lambda strength: strength)
    assert find_strength(distance, 0.9, 10, least=0.3, most=0.6).strength == pytest.approx(0.6)
    assert asked == [0.3, 0.6]
    assert find_strength(distance, 0.9, 10, least=0.5, most=0.5).strength == pytest.approx(0.5)


def test_a_distance_that_does_not_rise_is_told_and_not_trusted() -> None:
    """0.7 would fit again, but weaker ones do not: what is found has no weaker one beyond the budget."""
    distance, _ = far(lambda strength: 0.1 if strength < 0.35 else 0.9 if strength < 0.6 else 0.5)
    found = find_strength(distance, 0.4, 10, most_runs=10)
    assert found.strength == pytest.approx(0.3)
    assert not found.steady
    assert "some stronger edits led less far" in found.said()
    assert "some stronger" not in FoundStrength(0.3, 0.1, 0.4, ((0.3, 0.1), (1.0, 0.9))).said()


def test_what_is_not_a_number_is_beyond_any_budget() -> None:
    distance, _ = far(lambda strength: math.nan if strength > 0.5 else strength)
    assert find_strength(distance, 10.0, 10).strength == pytest.approx(0.5)


@pytest.mark.parametrize("given", [{"steps": 0}, {"most_runs": 1}, {"least": 0.5, "most": 0.4}, {"most": 1.1}])
def test_impossible_searches_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(TaskError, match="expected 1 step or more, 2 runs or more"):
        find_strength(lambda strength: strength, 1.0, **{"steps": 10, **given})  # pyright: ignore[reportArgumentType]


def finished(
    denoiser: Denoiser, x0: Tensor, schedule: Schedule, strength: float, solver: Solver, seed: int = 0
) -> Tensor:
    own = rows(len(x0))
    eps = torch.stack([noise(seed, "start", 0, row, x0.shape[1:]) for row in own]).to(x0)
    begin = from_latents(x0, eps, schedule, strength, own)
    told = text_of(*[0.0] * len(x0))
    return collect(denoise(denoiser, begin, schedule, told, solver=solver), schedule)


def test_exploding_levels_are_those_of_the_paper() -> None:
    schedule = exploding_schedule(500)
    assert torch.equal(schedule.now.alpha, torch.ones(500, dtype=torch.float64))
    assert float(schedule.now.sigma[0]) == pytest.approx(378)
    begin = from_latents(torch.zeros(1, *SHAPE), torch.ones(1, *SHAPE), schedule, 0.45, rows(1))
    assert float(begin.x.mean()) == pytest.approx(0.01 * 37800**0.45)
    assert float(schedule.then.sigma[-1]) == 0
    assert torch.equal(schedule.then.sigma[:-1], schedule.now.sigma[1:])
    with pytest.raises(ScheduleError, match="0 < least < most"):
        exploding_schedule(10, least=3, most=2)


@pytest.mark.parametrize("solver", [ddim, euler_ancestral, reverse_sde], ids=["ode", "ancestral", "sde"])
def test_an_exploding_run_draws_from_the_model(solver: Solver) -> None:
    """From far in noise nothing of the picture is left: mean and spread are the model's."""
    x0 = torch.full((1, 1, 80, 80), 5.0, dtype=torch.float64)
    out = finished(GaussianDenoiser(0.3, 0.7), x0, exploding_schedule(200), 1.0, solver)
    assert float(out.mean()) == pytest.approx(0.3, abs=0.06)
    assert float(out.std()) == pytest.approx(0.7, rel=0.06)


def test_the_reverse_sde_is_the_step_of_the_paper() -> None:
    """x + e^2 score + e z with e^2 = sigma^2 - sigma'^2, where the score is (x0 - x) / sigma^2."""
    x, x0 = (start_noise(seed, (1, *SHAPE)).double() for seed in (1, 2))
    one = torch.ones(1, dtype=torch.float64)

    def at(sigma: float) -> Point:
        return Point(torch.zeros(1, dtype=torch.int64), 9, one, sigma * one, sigma * one, rows(1))

    out, _ = reverse_sde(x, x0, at(5.0), at(3.0), (), NamedNoise())
    z = noise(0, "kick", 0, rows(1)[0], SHAPE)[None]
    assert torch.allclose(out, x + 16 * (x0 - x) / 25 + 4 * z, atol=1e-6)
    last, _ = reverse_sde(x, x0, at(0.01), at(0.0), (), NamedNoise())
    assert torch.equal(last, x0), "no noise is added to the picture"


@pytest.mark.parametrize("family", ["vp", "ve"])
@pytest.mark.parametrize("stochastic", [True, False])
def test_how_far_an_edit_leads(family: str, stochastic: bool) -> None:
    """For Gaussian pictures it is known: with s their spread, r the noise at the start, g = s^2 / (s^2 + r^2),

    an edit is drawn from p(x0 | x_t), which leaves (1 - g)^2 (x - mean)^2 + (g^2 + g) r^2 a pixel; the ODE goes to
    mean + sqrt(g) (x_t - mean), which leaves (1 - sqrt g)^2 (x - mean)^2 + g r^2.
    """
    toy, schedule = GaussianDenoiser(0.3, 0.7), exploding_schedule(200, most=20.0)
    solver = reverse_sde if stochastic else ddim
    if family == "vp":
        schedule = Schedule.from_config({"timestep_spacing": "trailing"}, 250)
        solver = euler_ancestral if stochastic else ddim
    x0 = torch.full((1, 2, 80, 60), 1.1, dtype=torch.float64)
    apart: list[float] = []
    for strength in (0.2, 0.5, 0.8):
        out = finished(toy, x0, schedule, strength, solver)
        noisy = float(schedule.now.ratio[first_step(schedule, strength)]) ** 2
        gain = 0.49 / (0.49 + noisy)
        known = (1 - gain) ** 2 * 0.64 + (gain**2 + gain) * noisy
        if not stochastic:
            known = (1 - gain**0.5) ** 2 * 0.64 + gain * noisy
        apart.append(float((out - x0).square().mean()))
        assert apart[-1] == pytest.approx(known, rel=0.12)
    assert apart == sorted(apart)
