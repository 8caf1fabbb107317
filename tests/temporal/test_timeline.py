"""Where frames lie: even speed, exact counts, keys shown once."""

from __future__ import annotations

from itertools import pairwise

import pytest

from segue.errors import TaskError
from segue.temporal.timeline import Shot, even_positions, missing, shots
from segue.temporal.tree import Node, Tree

PLACES = [0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0]
GAPS = [0.1, 0.4, 0.2, 0.1, 0.5, 0.3]
KEYS = [0.0, 1.0, 2.0]


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


def test_equal_keys_do_not_divide_by_zero() -> None:
    assert even_positions([0.0, 1.0], [0.0], [0.0, 1.0], 5) == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    short = even_positions([0.0, 1.0, 2.0], [0.0, 1.0], [0.0, 1.0, 2.0], 6)
    assert len(short) == 6
    assert 1.0 in short


def test_too_few_frames_for_the_keys() -> None:
    with pytest.raises(TaskError, match="at least as many frames"):
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
