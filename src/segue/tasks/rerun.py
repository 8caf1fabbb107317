"""Making a result again from the JSON beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segue.errors import RecordError
from segue.tasks.animate import Animate
from segue.tasks.deflicker import Deflicker
from segue.tasks.edit import Edit
from segue.tasks.image import Image
from segue.tasks.live import Live
from segue.tasks.record import Record, differences, first_fault, read_record
from segue.tasks.stylize import Stylize
from segue.tasks.transition import Transition
from segue.tasks.upscale import Upscale
from segue.types import Progress, silent

if TYPE_CHECKING:
    from segue.media.clip import Clip
    from segue.models.bundle import LatentDiffusion

Task = Animate | Deflicker | Edit | Image | Live | Stylize | Transition | Upscale
TASKS: dict[str, type[Task]] = {
    task.name: task for task in (Animate, Deflicker, Edit, Image, Live, Stylize, Transition, Upscale)
}


@dataclass(frozen=True)
class Rerun:
    """A result to be made again: its task, its plan and how it was run, as a record states them.

    Args:
        path: of the JSON, for messages.
        record: what it says.
        task: to do again.
        plan: that was made for it.
    """

    path: Path
    record: Record
    task: Task
    plan: Any

    @staticmethod
    def read(path: str | Path) -> Rerun:
        """From a JSON file.

        Raises:
            RecordError: if it cannot be read, is of another version, or does not make a task that this Segue has.
        """
        path = Path(path)
        record = read_record(path)
        if record.task not in TASKS:
            raise RecordError(f"{path} is of task {record.task!r}; this Segue knows {', '.join(TASKS)}")
        # Of a live film that was cut short the record states what there is: nothing in it is decided on the way.
        if not record.complete and record.task != Live.name:
            raise RecordError(
                f"{path} records a run that was interrupted; it cannot be repeated, make it anew with the same settings"
            )
        kind = TASKS[record.task]
        return Rerun(path, record, _validated(kind, record.fields, path), _validated(kind.plan_type, record.plan, path))

    def differences(self, model: LatentDiffusion | None = None) -> list[str]:
        """What is not as it was and may change the result.

        Raises:
            RecordError: if the model has other weights; there is none and one was used, or the other way round.
        """
        return differences(self.record, model)

    def run(
        self,
        model: LatentDiffusion | None = None,
        progress: Progress = silent,
        *,
        device: str | None = None,
        work: Path | None = None,
    ) -> Clip:
        """The clip again: the same bytes, given the same model, versions, device class and threads.

        Args:
            model: that of the record; none for a task that uses none.
            progress: told of every step.
            device: of a task that uses no model: another than that of the record.
            work: of a task that makes a film of another one, where what is done is kept; see `Deflicker.run`.

        Raises:
            RecordError: if the model has other weights, or is missing.
            TaskError: if the plan does not belong to the task.
        """
        self.differences(model)
        if isinstance(self.task, Deflicker):
            return self.task.run(self.record.execution, progress, self.plan, device=device, work=work)
        assert model is not None
        if isinstance(self.task, Animate | Edit | Stylize):
            return self.task.run(model, self.record.execution, progress, self.plan, work=work)
        return self._as_measured(self.task.run(model, self.record.execution, progress, self.plan))

    def _as_measured(self, clip: Clip) -> Clip:
        """Its plan was made by a small decoder, which a rerun does not load: the record says so again."""
        from segue.media.clip import Clip, Provenance

        made = self.record.model
        if made is None or made.preview_for != "measured" or clip.provenance is None:
            return clip
        by = {"preview_decoder": made.preview_decoder, "preview_for": made.preview_for}
        record = clip.provenance.record
        again = Provenance({**record, "model": {**record["model"], **by}})
        return Clip(clip.frames, clip.fps, clip.audio, again)


def _validated(kind: type[Any], values: dict[str, Any], path: Path) -> Any:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise RecordError(f"{path} is not a sound record: {first_fault(error)}") from error
    except ValueError as error:
        raise RecordError(f"{path} is not a sound record: {error}") from error
