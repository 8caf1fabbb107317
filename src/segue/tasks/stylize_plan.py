"""What is decided before a film is drawn anew: where shots begin, and which frames are drawn at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

from segue.errors import TaskError


@dataclass(frozen=True)
class StylizePlan:
    """What was found out before any frame was drawn.

    Args:
        sha256: of the film.
        others: of all other files that the result depends on, by the name that the task has for them.
        shots: the frames that begin a shot, 0 among them.
        parts: of the film that were drawn at once: the first frame of each, and that after the last.
        anchors: frames that others looked at.
        device: where frames were blended.
        networks: a hash of those beside the model; "" if there are none.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    sha256: str
    others: dict[str, str] = field(default_factory=dict[str, str])
    shots: list[int] = field(default_factory=lambda: [0])
    parts: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    anchors: list[int] = field(default_factory=list[int])
    device: str = "cpu"
    networks: str = ""

    def check_unchanged(self, now: StylizePlan, frames: int, window: int) -> None:
        """Find out whether the plan belongs to what is there now.

        Args:
            now: of the files that are there; nothing else of it is looked at.
            frames: of the film.
            window: the most frames that are drawn at once.

        Raises:
            TaskError: a file has changed, or the parts are none of this film.
        """
        if now.sha256 != self.sha256:
            raise TaskError("the film is not what this was made with: its contents have changed")
        for name, sha256 in self.others.items():
            if now.others.get(name) != sha256:
                raise TaskError(f"{name} is not what this was made with: its contents have changed")
        if now.networks != self.networks:
            raise TaskError("the networks of the controls are not those that this was made with")
        ends = [*self.shots, frames]
        if self.shots[:1] != [0] or any(a >= b for a, b in pairwise(ends)):
            raise TaskError(
                f"the plan does not belong to this film of {frames} frames: shots begin at 0 and rise, got {self.shots}"
            )
        drawn = sorted({number for first, stop in self.parts for number in range(first, stop)})
        if drawn != list(range(frames)) or any(stop - first > window for first, stop in self.parts):
            raise TaskError(
                f"the plan does not belong to this film of {frames} frames and a window of {window}: it draws "
                f"{self.parts}"
            )
        if any(number not in range(frames) for number in self.anchors):
            raise TaskError(f"the plan does not belong to this film of {frames} frames: it looks at {self.anchors}")


def parts_of(shots: Sequence[int], frames: int, window: int, overlap: int) -> list[tuple[int, int]]:
    """The first frame, and that after the last, of what is drawn at once: no part reaches beyond its shot.

    A shot of more than `window` frames is cut into as few parts as can be, about equally long, which overlap by
    `overlap` frames. With a window of three overlaps or more, no frame is in more than two.
    """
    found: list[tuple[int, int]] = []
    for first, stop in pairwise([*shots, frames]):
        length = stop - first
        count = 1 if length <= window else math.ceil((length - overlap) / (window - overlap))
        begins = [first + round(number * (length - overlap) / count) for number in range(count)]
        found += [(begin, end + overlap) for begin, end in pairwise([*begins, stop - overlap])]
    return found
