"""Runs that are cut at the worst moment: a step is learned and logged, and nothing of it saved."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from segue.training.journal import Journal


class CutError(Exception):
    """Stands for the kill."""


@contextmanager
def cut_at(step: int) -> Generator[None]:
    """What runs inside must be cut after so many steps."""
    plain = Journal.step

    def until(self: Journal, now: int, **values: Any) -> None:
        plain(self, now, **values)
        if now == step:
            raise CutError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "step", until)
        with pytest.raises(CutError):
            yield


def said(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's log, without the time that they took."""
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found]
