# pyright: basic
"""What is told to move is carried along its way: laws of similarities, and ways that pictures alone teach."""

from __future__ import annotations

import math

import pytest
import torch

from segue.models.travel import Carrying, Travel, Way, extent_of, places

MIDDLE = torch.zeros(1, 2)


def carrying(
    mask: torch.Tensor, shift: tuple[float, float] = (0.0, 0.0), turn: float = 0.0, growth: float = 0.0
) -> Carrying:
    way = Way(torch.tensor([shift]), torch.tensor([math.radians(turn)]), torch.tensor([math.log(growth or 1)]))
    return Carrying(way, mask, MIDDLE)


def thing(side: int = 16) -> torch.Tensor:
    """A textured square in the middle of a picture of zeros."""
    picture = torch.zeros(1, 3, side, side)
    picture[:, :, 5:11, 5:11] = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(1)) + 0.5
    return picture


def test_nothing_moves_where_the_way_is_none() -> None:
    picture = torch.randn(1, 3, 12, 20, generator=torch.Generator().manual_seed(2))
    mask = (torch.rand(1, 1, 12, 20, generator=torch.Generator().manual_seed(3)) > 0.5).float()
    assert torch.allclose(carrying(mask).carried(picture), picture, atol=1e-5)


@pytest.mark.parametrize("cells", [(3, 0), (-2, 0), (0, 4), (1, -2)])
def test_a_shift_by_whole_places_is_exact(cells: tuple[int, int]) -> None:
    """To the right and down; what it leaves shows the ground, and nothing comes in again on the other side."""
    picture = thing()
    mask = (picture.abs().sum(1, keepdim=True) > 0).float()
    x, y = cells
    made = carrying(mask, (x / 8, y / 8)).carried(picture)
    assert torch.allclose(made, torch.roll(picture, (y, x), (2, 3)), atol=1e-5)


@pytest.mark.parametrize("quarters", [1, 2, -1])
def test_turns_are_clockwise_as_one_sees_them(quarters: int) -> None:
    picture = thing()
    made = carrying(torch.ones(1, 1, 16, 16), turn=90 * quarters).carried(picture)
    assert torch.allclose(made, torch.rot90(picture, -quarters, (2, 3)), atol=1e-5)


def test_what_grows_to_twice_its_size_covers_four_times_as_much() -> None:
    picture = thing()
    mask = (picture.abs().sum(1, keepdim=True) > 0).float()
    area = float((carrying(mask, growth=2.0).carried(picture).sum(1) > 0.4).sum())
    assert area == pytest.approx(4 * 36, rel=0.1)


@pytest.mark.parametrize("size", [(16, 16), (12, 20), (20, 12)])
def test_lengths_are_those_of_the_shorter_side(size: tuple[int, int]) -> None:
    height, width = size
    at, extent = places(height, width), extent_of(height, width)
    assert torch.allclose(at[0, 1] - at[0, 0], torch.tensor([2 / min(size), 0.0]), atol=1e-6)
    assert torch.allclose(at[1, 0] - at[0, 0], torch.tensor([0.0, 2 / min(size)]), atol=1e-6)
    assert torch.allclose(at[-1, -1] + 1 / min(size), extent, atol=1e-6)
    picture = torch.zeros(1, 1, *size)
    picture[..., height // 2, width // 2] = 1
    made = carrying(torch.ones(1, 1, *size), (4 / min(size), 0.0)).carried(picture)
    assert made[0, 0].flatten().argmax() == height // 2 * width + width // 2 + 2


def test_a_way_is_learned_from_pictures_alone() -> None:
    """Told 1, what is there goes two places to the right; told -1, one down; the ground, of another colour, stays."""
    torch.manual_seed(0)
    travel = Travel(8, 8)
    generator = torch.Generator().manual_seed(4)

    def lesson(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ways = torch.randint(0, 2, (count,), generator=generator)
        before, after = torch.full((count, 8, 16, 16), -1.0), torch.full((count, 8, 16, 16), -1.0)
        for row in range(count):
            x, y = torch.randint(3, 7, (2,), generator=generator).tolist()
            looks = torch.rand(8, 5, 5, generator=generator) + 0.5
            right, down = (2, 0) if ways[row] else (0, 1)
            before[row, :, y : y + 5, x : x + 5] = looks
            after[row, :, y + down : y + down + 5, x + right : x + right + 5] = looks
        return before, after, (2.0 * ways - 1)[:, None].expand(-1, 8).contiguous()

    optimizer = torch.optim.Adam(travel.parameters(), 3e-3)
    for _ in range(300):
        before, after, told = lesson(16)
        with torch.enable_grad():
            loss = (travel(before, told).carried(before) - after).abs().mean()
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
    before, after, told = lesson(64)
    with torch.no_grad():
        found = travel(before, told)
    wanted = torch.where(told[:, :1] > 0, torch.tensor([[0.25, 0.0]]), torch.tensor([[0.0, 0.125]]))
    assert (found.way.shift - wanted).abs().mean() < 0.02
    assert found.way.turn.abs().mean() < 0.1
    missed, stayed = (found.carried(before) - after).abs().mean(), (before - after).abs().mean()
    assert missed < 0.3 * stayed
