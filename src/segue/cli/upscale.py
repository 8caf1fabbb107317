"""`segue upscale`: a picture or a film made larger."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segue.cli.fields import verb
from segue.cli.options import ModelChoice, Output
from segue.cli.produce import Job, produce
from segue.cli.progress import Meter
from segue.tasks.on_file import check_result, result_name
from segue.tasks.sampling import Execution
from segue.tasks.upscale import Upscale


@verb
def upscale(task: Upscale, model: ModelChoice, execution: Execution, output: Output) -> int:
    """Make a picture or a film larger: segue upscale film.mp4 -o large.mp4"""
    model.check_previews()
    source = task.source()
    task.check(len(source))
    name = result_name(task.path, len(source))
    check_result(task.path, output.output or Path(name))
    chosen = model if model.model else replace(model, model=task.usual_model())

    def make(meter: Meter):
        loaded = chosen.load(meter)
        for note in task.notes(loaded):
            meter.note(note)
        return task.run(loaded, execution, meter)

    return produce(Job(make, name, len(source), float(source.fps)), output)
