"""A part of a film edited, in one loop: as films are drawn anew, but for where a method begins and what pushes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from segue.diffusion.loop import denoise
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import find_solver
from segue.diffusion.starts import renoise
from segue.media.strokes import strokes
from segue.models.inverted import InvertedLatents
from segue.models.paused import resumed
from segue.tasks.edit_latent import in_one, noise_of, part_of
from segue.tasks.edit_prepare import PreparedEdit
from segue.tasks.edit_told import EditTelling
from segue.tasks.stylize_draw import CLIP, Drawing
from segue.temporal.cycle import Encoding, encoded, eta_solver
from segue.temporal.inversion import Inversion, exactly_inverted, inverted
from segue.temporal.kept_area import KeptArea, NoisedWay, Way
from segue.temporal.moved_noise import PlacedKick
from segue.types import Denoiser, Guided, Kick, Operator, RowId, Solver, State

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion

INTO_NOISE = "going into noise"


@dataclass
class EditDrawing(Drawing):
    """Edits parts of a film.

    Args:
        prepared: the edit, and all that it takes.
        told: `telling`, known to be that of an edit.
        source_model: that ddib goes into noise by, ready to run; None for the model itself.
    """

    prepared: PreparedEdit = field(kw_only=True)
    told: EditTelling = field(kw_only=True)
    source_model: LatentDiffusion | None = field(default=None, kw_only=True)
    _ways: dict[int, Encoding | Inversion] = field(default_factory=dict[int, "Encoding | Inversion"], init=False)
    _passed: Tensor | None = field(default=None, init=False)
    _pass: int = field(default=0, init=False)

    def __call__(self, number: int) -> Float[Tensor, "t c h w"]:
        """The latents of a part, edited, or as they were kept."""
        part = range(*self.plan.parts[number])
        self.recall(number)
        if not self._is_whole(number) and self.prepared.edit.method in ("cycle", "ddib"):
            self._ways[part.start] = self._way(part, number)
            if self.prepared.save_latent is not None:
                self._keep(part, number)
        for one in range(self._done_passes(number), self.passes):
            self._pass = one
            self._passed = super().__call__(number)
        self._ways.pop(part.start, None)
        for one in range(self.passes - 1):
            self._path(number, one).unlink(missing_ok=True)
        assert self._passed is not None
        return self._passed

    def found_noise(self) -> InvertedLatents:
        """The noise that ddib goes into, of all frames."""
        found: list[tuple[range, InvertedLatents]] = []
        for number, (first, stop) in enumerate(self.plan.parts):
            if not self._noise_path(number).exists():
                self.recall(number)
                self._ways[first] = self._way(range(first, stop), number)
                self._keep(range(first, stop), number)
                del self._ways[first]
            found.append((range(first, stop), InvertedLatents.read(self._noise_path(number))))
        return in_one(found)

    def _keep(self, part: range, number: int) -> None:
        """The noise of a part, for a run that goes on."""
        way, change = self._ways[part.start], self.prepared.edit.change
        assert isinstance(way, Inversion)
        noise_of(way, self.schedule, self.source_model or self.model, change).save(self._noise_path(number))

    def _noise_path(self, number: int) -> Path:
        return self.folder / f"noise-{number:04d}.safetensors"

    @property
    def passes(self) -> int:
        """How often all of it is run."""
        return self.prepared.edit.change.passes or 1

    @cached_property
    def schedule(self) -> Schedule:
        """Of the whole run."""
        return self._joined(super().schedule)

    @cached_property
    def first(self) -> int:
        """The first step that is run."""
        return len(self.schedule) if self.prepared.edit.change.strength == 0 else super().first

    def path(self, number: int) -> Path:
        """Where the state of a part is kept."""
        return self._path(number, self._pass)

    def tell(self, number: int, step: int) -> None:
        """So many steps of a part are done."""
        if self.steps:
            super().tell(number, step)

    def _path(self, number: int, one: int) -> Path:
        """Of a pass; the last one has the part's own name."""
        more = "" if one + 1 == self.passes else f"-pass-{one}"
        return self.folder / f"part-{number:04d}{more}.safetensors"

    def _done_passes(self, number: int) -> int:
        """How many passes need not be begun again: a later one is there, or one is whole."""
        begun = [one for one in range(self.passes) if self._path(number, one).exists()]
        return max(begun, default=0)

    def _is_whole(self, number: int) -> bool:
        rows = [RowId(CLIP, frame) for frame in range(*self.plan.parts[number])]
        kept = resumed(self._path(number, self.passes - 1), rows, self.shape, self.model.device)
        return kept is not None and int(kept[0].step[0]) == len(self.schedule)

    def _begun(self, part: range, number: int) -> State:
        rows = tuple(RowId(CLIP, frame) for frame in part)
        if self._pass:
            assert self._passed is not None
            whole = torch.full((len(rows),), len(self.schedule))
            return renoise(State(self._passed, whole, rows), self.schedule, self.first, self.noise(part, self._pass))
        if part.start in self._ways:
            return self._ways[part.start].state
        if self.first == len(self.schedule):
            return State(self.encoded(part), torch.full((len(rows),), self.first), rows)
        return super()._begun(part, number)

    def _states(self, denoiser: Denoiser, state: State, cond: Guided, part: range) -> Iterator[State]:
        solver, kick = self.stepping(part)
        operators = [*self._operators(part), *self._kept(part)]
        return denoise(denoiser, state, self.schedule, cond, solver=solver, operators=operators, kick=kick)

    @property
    def _solver(self) -> Solver:
        eta, name = self.prepared.edit.change.eta, self.task.sampling.solver or "ddim"
        return eta_solver(eta) if eta and name == "ddim" else find_solver(name).solver

    def stepping(self, part: range) -> tuple[Solver, Kick]:
        """What takes the steps of a part, and what pushes them."""
        way = self._ways.get(part.start)
        if way is not None:
            return way.solver, way.kick
        more = f" of pass {self._pass}" if self._pass else ""
        return self._solver, PlacedKick(self.placed, self.task.seed, CLIP, f"kick{more}")

    def encoded(self, part: range) -> Float[Tensor, "t c h w"]:
        """Latents of where frames begin: as they are, or painted over in strokes."""
        colours = self.prepared.edit.change.strokes
        if colours is None:
            return super().encoded(part)
        painted = (strokes(self.source[frame : frame + 1][0], colours=colours)[None] for frame in part)
        return torch.cat([self.model.codec.encode(picture).float().to(self.model.device) for picture in painted])

    def noise(self, part: range, one: int = 0) -> Float[Tensor, "t c h w"]:
        """Where a pass starts."""
        started = self.placed[part.start : part.stop].start(self.task.seed + one, self.shape[0], CLIP)
        return started.to(self.model.device)

    def _way(self, part: range, number: int) -> Encoding | Inversion:
        """The way into noise, from which a run comes back."""
        rows, change = [RowId(CLIP, frame) for frame in part], self.prepared.edit.change
        if self.prepared.noise is not None:
            return part_of(self.prepared.noise, rows, self.model.device)
        strength = change.strength or 1.0
        back = exactly_inverted if change.exact else inverted
        if (other := self.source_model) is not None:
            schedule = other.schedule(len(self.schedule), self.source.size, solver=self.task.sampling.solver)
            told = self.told.told_of_source(part, other)
            latents = torch.cat([other.codec.encode(self.source[one : one + 1]).float() for one in part])
            return back(
                other.denoiser, latents.to(other.device), self._joined(schedule), told, rows,
                strength=strength, rounds=change.rounds or 0, progress=self._tell_way,
            )  # fmt: skip
        told, latents = self.told.told_of_source(part), self.encoded(part)
        with self.looking.during(rows, number, records=False) as denoiser:
            if self.prepared.edit.method == "ddib":
                return back(
                    denoiser, latents, self.schedule, told, rows,
                    strength=strength, rounds=change.rounds or 0, progress=self._tell_way,
                )  # fmt: skip
            posterior: Kick = PlacedKick(self.placed, self.task.seed, CLIP, "posterior")
            return encoded(
                denoiser, latents, self.schedule, told, rows,
                noise=self.noise(part), strength=strength, solver=self._solver, kick=posterior,
                operators=self._operators(part), progress=self._tell_way,
            )  # fmt: skip

    def _joined(self, schedule: Schedule) -> Schedule:
        """As an exact way back needs it."""
        kept = self.prepared.noise
        exact = self.prepared.edit.change.exact if kept is None else kept.origin.exact
        return schedule.joined() if exact else schedule

    def _tell_way(self, what: str, done: float, total: float) -> None:
        self.progress(INTO_NOISE, done, total)

    def _kept(self, part: range) -> list[Operator]:
        """What keeps the area outside a mask as it is. Models that are shown a mask keep it by themselves."""
        masks = self.prepared.masks
        if masks is None or self.model.inpaints or not self.steps:
            return []
        rows = tuple(RowId(CLIP, frame) for frame in part)
        way: Way | None = self._ways.get(part.start)
        if way is None or self.source_model is not None or self.prepared.noise is not None:
            way = NoisedWay(super().encoded(part), self.noise(part), self.schedule, rows)
        return [KeptArea(masks.latents(part, self.model.codec.scale), way, self.first)]
