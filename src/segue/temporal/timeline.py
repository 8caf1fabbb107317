"""When each picture of a transition is shown: exact counts, keys on frames of their own, loops without a seam."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

from segue.errors import TaskError
from segue.temporal.clock import Clock
from segue.temporal.easing import EVEN, Course, Easing, Rhythm
from segue.temporal.tree import DISTANCE_DIGITS, Tree

SNAP = 0.1
"""A branch that exists serves a frame if it is this near to the frame's place, in frames."""

Loop = Literal["none", "loop", "pingpong"]
"""A film that ends at its last key, one that goes on to its first key again, or one that comes back the way it went."""

_ENDS: dict[Loop, tuple[float, float]] = {"none": (1, 1), "loop": (1, 0), "pingpong": (0.5, 0.5)}
"""The share of a hold at either end that is this end's own."""

CLOCK = Clock(fps=30)


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


def even_positions(
    places: Sequence[float],
    gaps: Sequence[float],
    keys: Sequence[float],
    count: int,
    easing: Easing = EVEN,
    loop: Loop = "none",
    clock: Clock = CLOCK,
) -> list[float]:
    """Where `count` frames lie, with every key on a frame of its own; at even speed unless an easing says otherwise.

    The cumulative distance along the known pictures is inverted, piecewise linearly, so that the easing deals with
    perceptual distances. In a loop the step from the last frame to the first is one like the others, so that

    * "loop" ends one step before the last key, which is the first one again: a picture that the film begins with;
    * "pingpong" comes back over the frames of its way there, and one step before the first. The last key is shown
      once if `count` is even; a way back over the same frames cannot be odd, and then it is shown twice in a row.

    Args:
        places: positions of known pictures, increasing, from the first key to the last.
        gaps: perceptual distances between them; rounded like all that decides, so that no last bit moves a frame.
        keys: positions of the keys, among `places`; for "loop", with the first key once more at the end.
        count: how many frames; at least one per key, and for "pingpong" one for each that it comes back to.
        easing: how fast the film goes where.
        loop: whether the film returns to its start.
        clock: the film's rate and beats, for easings that count them.

    Raises:
        TaskError: if there are too few frames for the keys or the easing, or a rhythm is to go there and back.
    """
    check_timing(len(keys), count, easing, loop)
    travelled = [0.0, *accumulate(max(round(gap, DISTANCE_DIGITS), 1e-6) for gap in gaps)]
    at_key = [travelled[places.index(key)] for key in keys]
    course = _course([end - start for start, end in pairwise(at_key)], count, loop, clock)
    stays = easing.stays(course)
    positions: list[float] = []
    for number, (arrival, departure) in enumerate(stays):
        positions += [keys[number]] * (departure - arrival + 1)
        if number + 1 < len(stays):
            next_arrival = stays[number + 1][0]
            for frame in range(departure + 1, next_arrival):
                share = easing.share(course, departure, next_arrival, frame)
                distance = at_key[number] + share * course.lengths[number]
                positions.append(_invert(places, travelled, distance))
    if loop == "pingpong":
        return positions + positions[count - len(positions) : 0 : -1]
    return positions[:count]


def check_timing(keys: int, count: int, easing: Easing = EVEN, loop: Loop = "none", clock: Clock | None = None) -> None:
    """Find out before the work whether a film has room for its keys: what passes here, passes in `even_positions`.

    Args:
        keys: how many, in a "loop" with the first once more at the end.
        count: of the frames.
        easing: how fast the film goes where.
        loop: whether the film returns to its start.
        clock: as it will be; None leaves out what depends on seconds and beats.

    Raises:
        TaskError: if not.
    """
    if loop not in _ENDS:
        raise TaskError(f"loop must be one of {', '.join(_ENDS)}, got {loop!r}")
    needed = {"none": keys, "loop": keys - 1, "pingpong": 2 * keys - 2}[loop]
    if count < needed:
        raise TaskError(f"{keys} key pictures need at least {needed} frames, got {count}; make the clip longer")
    if loop == "pingpong" and isinstance(easing, Rhythm):
        raise TaskError(
            f"a film that goes there and back over the same frames cannot have its keys on {easing.to} both ways; "
            'choose another easing, or loop "loop"'
        )
    if clock is not None:
        easing.stays(_course([1.0] * (keys - 1), count, loop, clock))


def _course(lengths: Sequence[float], count: int, loop: Loop, clock: Clock) -> Course:
    """The way from the first key to the last, which is one half of a film that comes back over its frames."""
    steps = {"none": count - 1, "loop": count, "pingpong": count // 2}[loop]
    return Course(tuple(lengths), steps, clock, _ENDS[loop])


def _invert(places: Sequence[float], travelled: Sequence[float], distance: float) -> float:
    right = min(max(bisect_right(travelled, distance), 1), len(travelled) - 1)
    span = travelled[right] - travelled[right - 1]
    share = (distance - travelled[right - 1]) / span
    return places[right - 1] + share * (places[right] - places[right - 1])


def missing(tree: Tree, positions: Sequence[float]) -> list[float]:
    """The positions that no frame of the tree is near enough to serve, each once, from left to right."""
    known, places = _Known.of(tree), sorted(set(positions))
    return [place for index, place in enumerate(places) if known.serving(places, index) is None]


def shots(tree: Tree, positions: Sequence[float]) -> list[Shot]:
    """What each frame shows, from the frames that the tree has: the node that serves it, or a mix of its neighbours."""
    known, places = _Known.of(tree), sorted(set(positions))
    shown: dict[float, Shot] = {}
    for index, position in enumerate(places):
        node = known.serving(places, index)
        if node is not None:
            shown[position] = Shot(node, node)
            continue
        right = bisect_right(known.places, position)
        start, end = known.places[right - 1], known.places[right]
        shown[position] = Shot(known.names[right - 1], known.names[right], (position - start) / (end - start))
    return [shown[position] for position in positions]


@dataclass(frozen=True)
class _Known:
    """The frames that a tree has, from left to right: their names and places."""

    names: tuple[int, ...]
    places: tuple[float, ...]

    @staticmethod
    def of(tree: Tree) -> _Known:
        names = tree.frames()
        return _Known(tuple(names), tuple(tree.nodes[name].position for name in names))

    def serving(self, wanted: Sequence[float], index: int) -> int | None:
        """The node that shows a wanted place, if one lies within SNAP of the way to the next place on its side.

        Args:
            wanted: different places, increasing.
            index: of the one in question.
        """
        position = wanted[index]
        right = min(max(bisect_right(self.places, position), 1), len(self.places) - 1)
        nearest = min((right - 1, right), key=lambda i: abs(self.places[i] - position))
        place = self.places[nearest]
        beside = index + 1 if place > position else index - 1
        reach = abs(wanted[beside] - position) if 0 <= beside < len(wanted) else 0.0
        return self.names[nearest] if abs(place - position) <= SNAP * reach else None
