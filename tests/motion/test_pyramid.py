"""Pictures and ways at half and at twice the size."""

from __future__ import annotations

import pytest
import torch

from segue.motion.pyramid import bounded, halved, levels, reduced, repeated


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (5, 3), (1, 1)])
@pytest.mark.parametrize("batch", [1, 5])
def test_the_identity_stays_the_identity_on_the_way_up(size: tuple[int, int], batch: int) -> None:
    """A known implementation moved most pixels by one, by taking the size of the batch for that of the picture."""
    pictures = torch.rand(batch, 3, *size)
    small = halved(pictures)
    assert small.shape[2:] == (-(-size[0] // 2), -(-size[1] // 2))
    none = torch.zeros(batch, 2, *small.shape[2:], dtype=torch.int32)
    assert torch.equal(repeated(none * 2, *size), torch.zeros(batch, 2, *size, dtype=torch.int32))


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (5, 3)])
def test_ways_up_lead_to_what_the_goal_was_made_of(size: tuple[int, int]) -> None:
    """The goal of a pixel is the pixel at the same corner of the block that its block leads to."""
    height, width = size
    small = (-(-height // 2), -(-width // 2))
    way = torch.randint(-9, 9, (2, 2, *small), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    way = bounded(way)
    up = bounded(repeated(way * 2, height, width))
    for y in range(height):
        for x in range(width):
            for row in range(2):
                dx, dy = (int(value) for value in way[row, :, y // 2, x // 2])
                goal = (min(x + 2 * dx, width - 1), min(y + 2 * dy, height - 1))
                assert (x + int(up[row, 0, y, x]), y + int(up[row, 1, y, x])) == goal
                assert (goal[0] // 2, goal[1] // 2) == (x // 2 + dx, y // 2 + dy)


def test_means_of_blocks() -> None:
    picture = torch.arange(15.0).view(1, 1, 3, 5)
    assert halved(picture)[0, 0].tolist() == [[3, 5, 6.5], [10.5, 12.5, 14]]
    assert [tuple(one.shape[2:]) for one in levels(torch.zeros(1, 3, 65, 40), 10)] == [(65, 40), (33, 20), (17, 10)]
    assert len(levels(torch.zeros(1, 3, 4, 4), 16)) == 1


def test_ways_down_are_those_of_the_middle() -> None:
    way = torch.zeros(1, 2, 9, 9)
    way[:, :, 2, 6] = torch.tensor([8.0, -4.0])
    small = reduced(way, 2, 3, 3)
    assert small[0, :, 0, 1].tolist() == [2, -1]
    assert int((small != 0).sum()) == 2
    assert torch.equal(reduced(way, 0, 9, 9), way.int())
