"""What a run says while it goes: a line of progress with the time left, a JSONL log, and a sheet of pictures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from segue.training.tally import Tally

REFRESH = 0.5
"""Seconds between two readings of the loss: reading it more often would make an accelerator wait for each step."""
PATIENCE = 10.0
"""Seconds after which somebody wants to hear of work that is no run."""


class Journal:
    """Progress on stderr (a line per entry where that is no terminal), and the means of every `every` steps in `log`.

    A context manager. Lines of the log after `start` are dropped: their steps are about to be done again.

    Args:
        log: file of one JSON object a line.
        steps: of the whole run.
        start: how many of them are done.
        spent: seconds that they took.
        every: how many steps a line of the log sums up.
        batch: samples in a step.
        tally: sums up the steps since the last line; that of the run, so that checkpoints hold it.
        silent: write and show nothing, as all ranks but the first.
    """

    def __init__(
        self,
        log: Path,
        steps: int,
        start: int,
        spent: float,
        every: int,
        *,
        batch: int = 1,
        tally: Tally | None = None,
        silent: bool = False,
    ) -> None:
        self.log, self.steps, self.start, self.spent, self.every = log, steps, start, spent, every
        self.batch, self.tally, self.silent = batch, tally or Tally(), silent
        self._began = self._looked = time.monotonic()
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        drawn = self._console.is_terminal and not silent
        self._progress = Progress(*columns, console=self._console, disable=not drawn)
        self._task = self._progress.add_task("training", total=steps, completed=start)

    def __enter__(self) -> Journal:
        if not self.silent:
            _keep(self.log, self.start)
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    @property
    def seconds(self) -> float:
        """Time spent on the run so far, earlier sittings included."""
        return self.spent + time.monotonic() - self._began

    def step(self, step: int, **values: Tensor | float) -> None:
        """Take the numbers of step `step` (counted from 1), the loss among them."""
        self.tally.add(values)
        due = step % self.every == 0
        if due or time.monotonic() - self._looked > REFRESH:
            said = self._said(step, self.tally.read()["loss"])
            self._looked = time.monotonic()
            self._progress.update(self._task, completed=step, description=said)
            if due:
                self.note(step, **self.tally.means())
                self.tally.clear()
                if not self._console.is_terminal:
                    self.say(f"step {step}/{self.steps}  {said}")

    def note(self, step: int, **values: float) -> None:
        """Append a line to the log at once."""
        if not self.silent:
            line = {"step": step, "seconds": round(self.seconds, 1), **{k: round(v, 6) for k, v in values.items()}}
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def say(self, text: str) -> None:
        """A line for whoever watches."""
        if not self.silent:
            self._console.print(text, markup=False, highlight=False)

    def _said(self, step: int, loss: float) -> str:
        rate = (step - self.start) / (time.monotonic() - self._began)
        left = timedelta(seconds=round((self.steps - step) / rate))
        return f"loss {loss:.4f}  {rate * self.batch:.1f} samples/s  {left} left"


@contextmanager
def watched(what: str, total: int) -> Generator[Callable[[int], None]]:
    """Progress on stderr of work that is no run, and a line every ten seconds where that is no terminal.

    Yields what is to be told how many of `total` are done.
    """
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    last = time.monotonic()

    def tell(done: int) -> None:
        nonlocal last
        bar.update(task, completed=done)
        if not console.is_terminal and time.monotonic() - last > PATIENCE:
            last = time.monotonic()
            console.print(f"{what} {done}/{total}", markup=False, highlight=False)

    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield tell


def _keep(log: Path, step: int) -> None:
    """Drop the lines of a log after `step`, and one that a kill has torn."""
    if log.exists():
        lines = log.read_text("utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        if kept != lines:
            part = log.with_name(log.name + ".part")
            part.write_text("".join(kept), "utf-8")
            part.replace(log)


def save_sheet(path: Path, pictures: Float[Tensor, "n 3 h w"], columns: int) -> None:
    """Pictures in [0, 1] as one PNG, row by row; values outside are clipped, as a screen would."""
    n, _, height, width = pictures.shape
    rows = -(-n // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    cells = (pictures.clamp(0, 1) * 255 + 0.5).byte().permute(0, 2, 3, 1).cpu().numpy()
    for i, cell in enumerate(cells):
        y, x = i // columns * height, i % columns * width
        sheet[y : y + height, x : x + width] = cell
    part = path.with_name(path.name + ".part")
    Image.fromarray(sheet).save(part, "PNG")
    part.replace(path)
