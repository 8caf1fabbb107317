"""Progress on the terminal: a bar with the time left, or one line per stage where nobody is watching."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Meter:
    """A `segue.types.Progress` that draws on stderr. A context manager; the bars vanish at its end.

    Args:
        quiet: say nothing at all.
    """

    def __init__(self, quiet: bool = False) -> None:
        console = Console(file=sys.stderr)
        self.quiet, self.drawn = quiet, console.is_terminal and not quiet
        self._stages: dict[str, TaskID] = {}
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False))
        self._bars = Progress(*columns, *times, console=console, transient=True, disable=not self.drawn)

    def __enter__(self) -> Meter:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._bars.stop()

    def __call__(self, what: str, done: float, total: float) -> None:
        if what not in self._stages:
            self._stages[what] = self._bars.add_task(what, total=total)
            if not (self.drawn or self.quiet):
                print(f"segue: {what}", file=sys.stderr, flush=True)
        self._bars.update(self._stages[what], completed=done, total=total)

    def note(self, text: str) -> None:
        """Something to know that is no error, above the bars."""
        if not self.quiet:
            self._bars.console.print(f"segue: {text}", markup=False, highlight=False, soft_wrap=True)
