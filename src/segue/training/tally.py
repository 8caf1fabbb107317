"""Sums of what the steps of a run measured, since somebody last asked for their means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


class Tally:
    """Takes numbers step by step. Those of an accelerator are read late, all at once, so that no step waits for one."""

    def __init__(self) -> None:
        self._unread: list[Mapping[str, Tensor | float]] = []
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Take the numbers of a step; every step has the same."""
        self._unread.append({name: v.detach() if isinstance(v, Tensor) else v for name, v in values.items()})

    def read(self) -> dict[str, float]:
        """Add up the numbers of the steps since the last reading; returns those of the last step."""
        last: dict[str, float] = {}
        for values in self._unread:
            last = {name: float(value) for name, value in values.items()}
            for name, number in last.items():
                self._sums[name] = self._sums.get(name, 0.0) + number
        self._count += len(self._unread)
        self._unread = []
        return last

    def means(self) -> dict[str, float]:
        """The mean over all steps that were read."""
        return {name: total / self._count for name, total in self._sums.items()}

    def clear(self) -> None:
        """Begin anew."""
        self._sums, self._count, self._unread = {}, 0, []

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        self.read()
        return {"count": self._count, "sums": self._sums}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned; begin anew if it is empty."""
        self.clear()
        self._count, self._sums = int(state.get("count", 0)), dict(state.get("sums", {}))
