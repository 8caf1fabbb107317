"""How a clip is made that is longer than what a model makes at once: the fields of a task that makes one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from segue.errors import TaskError

How = Literal["whole", "keys", "parts"]
Filling = Literal["joint", "branches", "flow"]
USUAL_LEVELS = (4, 4)
USUAL_FRAMES = 96
"""A clip of more is made key frames first, unless it is said otherwise."""
MOST_FACTOR, MOST_LEVELS = 64, 6


@dataclass(frozen=True)
class Long:
    """How a long clip is made.

    Args:
        long: keys makes sparse key frames together first, and fills what lies between them, level by level, in
            stretches that depend on nothing else; parts goes on from the last frames, part after part, and drifts,
            unless all parts carry the first picture; whole denoises all frames together. Left out, what carries one
            picture is made in parts where there are more frames than the model looks at, and loops of it as a whole;
            else keys for more than 96 frames, else whole.
        levels: by how much each filling multiplies the frames, such as 4,4; of keys. Left out, 4,4.
        fill: what fills each level, of keys: joint, a model that can be given a first and a last frame; branches, which
            fork from a mix of both key frames; flow, which moves the pixels of both and draws nothing anew. One for
            all, or one per level, such as branches,flow. Left out, joint where the model can, or else branches.
        pin: how much of the drift of mean and contrast is taken away, in [0, 1], of keys and parts. Left out, 1.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    long: How | None = None
    levels: tuple[int, ...] | str | None = None
    fill: tuple[Filling, ...] | str | None = None
    pin: float | None = None

    def __post_init__(self) -> None:
        if self.long is not None and self.long not in get_args(How):
            raise TaskError(f"long must be whole, keys or parts, got {self.long!r}")
        object.__setattr__(self, "levels", None if self.levels is None else _levels(self.levels))
        object.__setattr__(self, "fill", None if self.fill is None else _fills(self.fill))
        if self.pin is not None and not 0 <= self.pin <= 1:
            raise TaskError(f"pin must be in [0, 1], got {self.pin}")
        if self.long in ("whole", "parts") and (said := [name for name in ("levels", "fill") if self._said(name)]):
            raise TaskError(f"{' and '.join(said)} say how key frames are filled: leave them out, or take long keys")
        if self.long == "whole" and self.pin is not None:
            raise TaskError("nothing is pinned where all frames are denoised together: leave pin out, or long whole")
        if len(self.fills) > 1 and self.levels is not None and len(self.fills) != len(self.factors):
            raise TaskError(
                f"fill is one for all levels, or one for each of {len(self.factors)}; got {len(self.fills)}"
            )
        if "flow" in self.fills and set(self.fills[self.fills.index("flow") :]) != {"flow"}:
            raise TaskError(
                "what flow has filled is not filled further by drawing: let all that follows on flow be flow"
            )

    @property
    def factors(self) -> tuple[int, ...]:
        """The levels, or the usual ones."""
        return USUAL_LEVELS if self.levels is None else tuple(int(one) for one in self.levels)

    @property
    def fills(self) -> tuple[Filling, ...]:
        """What was said of filling."""
        return () if self.fill is None else _fills(self.fill)

    @property
    def weight(self) -> float:
        """Of what is pinned."""
        return 1.0 if self.pin is None else float(self.pin)

    def _said(self, name: str) -> bool:
        return getattr(self, name) is not None

    @property
    def of_keys(self) -> tuple[str, ...]:
        """What was said that key frames alone have."""
        return tuple(name for name in ("levels", "fill") if self._said(name))


def _levels(said: Any) -> tuple[int, ...]:
    words = re.split(r"\s*,\s*", said.strip()) if isinstance(said, str) else [str(one) for one in said]
    if not 1 <= len(words) <= MOST_LEVELS or not all(re.fullmatch(r"\d{1,3}", word) for word in words):
        raise TaskError(f"levels must be up to {MOST_LEVELS} whole numbers with commas, such as 4,4; got {said!r}")
    found = tuple(int(word) for word in words)
    if not all(2 <= factor <= MOST_FACTOR for factor in found):
        raise TaskError(f"each level multiplies the frames by 2 to {MOST_FACTOR}, got {said!r}")
    return found


def _fills(said: Any) -> tuple[Filling, ...]:
    words = re.split(r"\s*,\s*", said.strip()) if isinstance(said, str) else list(said)
    kinds: dict[str, Filling] = {"joint": "joint", "branches": "branches", "flow": "flow"}
    if not words or not all(word in kinds for word in words):
        raise TaskError(f"fill must be {', '.join(kinds)}, one for all levels or one for each; got {said!r}")
    return tuple(kinds[word] for word in words)
