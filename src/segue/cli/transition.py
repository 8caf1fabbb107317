"""`segue transition`: a film that passes from prompt to prompt."""

from __future__ import annotations

from contextlib import nullcontext

from segue.cli.fields import verb
from segue.cli.options import Drawing, ModelChoice, Output
from segue.cli.player import Player, Playing, watched
from segue.cli.produce import Job, produce
from segue.cli.progress import Meter
from segue.tasks.sampling import Execution
from segue.tasks.transition import Transition


@verb
def transition(
    task: Transition,
    model: ModelChoice,
    execution: Execution,
    output: Output,
    drawing: Drawing,
    playing: Playing,
) -> int:
    """Make a film through the pictures of two or more prompts: segue transition "a red apple" "a lemon" -o x.mp4"""
    model.check_previews(shown=playing.play, measured=task.tree.looks)
    showing = Player(" → ".join(task.prompts), task.fps, task.seconds, len(task.route)) if playing.play else None

    def make(meter: Meter):
        loaded = model.load(meter)
        for note in task.notes(loaded):
            meter.note(note)
        if showing is None:
            return task.run(loaded, execution, meter)
        playing.told(showing, meter)
        return watched(task.stream(loaded, execution, meter), showing)

    job = Job(make, default="transition.mp4", frames=task.frames, fps=task.fps, tree=drawing.tree)
    with showing or nullcontext():
        return produce(job, output)
