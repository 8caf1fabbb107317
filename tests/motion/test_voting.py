"""Voting, against a naive restatement."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from segue.motion.match import Match, gathered
from segue.motion.voting import voted


def match(height: int, width: int, reach: int, batch: int = 1, seed: int = 0) -> Match:
    """Ways into anywhere within some pixels, also beyond the border."""
    draws = torch.Generator().manual_seed(seed)
    way = torch.randint(-reach, reach + 1, (batch, 2, height, width), generator=draws).float()
    return Match(way, way[:, 0], way[:, 0], whole=True)


def naive(way: Tensor, there: Tensor, patch: int) -> Tensor:
    """One picture: every patch says what it would put on each pixel that it covers."""
    _, height, width = there.shape
    total, votes = torch.zeros_like(there), torch.zeros(height, width)
    reach = patch // 2
    for y in range(height):
        for x in range(width):
            for down in range(-reach, reach + 1):
                for across in range(-reach, reach + 1):
                    on_x, on_y = x + across, y + down
                    from_x, from_y = on_x + int(way[0, y, x]), on_y + int(way[1, y, x])
                    if 0 <= on_x < width and 0 <= on_y < height and 0 <= from_x < width and 0 <= from_y < height:
                        total[:, on_y, on_x] += there[:, from_y, from_x]
                        votes[on_y, on_x] += 1
    assert (votes > 0).all()
    return total / votes


@pytest.mark.parametrize("patch", [1, 3, 5])
def test_every_patch_that_covers_a_pixel_has_a_vote(patch: int) -> None:
    there = torch.rand(2, 4, 9, 11, generator=torch.Generator().manual_seed(1))
    ways = match(9, 11, 2, batch=2)
    # Each pixel's own goal within, so that the naive vote never divides by nothing.
    x, y = torch.arange(11), torch.arange(9)[:, None]
    way = torch.stack([(x + ways.way[:, 0]).clamp(0, 10) - x, (y + ways.way[:, 1]).clamp(0, 8) - y], 1)
    made = voted(Match(way, way[:, 0], way[:, 0], whole=True), there, patch)
    for row in range(2):
        assert torch.allclose(made[row], naive(way[row], there[row], patch), atol=1e-6)


def test_one_way_for_all_is_a_gather() -> None:
    there = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    way = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 16, 16)
    moved = Match(way, way[:, 0], way[:, 0], whole=True)
    inner = (..., slice(4, -4), slice(4, -4))
    assert torch.equal(voted(moved, there, 5)[inner], gathered(there, way)[inner])
    assert torch.equal(voted(match(16, 16, 9), there, 1), gathered(there, match(16, 16, 9).way))


def test_equal_pixels_stay_as_they_are_wherever_they_come_from() -> None:
    there = torch.tensor([0.1, 0.7, 1 / 3]).view(1, 3, 1, 1).expand(1, 3, 12, 10).contiguous()
    assert torch.equal(voted(match(12, 10, 40), there, 7), there)


def test_what_does_not_fit_is_named() -> None:
    ways = match(8, 8, 1)
    with pytest.raises(ValueError, match="do not lead"):
        voted(ways, torch.zeros(1, 3, 8, 9), 3)
    with pytest.raises(ValueError, match="odd"):
        voted(ways, torch.zeros(1, 3, 8, 8), 4)
