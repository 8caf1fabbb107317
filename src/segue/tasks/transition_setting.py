"""What a resolved transition means for one model: its keys, the pictures among them, and who runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import find_solver
from segue.errors import TaskError
from segue.models.lora_rows import SCALES, RowScaledText
from segue.models.recorded import Origin
from segue.tasks.frames import Developer
from segue.tasks.key_pictures import KeyPicture, KeyTrajectory, key_pictures, unchanged
from segue.tasks.masks import Kept, shown_to
from segue.tasks.record import lasting_name
from segue.tasks.sampling import Execution, Resolved
from segue.tasks.transition import Transition
from segue.tasks.transition_plan import TransitionPlan
from segue.temporal.alignment import Alignment
from segue.temporal.blend import Blends
from segue.temporal.clock import Clock
from segue.temporal.curve import Curve, Value
from segue.temporal.given import Givens, inverted
from segue.temporal.grow import Grower
from segue.temporal.keys import Along, Keys
from segue.temporal.mask import pooled
from segue.temporal.plan import Planner
from segue.temporal.simplex import Route
from segue.temporal.told import Said, Told
from segue.temporal.trajectory import Trajectory
from segue.temporal.wording import Wording
from segue.types import Conditioning, Progress

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

    def grower(self, alignment: Alignment, planner: Planner) -> Grower:
        """Runs the tree of the film; the developer then shows what is given or kept.

        Args:
            alignment: how alike pictures are made.
            planner: knows where a mix of keys forks from them.

        Raises:
            TaskError: a file is not the one that the plan was made with, or the model has LoRAs whose scale changes,
                and pictures share attention.
        """
        task, model, settings = self.task, self.model, self.settings
        if model.lora_curves and alignment.attends:
            raise TaskError(
                "structure, shared_attention and interpolation let pictures answer in another order than the scales of "
                "LoRAs are told in: leave them out, or give each LoRA one scale"
            )
        changes = self._changes(settings.size)
        schedule = model.schedule(settings.steps, settings.size, solver=settings.solver)
        told, solver, route = self._keys(settings.size, changes), find_solver(settings.solver).solver, task.route
        given, followed = self._given(schedule, told)
        parts = Grower(
            denoiser=model.denoiser,
            schedule=schedule,
            solver=solver,
            keys=told,
            shape=settings.latent_shape(model),
            device=model.device,
            batch=self._rows_at_once(),
            from_first=task.tree.feed("first_crossfeed", lambda value: self._at_prompts(self.along(value))),
            givens=Givens(given, model.denoiser, schedule, solver, told, followed) if given else None,
            alignment=alignment,
            # An inpainting model keeps the outside by itself: it is shown the picture.
            mask=None if changes is None or model.inpaints else pooled(changes, model.codec.scale),
        )
        keys = self._on_film(told.along(route))
        places = {place: given[key] for place, key in route.corners.items() if key in given}
        taken = frozenset(place for place, key in route.corners.items() if key in followed)
        forks = {place: planner.first(float(place)) for place in route.blends}
        grower = replace(
            parts,
            trajectories={},
            keys=keys,
            from_parents=task.tree.feed("crossfeed", self.along),
            from_first=task.tree.feed("first_crossfeed", self.along),
            givens=Givens(places, model.denoiser, schedule, solver, keys, taken) if places else None,
            blends=Blends(parts, route, forks, alignment.mix) if forks else None,
            whole=task.tree.ghosting is not None,
            same=route.same,
            timing=task.area.schedule(settings.size, model.codec.scale),
        )
        if changes is not None:
            self.developer.kept = Kept(changes, lambda: self._source(grower))
        return grower

    def along(self, value: Value | Curve) -> Along:
        """A curve over the film, at positions of the tree. When a branch will be shown is known only once it has been
        measured; until then the keys count as evenly spread over the film's seconds."""
        track, last = Curve.of(value).on(self.clock), len(self.task.route) - 1
        seconds = self.task.seconds / (2 if self.task.pace.loop == "pingpong" else 1)
        return lambda position: track.at(position / last * seconds)

    def _at_prompts(self, along: Along) -> Along:
        """The same, told the number of a prompt instead of a position: where the film comes nearest to it."""
        return lambda key: along(self.task.route.nearest(round(key)))

    def pictures(self) -> dict[int, KeyPicture | KeyTrajectory]:
        """The files that keys are given by, by the number of the prompt."""
        return key_pictures(self.task.key_image, len(self.task.prompts))

    def _rows_at_once(self) -> int:
        """Pictures whose network rows fit into one call: each takes two where there is guidance."""
        if self.model.denoiser.embeds_guidance:
            return self.execution.max_batch
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
        """What the model is told at each prompt alone."""
        model, count, route = self.model, len(self.task.prompts), self.task.route
        model.refuse_negative(self.task.negative)
        # All texts are encoded together: rows can be mixed only if they have one length.
        texts = model.text([Wording.of(prompt).at_first for prompt in (*self.task.prompts, *self.task.negative)])
        first = self.pictures().get(0) if route.corner(0) == 0 else None
        texts = shown_to(model, texts, first.load(size) if isinstance(first, KeyPicture) else None, changes)
        positive, negative = texts[range(count)], texts[range(count, 2 * count)]
        given = self.task.sampling.guidance_scale
        if isinstance(given[0], str):
            scales = tuple(map(self._at_prompts(self.along(given[0])), map(float, range(count))))
        else:
            scales = tuple(map(float, given))
        told, words = self._told(Route.through(count), self._at_prompts), self.task.likeness.words
        began = self.task.sampling.guidance_start or 0.0
        return Keys(positive, negative, scales, self.task.seeds, told=told, words=words, guidance_start=began)

    def _on_film(self, keys: Keys) -> Keys:
        """These keys, with what changes along the film."""
        given, damper = self.task.sampling.guidance_scale[0], self.task.tree.damper
        scales = self.along(given) if isinstance(given, str) else keys.guidance_scale
        dampers = self.along(damper) if isinstance(damper, str) else damper
        told = self._told(self.task.route, lambda along: along)
        return replace(keys, guidance_scale=scales, damper=dampers, told=told)

    def _told(self, route: Route, seen: Callable[[Along], Along]) -> Told | None:
        """What changes over the film besides the mix of texts.

        Args:
            route: what is mixed at each place.
            seen: makes numbers at places of it from those at positions of the film.
        """
        text, scales = self.model.text, tuple(seen(self.along(curve)) for curve in self.model.lora_curves)
        wordings = [Wording.of(prompt) for prompt in (*self.task.prompts, *self.task.negative)]
        encoded = isinstance(text, RowScaledText)
        anew = encoded or any(wording.curves for wording in wordings)
        if not anew and not scales:
            return None

        def encode(prompts: Sequence[str], values: Sequence[float]) -> Conditioning:
            return text.at(prompts, values) if isinstance(text, RowScaledText) else text(prompts)

        said = tuple(self._said(wording, seen) for wording in wordings) if anew else ()
        middle = len(said) // 2
        words = self.task.likeness.words
        return Told(route.shares_at, said[:middle], said[middle:], encode, scales, SCALES, encoded, words)

    def _said(self, wording: Wording, seen: Callable[[Along], Along]) -> Said:
        weights = [seen(self.along(curve)) for curve in wording.curves]
        return lambda place: wording.said([weight(place) for weight in weights])

    def _given(self, schedule: Schedule, keys: Keys) -> tuple[dict[int, Trajectory], frozenset[int]]:
        """The trajectories of keys that are files, and which of them the model takes by itself."""
        files = self.pictures()
        if self.plan is not None:
            unchanged(files, self.plan.pictures)
        trajectories, followed = dict[int, Trajectory](), set[int]()
        for key, file in sorted(files.items()):
            if isinstance(file, KeyPicture):
                trajectories[key] = self._inverted(key, file, schedule, keys)
                self.progress("inverting pictures", len(trajectories), len(files))
                continue
            told = self._origin(key, keys)
            run = file.load(told, schedule, self.settings.latent_shape(self.model))
            trajectories[key] = Trajectory(dict(enumerate(run.latents.to(self.model.device))))
            if replace(run.origin, model=told.model) == told:
                followed.add(key)
        return trajectories, frozenset(followed)

    def _inverted(self, key: int, picture: KeyPicture, schedule: Schedule, keys: Keys) -> Trajectory:
        """The trajectory of a picture; the developer is told what it needs to show it as it is."""
        model, shown = self.model, picture.load(self.settings.size)
        x0 = model.codec.encode(shown[None].to(model.device)).float()
        lost = shown - model.codec.decode(x0).float().cpu()[0]
        for place in (place for place, corner in self.task.route.corners.items() if corner == key):
            self.developer.given[place], self.developer.lost[place] = shown, lost
        return inverted(x0[0], model.denoiser, schedule, keys, key)

    def _origin(self, key: int, keys: Keys) -> Origin:
        """What a run of a key is of."""
        return Origin(
            lasting_name(self.model),
            self.model.fingerprint,
            self.settings.solver,
            self.task.prompts[key],
            self.task.negative[key],
            float(keys.guidance_at([float(key)])),
            keys.guidance_start,
            self.task.seeds[key],
        )
