"""Ctrl-C, heard between two steps."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from segue.errors import InterruptedRunError
from segue.training.ranks import Ranks


class Interrupt:
    """Notes Ctrl-C (and SIGTERM, which machines send that are taken back) so that a step is never cut in half.

    A context manager. A second Ctrl-C, for whoever cannot wait for the step, interrupts at once. Several ranks stop
    together, after the same step, and take no notice of a second one: their launcher passes the first on again.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._heard = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():  # others may not ask for signals
            self._before = {name: signal.signal(name, self._hear) for name in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._heard and self._ranks.count == 1:
            raise KeyboardInterrupt
        self._heard = True

    def asked(self) -> bool:
        """Whether the run is to stop; every rank asks after every step."""
        return self._ranks.any(self._heard)


def stopped(step: int, steps: int, checkpoint: Path) -> InterruptedRunError:
    """What a run says that was stopped after `step` steps, when all of it is saved."""
    return InterruptedRunError(f"stopped after step {step} of {steps}; run the same command to go on from {checkpoint}")
