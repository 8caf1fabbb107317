"""Making an edit: part after part, as films are drawn anew, and what is kept put back in the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from segue.media.clip import Clip
from segue.media.spool import Spool
from segue.models.freeu import freed
from segue.tasks.edit import EditPlan
from segue.tasks.edit_candidates import chosen_seed
from segue.tasks.edit_draw import EditDrawing
from segue.tasks.edit_masks import KeptPixels
from segue.tasks.edit_prepare import PreparedEdit
from segue.tasks.edit_strength import found_strength
from segue.tasks.edit_told import EditTelling
from segue.tasks.sampling import Execution
from segue.tasks.stylize import Stylize
from segue.tasks.stylize_draw import Drawing
from segue.tasks.stylize_look import Looking
from segue.tasks.stylize_run import StylizeRun, stylized
from segue.tasks.unfinished import KeptFrames
from segue.types import Progress

if TYPE_CHECKING:
    from segue.models.bundle import LatentDiffusion


def edited(
    prepared: PreparedEdit,
    execution: Execution,
    progress: Progress,
    plan: EditPlan | None,
    work: Path | None,
    save_latent: Path | None,
) -> Clip:
    """What `Edit.run` says."""
    if save_latent is not None:
        prepared = replace(prepared, save_latent=save_latent)
    return stylized(prepared, execution, progress, plan, work, None, EditRun)


@dataclass
class EditRun(StylizeRun):
    """One run of an edit; see `StylizeRun`."""

    @property
    def edit(self) -> PreparedEdit:
        """The edit, and all that it takes."""
        assert isinstance(self.prepared, PreparedEdit)
        return self.prepared

    def clip(self) -> Clip:
        """The changed picture or film; see `StylizeRun.clip`."""
        with freed(self.ready, self.edit.edit.freeu):
            return super().clip()

    def _make(self, frames: KeptFrames) -> None:
        super()._make(frames)
        if self.edit.save_latent is not None:
            assert isinstance(self.drawing, EditDrawing)
            self.drawing.found_noise().save(self.edit.save_latent)

    def _drawn_by(self, source: Spool, pictures: Mapping[str, Spool], looking: Looking) -> Drawing:
        telling = EditTelling(self.edit, self.ready, pictures, made=self.edit, film=source)
        drawing = EditDrawing(
            self.task, self.ready, source, telling, looking, self.plan, self.folder, self.progress,
            prepared=self.edit, told=telling, source_model=self._source_model,
        )  # fmt: skip
        if self.edit.masks is not None:
            shots = self.plan.shots[1:]
            self.edit.masks.carry(lambda: drawing.fields(source, shots), self.folder / "masks")
        change = self.edit.edit.change
        if change.faithful is not None:
            drawing = replace(drawing, task=self._near(drawing, change.faithful))
        if change.candidates is not None and change.ranked_by is not None:
            drawing = replace(drawing, task=self._best(drawing, change.candidates, change.ranked_by), plan=self.plan)
        return drawing

    def _near(self, drawing: EditDrawing, faithful: str) -> Stylize:
        """The task with the strength that keeps frames so near."""
        assert isinstance(self.plan, EditPlan)
        strength = self.plan.strength
        if strength is None:
            found = found_strength(drawing, faithful, self.folder / "strength.json")
            strength = found.value
            self.plan = replace(self.plan, strength=strength, tried=found.evaluations)
        task = replace(self.task, beginning=replace(self.task.beginning, strength=strength))
        self.prepared = replace(self.edit, task=task)
        return task

    def _best(self, drawing: EditDrawing, count: int, by: str) -> Stylize:
        """The task with the seed of the best candidate."""
        assert isinstance(self.plan, EditPlan)
        seed = self.plan.seed
        if seed is None:
            found = chosen_seed(drawing, count, by, self.folder / "seed.json")
            seed = found.value
            self.plan = replace(self.plan, seed=seed, tried=found.evaluations)
        task = replace(self.task, seed=seed)
        self.prepared = replace(self.edit, task=task)
        return task

    @property
    def _source_model(self) -> LatentDiffusion | None:
        model, how = self.edit.source_model, self.execution
        return model and model.batched(how.max_batch, deterministic=how.deterministic_batch)

    def _clip(self, frames: KeptFrames, complete: bool = True) -> Clip:
        clip, masks = super()._clip(frames, complete), self.edit.masks
        if masks is None and self.edit.edit.change.strength != 0:
            return clip
        kept = KeptPixels(clip.frames, self.inputs.film.frames, masks, self.inputs.geometry)
        return replace(clip, frames=kept)

    def _evaluations(self) -> int | None:
        assert isinstance(self.plan, EditPlan)
        drawn = super()._evaluations() or 0
        frames = sum(stop - first for first, stop in self.plan.parts)
        passes = self.edit.edit.change.passes or 1
        if self.edit.edit.change.strength == 0:
            return 0
        return drawn * passes + self.edit.more_evaluations * frames + self.plan.tried
