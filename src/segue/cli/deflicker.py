"""`segue deflicker`: a film whose frames agree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from segue.cli.fields import verb
from segue.cli.options import Output
from segue.cli.produce import Job, produce
from segue.cli.progress import Meter
from segue.tasks.deflicker import Deflicker
from segue.tasks.deflicker_inputs import Inputs
from segue.tasks.on_file import result_name
from segue.tasks.sampling import Execution


@dataclass(frozen=True)
class Machine:
    """Where it runs.

    Args:
        device: cpu, cuda, cuda:1 or mps, where frames are compared and blended; left out, the fastest that is here.
        threads: CPU threads; left out, what is set.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    device: str | None = None
    threads: int | None = None


@verb
def deflicker(task: Deflicker, machine: Machine, output: Output) -> int:
    """Make the frames of a film agree: segue deflicker film.mp4 -o steady.mp4"""
    inputs, execution = Inputs.of(task), Execution(threads=machine.threads)
    name = result_name(task.path, len(inputs.film), "steady")
    path = output.output.expanduser() if output.output else Path(name)
    task.check_result(path)

    def make(meter: Meter):
        said = (*inputs.notes, *task.notes(inputs.film.size), *_on_memory(task, inputs, machine))
        for note in said:
            meter.note(note)
        clip = task.run(execution, meter, device=machine.device, work=path.parent)
        found = clip.provenance.record["notes"] if clip.provenance else ()
        for note in found:
            if note not in said:
                meter.note(note)
        return clip

    return produce(Job(make, name, len(inputs.film), float(inputs.film.fps)), output)


def _on_memory(task: Deflicker, inputs: Inputs, machine: Machine) -> list[str]:
    """What is said where memory may not be enough."""
    from segue.models.capacity import memory_of
    from segue.models.devices import find_device

    span = inputs.keys.span(len(inputs.film)) if inputs.keys else 0
    free, needed = memory_of(find_device(machine.device)).free, task.memory(inputs.film.size, len(inputs.film), span)
    if not free or needed <= free:
        return []
    said = f"about {needed / 1e9:.1f} GB of memory are taken at once, and {free / 1e9:.1f} GB are free"
    less = "keys that are nearer to each other take" if inputs.keys else "a smaller --window takes"
    return [f"{said}: {less} less, and so do smaller frames"]
