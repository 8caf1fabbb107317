"""Ways that are moved until patches agree."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from motion.clips import Held, ground
from motion.engines import Still
from segue.motion.fields import Fields
from segue.motion.joint import Pairs
from segue.motion.match import Match

PATCH = slice(12, 28), slice(16, 36)
INNER = slice(16, 24), slice(20, 32)


class Astray(Fields):
    """In some frames, a patch of something that stands still is looked for beside where it is."""

    def __init__(self, guide: Held, away: tuple[float, float], frames: tuple[int, ...], *, whole: bool) -> None:
        super().__init__(Still(), guide)
        self.away, self.frames, self.whole = away, frames, whole

    def direct(self, here: int, there: int) -> Match:
        return self._moved(super().direct(here, there), there)

    def way(self, here: int, there: int) -> Match:
        return self._moved(super().way(here, there), there)

    def _moved(self, match: Match, there: int) -> Match:
        way = match.way.clone()
        if there in self.frames:
            way[(0, slice(None), *PATCH)] += torch.tensor(self.away).view(2, 1, 1)
        return replace(match, way=way, whole=self.whole)


def wrong(fields: Astray, style: Held, *, joint: bool) -> float:
    """By how much the mean around the middle frame is off, within the patch."""
    mean = Pairs(fields, lambda number: style[number : number + 1], 2, joint=joint).at(2).mean
    return float((mean - style[2:3])[(..., *INNER)].abs().max())


@pytest.mark.parametrize("away", [(1, 0), (-1, 0), (0, 1), (0, -1)])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "parts"])
def test_a_patch_beside_its_like_is_moved_onto_it(away: tuple[int, int], whole: bool) -> None:
    """In most frames, so that the mean is wrong, too: the guide tells. Ways that are not whole are off by a half."""
    still = Held(ground(3, 40, 52).repeat(5, 1, 1, 1))
    x, y = (place * (1 if whole else 0.5) for place in away)
    fields = Astray(still, (x, y), (0, 1, 4), whole=whole)
    assert wrong(fields, still, joint=False) > 0.02
    assert wrong(fields, still, joint=True) < 1e-5


@pytest.mark.parametrize("away", [(1, 0), (0, -1)])
def test_where_the_guide_shows_nothing_the_others_tell(away: tuple[int, int]) -> None:
    flat, style = Held(torch.full((5, 3, 40, 52), 0.5)), Held(ground(3, 40, 52).repeat(5, 1, 1, 1))
    fields = Astray(flat, away, (1,), whole=True)
    assert wrong(fields, style, joint=False) > 0.01
    assert wrong(fields, style, joint=True) < 1e-5


def test_what_lies_right_stays() -> None:
    still = Held(ground(3, 40, 52).repeat(5, 1, 1, 1))
    assert wrong(Astray(still, (1, 0), (), whole=False), still, joint=True) == 0
