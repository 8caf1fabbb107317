# pyright: basic
"""Which frames are made when: all of them once, from what is known by then, evenly."""

from __future__ import annotations

import pytest

from segue.errors import TaskError
from segue.temporal.plan_levels import Levels


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("factors", [(4, 4), (2,), (7, 3), (2, 2, 2)])
def test_every_frame_is_made_once_and_from_what_is_known(factors: tuple[int, ...], loop: bool) -> None:
    for count in (*range(1, 40), 100, 1000):
        plan = Levels(count, factors, loop)
        made = list(plan.outline)
        for gap in plan.gaps():
            known = {gap.first, gap.last}
            assert gap.first in plan.outline and gap.last % count in plan.outline
            for stretch in gap.stretches:
                assert {stretch.first, stretch.last} <= known
                known.update(stretch.inner)
                made += stretch.inner
                assert stretch.shares() == sorted(stretch.shares()) and len(stretch.inner) < factors[stretch.level]
            assert known == {gap.first, *gap.inner, gap.last}
        assert sorted(made) == list(range(count))


def test_key_frames_lie_evenly_and_the_last_frame_is_one() -> None:
    plan = Levels(1000, (4, 4))
    apart = {b - a for a, b in zip(plan.outline, plan.outline[1:], strict=False)}
    assert apart <= {15, 16} and plan.outline[-1] == 999 and len(plan.outline) == 64
    assert plan.fps(30.0) == pytest.approx(30 * 63 / 999)
    looped = Levels(1000, (4, 4), loop=True)
    assert looped.outline[-1] < 999 and looped.gaps()[-1].last == 1000


def test_a_stretch_is_told_its_speed() -> None:
    first, second = Levels(17, (4, 4)).gaps()[0].stretches[:2]
    assert (first.inner, first.fps(32.0)) == ((4, 8, 12), 8.0)
    assert (second.inner, second.fps(32.0)) == ((1, 2, 3), 32.0)


def test_what_cannot_be_is_refused() -> None:
    for count, factors, match in ((0, (4,), "one frame or more"), (9, (1,), "multiplies the frames")):
        with pytest.raises(TaskError, match=match):
            Levels(count, factors)
