"""Detail that is carried from keys."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from motion.clips import Held
from segue.motion.carried import Carrier
from segue.motion.fields import Fields
from segue.motion.flow_match import FlowMatcher


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
