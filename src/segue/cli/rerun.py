"""`segue rerun`: a result made again from the JSON beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from segue.cli.fields import verb
from segue.cli.options import Drawing, ModelChoice, Output
from segue.cli.produce import Job, produce
from segue.cli.progress import Meter
from segue.errors import TaskError
from segue.tasks.animate import Animate
from segue.tasks.deflicker import Deflicker
from segue.tasks.edit import Edit
from segue.tasks.image import Image
from segue.tasks.on_file import check_result
from segue.tasks.record import ModelRecord, WrittenAs
from segue.tasks.rerun import Rerun
from segue.tasks.stylize import Stylize
from segue.tasks.transition import Transition
from segue.tasks.upscale import Upscale


@dataclass(frozen=True)
class RecordFile:
    """Which record.

    Args:
        record: the .json beside a result.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    record: Path


@verb
def rerun(file: RecordFile, model: ModelChoice, output: Output, drawing: Drawing) -> int:
    """Make a result again, byte for byte, from the JSON beside it: segue rerun x.json -o again.mp4"""
    again = Rerun.read(file.record.expanduser())
    made, task, was = again.record.model, again.task, again.record.output or WrittenAs(".mp4")
    if drawing.tree is not None and not isinstance(task, Transition):
        raise TaskError("only a transition has a tree to draw; leave out --tree")
    default = Path(f"{file.record.stem}-rerun{was.suffix}").name
    path = output.output or Path(default)
    if isinstance(task, Upscale):
        check_result(task.path, path)
    if isinstance(task, Animate | Deflicker | Edit | Stylize):
        task.check_result(path)
    chosen = _chosen(model, made, again.record.task)

    def make(progress: Meter):
        loaded = None if chosen is None else chosen.load(progress)
        for difference in again.differences(loaded):
            progress.note(f"warning: {difference}; the result may differ")
        return again.run(loaded, progress, device=model.device, work=path.expanduser().parent)

    # In another format, the factor would mean another quality, or nothing.
    alike = output.output is None or output.output.suffix.lower() == was.suffix.lower()
    frames, fps = (1, 1) if isinstance(task, Image) else (task.frames or 1, task.fps or 1)
    crf = was.crf if output.crf is None and alike else output.crf
    return produce(Job(make, default, frames, fps, drawing.tree), replace(output, crf=crf))


def _chosen(model: ModelChoice, made: ModelRecord | None, task: str) -> ModelChoice | None:
    """The model of a record, and what is said otherwise; None for a task that uses none."""
    if made is None:
        if replace(model, device=None) != ModelChoice():
            raise TaskError(f"the record is of a task that uses no model ({task}): leave out what is about one")
        return None
    chosen = model.otherwise(made)
    chosen.check_previews()
    return chosen.compiled_if_possible() if model.compile is None else chosen
