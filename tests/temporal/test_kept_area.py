"""The kept area: outside a mask it is the source's at every step, and exactly at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from segue.diffusion.loop import denoise
from segue.diffusion.noise import NamedNoise, noise
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import Ancestral, euler_ancestral
from segue.diffusion.starts import first_step, from_latents
from segue.temporal.cycle import encoded
from segue.temporal.inversion import inverted
from segue.temporal.kept_area import KeptArea, NoisedWay, kept_area
from segue.types import RowId, State
from toy import RowwiseDenoiser, text_of, toy_model

IDS = tuple(RowId("clip", number) for number in range(3))
COND = text_of(0.2, -0.3, 0.5)
SHAPE = (4, 6, 5)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def drawn(name: str) -> Tensor:
    return torch.stack([noise(0, name, 0, row, SHAPE) for row in IDS])


def masks() -> Tensor:
    """One for each frame; the last changes everywhere."""
    mask = torch.zeros(3, *SHAPE[1:])
    mask[0, :3], mask[1, 2:, 1:4], mask[2] = 1, 1, 1
    return mask


def run_of(state: State, schedule: Schedule, area: KeptArea, solver: object = None) -> list[State]:
    return list(
        denoise(RowwiseDenoiser(), state, schedule, COND, solver=Ancestral(0.5), operators=[area], kick=NamedNoise(4))
    )


@pytest.mark.parametrize("strength", [0.1, 0.6, 1.0])
@pytest.mark.parametrize("fresh", [False, True])
def test_outside_it_is_the_noised_source_at_every_step_and_the_source_at_the_end(strength: float, fresh: bool) -> None:
    schedule, x0, eps = toy_model().schedule(10, (16, 16)), drawn("clean"), drawn("start")
    begin = from_latents(x0, eps, schedule, strength, IDS)
    area = kept_area(masks(), x0, NamedNoise(9, "kept") if fresh else eps, schedule, IDS)
    outside = (masks() == 0)[:, None].expand(-1, 4, -1, -1)
    states = run_of(begin, schedule, area)
    for state in states[1:]:
        step = int(state.step[0])
        if step < 10:
            now, _ = schedule.step(state.step, IDS)
            own = eps
            if fresh:
                own = torch.stack([noise(9, "kept", step, row, SHAPE) for row in IDS])
            assert torch.allclose(state.x[outside], now.noised(x0, own)[outside], atol=1e-6)
    assert torch.equal(states[-1].x[outside], x0[outside])
    assert not torch.allclose(states[-1].x[~outside], x0[~outside], atol=0.05)


def test_the_same_noise_and_fresh_noise_differ_inside() -> None:
    schedule, x0, eps = toy_model().schedule(10, (16, 16)), drawn("clean"), drawn("start")
    begin = from_latents(x0, eps, schedule, 0.6, IDS)
    same, fresh = (NoisedWay(x0, source, schedule, IDS).at(7) for source in (eps, NamedNoise(9, "kept")))
    assert not torch.allclose(same, fresh)
    assert torch.equal(NoisedWay(x0, eps, schedule, IDS).at(4), begin.x)
    assert torch.equal(NoisedWay(x0, NamedNoise(), schedule, IDS).at(10), x0)


def test_a_mask_that_changes_everywhere_changes_nothing_about_the_run() -> None:
    schedule, x0, eps = toy_model().schedule(10, (16, 16)), drawn("clean"), drawn("start")
    begin = from_latents(x0, eps, schedule, 0.6, IDS)
    free = run_of(begin, schedule, kept_area(torch.ones(1, *SHAPE[1:]), x0, eps, schedule, IDS))
    plain = list(denoise(RowwiseDenoiser(), begin, schedule, COND, solver=Ancestral(0.5), kick=NamedNoise(4)))
    assert torch.equal(free[-1].x, plain[-1].x)
    held = run_of(begin, schedule, kept_area(torch.zeros(1, *SHAPE[1:]), x0, eps, schedule, IDS))
    assert torch.equal(held[-1].x, x0)


def test_a_soft_mask_lets_go_in_time() -> None:
    """Of ten steps that are run, a value of 0.3 keeps the source for the first seven."""
    schedule, x0, eps = toy_model().schedule(20, (16, 16)), drawn("clean"), drawn("start")
    begin = from_latents(x0, eps, schedule, 0.5, IDS)
    area = kept_area(torch.full((1, *SHAPE[1:]), 0.3), x0, eps, schedule, IDS, first_step(schedule, 0.5))
    way = NoisedWay(x0, eps, schedule, IDS)
    held = [torch.equal(state.x, way.at(int(state.step[0]))) for state in run_of(begin, schedule, area)]
    assert held == [True] * 7 + [False] * 4


def test_it_follows_the_ways_of_inversion_and_of_cycle_diffusion() -> None:
    schedule, x0 = toy_model().schedule(10, (16, 16)), drawn("clean")
    outside = (masks() == 0)[:, None].expand(-1, 4, -1, -1)
    cycle = encoded(RowwiseDenoiser(), x0, schedule, COND, IDS, noise=drawn("start"), solver=euler_ancestral)
    for way in (inverted(RowwiseDenoiser(), x0, schedule, COND, IDS, strength=0.6), cycle):
        states = run_of(way.state, schedule, KeptArea(masks(), way))
        for state in states:
            assert torch.equal(state.x[outside], way.at(int(state.step[0]))[outside])
        assert torch.equal(states[-1].x[outside], x0[outside])


def test_rows_without_a_way_are_left_alone_and_order_does_not_matter() -> None:
    schedule, x0, eps = toy_model().schedule(10, (16, 16)), drawn("clean"), drawn("start")
    begin = from_latents(x0, eps, schedule, 0.6, IDS)
    area = kept_area(masks()[:2], x0[:2], eps[:2], schedule, IDS[:2])
    both, plain = (
        run_of(begin, schedule, area),
        list(denoise(RowwiseDenoiser(), begin, schedule, COND, solver=Ancestral(0.5), kick=NamedNoise(4))),
    )
    assert torch.equal(both[-1].x[2], plain[-1].x[2])
    turned = list(
        denoise(
            RowwiseDenoiser(),
            begin.fork([2, 1, 0]),
            schedule,
            COND[[2, 1, 0]],
            solver=Ancestral(0.5),
            operators=[area],
            kick=NamedNoise(4),
        )
    )
    assert torch.equal(turned[-1].x.flip(0), both[-1].x)


def test_masks_that_do_not_fit_are_refused() -> None:
    schedule, x0, eps = toy_model().schedule(10, (16, 16)), drawn("clean"), drawn("start")
    with pytest.raises(ValueError, match="expected one mask, or one for each of 3 rows; got 2"):
        kept_area(masks()[:2], x0, eps, schedule, IDS)
    begin = from_latents(x0, eps, schedule, 0.6, IDS)
    with pytest.raises(ValueError, match=r"a mask of \(6, 4\) does not fit latents of \(6, 5\)"):
        run_of(begin, schedule, kept_area(masks()[:, :, :4], x0, eps, schedule, IDS))
