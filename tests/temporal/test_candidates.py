"""Candidates: all combinations, of which the best are kept, and no more than these."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Iterator

import pytest

from segue.errors import TaskError
from segue.temporal.candidates import Candidate, candidates, ranked


def test_all_combinations() -> None:
    found = candidates((1, 2), (0.5, 0.8), (0.1,), (2.0, 3.0))
    assert len(set(found)) == 8
    assert found[0] == Candidate(1, 0.5, 0.1, 2.0)
    assert [one.seed for one in found] == [1] * 4 + [2] * 4
    with pytest.raises(TaskError, match="one of these has none"):
        candidates((1,), (), (0.1,), (2.0,))


def test_the_best_first_and_of_equals_the_earlier() -> None:
    scores = [0.1, 0.5, math.nan, 0.5, 0.2]
    made = [(Candidate(seed=number), number) for number in range(5)]
    best = ranked(made, lambda number: scores[number], keep=3)
    assert [one.made for one in best] == [1, 3, 4]
    assert [one.candidate.seed for one in best] == [1, 3, 4]
    assert ranked(made, lambda number: scores[number])[0].score == 0.5
    every = ranked(made, lambda number: scores[number], keep=9)
    assert [one.made for one in every] == [1, 3, 4, 0, 2], "what is not a number comes last"


class Edit:
    def __init__(self, number: int) -> None:
        self.number = number


def test_no_more_are_held_than_are_kept() -> None:
    alive: weakref.WeakSet[Edit] = weakref.WeakSet()
    most: list[int] = []

    def made() -> Iterator[tuple[Candidate, Edit]]:
        for number in range(20):
            edit = Edit(number)
            alive.add(edit)
            yield Candidate(seed=number), edit
            del edit
            gc.collect()
            most.append(len(alive))

    best = ranked(made(), lambda edit: -abs(edit.number - 10.0), keep=2)
    assert [one.made.number for one in best] == [10, 9]
    assert max(most) <= 3


def test_nothing_to_choose_from() -> None:
    with pytest.raises(TaskError, match="no candidates"):
        ranked([], lambda number: 0.0)
    with pytest.raises(TaskError, match="keep 1 or more"):
        ranked([(Candidate(), 1)], lambda number: 0.0, keep=0)
