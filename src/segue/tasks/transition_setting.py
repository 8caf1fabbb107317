"""What a resolved transition means for one model: its keys, the pictures among them, and who runs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import find_solver
from segue.tasks.frames import Developer
from segue.tasks.key_pictures import KeyPicture, key_pictures, unchanged
from segue.tasks.masks import Kept, shown_to
from segue.tasks.sampling import Execution, Resolved
from segue.tasks.transition import Transition
from segue.tasks.transition_plan import TransitionPlan
from segue.temporal.alignment import Alignment
from segue.temporal.clock import Clock
from segue.temporal.curve import Curve, Value
from segue.temporal.given import Givens, inverted
from segue.temporal.grow import Grower
from segue.temporal.keys import Along, Keys
from segue.temporal.mask import pooled
from segue.temporal.trajectory import Trajectory
from segue.types import Progress, Solver

if TYPE_CHECKING:
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion


@dataclass(frozen=True)
class Setting:
    """A resolved transition on a model that is ready to run.

    Args:
        task: with nothing left open.
        model: as it is run.
        settings: its steps, guidance, solver and size.
        execution: batches and threads.
        clock: what frames and beats are in seconds.
        developer: is told which pictures are shown as they are.
        progress: told of every step.
        plan: to replay, whose files must be those of the task; None to decide anew.
    """

    task: Transition
    model: LatentDiffusion
    settings: Resolved
    execution: Execution
    clock: Clock
    developer: Developer
    progress: Progress
    plan: TransitionPlan | None = None

    def grower(self, alignment: Alignment) -> Grower:
        """Runs the tree of the film; the developer then shows what is given or kept.

        Raises:
            TaskError: a file is not the one that the plan was made with.
        """
        task, model, settings = self.task, self.model, self.settings
        changes = self._changes(settings.size)
        schedule = model.schedule(settings.steps, settings.size, solver=settings.solver)
        keys, solver = self._keys(settings.size, changes), find_solver(settings.solver).solver
        grower = Grower(
            denoiser=model.denoiser,
            schedule=schedule,
            solver=solver,
            keys=keys,
            shape=settings.latent_shape(model),
            device=model.device,
            batch=self._rows_at_once(),
            from_parents=task.tree.feed("crossfeed"),
            from_first=task.tree.feed("first_crossfeed"),
            givens=self._givens(schedule, solver, keys),
            alignment=alignment,
            whole=task.tree.ghosting is not None,
            same={place: key for place, key in enumerate(task.stops) if place != key},
            # An inpainting model keeps the outside by itself: it is shown the picture.
            mask=None if changes is None or model.inpaints else pooled(changes, model.codec.scale),
            timing=task.area.schedule(settings.size, model.codec.scale),
        )
        if changes is not None:
            self.developer.kept = Kept(changes, lambda: self._source(grower))
        return grower

    def along(self, value: Value) -> Along:
        """A curve over the film, at positions of the tree. When a branch will be shown is known only once it has been
        measured; until then the keys count as evenly spread over the film's seconds."""
        track, last = Curve.of(value).on(self.clock), len(self.task.stops) - 1
        seconds = self.task.seconds / (2 if self.task.pace.loop == "pingpong" else 1)
        return lambda position: track.at(position / last * seconds)

    def pictures(self) -> dict[int, KeyPicture]:
        """The keys that are given, by number."""
        return key_pictures(self.task.key_image, len(self.task.prompts))

    def _rows_at_once(self) -> int:
        """Pictures whose network rows fit into one call: each takes two where there is guidance."""
        unguided = set(self.task.sampling.guidance_scale) == {1.0} and self.task.tree.damper == 1.0
        return max(1, self.execution.max_batch // (1 if unguided else 2))

    def _changes(self, size: tuple[int, int]) -> Tensor | None:
        """The mask in pixels, of a file that is the one that a plan was made with."""
        if self.plan is not None:
            self.task.area.check_unchanged(self.plan.area)
        return self.task.area.changes(size)

    def _source(self, grower: Grower) -> Tensor:
        """The picture of the first key, which is what a mask keeps."""
        if 0 in self.developer.given:
            return self.developer.given[0]
        return self.model.codec.decode(grower.final(0)[None])[0].float().cpu()

    def _keys(self, size: tuple[int, int], changes: Tensor | None) -> Keys:
        model, count, stops = self.model, len(self.task.prompts), self.task.stops
        # All texts are encoded together: rows can be mixed only if they have one length.
        texts = model.text([*self.task.prompts, *self.task.negative])
        first = self.pictures().get(0)
        texts = shown_to(model, texts, first.load(size) if first else None, changes)
        positive, negative = texts[stops], texts[[count + key for key in stops]]
        given, damper = self.task.sampling.guidance_scale, self.task.tree.damper
        return Keys(
            positive,
            negative,
            self.along(given[0]) if isinstance(given[0], str) else tuple(float(given[key]) for key in stops),
            tuple(self.task.seeds[key] for key in stops),
            self.along(damper) if isinstance(damper, str) else damper,
        )

    def _givens(self, schedule: Schedule, solver: Solver, keys: Keys) -> Givens | None:
        """The keys that are pictures, and what the film's pictures need so that these are shown as they are."""
        model, pictures = self.model, self.pictures()
        if not pictures:
            return None
        if self.plan is not None:
            unchanged(pictures, self.plan.pictures)
        trajectories: dict[int, Trajectory] = {}
        for key, picture in sorted(pictures.items()):
            shown = picture.load(self.settings.size)
            x0 = model.codec.encode(shown[None].to(model.device)).float()
            trajectories[key] = inverted(x0[0], model.denoiser, schedule, keys, key)
            self.progress("inverting pictures", len(trajectories), len(pictures))
            self.developer.given[key] = shown
            self.developer.lost[key] = shown - model.codec.decode(x0).float().cpu()[0]
        last = len(self.task.stops) - 1
        if self.task.stops[last] in pictures and last not in pictures:
            # A loop arrives at a picture as it left it.
            first = self.task.stops[last]
            trajectories[last], self.developer.lost[last] = trajectories[first], self.developer.lost[first]
        return Givens(trajectories, model.denoiser, schedule, solver, keys)
