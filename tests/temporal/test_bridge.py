"""DDIB: there and back is the identity but for the solver, and what is in between is known for Gaussians."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from segue.diffusion.noise import noise
from segue.diffusion.schedule import Schedule
from segue.temporal.bridge import bridged
from segue.temporal.increments import Increments
from segue.temporal.inversion import Inversion, exactly_inverted, inverted
from segue.types import Denoiser, RowId
from toy import GaussianDenoiser, RowwiseDenoiser, text_of

IDS = tuple(RowId("clip", number) for number in range(4))
TOLD = text_of(0.0, 0.0, 0.0, 0.0)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "timestep_spacing": "trailing"}
SOURCE, TARGET = GaussianDenoiser(0.3, 0.7), GaussianDenoiser(-0.4, 0.35)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def run_of(steps: int) -> Schedule:
    return Schedule.from_config(BETAS, steps)


def clean() -> Tensor:
    return 0.3 + 0.7 * torch.stack([noise(0, "clean", 0, row, (2, 5, 5)) for row in IDS]).double()


def over(source: Denoiser, target: Denoiser, x0: Tensor, steps: int, exact: bool = False) -> Tensor:
    run = run_of(steps).joined()
    way = (exactly_inverted if exact else inverted)(source, x0, run, TOLD, IDS)
    return bridged(target, way, run, TOLD)


def test_there_and_back_misses_by_one_over_the_number_of_steps() -> None:
    """Source to target and back to the source, at 25, 50, 100, 250 and 1000 steps of DDIM."""
    counts, errors = (25, 50, 100, 250, 1000), list[float]()
    for steps in counts:
        there = over(SOURCE, TARGET, clean(), steps)
        back = over(TARGET, SOURCE, there, steps)
        errors.append(float((back - clean()).abs().mean()))
    for (few, coarse), (many, fine) in pairwise(zip(counts, errors, strict=True)):
        assert coarse / fine == pytest.approx(many / few, rel=0.3), errors
    assert errors[0] < 0.5
    assert errors[-1] < 0.02


def test_there_and_back_is_exact_with_the_exact_solver() -> None:
    """Each half is inverted exactly; the cycle is only as exact as the second half is the first one backwards."""
    run = run_of(25).joined()
    way = exactly_inverted(SOURCE, clean(), run, TOLD, IDS)
    assert float((bridged(SOURCE, way, run, TOLD) - clean()).abs().max()) < 1e-12
    plain = float((over(TARGET, SOURCE, over(SOURCE, TARGET, clean(), 25), 25) - clean()).abs().mean())
    cycle = over(TARGET, SOURCE, over(SOURCE, TARGET, clean(), 25, exact=True), 25, exact=True)
    assert float((cycle - clean()).abs().mean()) < 0.3 * plain


@pytest.mark.parametrize("exact", [False, True])
def test_the_closed_form_of_two_gaussians(exact: bool) -> None:
    """z = a m1 + k1 (x - m1), y = m2 + (z - a m2) / k2, k = sqrt(a^2 s^2 + 1 - a^2) / s; the last level keeps a x.

    Not the map of optimal transport, m2 + (s2 / s1)(x - m1): the last level keeps some picture, a = 0.068 here, and
    of each model its own. That does not vanish with more steps.
    """
    run = run_of(1000)
    kept, spread = run.now.level(0)
    ks = [(kept**2 * toy.std**2 + spread**2) ** 0.5 / toy.std for toy in (SOURCE, TARGET)]
    z = kept * SOURCE.mean + ks[0] * (clean() - SOURCE.mean)
    known = TARGET.mean + (z - kept * TARGET.mean) / ks[1]
    made = over(SOURCE, TARGET, clean(), 1000, exact)
    assert float((made - known).abs().max()) < (0.004 if exact else 0.02)
    transport = TARGET.mean + TARGET.std / SOURCE.std * (clean() - SOURCE.mean)
    assert float((made - transport).abs().mean()) == pytest.approx(0.0171, abs=0.002)


def test_operators_and_progress_reach_the_way_out() -> None:
    run, told = run_of(10), list[tuple[str, float, float]]()

    def watch(what: str, done: float, total: float) -> None:
        told.append((what, done, total))

    way = inverted(RowwiseDenoiser(), clean(), run, TOLD, IDS, strength=0.3)
    bridged(RowwiseDenoiser(), way, run, text_of(0.5, 0.5, 0.5, 0.5), progress=watch)
    assert told == [("bridging", 1, 3), ("bridging", 2, 3), ("bridging", 3, 3)]
    with pytest.raises(ValueError, match="the inversion begins at step 7, and the schedule has 7"):
        bridged(RowwiseDenoiser(), way, run_of(7), TOLD)


@pytest.mark.parametrize("exact", [False, True])
def test_noise_alone_is_enough(exact: bool) -> None:
    run = run_of(10).joined()
    way = (exactly_inverted if exact else inverted)(SOURCE, clean(), run, TOLD, IDS, strength=0.7)
    increment = way.kick.by_step[way.first] if isinstance(way.kick, Increments) else None
    kept = Inversion.kept(way.state.x, way.first, IDS, increment)
    assert torch.equal(bridged(TARGET, kept, run, TOLD), bridged(TARGET, way, run, TOLD))
