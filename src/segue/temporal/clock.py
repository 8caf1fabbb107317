"""What the time of a film is counted in: seconds, frames, beats."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from segue.errors import TaskError

Unit = Literal["s", "f", "b"]
"""Seconds, frames and beats."""


@dataclass(frozen=True)
class Clock:
    """The rate of a film, and what is heard in its sound.

    Args:
        fps: frames per second, above 0.
        beats: of the sound, in seconds after the first frame, increasing; none if there is no sound.
        onsets: where a sound begins, likewise.
    """

    fps: float
    beats: tuple[float, ...] = ()
    onsets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.fps < math.inf:
            raise TaskError(f"fps must be above 0, got {self.fps}")
        for name in ("beats", "onsets"):
            if any(a >= b for a, b in pairwise(getattr(self, name))):
                raise TaskError(f"the {name} of a clock must be increasing")

    def seconds(self, count: float, unit: Unit) -> float:
        """When `count` seconds, frames or beats are over; beat 0 is the first, 0.5 half-way to the second.

        Raises:
            TaskError: for a beat that the sound does not have.
        """
        if unit != "b":
            return count if unit == "s" else count / self.fps
        if not self.beats:
            raise TaskError(f"{count:g}b is a beat, but the film has no sound with beats; give it one, or use s or f")
        if count > len(self.beats) - 1:
            raise TaskError(f"{count:g}b lies after the last beat of the sound, which is {len(self.beats) - 1}b")
        before = int(count)
        after = min(before + 1, len(self.beats) - 1)
        return self.beats[before] + (count - before) * (self.beats[after] - self.beats[before])
