"""The leapfrog has an inverse, whatever the network, and is of second order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from random_network import RandomNetwork
from segue.diffusion.belm import belm
from segue.diffusion.levels import Levels
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import no_noise, start_noise
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import ddim
from segue.types import RowId, State
from toy import GaussianDenoiser, RowwiseDenoiser, text_of

SHAPE = (4, 6, 5)
IDS = (RowId("a"), RowId("b"))


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def spread(count: int) -> Schedule:
    ratio = torch.linspace(math.log(10), math.log(0.05), count + 1, dtype=torch.float64).exp()
    levels = Levels.from_ratio(ratio, torch.linspace(999, 0, count + 1, dtype=torch.float64))
    return Schedule(levels[:count], levels[1:])


def begin() -> State:
    x = torch.stack([start_noise(seed, SHAPE) for seed in (1, 2)]).double()
    return State(x, torch.zeros(2, dtype=torch.int64), IDS)


def test_it_is_of_second_order() -> None:
    toy, errors = GaussianDenoiser(), list[float]()
    for count in (20, 40, 80):
        run = spread(count)
        end = collect(denoise(toy, begin(), run, text_of(0.0, 0.0), solver=belm, kick=no_noise), run)
        exact = toy.solution(begin().x, run.now.level(0), run.then.level(count - 1))
        errors.append(float((end - exact).abs().max()))
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert orders[-1] == pytest.approx(2, abs=0.25), f"orders {orders}, errors {errors}"


@pytest.mark.parametrize("family", ["vp", "flow"])
def test_any_three_states_obey_the_same_formula_both_ways(family: str) -> None:
    """Its own memory turned round: with the next state behind it, it steps to the last, also where alpha is 0."""
    run = spread(6)
    if family == "flow":
        sigma = torch.linspace(1, 0, 7, dtype=torch.float64)
        levels = Levels(1 - sigma, sigma, sigma * 1000)
        run = Schedule(levels[:6], levels[1:])
    network = RandomNetwork(torch.float64, "flow" if family == "flow" else "v_prediction")
    cond = text_of(0.3, -0.5)
    states = list(denoise(network, begin(), run, cond, solver=belm, kick=no_noise))
    for index in range(1, 6):
        now, then = run.step(states[index].step, IDS)
        before, _ = run.step(states[index].step - 1, IDS)
        memory = (states[index + 1].x, then.alpha, then.sigma)
        x0 = network(states[index].x, now, cond)
        back, _ = belm(states[index].x, x0, now, before, memory, no_noise)
        assert torch.allclose(back, states[index - 1].x, atol=1e-9)


def test_the_first_step_is_of_first_order_and_may_be_led() -> None:
    run, cond = spread(5), text_of(0.3, -0.5)

    def kick(like: Tensor, now: object, then: object, std: Tensor) -> Tensor:
        assert float(std.abs().max()) == 0
        return torch.full_like(like, 0.25)

    led = list(denoise(RowwiseDenoiser(), begin(), run, cond, solver=belm, kick=kick))
    plain = list(denoise(RowwiseDenoiser(), begin(), run, cond, solver=ddim))
    assert torch.equal(led[1].x, plain[1].x + 0.25)


def test_rows_with_and_without_memory_share_a_batch() -> None:
    run, cond = spread(6), text_of(0.3, -0.5)
    states = list(denoise(RowwiseDenoiser(), begin(), run, cond, solver=belm, kick=no_noise))
    late = State.cat([states[3].fork([0]), replace(states[1].fork([1]), history=())])
    mixed = collect(denoise(RowwiseDenoiser(), late, run, cond, solver=belm, kick=no_noise), run)
    alone = replace(states[1].fork([1]), history=())
    wanted = collect(denoise(RowwiseDenoiser(), alone, run, cond[[1]], solver=belm, kick=no_noise), run)
    assert torch.allclose(mixed[0], states[-1].x[0], atol=1e-12)
    assert torch.allclose(mixed[1], wanted[0], atol=1e-12)
    assert not torch.allclose(mixed[1], states[-1].x[1], atol=1e-6)
