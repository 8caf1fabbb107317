"""How perceptual time runs over a film: evenly, slowly at the keys, with holds, as drawn, or with the beat."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Literal, Protocol

from segue.errors import TaskError
from segue.temporal.clock import Clock
from segue.temporal.curve import smoothstep

SPELLING = "linear, smooth, hold:SECONDS, points:0 0,0.3 0.1,1 1, beats, beats:PULSE, onsets or onsets:PULSE"


@dataclass(frozen=True)
class Course:
    """What an easing spreads over the frames of a film.

    Args:
        lengths: perceptual distances from each key to the next, above 0.
        steps: from frame to frame, at least one per length.
        clock: the film's rate, and its beats.
        ends: the share of a hold that the first and the last key get; less than 1 where a loop shows them again.
    """

    lengths: tuple[float, ...]
    steps: int
    clock: Clock
    ends: tuple[float, float] = (1.0, 1.0)


class Easing(Protocol):
    """Says which frames show a key, and how far the film has come between two keys."""

    def stays(self, course: Course) -> list[tuple[int, int]]:
        """The first and the last frame of each key: from frame 0 to frame `steps`, and each key later than the one
        before.

        Raises:
            TaskError: if there is no room for it.
        """
        ...

    def share(self, course: Course, first: int, last: int, frame: int) -> float:
        """The share, in [0, 1], of the distance from the key at frame `first` to the one at `last`; never falling."""
        ...


@dataclass(frozen=True)
class Even:
    """One speed over the whole film, as far as keys on whole frames allow: no other frames for the keys have a smaller
    largest step."""

    def stays(self, course: Course) -> list[tuple[int, int]]:
        """Keys lie where they make the largest step the smallest."""
        return [(frame, frame) for frame in accumulate(apportion(course.lengths, course.steps), initial=0)]

    def share(self, course: Course, first: int, last: int, frame: int) -> float:
        """Even."""
        return (frame - first) / (last - first)


@dataclass(frozen=True)
class Smooth(Even):
    """Slow at every key and 1.5 times as fast half-way between two (3u^2 - 2u^3), so that the speed never jumps."""

    def share(self, course: Course, first: int, last: int, frame: int) -> float:
        """Level at both ends."""
        return smoothstep((frame - first) / (last - first))


@dataclass(frozen=True)
class Hold(Even):
    """Every key stands still for some seconds, also the first and the last; one speed between them.

    Args:
        seconds: rounded to frames; 0 or more.
    """

    seconds: float

    def __post_init__(self) -> None:
        if not 0 <= self.seconds < math.inf:
            raise TaskError(f"a hold must be 0 seconds or more, such as hold:0.5; got {self.seconds:g}")

    def stays(self, course: Course) -> list[tuple[int, int]]:
        """The frames that no key is held for are spread as those of a film without holds."""
        shown = max(round(self.seconds * course.clock.fps), 1)
        inner = len(course.lengths) - 1
        # A key that is seen again at the other end of a loop shares its hold with it.
        first, last = (max(math.ceil(shown * share), 1) - 1 for share in course.ends)
        extra = [first, *[shown - 1] * inner, last]
        left = course.steps - sum(extra)
        if left < len(course.lengths):
            raise TaskError(
                f"holding {len(extra)} keys for {self.seconds:g} s each leaves no time to pass from one to the next; "
                "hold them for less, or make the film longer"
            )
        found: list[tuple[int, int]] = []
        arrival = 0
        for held, way in zip(extra, [*apportion(course.lengths, left), 0], strict=True):
            found.append((arrival, arrival + held))
            arrival += held + way
        return found


@dataclass(frozen=True)
class Points(Even):
    """The share of the way over the share of the time, through given points; monotone cubic between them.

    The curve is Fritsch and Butland's (1984, harmonic mean of slopes), which never turns back and keeps plateaus
    level. Each key lies on the frame whose distance is nearest to its own (of a plateau, the middle), each its own.

    Args:
        times: increasing from 0 to 1.
        distances: never falling, from 0 to 1.
    """

    times: tuple[float, ...]
    distances: tuple[float, ...]

    def __post_init__(self) -> None:
        points = list(zip(self.times, self.distances, strict=True))
        if len(points) < 2 or points[0] != (0, 0) or points[-1] != (1, 1):
            raise TaskError("the points of an easing begin with 0 0 and end with 1 1: points:0 0,0.3 0.1,1 1")
        for earlier, later in pairwise(points):
            if not (earlier[0] < later[0] and earlier[1] <= later[1]):
                raise TaskError(
                    "the points of an easing must increase in time and never fall in distance, "
                    f"got {earlier[0]:g} {earlier[1]:g} and then {later[0]:g} {later[1]:g}"
                )

    def stays(self, course: Course) -> list[tuple[int, int]]:
        """Keys lie where the curve passes them."""
        total, steps = sum(course.lengths), course.steps
        reached = [self.at(frame / steps) for frame in range(steps + 1)]
        wanted = [_where(reached, travelled / total) for travelled in accumulate(course.lengths[:-1])]
        return [(frame, frame) for frame in (0, *_each_its_own(wanted, range(1, steps)), steps)]

    def share(self, course: Course, first: int, last: int, frame: int) -> float:
        """The curve's own, stretched so that both keys are met."""
        start, now, end = (self.at(number / course.steps) for number in (first, frame, last))
        return (now - start) / (end - start) if end > start else super().share(course, first, last, frame)

    def at(self, time: float) -> float:
        """The share of the way at a share of the time."""
        right = min(max(bisect_right(self.times, time), 1), len(self.times) - 1)
        width = self.times[right] - self.times[right - 1]
        rise = self.distances[right] - self.distances[right - 1]
        u = (time - self.times[right - 1]) / width
        # Cubic Hermite polynomial.
        bend = u * (1 - u) ** 2 * width * self._slopes[right - 1] - u * u * (1 - u) * width * self._slopes[right]
        return min(max(self.distances[right - 1] + rise * smoothstep(u) + bend, 0.0), 1.0)

    @cached_property
    def _slopes(self) -> list[float]:
        """At each point: of the line beside it at the ends, else the weighted harmonic mean of the two lines."""
        widths = [later - earlier for earlier, later in pairwise(self.times)]
        lines = [(b - a) / width for (a, b), width in zip(pairwise(self.distances), widths, strict=True)]
        slopes = [lines[0]]
        for (before, after), (left, right) in zip(pairwise(lines), pairwise(widths), strict=True):
            near, far = (left + 2 * right) / (3 * (left + right)), (2 * left + right) / (3 * (left + right))
            slopes.append(1 / (near / before + far / after) if before and after else 0.0)
        return [*slopes, lines[-1]]


@dataclass(frozen=True)
class Rhythm(Even):
    """Keys fall on beats or onsets: each key between the first and the last on the one nearest to where it would be at
    even speed, each its own. The first and the last key stay at the ends of the film.

    Between keys the speed is even, or pulses: it is 1 + pulse * cos(2 pi p) times as fast, where p runs from 0 to 1
    between two beats; so it is fastest on every beat and slowest half-way. Before the first beat and after the last
    there is no pulse.

    Args:
        pulse: in [0, 1]; 0 is even, 1 stands still between beats.
        to: what the keys fall on.
    """

    pulse: float = 0.0
    to: Literal["beats", "onsets"] = "beats"

    def __post_init__(self) -> None:
        if not 0 <= self.pulse <= 1:
            raise TaskError(f"the pulse of an easing must be in [0, 1], such as {self.to}:0.5; got {self.pulse:g}")

    def stays(self, course: Course) -> list[tuple[int, int]]:
        """Keys lie on the frames nearest to beats."""
        times = self._times(course)
        if not times:
            raise TaskError(f"the easing {self.to!r} needs a sound with {self.to}; give the film one")
        heard = sorted({round(time * course.clock.fps) for time in times})
        allowed = [frame for frame in heard if 0 < frame < course.steps]
        wanted = list(accumulate(apportion(course.lengths, course.steps)))[:-1]
        if len(allowed) < len(wanted):
            raise TaskError(
                f"{len(wanted)} keys between the first and the last need as many {self.to}, and the film has "
                f"{len(allowed)}; make it longer, or choose another easing"
            )
        return [(frame, frame) for frame in (0, *_each_its_own(wanted, allowed), course.steps)]

    def share(self, course: Course, first: int, last: int, frame: int) -> float:
        """Even in time that itself runs faster on beats."""
        start, now, end = (self._run(course, number / course.clock.fps) for number in (first, frame, last))
        return (now - start) / (end - start)

    def _run(self, course: Course, time: float) -> float:
        """The integral of the speed up to a time, in seconds."""
        times = self._times(course)
        right = bisect_right(times, time)
        if self.pulse == 0 or right in (0, len(times)):
            return time
        start, length = times[right - 1], times[right] - times[right - 1]
        return time + self.pulse * length * math.sin(math.tau * (time - start) / length) / math.tau

    def _times(self, course: Course) -> tuple[float, ...]:
        return course.clock.beats if self.to == "beats" else course.clock.onsets


EVEN = Even()


def parse_easing(text: str) -> Easing:
    """The easing that a user names; see the classes of this module for what each does.

    Args:
        text: "linear", "smooth", "hold:0.5" (seconds), "points:0 0,0.3 0.1,1 1" (share of the time and of the way),
            "beats", "beats:0.5" (with a pulse in [0, 1]), "onsets" or "onsets:0.5".

    Raises:
        TaskError: if there is no such easing, or its numbers are out of range.
    """
    name, colon, rest = (part.strip() for part in text.partition(":"))
    match name, bool(colon):
        case "linear", False:
            return EVEN
        case "smooth", False:
            return Smooth()
        case "hold", True:
            return Hold(_number(rest, text))
        case "points", True:
            return _points(rest, text)
        case "beats", _:
            return Rhythm(_number(rest, text) if colon else 0.0, "beats")
        case "onsets", _:
            return Rhythm(_number(rest, text) if colon else 0.0, "onsets")
        case _:
            raise TaskError(f"unknown easing {text!r}: expected {SPELLING}")


def apportion(lengths: Sequence[float], count: int) -> list[int]:
    """How many of `count` steps each length is divided into, one or more, so that the largest step is the smallest.

    Each further step goes to where steps are largest so far (Adams's method of apportionment); ties go left.

    Args:
        lengths: above 0.
        count: at least one per length.
    """
    shares = [1] * len(lengths)
    largest = [(-length, place) for place, length in enumerate(lengths)]
    heapq.heapify(largest)
    for _ in range(count - len(lengths)):
        place = largest[0][1]
        shares[place] += 1
        heapq.heapreplace(largest, (-lengths[place] / shares[place], place))
    return shares


def _points(rest: str, text: str) -> Points:
    pairs = [[_number(number, text) for number in pair.split()] for pair in rest.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise TaskError(f"each point of an easing is a share of the time and one of the way: {SPELLING}; got {text!r}")
    return Points(tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs))


def _number(text: str, whole: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise TaskError(f"{text!r} is not a number in the easing {whole!r}; expected {SPELLING}") from None


def _where(reached: Sequence[float], wanted: float) -> float:
    """The index of the value nearest to `wanted` in values that never fall; of several, the middle."""
    right = bisect_left(reached, wanted)
    near = min((reached[max(right - 1, 0)], reached[min(right, len(reached) - 1)]), key=lambda it: abs(it - wanted))
    return (bisect_left(reached, near) + bisect_right(reached, near) - 1) / 2


def _each_its_own(wanted: Sequence[float], allowed: Sequence[int]) -> list[int]:
    """For each wanted frame the nearest of those that are allowed; where two would meet, one moves on."""
    places: list[int] = []
    for number in wanted:
        right = bisect_left(allowed, number)
        beside = [place for place in (right - 1, right) if 0 <= place < len(allowed)]
        nearest = min(beside, key=lambda place: abs(allowed[place] - number))
        places.append(max(nearest, places[-1] + 1) if places else nearest)
    for place in range(len(places)):
        # The last of them can be at the end of the list, and those before it one further in each.
        places[place] = min(places[place], len(allowed) - len(places) + place)
    return [allowed[place] for place in places]
