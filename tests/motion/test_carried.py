"""Detail that is carried from keys."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from motion.clips import Held, ground, noisy, panned
from motion.engines import Shifts, Still
from segue.motion.blend import Blending, blended
from segue.motion.carried import Carrier, Paths
from segue.motion.fields import Fields
from segue.motion.flow_match import FlowMatcher
from segue.motion.kept import Packed
from segue.motion.match import Match


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


def to_key(fields: Fields, number: int, key: int) -> Match:
    """From neighbour to neighbour, restated."""
    found = fields.way(key, key)
    step = 1 if key > number else -1
    for place in range(key - step, number - step, -step):
        one = fields.way(place, place + step)
        found = Packed.of(one if place + step == key else one.then(found)).match(fields.device)
    return found


@pytest.mark.parametrize("order", [range(60), range(59, -1, -1), [40, 3, 59, 58, 20, 21, 0]], ids=["on", "back", "any"])
def test_ways_to_keys_are_composed_of_neighbours_in_any_order(order: list[int]) -> None:
    clip = panned(60, size=(24, 18), step=(1, 0))
    fields = Fields(Shifts(reach=1, doubt=0.1), clip)
    paths = Paths(fields, 59)
    for number in order:
        for key in (0, 59):
            due, found = to_key(fields, number, key), paths.way(number, key)
            assert torch.equal(found.way, due.way)
            assert torch.equal(found.confidence, due.confidence)


class Counted(Fields):
    """Counts how often a way was asked for."""

    asked = 0

    def way(self, here: int, there: int) -> Match:
        self.asked += 1
        return super().way(here, there)


@pytest.mark.parametrize("backwards", [False, True])
def test_ways_to_far_keys_take_little_memory_and_no_more_than_twice_the_time(backwards: bool) -> None:
    span = 400
    fields = Counted(Still(), Held(torch.zeros(2 * span + 1, 3, 4, 4)), memory=0)
    fields.hold(span + 4)
    paths, most = Paths(fields, span), 0
    numbers = [number for number in range(2 * span + 1) if number % span]
    for number in reversed(numbers) if backwards else numbers:
        before = number // span * span
        for key in (before, before + span):
            paths.way(number, key)
        most = max(most, paths.held)
    assert most < 100
    # Once to the key behind, once and a second time to the key ahead; and a few where both meet.
    assert fields.asked < 3.1 * 2 * span
