"""Making a clip: latents by one of two engines, kept on disk step by step, and then pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from segue.errors import ExhaustedError, ExhaustedRunError, InterruptedRunError
from segue.media.clip import Clip, Provenance
from segue.tasks.animate import Animate, AnimatePlan
from segue.tasks.animate_controls import Controls
from segue.tasks.animate_joint import Joint
from segue.tasks.animate_long import Keys
from segue.tasks.animate_long_parts import Parts
from segue.tasks.animate_long_workers import check_workers, helped
from segue.tasks.animate_zero_shot import ZeroShot
from segue.tasks.record import ModelRecord, Record, versions
from segue.tasks.sampling import Execution
from segue.tasks.unfinished import KeptFrames, Unfinished
from segue.types import Progress

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion


class Maker(Protocol):
    """Makes the frames of a clip."""

    def pictures(self, first: int) -> Iterator[Float[Tensor, "t 3 h w"]]:
        """All frames from this one on, a few at a time, float32 on the CPU."""
        ...

    @property
    def scores(self) -> Mapping[str, Any]:
        """What is told of it in the record."""
        ...


def animated(
    task: Animate,
    model: LatentDiffusion,
    execution: Execution,
    progress: Progress,
    plan: AnimatePlan | None,
    work: Path | None,
    workers: int = 1,
) -> Clip:
    """What `Animate.run` says."""
    made, resolved = task.contents(), task.resolved(model)
    check_workers(workers, model, str(resolved.long.long))
    controls = Controls.of(resolved, model)
    # Names are absolute in a record, as those of the task are.
    made = replace(resolved.contents(), networks=controls.fingerprint) if made.files else made
    if plan is not None:
        plan.check_unchanged(made)
    how = execution.pinned()
    key = _key(resolved, made, model, how)
    unfinished = Unfinished.temporary() if work is None else Unfinished.of(work, task.name, key)
    try:
        with how.applied(controls.model) as ready:
            run = AnimateRun(resolved, model, ready, controls, made, how, progress, unfinished, workers)
            return run.clip(task.notes(model))
    except BaseException:
        if not any(unfinished.folder.glob("*.safetensors")):
            unfinished.remove_if_empty()
        raise


def _key(task: Animate, plan: AnimatePlan, model: LatentDiffusion, execution: Execution) -> str:
    """A hash of everything that the frames depend on; where files lie is not among it."""
    fields = json.dumps(asdict(task), sort_keys=True)
    for name, sha256 in plan.files.items():
        fields = fields.replace(json.dumps(name)[1:-1], sha256)
    told = [fields, plan.networks, asdict(ModelRecord.of(model)) | {"name": ""}, asdict(execution), versions()]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@dataclass
class AnimateRun:
    """One run: what is done already is taken from disk, and each frame is there as soon as it is finished.

    Args:
        task: with nothing left open.
        model: as it was given.
        ready: as it is run, with its controls.
        controls: what frames are drawn after.
        plan: what it is made of.
        execution: batches and threads.
        progress: told of every step.
        unfinished: where what is done is kept.
        workers: processes that share it.
    """

    task: Animate
    model: LatentDiffusion
    ready: LatentDiffusion
    controls: Controls
    plan: AnimatePlan
    execution: Execution
    progress: Progress
    unfinished: Unfinished
    workers: int = 1

    def clip(self, notes: tuple[str, ...]) -> Clip:
        """The finished clip.

        Raises:
            InterruptedRunError: on Ctrl-C, or as memory ran out.
        """
        size = self.task.sampling.size
        assert size is not None
        frames, maker = KeptFrames(self.unfinished, size), self._maker()
        try:
            if len(frames) < self.task.frames:
                for pictures in maker.pictures(len(frames)):
                    frames.spool.append(pictures)
                    self.progress("decoding", len(frames), self.task.frames)
        except KeyboardInterrupt:
            raise InterruptedRunError(self._ended("interrupted", frames)) from None
        except ExhaustedError as error:
            raise ExhaustedRunError(self._ended(str(error), frames)) from None
        record = Record.of(self.task.name, self.task, self.plan, self.model, self.execution, maker.scores, notes=notes)
        return Clip(frames, float(self.task.fps or 1), provenance=Provenance(record.to_dict()))

    def _maker(self) -> Maker:
        if self.task.long.long == "keys":
            folder = self.unfinished.folder
            record = Record.of(self.task.name, self.task, self.plan, self.model, self.execution, {})
            with_others = helped(folder, record, self.workers)
            return Keys(self.task, self.ready, self.execution, folder, self.progress, with_others)
        if self.task.long.long == "parts":
            return Parts(self.task, self.ready, self.execution, self.unfinished.folder, self.progress)
        if self.task.movement.engine == "zero-shot":
            return ZeroShot(self.task, self.ready, self.controls, self.execution, self.unfinished.folder, self.progress)
        return Joint(self.task, self.ready, self.execution, self.unfinished.folder, self.progress)

    def _ended(self, why: str, frames: KeptFrames) -> str:
        kept = any(self.unfinished.folder.glob("*.safetensors")) and self.unfinished.lasting
        again = f"; the same command goes on from there ({self.unfinished.folder})" if kept else ""
        return f"{why}; {len(frames)} of {self.task.frames} frames are finished{again}"
