"""What a run says while it goes: a line of progress with the time left, a JSONL log, and a sheet of pictures."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor


class Journal:
    """Progress on the terminal and one line of JSON per `every` steps in `log`. A context manager."""

    def __init__(self, log: Path, steps: int, start: int, spent: float, every: int) -> None:
        self.log, self.every, self.spent = log, every, spent
        self._began = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns)
        self._task = self._progress.add_task("training", total=steps, completed=start)
        self._sums: dict[str, float] = {}
        self._count = 0

    def __enter__(self) -> Journal:
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

    def step(self, step: int, **values: float) -> None:
        """Take the numbers of step `step` (counted from 1); their mean is logged every `every` steps."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        self._progress.update(self._task, completed=step, description=f"loss {values['loss']:.4f}")
        if step % self.every == 0:
            self.note(step, **{name: total / self._count for name, total in self._sums.items()})
            self._sums, self._count = {}, 0

    def note(self, step: int, **values: float) -> None:
        """Append a line to the log at once."""
        line = {"step": step, "seconds": round(self.seconds, 1), **{k: round(v, 6) for k, v in values.items()}}
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


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
