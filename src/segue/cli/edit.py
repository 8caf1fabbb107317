"""`segue edit`: a picture or a film of which something is changed."""

from __future__ import annotations

from pathlib import Path

from segue.cli.fields import verb
from segue.cli.options import ModelChoice, Output
from segue.cli.produce import Job, produce
from segue.cli.progress import Meter
from segue.tasks.edit import Edit
from segue.tasks.on_file import result_name
from segue.tasks.sampling import Execution


@verb
def edit(task: Edit, model: ModelChoice, execution: Execution, output: Output) -> int:
    """Change a picture or a film, and keep the rest: segue edit photo.png "a fox" --mask cat.png -o fox.png"""
    model.check_previews()
    clip = task.source()
    name = result_name(task.path, len(clip), "edited")
    path = output.output.expanduser() if output.output else Path(name)
    task.check_result(path)

    def make(meter: Meter):
        loaded = model.load(meter)
        prepared = task.prepared(loaded)
        for note in (*prepared.notes, *prepared.outlook(execution)):
            meter.note(note)
        return task.run(loaded, execution, meter, work=path.parent, prepared=prepared)

    return produce(Job(make, name, len(clip), float(clip.fps)), output)
