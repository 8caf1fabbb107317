"""Paths through the simplex of keys: what a film passes, as shares of all of its prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from segue.errors import TaskError

Weights = str | tuple[tuple[float, ...], ...]
"""The type of a field that is a path: its text, or a list of weights for each point."""

SPELLING = 'points with ";" between, each a weight for every prompt, such as "1,0,0; 1,1,1; 0,0,1"'


@dataclass(frozen=True)
class Route:
    """Points that a film passes in order, each with its share of every key.

    Args:
        points: shares that add up to 1, one for each key.
    """

    points: tuple[tuple[float, ...], ...]

    @staticmethod
    def through(keys: int) -> Route:
        """Each key in turn."""
        return Route(tuple(tuple(float(key == place) for key in range(keys)) for place in range(keys)))

    @staticmethod
    def of(weights: Weights, keys: int) -> Route:
        """What a user wrote: weights of any size, of which shares are made; without any, each key in turn.

        Raises:
            TaskError: it is not spelled so, a point has another number of weights than there are keys, or none above
                0, a weight is negative, a point is the one before it again, there is only one, or a key is in none.
        """
        if not weights:
            return Route.through(keys)
        points = tuple(_shares(row, number, keys) for number, row in enumerate(_rows(weights), start=1))
        if len(points) < 2:
            raise TaskError(f"weights must be two or more points to go from and to, got {len(points)}; give {SPELLING}")
        for number, (a, b) in enumerate(pairwise(points), start=1):
            if a == b:
                raise TaskError(f"points {number} and {number + 1} of the weights are the same: leave one of them out")
        for key in range(keys):
            if not any(point[key] for point in points):
                raise TaskError(f"prompt {key + 1} has no weight in any point: give it one, or leave the prompt out")
        return Route(points)

    def __len__(self) -> int:
        return len(self.points)

    @property
    def keys(self) -> int:
        """How many keys it mixes."""
        return len(self.points[0])

    def closed(self) -> Route:
        """The path that ends where it begins.

        Raises:
            TaskError: it does already.
        """
        if self.points[0] == self.points[-1]:
            raise TaskError("a loop goes back to its first point by itself: leave out the last one, which is the same")
        return Route((*self.points, self.points[0]))

    def corner(self, place: int) -> int | None:
        """The key that is all of a point; None where several are mixed."""
        point = self.points[place]
        return point.index(1.0) if max(point) == 1.0 else None

    @property
    def corners(self) -> dict[int, int]:
        """The key of each place that is one."""
        return {place: key for place in range(len(self)) if (key := self.corner(place)) is not None}

    @property
    def blends(self) -> tuple[int, ...]:
        """The places where keys are mixed, each point once."""
        return tuple(place for place in range(len(self)) if place not in self.corners and place not in self.same)

    @property
    def same(self) -> dict[int, int]:
        """The places that are others once more, by the first place of the same point."""
        firsts = ((place, self.points.index(point)) for place, point in enumerate(self.points))
        return {place: first for place, first in firsts if place != first}

    def shares_at(self, position: float) -> tuple[float, ...]:
        """The share of every key at a position between points, in a line from one to the next."""
        left = min(int(position), len(self) - 1)
        share, ends = position - left, (self.points[left], self.points[min(left + 1, len(self) - 1)])
        return tuple(a * (1 - share) + b * share for a, b in zip(*ends, strict=True))

    def nearest(self, key: int) -> int:
        """The first place where a key has most of its weight."""
        return max(range(len(self)), key=lambda place: (self.points[place][key], -place))

    def named(self, names: Sequence[str]) -> list[str]:
        """A label for each place: its key's name, or those of all that are mixed, with their shares in percent."""

        def mixed(point: Sequence[float]) -> str:
            return " + ".join(f"{share:.0%} {name}" for share, name in zip(point, names, strict=True) if share)

        return [mixed(p) if (key := self.corner(i)) is None else names[key] for i, p in enumerate(self.points)]


def weights_of(weights: Weights) -> str:
    """A field's value as it is stored: its text in one spelling, "" for none.

    Raises:
        TaskError: it is not spelled so.
    """
    return "; ".join(",".join(repr(float(w)).removesuffix(".0") for w in row) for row in _rows(weights))


def _rows(weights: Weights) -> list[tuple[float, ...]]:
    if not isinstance(weights, str):
        return [tuple(float(weight) for weight in row) for row in weights]
    if not weights.strip():
        return []
    try:
        return [tuple(float(part) for part in row.split(",")) for row in weights.split(";")]
    except ValueError:
        raise TaskError(f"weights must be {SPELLING}; got {weights!r}") from None


def _shares(row: Sequence[float], number: int, keys: int) -> tuple[float, ...]:
    said = f"point {number} of the weights, {','.join(f'{weight:g}' for weight in row)},"
    if len(row) != keys:
        raise TaskError(f"{said} must have one weight for each of the {keys} prompts, and has {len(row)}")
    if not all(0 <= weight < math.inf for weight in row):
        raise TaskError(f"{said} must have weights of 0 and more")
    total = math.fsum(row)
    if not 0 < total < math.inf:
        raise TaskError(f"{said} must have a weight above 0: a point is made of something")
    return tuple(weight / total for weight in row)
