"""What is tried on some frames before a film is edited, and what was found: kept for a run that goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

from segue.media.disk import written_whole

T = TypeVar("T", int, float)


@dataclass(frozen=True)
class Found(Generic[T]):
    """What was found by trials.

    Args:
        value: a strength or a seed.
        evaluations: of the network, a row each, that it took.
    """

    value: T
    evaluations: int

    def keep(self, path: Path) -> None:
        """In a file, which is whole or not there."""
        with written_whole(path) as part:
            part.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def kept(path: Path) -> Found[T] | None:
        """As it was kept; None if it was not."""
        return Found(**json.loads(path.read_text("utf-8"))) if path.exists() else None


def tried_frames(count: int) -> tuple[int, ...]:
    """The frames of so many that are tried: the first, the middle and the last, each once."""
    return tuple(sorted({0, count // 2, count - 1}))
