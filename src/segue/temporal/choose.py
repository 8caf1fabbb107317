"""Which of the pictures that were drawn a film shows: those between which it steps most evenly."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from segue.temporal.tree import DISTANCE_DIGITS

Pair = tuple[int, int]
REACH = 3
"""How many times further apart, in pictures, neighbours in a film may lie than if they were spread evenly."""
POWER = 4
"""Of the steps, in what is made least: nearly the largest alone count, and of two equally large the others decide."""


def chosen(
    order: Sequence[int], count: int, kept: Collection[int], measure: Callable[[Sequence[Pair]], Sequence[float]]
) -> list[int]:
    """`count` of the pictures, from left to right, that make the least sum of the fourth powers of the steps.

    Found exactly among the films whose neighbours lie within reach, with distances rounded like all that decides.

    Args:
        order: all pictures from left to right.
        count: how many are to be shown.
        kept: pictures that must be shown; the first and the last always are.
        measure: the distances of pairs of pictures.

    Raises:
        ValueError: there are too few pictures, or more must be shown than may be.
    """
    last = len(order) - 1
    must = [place for place, name in enumerate(order) if name in kept or place in (0, last)]
    if not len(must) <= count <= len(order):
        raise ValueError(f"expected between {len(must)} and {len(order)} pictures to be chosen, got {count}")
    reach = math.ceil(REACH * last / (count - 1))
    while True:
        steps = _steps(order, must, reach, measure)
        places = _least(steps, count - 1, last)
        if places:
            return [order[place] for place in places]
        reach *= 2  # so many must be shown that the others are few, and lie far apart


def _steps(
    order: Sequence[int], must: Sequence[int], reach: int, measure: Callable[[Sequence[Pair]], Sequence[float]]
) -> dict[Pair, float]:
    """What each step costs that passes over nothing that must be shown, by its places."""
    pairs = [
        (left, right)
        for right in range(1, len(order))
        for left in range(max([0, right - reach, *(place for place in must if place < right)]), right)
    ]
    found = measure([(order[left], order[right]) for left, right in pairs])
    return {pair: round(step, DISTANCE_DIGITS) ** POWER for pair, step in zip(pairs, found, strict=True)}


def _least(steps: Mapping[Pair, float], count: int, last: int) -> list[int]:
    """The places of the cheapest way of so many steps from the first to the last (Bellman); none if there is none."""
    ways: list[dict[int, tuple[float, int]]] = [{0: (0.0, 0)}]
    for _ in range(count):
        reached: dict[int, tuple[float, int]] = {}
        for (left, right), more in steps.items():
            if left in ways[-1]:
                reached[right] = min(reached.get(right, (math.inf, 0)), (ways[-1][left][0] + more, left))
        ways.append(reached)
    if last not in ways[-1]:
        return []
    places = [last]
    for reached in reversed(ways[1:]):
        places.append(reached[places[-1]][1])
    return places[::-1]
