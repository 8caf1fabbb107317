"""A number as it is told to people: with its name, which way is better, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher", "near 1", "neither"]


@dataclass(frozen=True)
class Measure:
    """A number, for people.

    Args:
        name: of it.
        value: None where there is none, such as the flicker of two frames.
        better: in which direction.
        meaning: what it says.
    """

    name: str
    value: float | None
    better: Better
    meaning: str
