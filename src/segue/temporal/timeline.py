"""When each picture of a transition is shown: even perceptual speed, and keys that are not shown twice."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from segue.errors import TaskError
from segue.temporal.tree import DISTANCE_DIGITS, Tree

SNAP = 0.1
"""A branch that exists serves a frame if it is this near to the frame's place, in frames."""


@dataclass(frozen=True)
class Shot:
    """What one frame shows: a node, or a pixel mix of two.

    Args:
        left: a node of the tree.
        right: the node that it is mixed with; the same for a native frame.
        share: how far towards `right`, in [0, 1].
    """

    left: int
    right: int
    share: float = 0.0

    @property
    def is_native(self) -> bool:
        """Whether the frame is a picture that the model made, and not a cross-fade."""
        return self.left == self.right or self.share in (0.0, 1.0)


def even_positions(places: Sequence[float], gaps: Sequence[float], keys: Sequence[float], count: int) -> list[float]:
    """Where `count` frames lie so that neighbours are equally far apart, with every key on a frame of its own.

    The cumulative distance along the known pictures is inverted, piecewise linearly; a key is moved to the nearest
    frame, and the speed is even between keys.

    Args:
        places: positions of known pictures, increasing, from the first key to the last.
        gaps: perceptual distances between them; rounded like all that decides, so that no last bit moves a frame.
        keys: positions of the keys, among `places`.
        count: how many frames; at least one per key.

    Raises:
        TaskError: if there are fewer frames than keys.
    """
    if count < len(keys):
        raise TaskError(f"{len(keys)} key pictures need at least as many frames, got {count}; make the clip longer")
    travelled = [0.0, *accumulate(max(round(gap, DISTANCE_DIGITS), 1e-6) for gap in gaps)]
    at_key = [travelled[places.index(key)] for key in keys]
    numbers = _frames_of_keys(at_key, count)
    positions = [keys[0]]
    for (start, end), (first, last) in zip(pairwise(at_key), pairwise(numbers), strict=True):
        for k in range(1, last - first):
            positions.append(_invert(places, travelled, start + (end - start) * k / (last - first)))
        positions.append(places[travelled.index(end)])
    return positions


def _frames_of_keys(at_key: Sequence[float], count: int) -> list[int]:
    """The frame that shows each key: the nearest to its place in perceptual time, each its own."""
    total = at_key[-1]
    numbers = [round(place / total * (count - 1)) for place in at_key]
    for k in range(1, len(numbers)):
        numbers[k] = max(numbers[k], numbers[k - 1] + 1)
    numbers[-1] = count - 1
    for k in range(len(numbers) - 2, -1, -1):
        numbers[k] = min(numbers[k], numbers[k + 1] - 1)
    return numbers


def _invert(places: Sequence[float], travelled: Sequence[float], distance: float) -> float:
    right = min(max(bisect_right(travelled, distance), 1), len(travelled) - 1)
    span = travelled[right] - travelled[right - 1]
    share = (distance - travelled[right - 1]) / span
    return places[right - 1] + share * (places[right] - places[right - 1])


def missing(tree: Tree, positions: Sequence[float]) -> list[float]:
    """The positions that no frame of the tree is near enough to serve."""
    known = _Known.of(tree)
    return [position for index, position in enumerate(positions) if known.serving(positions, index) is None]


def shots(tree: Tree, positions: Sequence[float]) -> list[Shot]:
    """What each frame shows, from the frames that the tree has: the node that serves it, or a mix of its neighbours."""
    known = _Known.of(tree)
    shown: list[Shot] = []
    for index, position in enumerate(positions):
        node = known.serving(positions, index)
        if node is not None:
            shown.append(Shot(node, node))
            continue
        right = bisect_right(known.places, position)
        start, end = known.places[right - 1], known.places[right]
        shown.append(Shot(known.names[right - 1], known.names[right], (position - start) / (end - start)))
    return shown


@dataclass(frozen=True)
class _Known:
    """The frames that a tree has, from left to right: their names and places."""

    names: tuple[int, ...]
    places: tuple[float, ...]

    @staticmethod
    def of(tree: Tree) -> _Known:
        names = tree.frames()
        return _Known(tuple(names), tuple(tree.nodes[name].position for name in names))

    def serving(self, positions: Sequence[float], index: int) -> int | None:
        """The node that shows frame `index`, if one lies within SNAP of the way to the next frame on its side."""
        position = positions[index]
        right = min(max(bisect_right(self.places, position), 1), len(self.places) - 1)
        nearest = min((right - 1, right), key=lambda i: abs(self.places[i] - position))
        place = self.places[nearest]
        beside = index + 1 if place > position else index - 1
        reach = abs(positions[beside] - position) if 0 <= beside < len(positions) else 0.0
        return self.names[nearest] if abs(place - position) <= SNAP * reach else None
