"""`segue stylize`: a film drawn anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from segue.cli.fields import verb
from segue.cli.options import ModelChoice, Output
from segue.cli.produce import Job, check_drawing, produce
from segue.cli.progress import Meter
from segue.errors import TaskError
from segue.tasks.on_file import result_name
from segue.tasks.sampling import Execution
from segue.tasks.stylize import Stylize


@dataclass(frozen=True)
class Banking:
    """What is kept of a run besides its film.

    Args:
        save_bank: file to write the frames to that others looked at, such as look.safetensors, for another film to look
            like this one (--bank).
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    save_bank: Path | None = None

    def __post_init__(self) -> None:
        if self.save_bank is not None and self.save_bank.suffix.lower() != ".safetensors":
            raise TaskError(
                f"a bank is written as safetensors: give a name such as {self.save_bank.stem or 'look'}.safetensors"
            )


@verb
def stylize(task: Stylize, model: ModelChoice, execution: Execution, output: Output, banking: Banking) -> int:
    """Draw a film anew: segue stylize film.mp4 "line art of a cat face" -o drawn.mp4"""
    model.check_previews()
    clip = task.source()
    task.filled_in()
    name = result_name(task.path, len(clip), "drawn")
    path = output.output.expanduser() if output.output else Path(name)
    task.check_result(path)
    bank = banking.save_bank.expanduser() if banking.save_bank else None
    if bank is not None:
        task.check_result(bank)
        check_drawing(bank)

    def make(meter: Meter):
        loaded = model.load(meter)
        prepared = task.prepared(loaded)
        for note in (*prepared.notes, *prepared.outlook(execution)):
            meter.note(note)
        return task.run(loaded, execution, meter, work=path.parent, save_bank=bank, prepared=prepared)

    return produce(Job(make, name, len(clip), float(clip.fps)), output)
