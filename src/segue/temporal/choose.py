"""Which of the pictures that were drawn a film shows: those between which it steps most evenly."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from itertools import accumulate, pairwise

import torch

from segue.temporal.ruler import Pair

REACH = 3
"""How many times an even share of the way a step may pass over; what is passed where pictures crowd counts little."""
CROWD = 16
"""How many pictures it may pass over for each of those shares, so that work is bounded where all are alike."""
POWER = 4
"""Of the steps, in what is made least: nearly the largest alone count, and of two equally large the others decide."""
SHARE_DIGITS = 3
"""Steps are told in even shares of the way, and rounded, so that no machine's last bit decides."""
LEVEL = 1e-6
"""Beside equal steps those count that pass over equally many pictures, by so much of the square of their number."""


def chosen(
    order: Sequence[int], count: int, kept: Collection[int], measure: Callable[[Sequence[Pair]], Sequence[float]]
) -> list[int]:
    """`count` of the pictures, from left to right, that make the least sum of the fourth powers of the steps.

    Found exactly among the films whose steps are within reach.

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
    along = [0.0, *accumulate(measure(list(pairwise(order))))]
    share, reach = along[-1] / (count - 1), float(REACH)
    while True:
        pairs = _within(along, must, reach * share, math.ceil(CROWD * reach))
        steps = measure([(order[left], order[right]) for left, right in pairs])
        costs = [
            round(step / share if share else 0.0, SHARE_DIGITS) ** POWER + LEVEL * (right - left) ** 2
            for step, (left, right) in zip(steps, pairs, strict=True)
        ]
        places = _least(pairs, costs, count - 1, last)
        if places:
            return [order[place] for place in places]
        reach *= 2  # so many must be shown that the others are few, and lie far apart


def _within(along: Sequence[float], must: Sequence[int], most: float, crowd: int) -> list[Pair]:
    """The steps, by their places, that pass over nothing that must be shown, no more than so much of the way, and no
    more than so many pictures; to the next one there always is one. Those that end at one place follow each other."""
    pairs: list[Pair] = []
    barrier = {right: left for left, end in pairwise(must) for right in range(left + 1, end + 1)}
    for right in range(1, len(along)):
        left = right - 1
        pairs.append((left, right))
        while left > max(barrier[right], right - crowd) and along[right] - along[left - 1] <= most:
            left -= 1
            pairs.append((left, right))
    return pairs


def _least(pairs: Sequence[Pair], costs: Sequence[float], count: int, last: int) -> list[int]:
    """The places of the cheapest way of so many steps from the first to the last (Bellman); none if there is none."""
    ways: list[list[tuple[int, float]]] = [[] for _ in range(last + 1)]
    for (left, right), cost in zip(pairs, costs, strict=True):
        ways[right].append((left, cost))
    most = max(map(len, ways))
    filled = [row + [(0, math.inf)] * (most - len(row)) for row in ways]
    lefts = torch.tensor([[left for left, _ in row] for row in filled])
    price = torch.tensor([[cost for _, cost in row] for row in filled], dtype=torch.float64)
    each = torch.arange(most)
    spent = torch.full((last + 1,), math.inf, dtype=torch.float64)
    spent[0] = 0.0
    came: list[torch.Tensor] = []
    for _ in range(count):
        reached = spent[lefts] + price
        spent = reached.amin(1)
        # Of equal ways the first, which argmin does not promise.
        first = torch.where(reached == spent[:, None], each, most).amin(1, keepdim=True)
        came.append(lefts.gather(1, first)[:, 0])
    if torch.isinf(spent[last]):
        return []
    places = [last]
    for taken in reversed(came):
        places.append(int(taken[places[-1]]))
    return places[::-1]
