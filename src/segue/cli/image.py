"""`segue image`: one picture."""

from __future__ import annotations

from segue.cli.fields import verb
from segue.cli.options import ModelChoice, Output, Recording, slug
from segue.cli.produce import Job, check_drawing, produce
from segue.cli.progress import Meter
from segue.tasks.image import Image
from segue.tasks.sampling import Execution


@verb
def image(task: Image, model: ModelChoice, execution: Execution, output: Output, recording: Recording) -> int:
    """Make one picture from a prompt: segue image "a red apple" -o apple.png"""
    model.check_previews()
    walk = recording.trajectory and recording.trajectory.expanduser()
    if walk is not None:
        check_drawing(walk)

    def make(meter: Meter):
        loaded = model.load(meter)
        for note in task.notes(loaded):
            meter.note(note)
        return task.run(loaded, execution, meter, trajectory=walk)

    return produce(Job(make, default=f"{slug(task.prompt)}.png", frames=1), output)
