"""Long clips, key frames first: which frames are the outline, and which stretches are filled between them.

After the hierarchy of Blattmann et al. 2023 (arXiv:2304.08818, sections 3.2 and 3.3): sparse key frames are made
together, and what lies between two of them is filled level by level, T -> 4T -> 16T. A stretch depends on the two
frames that it lies between and on nothing else, so that stretches can be made anywhere and in any order, and nothing
adds up from the first to the last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from segue.errors import TaskError


@dataclass(frozen=True)
class Stretch:
    """The frames between two known ones that are made together.

    Args:
        level: which filling it belongs to, counted from 0.
        first: number of the known frame before.
        last: of the one behind; in a loop, the number after the last frame stands for frame 0.
        inner: numbers of the frames that are made, increasing.
    """

    level: int
    first: int
    last: int
    inner: tuple[int, ...]

    @property
    def frames(self) -> tuple[int, ...]:
        """With both ends."""
        return (self.first, *self.inner, self.last)

    def shares(self) -> list[float]:
        """How far each inner frame lies from the first end, 0, to the last, 1."""
        return [(number - self.first) / (self.last - self.first) for number in self.inner]

    def fps(self, whole: float) -> float:
        """Frames per second of the stretch, in a film of so many."""
        return whole * (len(self.inner) + 1) / (self.last - self.first)


@dataclass(frozen=True)
class Gap:
    """All that lies between two neighbouring frames of the outline; depends on these alone.

    Args:
        number: its place, counted from 0.
        first: number of the key frame before.
        last: of the one behind, as in `Stretch`.
        stretches: in an order in which they can be made.
    """

    number: int
    first: int
    last: int
    stretches: tuple[Stretch, ...]

    @property
    def inner(self) -> range:
        """Numbers of all frames that are made in it."""
        return range(self.first + 1, self.last)


@dataclass(frozen=True)
class Levels:
    """Which frames of a film are made when.

    Key frames lie evenly: their distances differ by a frame at most, and the last frame of the film is one, so that
    nothing is made with one end alone.

    Args:
        frames: of the film.
        factors: by how much each filling multiplies the frames, first to last; none makes all frames key frames.
        loop: the last frame leads back to the first.

    Raises:
        TaskError: there are no frames, or a factor is no whole number from 2 on.
    """

    frames: int
    factors: tuple[int, ...] = (4, 4)
    loop: bool = False

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise TaskError(f"a film has one frame or more, got {self.frames}")
        if any(factor < 2 for factor in self.factors):
            raise TaskError(f"each level multiplies the frames by 2 or more, got {list(self.factors)}")

    @property
    def stride(self) -> int:
        """Frames from one key frame to the next, at most."""
        return math.prod(self.factors)

    @property
    def outline(self) -> tuple[int, ...]:
        """Numbers of the key frames."""
        ends = self._ends
        return ends[:-1] if self.loop and len(ends) > 1 else ends

    def fps(self, whole: float) -> float:
        """Frames per second of the outline, in a film of so many."""
        ends = self._ends
        return whole * (len(ends) - 1) / ends[-1] if len(ends) > 1 else whole / self.stride

    def gaps(self) -> list[Gap]:
        """What lies between the key frames, in the film's order."""
        return [
            Gap(number, first, last, tuple(self._filled(first, last)))
            for number, (first, last) in enumerate(pairwise(self._ends))
        ]

    @property
    def _ends(self) -> tuple[int, ...]:
        end = self.frames if self.loop else self.frames - 1
        return tuple(_spread(0, end, self.stride))

    def _filled(self, first: int, last: int) -> Iterator[Stretch]:
        ends, distance = [first, last], self.stride
        for level, factor in enumerate(self.factors):
            distance //= factor
            found = list[int]()
            for left, right in pairwise(ends):
                places = _spread(left, right, distance)
                if places[1:-1]:
                    yield Stretch(level, left, right, tuple(places[1:-1]))
                found += places[:-1]
            ends = [*found, last]


def _spread(first: int, last: int, distance: int) -> list[int]:
    """Whole numbers from one to another, evenly, no further apart than said."""
    parts = -(-(last - first) // distance)
    return [first + round(part * (last - first) / parts) for part in range(parts + 1)] if parts else [first]
