"""A number that changes over a film, as a user writes it: 3, or "0s:3, 2s:5, 96f:3"."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from segue.errors import TaskError
from segue.temporal.clock import Clock, Unit

Value = float | str
"""The type of a field that may change over the film: a number, or the text of a curve."""

Form = Literal["linear", "step", "smooth"]
FORMS: dict[str, Form] = {"linear": "linear", "step": "step", "smooth": "smooth"}
UNITS: dict[str, Unit] = {"s": "s", "f": "f", "b": "b"}

SPELLING = 'a number, or times and values such as "0s:3, 2s:5, 96f:3" (s seconds, f frames, b beats)'


@dataclass(frozen=True)
class Knot:
    """The value at one time.

    Args:
        time: 0 or more, in its unit; frames are whole.
        unit: "s", "f" or "b".
        value: a finite number.
    """

    time: float
    unit: Unit
    value: float

    def __post_init__(self) -> None:
        if not 0 <= self.time < math.inf:
            raise TaskError(f"a time must be 0 or more, got {_text(self.time)}{self.unit}")
        if self.unit == "f" and self.time != round(self.time):
            raise TaskError(f"a frame is a whole number, got {_text(self.time)}f; use seconds (s) between frames")
        if not math.isfinite(self.value):
            raise TaskError(f"a value must be a finite number, got {self.value} at {_text(self.time)}{self.unit}")

    def __str__(self) -> str:
        return f"{_text(self.time)}{self.unit}:{_text(self.value)}"


@dataclass(frozen=True)
class Curve:
    """Values at some times, and what lies between them. Before the first and after the last it is constant.

    Written as `TIME:VALUE` with commas between, where a time is a number with its unit: `2.5s`, `48f`, `8b`. The
    word `step` or `smooth` before it chooses another form: "smooth 0s:3, 2s:5". A constant is written as its number.

    Args:
        knots: one or more, later ones later.
        form: between two knots, "linear" is a line, "step" the earlier value, "smooth" starts and ends level
            (3u^2 - 2u^3); none of them leaves the range of the two.
    """

    knots: tuple[Knot, ...]
    form: Form = "linear"

    def __post_init__(self) -> None:
        if not self.knots:
            raise TaskError(f"a curve needs one or more times; expected {SPELLING}")
        for unit in UNITS:
            same = [knot for knot in self.knots if knot.unit == unit]
            for earlier, later in pairwise(same):
                if later.time <= earlier.time:
                    raise TaskError(f"the times of a curve must increase: {later} comes after {earlier}")

    @staticmethod
    def of(value: Value | Curve) -> Curve:
        """The curve that a field means: a number is the constant.

        Raises:
            TaskError: if it is not spelled as one, a unit is unknown, or the times do not increase.
        """
        if isinstance(value, Curve):
            return value
        if not isinstance(value, str):
            return Curve((Knot(0, "s", float(value)),))
        number = _number(value)
        if number is not None:
            return Curve.of(number)
        first, _, rest = value.strip().partition(" ")
        form = FORMS.get(first)
        knots = tuple(_knot(part.strip(), value) for part in (rest if form else value).split(","))
        return Curve(knots, form or "linear")

    def __str__(self) -> str:
        if len(self.knots) == 1 and (self.knots[0].time, self.knots[0].unit) == (0, "s"):
            return _text(self.knots[0].value)
        knots = ", ".join(str(knot) for knot in self.knots)
        return knots if self.form == "linear" else f"{self.form} {knots}"

    @property
    def is_constant(self) -> bool:
        """Whether it has one value at all times."""
        return self.low == self.high

    @property
    def low(self) -> float:
        """The smallest value that it ever has."""
        return min(knot.value for knot in self.knots)

    @property
    def high(self) -> float:
        """The largest value that it ever has."""
        return max(knot.value for knot in self.knots)

    def on(self, clock: Clock) -> Track:
        """The curve in seconds of a film.

        Raises:
            TaskError: for beats that the film's sound does not have, or times of several units out of order.
        """
        times = tuple(clock.seconds(knot.time, knot.unit) for knot in self.knots)
        for number in range(1, len(times)):
            if times[number] <= times[number - 1]:
                raise TaskError(
                    f"the times of a curve must increase: {self.knots[number]} is {times[number]:.3f} s into the film, "
                    f"and stands after {self.knots[number - 1]}, which is {times[number - 1]:.3f} s"
                )
        return Track(times, tuple(knot.value for knot in self.knots), self.form)


@dataclass(frozen=True)
class Track:
    """A curve whose times are known.

    Args:
        times: in seconds, increasing.
        values: at these times.
        form: as in `Curve`.
    """

    times: tuple[float, ...]
    values: tuple[float, ...]
    form: Form

    def at(self, seconds: float) -> float:
        """The value at a time."""
        right = bisect_right(self.times, seconds)
        if right in (0, len(self.times)):
            return self.values[max(right - 1, 0)]
        before, after = self.values[right - 1], self.values[right]
        share = (seconds - self.times[right - 1]) / (self.times[right] - self.times[right - 1])
        if self.form == "step":
            return before
        return before + (after - before) * (smoothstep(share) if self.form == "smooth" else share)


def is_curve(text: str) -> bool:
    """Whether a text is a curve and no number, wherever it was given."""
    try:
        Curve.of(text)
    except TaskError:
        return False
    return _number(text) is None


def smoothstep(share: float) -> float:
    """From 0 to 1, level at both ends: 3u^2 - 2u^3."""
    return share * share * (3 - 2 * share)


def value_of(value: Value | Curve, name: str, low: float = -math.inf, high: float = math.inf) -> Value:
    """A field's value as it is stored: a float, or the text of a curve in its one spelling.

    Args:
        value: what the user gave.
        name: of the field, for messages.
        low: the least that it may be at any time.
        high: the most that it may be at any time.

    Raises:
        TaskError: if it is neither a number nor a curve, or leaves the range.
    """
    try:
        curve = Curve.of(value)
    except TaskError as error:
        raise TaskError(f"{name}: {error}") from None
    if not low <= curve.low <= curve.high <= high:
        raise TaskError(f"{name} must be in [{_text(low)}, {_text(high)}] at all times, got {curve}")
    text = str(curve)
    number = _number(text)
    return text if number is None else number


def _knot(text: str, whole: str) -> Knot:
    match = re.fullmatch(r"([^\s:]+?)([a-zA-Z]*)\s*:\s*(\S+)", text)
    time, value = (_number(match[1]), _number(match[3])) if match else (None, None)
    if match is None or time is None or value is None:
        raise TaskError(f"expected {SPELLING}; got {text!r} in {whole!r}")
    if match[2] in UNITS:
        return Knot(time, UNITS[match[2]], value)
    said = f"unknown unit {match[2]!r}" if match[2] else "a time without a unit"
    raise TaskError(f"{said} in {text!r}: write {match[1]}s for seconds, {match[1]}f for frames, {match[1]}b for beats")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _text(number: float) -> str:
    return repr(float(number)).removesuffix(".0")
