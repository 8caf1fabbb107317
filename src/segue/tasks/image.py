"""One picture from one prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from segue.errors import TaskError
from segue.tasks.record import Record, lasting_name, notes_on
from segue.tasks.sampling import Execution, Resolved, Sampling, checked_prompt, checked_seeds
from segue.temporal.wording import Wording
from segue.types import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor

    from segue.diffusion.schedule import Schedule
    from segue.media.clip import Clip
    from segue.models.bundle import LatentDiffusion
    from segue.models.recorded import Recorded


@dataclass(frozen=True)
class NoPlan:
    """Nothing is decided while the task runs."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}


@dataclass(frozen=True)
class Image:
    """A picture from a prompt.

    Args:
        prompt: what is wanted; (words:1.3) are weighted.
        negative: what is not wanted.
        seed: of the starting noise.
        sampling: steps, guidance, solver and size.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}
    name: ClassVar[str] = "image"
    plan_type: ClassVar[type[NoPlan]] = NoPlan

    prompt: str
    negative: str = ""
    seed: int = 0
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        checked_prompt(self.prompt)
        for prompt in (self.prompt, self.negative):
            if curves := Wording.of(prompt).curves:
                raise TaskError(
                    f"a weight in the prompt of a picture is a number, since it has no time; got {curves[0]}"
                )
        checked_seeds([self.seed])

    def notes(self, model: LatentDiffusion) -> tuple[str, ...]:
        """What is good to know before it is run, a line each; the record of the result has the same."""
        return notes_on([self.prompt], model)

    def run(
        self,
        model: LatentDiffusion,
        execution: Execution | None = None,
        progress: Progress = silent,
        plan: NoPlan | None = None,
        trajectory: Path | None = None,
    ) -> Clip:
        """A clip of one frame.

        Args:
            model: makes the picture.
            execution: batches and threads.
            progress: told of every step.
            plan: of a picture that was made before; there is nothing in it.
            trajectory: a safetensors file to write the latents of every step to, which a transition can take as a key.

        Raises:
            TaskError: if the task does not fit the model.
            ScheduleError: for a solver or a number of steps that the model cannot take.
            DiskError: if the file of the trajectory cannot be written.
        """
        from segue.diffusion.guidance import classifier_free
        from segue.diffusion.loop import denoise
        from segue.diffusion.noise import NamedNoise
        from segue.diffusion.solvers import find_solver
        from segue.diffusion.starts import from_seeds
        from segue.media.clip import Clip, Provenance
        from segue.tasks.frames import DecodedFrames, Developer
        from segue.temporal.keys import ANY_KEY
        from segue.temporal.timeline import Shot

        execution = execution or Execution()
        settings = self.sampling.resolve(model, 1)
        with execution.applied(model) as ready:
            schedule = ready.schedule(settings.steps, settings.size, solver=settings.solver)
            ready.refuse_negative([self.negative])
            texts = ready.text([self.prompt, self.negative])
            scale, began = float(settings.guidance_scale[0]), settings.guidance_start
            cond = classifier_free(texts[[0]], texts[[1]], scale, start=began)
            start = from_seeds([self.seed], [ANY_KEY], schedule, settings.latent_shape(ready), ready.device)
            state, passed = start, list["Tensor"]()
            solver = find_solver(settings.solver).solver
            kick = NamedNoise(self.seed)
            for state in denoise(ready.denoiser, start, schedule, cond, solver=solver, kick=kick):
                progress("denoising", int(state.step[0]), len(schedule))
                if trajectory is not None:
                    passed.append(state.x[0].cpu())
            if trajectory is not None:
                self._recorded(model, settings, schedule, passed).save(trajectory)
            resolved = replace(self, sampling=settings.pinned())
            record = Record.of(self.name, resolved, plan or NoPlan(), model, execution, {}, notes=self.notes(model))
        frames = DecodedFrames(
            {0: state.x[0]}, {0: 0.0}, (Shot(0, 0),), Developer(model.codec), threads=execution.pinned().threads
        )
        return Clip(frames, fps=1, provenance=Provenance(record.to_dict()))

    def _recorded(
        self, model: LatentDiffusion, settings: Resolved, schedule: Schedule, latents: Sequence[Tensor]
    ) -> Recorded:
        import torch

        from segue.models.recorded import Origin, Recorded, levels

        origin = Origin(
            lasting_name(model),
            model.fingerprint,
            settings.solver,
            self.prompt,
            self.negative,
            float(settings.guidance_scale[0]),
            settings.guidance_start,
            self.seed,
        )
        return Recorded(torch.stack(list(latents)), *levels(schedule), origin)
