"""`segue animate`: words, or a picture, that begin to move."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from segue.cli.fields import verb
from segue.cli.options import ModelChoice, Output, slug
from segue.cli.produce import Job, produce
from segue.cli.progress import Meter
from segue.media.disk import free_path
from segue.tasks.animate import FPS, Animate
from segue.tasks.sampling import Execution
from segue.zoo.load import VARIABLE


@dataclass(frozen=True)
class Shared:
    """Who makes it.

    Args:
        workers: processes that share a clip whose key frames are made first; the result has the same bytes.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    workers: int = 1


@verb
def animate(task: Animate, model: ModelChoice, execution: Execution, shared: Shared, output: Output) -> int:
    """Make a clip of words or of a picture: segue animate "a bouncing red ball" -o ball.mp4"""
    model.check_previews()
    default = f"{slug(task.prompts.at_first[0]) if task.prompt else Path(str(task.image)).stem}.mp4"
    path = output.output.expanduser() if output.output else free_path(Path(default))
    task.check_result(path)
    named = model.model or model.motion_adapter or model.instruct_adapter or os.environ.get(VARIABLE)
    chosen = model if named else replace(model, model=task.usual_model())

    def make(meter: Meter):
        loaded = chosen.load(meter)
        for note in task.notes(loaded):
            meter.note(note)
        for note in task.outlook(loaded, execution):
            meter.note(note)
        return task.run(loaded, execution, meter, work=path.parent, workers=shared.workers)

    return produce(Job(make, default, frames=2, fps=task.fps or FPS), output)
