"""`segue image`: one picture."""

from __future__ import annotations

from segue.cli.fields import verb
from segue.cli.options import ModelChoice, Output, slug
from segue.cli.produce import Job, produce
from segue.cli.progress import Meter
from segue.tasks.image import Image
from segue.tasks.sampling import Execution


@verb
def image(task: Image, model: ModelChoice, execution: Execution, output: Output) -> int:
    """Make one picture from a prompt: segue image "a red apple" -o apple.png"""

    def make(meter: Meter):
        loaded = model.load(meter)
        for note in task.notes(loaded):
            meter.note(note)
        return task.run(loaded, execution, meter)

    return produce(Job(make, default=f"{slug(task.prompt)}.png", frames=1), output)
