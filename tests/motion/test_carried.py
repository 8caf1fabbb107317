"""Detail that is carried from keys."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from motion.clips import Held, ground, noisy
from motion.engines import Still
from segue.motion.blend import Blending, blended
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


def test_one_key_fades_into_the_next_and_none_is_seen_to_come() -> None:
    """A still of which every frame is drawn anew: at a key, all detail would change at once."""
    still = Held(ground(0, 32, 40).repeat(40, 1, 1, 1))
    found = blended(noisy(still, 0.1), Fields(Still(), still), Blending(every=24))
    apart = sorted(
        float((picture - after).square().mean()) ** 0.5 for (_, picture, _), (_, after, _) in pairwise(found)
    )
    assert apart[-1] < 2 * apart[len(apart) // 2]
