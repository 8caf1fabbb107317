"""Prompts that follow each other in time, written as a curve is: "0s: a red apple, 2s: a green apple"."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from segue.errors import TaskError
from segue.temporal.clock import Clock
from segue.temporal.curve import FORMS, UNITS, Curve, Knot
from segue.temporal.wording import Wording, weight_spans

SPELLING = 'one prompt, or times and prompts such as "0s: a red apple, 2s: a green apple" (s seconds, f frames)'

_TIME = rf"(\d+\.?\d*|\.\d+)([{''.join(UNITS)}])\s*:"
_BEGUN = re.compile(rf"\s*(?:({'|'.join(FORMS)})\s+)?{_TIME}")
_NEXT = re.compile(rf",\s*{_TIME}")
_NO_UNIT = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*:")


@dataclass(frozen=True)
class Prompts:
    """One prompt, or several with their times: from each to the next, words are mixed as a curve goes.

    Args:
        wordings: of the prompts, in their order; the weight of words may be a curve.
        places: which of them holds when: 0 is the first, 0.5 the middle between it and the second.
    """

    wordings: tuple[Wording, ...]
    places: Curve

    @staticmethod
    def of(text: str, said: Callable[[str], str] | None = None) -> Prompts:
        """What a user wrote. A comma and a time begin the next prompt, other commas are part of a prompt.

        Args:
            text: one prompt, or times and prompts; `smooth` or `step` may stand before the first, as in a curve.
            said: changes each prompt before it is read; None leaves them as they are.

        Raises:
            TaskError: a time has no unit, times do not increase, a prompt is empty, or a weight's curve is none.
        """
        begun = _BEGUN.match(text)
        if begun is None:
            if found := _NO_UNIT.match(text):
                raise TaskError(
                    f"a time without a unit in the prompt {text!r}: write {found[1]}s: for seconds, {found[1]}f: for "
                    "frames"
                )
            return Prompts((Wording.of(text if said is None else said(text)),), Curve.of(0.0))
        weights = weight_spans(text)
        others = [
            found
            for found in _NEXT.finditer(text, begun.end())
            if not any(first <= found.start() < last for first, last in weights)
        ]
        times = [(begun[2], begun[3]), *((found[1], found[2]) for found in others)]
        ends = [begun.end(), *(found.end() for found in others)]
        starts = [*(found.start() for found in others), len(text)]
        parts = [text[end:start].strip() for end, start in zip(ends, starts, strict=True)]
        for (time, unit), part in zip(times, parts, strict=True):
            if not part:
                raise TaskError(f"there is no prompt at {time}{unit} in {text!r}; expected {SPELLING}")
        knots = tuple(Knot(float(time), UNITS[unit], float(place)) for place, (time, unit) in enumerate(times))
        try:
            places = Curve(knots, FORMS[begun[1]] if begun[1] else "linear")
        except TaskError as error:
            raise TaskError(f"in the prompt {text!r}: {error}") from None
        return Prompts(tuple(Wording.of(part if said is None else said(part)) for part in parts), places)

    def __len__(self) -> int:
        return len(self.wordings)

    @property
    def at_first(self) -> tuple[str, ...]:
        """Each prompt, with the first values of its weights' curves."""
        return tuple(wording.at_first for wording in self.wordings)

    @property
    def is_level(self) -> bool:
        """Whether the same is said at all times."""
        return len(self) == 1 and all(curve.is_constant for curve in self.wordings[0].curves)

    def last(self, clock: Clock) -> float:
        """When the last prompt holds alone, in seconds; 0 for one prompt.

        Raises:
            TaskError: see `Curve.on`.
        """
        return self.places.on(clock).times[-1] if len(self) > 1 else 0.0

    def place(self, seconds: float, clock: Clock) -> float:
        """Which prompt holds at a time, or between which two it lies.

        Raises:
            TaskError: see `Curve.on`.
        """
        return self.places.on(clock).at(seconds)

    def at(self, seconds: float, clock: Clock) -> tuple[tuple[str, float], ...]:
        """What is said at a time: one prompt, or two with their shares, which add up to 1.

        Raises:
            TaskError: see `Curve.on`.
        """
        place = self.place(seconds, clock)
        left = min(int(place), len(self) - 1)
        share = place - left
        parts = [(left, 1 - share), *([(left + 1, share)] if share > 0 else [])]
        return tuple((self._said(number, seconds, clock), weight) for number, weight in parts)

    def _said(self, number: int, seconds: float, clock: Clock) -> str:
        wording = self.wordings[number]
        return wording.said([curve.on(clock).at(seconds) for curve in wording.curves])
