"""Detail that is carried from keys."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from motion.clips import Held
from segue.motion.carried import Carrier
from segue.motion.fields import Fields
from segue.motion.flow_match import FlowMatcher
from segue.motion.match import Match


class Still:
    """Says, and is sure of it, that nothing moves."""

    name = "still"

    def __call__(
        self, a: torch.Tensor, b: torch.Tensor, start: tuple[Match, Match] | None = None
    ) -> tuple[Match, Match]:
        match = Match(torch.zeros_like(a[:, :2]), torch.zeros_like(a[:, 0]), torch.ones_like(a[:, 0]), whole=True)
        return match, match


def carrier(frames: int, every: int) -> Carrier:
    fields = Fields(FlowMatcher(), Held(torch.zeros(frames, 3, 16, 16)))
    return Carrier(fields, lambda number: torch.zeros(1, 6, 16, 16), every)


@pytest.mark.parametrize("frames", [2, 3, 10, 39, 40, 41, 49, 50, 100])
@pytest.mark.parametrize("every", [1, 2, 7, 24])
def test_keys_are_mirrored_and_never_crowd(frames: int, every: int) -> None:
    found = carrier(frames, every)
    keys = sorted({key for number in range(frames) for key in found.keys(number)})
    assert (keys[0], keys[-1]) == (0, frames - 1)
    assert keys == sorted(frames - 1 - key for key in keys)
    gaps = [later - earlier for earlier, later in pairwise(keys)]
    # Two keys side by side have nothing between them over which one could be faded into the other.
    assert max(gaps) <= max(1, min(gaps)) + 2
    assert max(gaps) <= 1.5 * every + 1


def test_detail_is_not_carried_to_what_the_guide_shows_otherwise() -> None:
    guide = torch.full((5, 3, 32, 32), 0.5)
    guide[:2, :, 8:16, 8:16] = 1.0  # There in the first frames alone, wherever ways may say that it stays.
    found = Carrier(Fields(Still(), Held(guide)), lambda number: torch.zeros(1, 6, 32, 32), 4)
    _, trust = found(1, torch.zeros(1, 6, 32, 32))
    assert float(trust.min()) > 0.9  # The first frame shows the same.
    _, trust = found(3, torch.zeros(1, 6, 32, 32))
    assert float(trust.min()) > 0.9  # The last does.
    found = Carrier(Fields(Still(), Held(guide[[0, 2, 2, 0, 0]])), lambda number: torch.zeros(1, 6, 32, 32), 4)
    _, trust = found(2, torch.zeros(1, 6, 32, 32))
    assert float(trust[..., 10:14, 10:14].max()) < 0.01
    assert float(trust[..., 20:, 20:].min()) > 0.9
