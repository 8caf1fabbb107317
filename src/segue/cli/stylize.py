"""`segue stylize`: a film drawn anew."""

from __future__ import annotations

from pathlib import Path

from segue.cli.fields import verb
from segue.cli.options import ModelChoice, Output
from segue.cli.produce import Job, produce
from segue.cli.progress import Meter
from segue.tasks.on_file import result_name
from segue.tasks.sampling import Execution
from segue.tasks.stylize import Stylize


@verb
def stylize(task: Stylize, model: ModelChoice, execution: Execution, output: Output) -> int:
    """Draw a film anew: segue stylize film.mp4 "line art of a cat face" -o drawn.mp4"""
    model.check_previews()
    clip = task.source()
    task.filled_in()
    name = result_name(task.path, len(clip), "drawn")
    path = output.output.expanduser() if output.output else Path(name)
    task.check_result(path)

    def make(meter: Meter):
        loaded = model.load(meter)
        prepared = task.prepared(loaded)
        for note in prepared.notes:
            meter.note(note)
        return task.run(loaded, execution, meter, work=path.parent, prepared=prepared)

    return produce(Job(make, name, len(clip), float(clip.fps)), output)
