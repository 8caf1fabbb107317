"""Inversion: exact in the limit on a toy, better with rounds on any, and what acts at some steps acts at the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from random_network import RandomNetwork
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import noise
from segue.diffusion.schedule import Schedule
from segue.diffusion.starts import first_step, from_latents, noisier
from segue.temporal.inversion import exactly_inverted, inverted
from segue.types import Condition, Denoiser, Point, RowId
from toy import GaussianDenoiser, RowwiseDenoiser, text_of, toy_model

IDS = tuple(RowId("clip", i) for i in range(3))
COND = text_of(0.2, -0.3, 0.5)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def schedule(steps: int) -> Schedule:
    return toy_model().schedule(steps, (16, 16))


def clean() -> Tensor:
    drawn = [noise(0, "clean", 0, row, (4, 6, 5)) for row in IDS]
    return 0.3 + 0.7 * torch.stack(drawn)


def lost(denoiser: Denoiser, steps: int, rounds: int, strength: float = 1.0) -> float:
    """How far from the clip a run ends that begins at its inversion."""
    run, x0 = schedule(steps), clean()
    way = inverted(denoiser, x0, run, COND, IDS, strength=strength, rounds=rounds)
    back = collect(denoise(denoiser, way.state, run, COND), run)
    return float((back - x0).square().mean().sqrt())


def test_it_is_exact_in_the_limit() -> None:
    """The closed-form denoiser has a known way; a first-order step is wrong by 1 / n over n of them."""
    errors = [lost(GaussianDenoiser(), steps, 0) for steps in (25, 50, 100)]
    assert errors[0] < 0.2
    for coarse, fine in pairwise(errors):
        assert 1.6 < coarse / fine < 2.6
    way = inverted(GaussianDenoiser(), clean(), schedule(400), COND, IDS)
    run = schedule(400)
    wanted = GaussianDenoiser().solution(clean(), (1.0, 0.0), run.now.level(0))
    assert float((way.state.x - wanted).abs().max()) < 0.03


@pytest.mark.parametrize("denoiser", [GaussianDenoiser(), GaussianDenoiser(-0.1, 0.4)], ids=["wide", "narrow"])
def test_rounds_bring_it_nearer(denoiser: Denoiser) -> None:
    errors = [lost(denoiser, 20, rounds, 0.6) for rounds in (0, 1, 3, 30)]
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] < errors[1]
    assert errors[3] < 1e-5, "where nothing changes any more, the way back is the way that it came"


@pytest.mark.parametrize("strength", [0.05, 0.4, 1.0])
def test_it_stops_where_a_noised_start_would(strength: float) -> None:
    run = schedule(10)
    way = inverted(RowwiseDenoiser(), clean(), run, COND, IDS, strength=strength)
    noised = from_latents(clean(), torch.zeros_like(clean()), run, strength, IDS)
    assert torch.equal(way.state.step, noised.step)
    assert way.state.ids == IDS
    assert sorted(way.latents) == list(range(first_step(run, strength), 11))
    assert torch.equal(way.at(10), clean())
    whole = inverted(RowwiseDenoiser(), clean(), run, COND, IDS)
    assert all(torch.equal(way.at(step), whole.at(step)) for step in way.latents)


@dataclass
class Watched:
    """Remembers where it was asked."""

    group: int = 1
    asked: list[tuple[int, int, float]] = field(default_factory=list[Any])

    def __call__(self, x: Tensor, at: Point, cond: Condition) -> Tensor:
        self.asked.append((int(at.index[0]), at.count, float(at.time[0])))
        return RowwiseDenoiser()(x, at, cond)


@pytest.mark.parametrize("rounds", [0, 2])
def test_the_model_is_told_the_steps_of_the_way_down(rounds: int) -> None:
    run, watched = schedule(8), Watched()
    inverted(watched, clean(), run, COND, IDS, strength=0.5, rounds=rounds)
    assert all(count == 8 and time == float(run.now.time[index]) for index, count, time in watched.asked)
    assert [index for index, _, _ in watched.asked[-3:]] == ([7, 6, 5] if rounds == 0 else [5, 4, 4])


@pytest.mark.parametrize("steps", [2, 7, 25, 50])
@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-10), (torch.float32, 1e-3)])
def test_an_exact_inversion_leads_back_whatever_the_network(
    steps: int, strength: float, dtype: torch.dtype, allowed: float
) -> None:
    run, x0 = schedule(steps).joined(), clean().to(dtype)
    for network in (RandomNetwork(dtype), RandomNetwork(dtype, "v_prediction"), GaussianDenoiser(0.3, 0.05)):
        way = exactly_inverted(network, x0, run, COND, IDS, strength=strength)
        back = collect(denoise(network, way.state, run, COND, solver=way.solver, kick=way.kick), run)
        assert float((back - x0).abs().max()) < allowed
        plain = inverted(network, x0, run, COND, IDS, strength=strength)
        missed = collect(denoise(network, plain.state, run, COND), run)
        assert float((missed - x0).abs().max()) > 2e-3, "DDIM's inversion is not exact"


def test_an_exact_inversion_of_flow_and_of_no_picture_left() -> None:
    """Where the first level is pure noise, alpha is 0."""
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    bare = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    for config, kind in ((flow, "flow"), (bare, "v_prediction")):
        run, x0 = Schedule.from_config(config, 20).joined(), clean().double()
        assert float(run.now.alpha[0]) == 0
        network = RandomNetwork(torch.float64, kind)
        way = exactly_inverted(network, x0, run, COND, IDS)
        back = collect(denoise(network, way.state, run, COND, solver=way.solver, kick=way.kick), run)
        assert float((back - x0).abs().max()) < 1e-10
        assert float(way.state.x.abs().max()) < 20


def test_an_exact_inversion_goes_where_the_other_goes() -> None:
    """Both follow the same ODE, the exact one to second order."""
    run, toy = schedule(100).joined(), GaussianDenoiser()
    wanted = toy.solution(clean(), (1.0, 0.0), run.now.level(0))
    far = [
        float((way.state.x - wanted).abs().max())
        for way in (inverted(toy, clean(), run, COND, IDS), exactly_inverted(toy, clean(), run, COND, IDS))
    ]
    assert far[1] < 0.5 * far[0] < 0.1


def test_its_rows_may_be_renamed() -> None:
    run, other = schedule(8).joined(), tuple(RowId("edit", i) for i in range(3))
    for way in (
        exactly_inverted(RowwiseDenoiser(), clean(), run, COND, IDS),
        inverted(RowwiseDenoiser(), clean(), run, COND, IDS),
    ):
        ends = [
            collect(denoise(RowwiseDenoiser(), one.state, run, COND, solver=one.solver, kick=one.kick), run)
            for one in (way, way.renamed(other))
        ]
        assert way.renamed(other).state.ids == other
        assert torch.equal(*ends)
        with pytest.raises(ValueError, match="expected 3 names, got 1"):
            way.renamed(other[:1])


def test_an_exact_inversion_needs_joined_steps() -> None:
    apart = Schedule.from_config({"timestep_spacing": "trailing"}, 7)
    with pytest.raises(ValueError, match="every step lands where the next one begins"):
        exactly_inverted(RowwiseDenoiser(), clean(), apart, COND, IDS)
    joined = apart.joined()
    assert torch.equal(joined.now.time, apart.now.time)
    assert torch.equal(joined.then.sigma[:-1], joined.now.sigma[1:])
    assert torch.equal(joined.then.sigma[-1:], apart.then.sigma[-1:])
    with pytest.raises(ValueError, match="rounds must be 1"):
        exactly_inverted(RowwiseDenoiser(), clean(), joined, COND, IDS, rounds=0)


def test_progress_counts_steps() -> None:
    told: list[tuple[float, float]] = []

    def watch(what: str, done: float, total: float) -> None:
        told.append((done, total))

    inverted(RowwiseDenoiser(), clean(), schedule(10), COND, IDS, strength=0.4, progress=watch)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("given", [{"strength": 0.0}, {"strength": 1.1}, {"rounds": -1}])
def test_what_cannot_be_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        inverted(RowwiseDenoiser(), clean(), schedule(4), COND, IDS, **given)


def test_noised_further_is_as_if_noised_at_once() -> None:
    """x0 noised to one level, and from there to another, has the mean and spread of the other."""
    run = schedule(10)
    rows = tuple(RowId("clip", i) for i in range(2000))
    index = torch.full((2000,), 6)
    now, back = run.step(index, rows)[0], run.step(index - 4, rows)[0]
    x0 = torch.full((2000, 1, 2, 2), 0.8)
    draws = [torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    x = noisier(now.noised(x0, draws[0]), now, back, draws[1])
    assert float(x.mean()) == pytest.approx(0.8 * float(back.alpha[0]), abs=0.04)
    assert float(x.std()) == pytest.approx(float(back.sigma[0]), rel=0.03)
    assert torch.equal(noisier(x0, now, now, draws[0]), x0)
    with pytest.raises(ValueError, match="noisier"):
        noisier(x0, back, now, draws[0])
