"""Where frames lie: even speed, exact counts, keys on frames of their own, loops that close."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, cast

import pytest

from segue.errors import TaskError
from segue.temporal.clock import Clock
from segue.temporal.easing import EVEN, Easing, Hold, Rhythm, Smooth, parse_easing
from segue.temporal.timeline import Loop, Shot, check_timing, even_positions, missing, shots
from segue.temporal.tree import Node, Tree

PLACES = [0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0]
GAPS = [0.1, 0.4, 0.2, 0.1, 0.5, 0.3]
KEYS = [0.0, 1.0, 2.0]
CLOCK = Clock(24, tuple(0.21 + 0.4 * k for k in range(40)), (0.3, 1.0, 1.9, 2.2))
EASINGS = ["linear", "smooth", "hold:0.1", "points:0 0,0.3 0.1,1 1", "beats", "beats:0.5", "onsets"]


def travelled(position: float) -> float:
    done = 0.0
    for (left, right), gap in zip(pairwise(PLACES), GAPS, strict=True):
        done += gap * min(max((position - left) / (right - left), 0), 1)
    return done


@pytest.mark.parametrize("count", [3, 4, 17, 120])
def test_counts_are_exact_and_keys_are_shown_once(count: int) -> None:
    positions = even_positions(PLACES, GAPS, KEYS, count)
    assert len(positions) == count
    assert all(a < b for a, b in pairwise(positions))
    assert set(KEYS) <= set(positions)


def test_speed_is_even_between_keys_and_nearly_so_over_the_film() -> None:
    positions = even_positions(PLACES, GAPS, KEYS, 121)
    steps = [travelled(b) - travelled(a) for a, b in pairwise(positions)]
    middle = positions.index(1.0)
    for part in (steps[:middle], steps[middle:]):
        assert max(part) - min(part) < 1e-9
    assert max(steps) / min(steps) < 1.05


def test_the_largest_step_is_hardly_larger_than_the_mean() -> None:
    for count in range(12, 60):
        steps = [travelled(b) - travelled(a) for a, b in pairwise(even_positions(PLACES, GAPS, KEYS, count))]
        mean = travelled(2.0) / (count - 1)
        # A key is up to a frame from where even speed would have it, of the frames of its side.
        assert max(steps) / mean <= 1 + 2 / (count - 1)


@pytest.mark.parametrize("loop", ["none", "loop", "pingpong"])
@pytest.mark.parametrize("text", EASINGS)
@pytest.mark.parametrize("count", [60, 61, 97])
def test_every_easing_and_loop_has_exact_counts_and_all_keys(text: str, loop: Loop, count: int) -> None:
    easing = parse_easing(text)
    if loop == "pingpong" and isinstance(easing, Rhythm):
        with pytest.raises(TaskError, match="cannot have its keys on"):
            even_positions(PLACES, GAPS, KEYS, count, easing, loop, CLOCK)
        return
    positions = even_positions(PLACES, GAPS, KEYS, count, easing, loop, CLOCK)
    assert len(positions) == count
    assert positions[0] == 0.0
    shown = KEYS[:-1] if loop == "loop" else KEYS
    assert set(shown) <= set(positions)
    there = positions[: positions.index(2.0) + 1] if loop == "pingpong" else positions
    assert all(a <= b for a, b in pairwise(there))
    moving = [a for a, b in pairwise(there) if a == b]
    assert set(moving) <= (set(KEYS) if isinstance(easing, Hold) else set())


def loop_steps(positions: list[float]) -> list[float]:
    """Distances from each frame to the next, and from the last to the first, which is also at 2.0."""
    around = [travelled(position) for position in positions]
    total = travelled(2.0)
    return [b - a for a, b in pairwise([*around, total])]


@pytest.mark.parametrize("count", [2, 5, 17, 60, 61])
def test_a_loop_returns_to_its_first_frame_by_a_step_like_the_others(count: int) -> None:
    positions = even_positions(PLACES, GAPS, KEYS, count, loop="loop")
    assert len(positions) == count
    assert positions[-1] < 2.0
    assert set(KEYS[:-1]) <= set(positions)
    steps = loop_steps(positions)
    middle = positions.index(1.0)
    for part in (steps[:middle], steps[middle:]):
        assert max(part) - min(part) < 1e-9
    assert count < 17 or max(steps) / (sum(steps) / count) < 1.1


def test_a_loop_is_smooth_where_it_closes() -> None:
    steps = loop_steps(even_positions(PLACES, GAPS, KEYS, 400, Smooth(), "loop"))
    assert steps[-1] < 0.05 * max(steps) and steps[0] < 0.05 * max(steps)


@pytest.mark.parametrize("easing", [EVEN, Smooth(), parse_easing("points:0 0,0.3 0.1,1 1")])
@pytest.mark.parametrize("count", [4, 6, 60])
def test_there_and_back_shows_the_same_frames_and_no_end_twice(easing: Easing, count: int) -> None:
    positions = even_positions(PLACES, GAPS, KEYS, count, easing, "pingpong")
    turn = count // 2
    assert positions[: turn + 1] == even_positions(PLACES, GAPS, KEYS, turn + 1, easing)
    assert positions[turn] == 2.0
    assert positions == [positions[0], *reversed(positions[1:])]
    assert all(a != b for a, b in pairwise([*positions, positions[0]]))


@pytest.mark.parametrize("count", [5, 61])
def test_there_and_back_in_an_odd_number_shows_the_last_key_twice(count: int) -> None:
    positions = even_positions(PLACES, GAPS, KEYS, count, loop="pingpong")
    twice = [a for a, b in pairwise([*positions, positions[0]]) if a == b]
    assert len(positions) == count
    assert twice == [2.0]
    assert len(set(positions)) == count // 2 + 1


@pytest.mark.parametrize("loop", ["none", "loop", "pingpong"])
def test_keys_are_held_equally_long_on_both_sides_of_a_loop(loop: Loop) -> None:
    positions = even_positions(PLACES, GAPS, KEYS, 100, Hold(7 / 24), loop, CLOCK)
    times = {key: positions.count(key) for key in KEYS}
    assert times == {"none": {0: 7, 1: 7, 2: 7}, "loop": {0: 7, 1: 7, 2: 0}, "pingpong": {0: 7, 1: 14, 2: 7}}[loop]


def test_films_that_cannot_be() -> None:
    most: dict[Loop, int] = {"none": 2, "loop": 1, "pingpong": 3}
    for loop, count in most.items():
        with pytest.raises(TaskError, match=f"3 key pictures need at least {count + 1} frames, got {count}"):
            check_timing(3, count, EVEN, loop)
        check_timing(3, count + 1, EVEN, loop)
    with pytest.raises(TaskError, match="loop must be one of none, loop, pingpong, got 'round'"):
        check_timing(3, 9, EVEN, cast(Any, "round"))


@pytest.mark.parametrize("loop", ["none", "loop", "pingpong"])
@pytest.mark.parametrize("text", [*EASINGS, "hold:0.3", "hold:9"])
def test_what_is_found_possible_before_the_work_is_possible_after_it(text: str, loop: Loop) -> None:
    easing = parse_easing(text)
    for count in range(2, 40):
        try:
            check_timing(3, count, easing, loop, CLOCK)
        except TaskError as error:
            with pytest.raises(TaskError, match=re.escape(str(error))):
                even_positions(PLACES, GAPS, KEYS, count, easing, loop, CLOCK)
        else:
            assert len(even_positions(PLACES, GAPS, KEYS, count, easing, loop, CLOCK)) == count


def test_equal_keys_do_not_divide_by_zero() -> None:
    assert even_positions([0.0, 1.0], [0.0], [0.0, 1.0], 5) == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    short = even_positions([0.0, 1.0, 2.0], [0.0, 1.0], [0.0, 1.0, 2.0], 6)
    assert len(short) == 6
    assert 1.0 in short


def test_too_few_frames_for_the_keys() -> None:
    with pytest.raises(TaskError, match="at least 3 frames, got 2"):
        even_positions(PLACES, GAPS, KEYS, 2)


def test_branches_that_exist_serve_frames_near_them() -> None:
    tree = Tree((Node(0.0), Node(1.0), Node(0.52, 3, (0, 1), 0.52, wave=1)))
    positions = [0.0, 0.25, 0.5, 0.75, 1.0]
    assert missing(tree, positions) == [0.25, 0.75]
    assert missing(tree, [0.0, 0.25, 0.45, 0.75, 1.0]) == [0.25, 0.45, 0.75]


def test_frames_without_a_branch_are_mixes_and_say_so() -> None:
    tree = Tree((Node(0.0), Node(1.0), Node(0.5, 3, (0, 1), 0.5, wave=1)))
    shown = shots(tree, [0.0, 0.25, 0.5, 0.75, 1.0])
    assert [shot.is_native for shot in shown] == [True, False, True, False, True]
    assert shown[1] == Shot(0, 2, 0.5)
    assert shown[3] == Shot(2, 1, 0.5)


def test_a_frame_that_is_shown_again_is_made_once() -> None:
    tree = Tree((Node(0.0), Node(1.0), Node(0.5, 3, (0, 1), 0.5, wave=1)))
    there = [0.0, 0.25, 0.5, 0.75, 1.0]
    back = [*there, 0.75, 0.5, 0.25]
    assert missing(tree, back) == missing(tree, there) == [0.25, 0.75]
    assert shots(tree, back) == [*shots(tree, there), *reversed(shots(tree, there)[1:-1])]
    held = [0.0, 0.0, 0.0, 0.5, 1.0, 1.0]
    assert missing(tree, held) == []
    assert [shot.left for shot in shots(tree, held)] == [0, 0, 0, 2, 1, 1]
