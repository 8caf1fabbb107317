"""Regions at their own times: nothing has changed at the beginning, everything at the end, and black is first."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from segue.diffusion.schedule import Schedule
from segue.errors import TaskError
from segue.temporal.mix import slerp
from segue.temporal.regions import RegionPull, Regions, Staggered, Timing, slerp_regions
from segue.temporal.trajectory import Trajectory
from segue.types import RowId

SCHEDULE = Schedule.from_config({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}, 10)
SPREADS = (0.01, 0.3, 0.5, 0.99)
DELAYS = torch.linspace(0, 1, 8)[None].expand(8, 8)
A, B = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("spread", SPREADS)
def test_nothing_is_begun_at_a_key_and_everything_is_over_at_the_next(spread: float) -> None:
    timing = Timing(DELAYS, spread)
    assert torch.equal(timing.shares(0.0), torch.zeros(8, 8).double())
    assert torch.equal(timing.shares(1.0), torch.ones(8, 8).double())


@pytest.mark.parametrize("spread", SPREADS)
def test_what_is_darker_comes_first_and_nothing_turns_back(spread: float) -> None:
    shares = torch.stack([Timing(DELAYS, spread).shares(p / 50) for p in range(51)])
    assert bool((shares[1:] >= shares[:-1]).all())
    assert bool((shares[:, :, 1:] <= shares[:, :, :-1]).all())
    assert float(shares[25, 0, 0] - shares[25, 0, -1]) > spread


def test_white_begins_when_the_spread_is_over_and_black_ends_as_long_before() -> None:
    timing = Timing(DELAYS, 0.4)
    assert float(timing.shares(0.4)[0, -1]) == 0 < float(timing.shares(0.41)[0, -1])
    assert float(timing.shares(0.6)[0, 0]) == 1 > float(timing.shares(0.59)[0, 0])


@pytest.mark.parametrize("spread", [0.0, 1.0, -0.5])
def test_impossible_spreads_are_refused(spread: float) -> None:
    with pytest.raises(TaskError, match="spread must be between"):
        Timing(DELAYS, spread)


def test_shares_between_parents_compose_to_those_between_keys() -> None:
    """However deep the tree: each step of the way is part of the whole one."""
    timing = Timing(DELAYS, 0.5)
    for base in (0, 3):
        left, right = (timing.shares(p) for p in (0.25, 0.75))
        inner = timing.between(base + 0.5, base + 0.25, base + 0.75)
        assert torch.allclose(left + inner * (right - left), timing.shares(0.5), atol=1e-9)
        assert torch.allclose(timing.between(base + 0.3, base, base + 1), timing.shares(0.3))
        assert bool(((inner >= 0) & (inner <= 1)).all())


def test_where_neither_parent_nor_branch_moves_the_share_is_the_plain_one() -> None:
    inner = Timing(DELAYS, 0.8).between(0.1, 0.05, 0.15)
    assert float(inner[0, -1]) == pytest.approx(0.5)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("b", [B, A, -A, torch.zeros_like(A)])
def test_one_share_everywhere_is_the_plain_slerp(share: float, b: Tensor) -> None:
    plain = slerp(A[None], b[None], torch.tensor([share], dtype=torch.float64))[0]
    assert torch.equal(slerp_regions(A, b, torch.full((8, 8), share)), plain) or share == 0.2
    assert torch.allclose(slerp_regions(A, b, torch.full((8, 8), share, dtype=torch.float64)), plain, atol=0)


def test_each_place_has_its_own_share() -> None:
    share = torch.zeros(8, 8)
    share[:, 3:], share[:, 5:] = 0.5, 1.0
    mixed = slerp_regions(A, B, share)
    assert torch.equal(mixed[..., :3], A[..., :3])
    assert torch.equal(mixed[..., 5:], B[..., 5:])
    half = slerp(A[None], B[None], torch.tensor([0.5]))[0]
    assert torch.equal(mixed[..., 3:5], half[..., 3:5])


def test_strength_is_how_far_a_region_departs_from_the_film() -> None:
    timing = Timing(DELAYS, 0.9)
    for position in (0.0, 1.0, 2.0):
        assert float(timing.strength(position).max()) == 0
    middle = timing.strength(2.5)
    assert float(middle[0, 0]) == float(middle[0, -1]) == 1
    slight = Timing(DELAYS, 0.01)
    assert float(slight.strength(0.5).max()) < 0.05 < float(Timing(DELAYS, 0.3).strength(0.5).max())


def test_regions_are_pulled_onto_the_mix_of_their_parents() -> None:
    left, right = (Trajectory(dict.fromkeys(range(10), x)) for x in (A, B))
    timing, row = Timing(DELAYS, 0.9), RowId("branch", 2)
    guide = Staggered(left, right, timing.between(0.5, 0.0, 1.0))
    work = Regions({row: RegionPull(guide, timing.strength(0.5))})
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    at, _ = SCHEDULE.step(torch.full((2,), 4), [RowId("branch", 1), row])
    pulled = work.on_latents(x, at)
    assert torch.equal(pulled[0], x[0])
    assert torch.equal(pulled[1, ..., 0], B[..., 0])
    assert torch.equal(pulled[1, ..., -1], A[..., -1])

    calm = Timing(DELAYS, 0.3)
    work = Regions({row: RegionPull(guide, calm.strength(0.5))})
    away = (work.on_latents(x, at)[1] - x[1]).abs().mean((0, 1))
    assert float(away[0]) > 3 * float(away[3]) > 0
