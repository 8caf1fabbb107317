"""What a film is drawn with: the model and its controls, opened and found to fit each other before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segue.errors import MediaError, MissingExtraError, ModelError, TaskError
from segue.media.clip import Clip
from segue.media.reader import read
from segue.media.resize import fit
from segue.models.annotate import Annotator, find_annotator
from segue.models.annotate.kinds import NETWORKED
from segue.models.control import Control, controlled
from segue.models.ip_adapter import IpAdapter, shown
from segue.models.ip_adapter_files import load_ip_adapter
from segue.motion.keypoints import smoothed
from segue.tasks.sampling import Execution
from segue.tasks.stylize import Stylize
from segue.tasks.stylize_controls import OF_LOOKS, Wanted
from segue.tasks.stylize_geometry import Geometry
from segue.tasks.stylize_inputs import Inputs
from segue.tasks.stylize_outlook import outlook, steps_of
from segue.types import Frames, Progress
from segue.zoo.load import load_control

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion

OF_THE_WHOLE = ("depth", "pose")
"""Kinds that are found in frames as large as they are; all others are drawn in the size that the model draws."""


@dataclass(frozen=True)
class Repeated:
    """One picture for all frames."""

    picture: Frames
    count: int

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.picture.size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        return self.picture[0:1].expand(len(range(self.count)[window]), -1, -1, -1)


@dataclass(frozen=True)
class Steering:
    """A control, with all that it takes.

    Args:
        name: in the conditioning.
        wanted: as it was asked for.
        control: as the model takes it.
        annotator: makes its pictures; None where they are given.
    """

    name: str
    wanted: Wanted
    control: Control
    annotator: Annotator | None

    @property
    def of_references(self) -> Annotator | None:
        """Makes its pictures of references; None where those of the film are given, and a network would be needed."""
        if self.annotator is None and self.wanted.kind not in NETWORKED:
            return find_annotator(self.wanted.kind)
        return self.annotator

    def pictures(self, frames: Frames, geometry: Geometry, progress: Progress) -> Frames:
        """Control pictures of frames, in the size that is drawn."""
        if self.annotator is None:
            return geometry.shown(frames)
        if self.wanted.kind in OF_THE_WHOLE:
            return geometry.shown(self.annotator.over(frames, progress=progress))
        # The edges of black bars are none of the film's.
        inner = fit(frames, geometry.inner, "stretch") if geometry.how == "pad" else geometry.shown(frames)
        return fit(self.annotator.over(inner, progress=progress), geometry.drawn, geometry.how)


@dataclass(frozen=True)
class Prepared:
    """A film that can be drawn.

    Args:
        task: with nothing left open.
        model: as it was given.
        steered: the same with its controls.
        clip: the film.
        inputs: what it is drawn from.
        controls: what it is drawn after.
        left_out: what is good to know about those that are not there, a line each.
        adapter: shows the network the references; None if it does not look at them so.
        preset: that filled in what was left open.
    """

    task: Stylize
    model: LatentDiffusion
    steered: LatentDiffusion
    clip: Clip
    inputs: Inputs
    controls: tuple[Steering, ...]
    left_out: tuple[str, ...] = ()
    adapter: IpAdapter | None = None
    preset: str | None = None

    @staticmethod
    def of(task: Stylize, model: LatentDiffusion) -> Prepared:
        """Everything opened.

        Raises:
            TaskError: the film, or another file, does not fit the task or the model.
            ModelError: there is no network for a control.
            MediaError: a file cannot be read.
        """
        clip = task.source()
        preset = task.filled_in()
        for name in preset.others:
            if not Path(name).expanduser().exists():
                raise MediaError(f"{name}: there is no such file")
        for wanted in preset.controls:
            _read_source(wanted, wanted.source, clip)
        there, left_out = available(preset.controls, model)
        settled = replace(task, control=tuple(one.wanted.spelled for one in there) or ("off",))
        settled = settled.resolved(model, clip.size)
        steered = controlled(model, [one.control for one in there]) if there else model
        adapter, pictures = None, settled.references
        if pictures.ip_adapter is not None:
            adapter = load_ip_adapter(pictures.ip_adapter, model)
            steered = shown(steered, adapter, pictures.image_scale or 1.0)
        inputs = Inputs.of(settled, clip)
        prepared = Prepared(settled, model, steered, clip, inputs, tuple(there), tuple(left_out), adapter, task.preset)
        for one in there:
            prepared.source_of(one)
        _ = prepared.references
        return prepared

    def outlook(self, execution: Execution) -> tuple[str, ...]:
        """What was decided of what was left open, and what it takes to draw the film, a line each.

        A record has none of it: there, nothing is open.
        """
        found = outlook(self.task, self.steered, len(self.clip), len(self.controls), execution)
        return (
            *([f"the preset {self.preset} fills in what was left out"] if self.preset else ()),
            *self.left_out,
            *found,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What is good to know before the run, a line each."""
        said = [(self._fitted_note(one), self._idle_note(one)) for one in self.controls]
        controls = [note for pair in said for note in pair if note]
        pictures = [note for name in self.task.references.reference if (note := self._picture_note(name))]
        return (*self.inputs.notes, *controls, *pictures, *self.task.notes(self.model))

    @property
    def asked(self) -> Any:
        """What was asked for, as it is recorded: a task with nothing left open."""
        return self.task

    @property
    def networks(self) -> str:
        """A hash of the networks beside the model; "" if there are none."""
        return self.steered.fingerprint if self.controls or self.adapter else ""

    @cached_property
    def references(self) -> tuple[Float[Tensor, "3 h w"], ...]:
        """Reference pictures, cut to the proportions that are drawn."""
        size, found = self.inputs.geometry.drawn, list["Tensor"]()
        for name in self.task.references.reference:
            picture = read(Path(name).expanduser())
            if len(picture) != 1:
                raise TaskError(f"a reference is one picture, and {name} has {len(picture)} frames: save one of them")
            found.append(fit(picture.frames, size, "crop")[0:1][0])
        return tuple(found)

    def source_of(self, steering: Steering) -> Clip:
        """What a control's pictures are made of.

        Raises:
            TaskError: it has neither one frame nor as many as the film.
        """
        return _read_source(steering.wanted, self._source_name(steering.wanted), self.clip)

    def pictures(self, steering: Steering, progress: Progress) -> Frames:
        """The control pictures of all frames, made when they are asked for."""
        own, geometry = self.source_of(steering), self.inputs.geometry
        made = steering.pictures(own.frames, replace(geometry, source=own.size), progress)
        return made if len(own) == len(self.clip) else Repeated(made, len(self.clip))

    def named(self, steering: Steering) -> str:
        """What a control's pictures are made of, for messages."""
        return self._source_name(steering.wanted) or self.task.input

    def _source_name(self, wanted: Wanted) -> str | None:
        pictures = self.task.references.reference
        return pictures[0] if wanted.source is None and wanted.kind in OF_LOOKS and pictures else wanted.source

    def _idle_note(self, steering: Steering) -> str:
        """Of a control that acts in none of the steps that are run."""
        steps, wanted = self.task.sampling.steps or 1, steering.wanted
        run = range(steps - steps_of(self.task), steps)
        if any(step / steps >= wanted.start and (step + 1) / steps <= wanted.stop for step in run):
            return ""
        return (
            f"control {steering.name} has no effect: of steps 0 to {steps - 1}, {run.start} to {run.stop - 1} are run, "
            f"and none of them lies in its part of the run, {wanted.start:g} to {wanted.stop:g}"
        )

    def _fitted_note(self, steering: Steering) -> str:
        name, own = self._source_name(steering.wanted), self.source_of(steering)
        said = ""
        if name is not None and len(own) == 1 < len(self.clip):
            said = f"control {steering.name} shows {name} to all frames"
        if name is not None and abs(own.size[0] * self.clip.size[1] - own.size[1] * self.clip.size[0]) > max(own.size):
            size, how = "{}x{}".format(*own.size), self.inputs.geometry.how
            said = f"{said or f'control {steering.name} follows {name}'}, of {size} pixels, made to fit ({how})"
        return said

    def _picture_note(self, name: str) -> str:
        size, drawn = read(Path(name).expanduser()).size, self.inputs.geometry.drawn
        if abs(size[0] * drawn[1] - size[1] * drawn[0]) <= max(size):
            return ""
        return f"the reference {name} of {size[0]}x{size[1]} pixels is cut to the proportions of {drawn[0]}x{drawn[1]}"


def _read_source(wanted: Wanted, name: str | None, clip: Clip) -> Clip:
    if name is None:
        return clip
    own = read(Path(name).expanduser())
    if len(own) not in (1, len(clip)):
        raise TaskError(
            f"control {wanted.kind} is to follow {name}, which has {len(own)} frames, and the film has {len(clip)}: "
            "cut them to the same frames, at the same rate, or give one picture for all"
        )
    return own


def _annotator(kind: str, model: LatentDiffusion) -> Annotator:
    if kind == "pose":
        return find_annotator(kind, device=model.device, steady=smoothed)
    return find_annotator(kind, device=model.device if kind == "depth" else None)


def available(asked: Sequence[Wanted], model: LatentDiffusion) -> tuple[list[Steering], list[str]]:
    """Controls with their networks, and a line for each that may be left out and is.

    Raises:
        TaskError: this machine has no annotator for one.
        ModelError: the model has no network for one.
    """
    found, left_out = list[Steering](), list[str]()
    for wanted in asked:
        same = sum(one.wanted.kind == wanted.kind for one in found)
        name = wanted.kind if not same else f"{wanted.kind}-{same + 1}"
        try:
            network = load_control(wanted.network or wanted.kind, model, wanted.kind)
            annotator = None if wanted.ready else _annotator(wanted.kind, model)
            control = Control(name, network, wanted.scale, wanted.start, wanted.stop)
        except (TaskError, ModelError, MissingExtraError) as error:
            if not wanted.optional:
                raise
            left_out.append(f"without the control {wanted.kind}: {error}")
            continue
        found.append(Steering(name, replace(wanted, optional=False), control, annotator))
    return found, left_out
