"""Frames chosen from what was drawn: the best film that there is, found without trying all."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations, pairwise

import pytest

from segue.temporal.choose import POWER, chosen

Pairs = Sequence[tuple[int, int]]


def at_random(pairs: Pairs) -> list[float]:
    """Distances that obey no law."""
    return [random.Random(str(pair)).random() for pair in pairs]


def cost(film: Sequence[int]) -> float:
    return sum(step**POWER for step in at_random(list(pairwise(film))))


@pytest.mark.parametrize("first", range(8))
def test_no_other_choice_is_better(first: int) -> None:
    names, kept = list(range(first, first + 9)), first + 4
    films = [(names[0], *inner, names[-1]) for inner in combinations(names[1:-1], 3) if kept in inner]
    found = chosen(names, 5, {kept}, at_random)
    assert tuple(found) in films
    assert cost(found) == pytest.approx(min(map(cost, films)))


def test_pictures_on_a_line_are_taken_where_they_are_even() -> None:
    places = [0, 0.1, 0.24, 0.26, 0.5, 0.55, 0.74, 0.9, 1]
    found = chosen(range(9), 5, (), lambda pairs: [abs(places[a] - places[b]) for a, b in pairs])
    assert found == [0, 3, 4, 6, 8] or found == [0, 2, 4, 6, 8]


def test_what_must_be_shown_is_shown_even_where_little_else_is() -> None:
    assert chosen(range(30), 4, {1, 2}, at_random) == [0, 1, 2, 29]
    assert chosen(range(5), 5, (), at_random) == [0, 1, 2, 3, 4]


def test_impossible_numbers_are_refused() -> None:
    for count, kept in ((6, ()), (3, (1, 2))):
        with pytest.raises(ValueError, match="to be chosen"):
            chosen(range(5), count, kept, at_random)
