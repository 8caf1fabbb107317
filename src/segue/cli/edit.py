"""`segue edit`: a picture or a film of which something is changed."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from segue.cli.fields import verb
from segue.cli.options import ModelChoice, Output
from segue.cli.produce import Job, check_drawing, produce
from segue.cli.progress import Meter
from segue.errors import TaskError
from segue.tasks.edit import Edit, check_saved
from segue.tasks.on_file import result_name
from segue.tasks.sampling import Execution
from segue.zoo.load import VARIABLE


@dataclass(frozen=True)
class Noised:
    """What is kept of a run besides its result.

    Args:
        save_latent: file to write the noise to that ddib goes into, such as cat.safetensors, for another model to come
            out of (--latent).
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    save_latent: Path | None = None

    def __post_init__(self) -> None:
        if self.save_latent is not None and self.save_latent.suffix.lower() != ".safetensors":
            raise TaskError(
                f"noise is written as safetensors: give a name such as {self.save_latent.stem or 'cat'}.safetensors"
            )


@verb
def edit(task: Edit, model: ModelChoice, execution: Execution, output: Output, noised: Noised) -> int:
    """Change a picture or a film, and keep the rest: segue edit photo.png "a fox" --mask cat.png -o fox.png"""
    model.check_previews()
    clip = task.source()
    name = result_name(task.path, len(clip), "edited")
    path = output.output.expanduser() if output.output else Path(name)
    task.check_result(path)
    named = model.model or model.instruct_adapter or os.environ.get(VARIABLE)
    chosen = model if named else replace(model, model=task.usual_model())
    latent = noised.save_latent.expanduser() if noised.save_latent else None
    if latent is not None:
        check_saved(task)
        task.check_result(latent)
        check_drawing(latent)

    def make(meter: Meter):
        loaded = chosen.load(meter)
        prepared = task.prepared(loaded)
        for note in (*prepared.notes, *prepared.outlook(execution)):
            meter.note(note)
        return task.run(loaded, execution, meter, work=path.parent, save_latent=latent, prepared=prepared)

    return produce(Job(make, name, len(clip), float(clip.fps)), output)
