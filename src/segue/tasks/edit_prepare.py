"""What an edit is made with: the picture, the model, controls and masks; opened and found to fit before any work."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segue.errors import TaskError
from segue.media.pictures import simplified
from segue.models.instruction import refuse_others
from segue.models.inverted import InvertedLatents
from segue.tasks.edit import Edit
from segue.tasks.edit_latent import as_kept, check_noise, told_of
from segue.tasks.edit_masks import Masks
from segue.tasks.sampling import Execution
from segue.tasks.stylize_inputs import alone
from segue.tasks.stylize_outlook import steps_of
from segue.tasks.stylize_prepare import Prepared
from segue.zoo.load import load

if TYPE_CHECKING:
    from segue.models.bundle import LatentDiffusion


@dataclass(frozen=True)
class PreparedEdit(Prepared):
    """An edit that can be made; `task` is what it has in common with a film that is drawn anew.

    Args:
        edit: with nothing left open.
        masks: where it changes; None for everywhere.
        source_model: by which ddib goes into noise, if it is another one.
        noise: that ddib comes out of, if it is found already.
        save_latent: where the noise is written that ddib goes into, if anywhere.
    """

    edit: Edit = field(kw_only=True)
    masks: Masks | None = field(default=None, kw_only=True)
    source_model: LatentDiffusion | None = field(default=None, kw_only=True)
    noise: InvertedLatents | None = field(default=None, kw_only=True)
    save_latent: Path | None = field(default=None, kw_only=True)

    @staticmethod
    def opened(edit: Edit, model: LatentDiffusion) -> PreparedEdit:
        """Everything opened.

        Raises:
            TaskError: the picture, a mask or another file does not fit the task or the model; or the method the model.
            ModelError: there is no network for a control.
            MediaError: a file cannot be read.
        """
        check_model(edit, model)
        noise = None if edit.change.latent is None else InvertedLatents.read(Path(edit.change.latent).expanduser())
        if noise is not None:
            edit = as_kept(edit, noise, model)
        base = Prepared.of(edit.drawn(edit.frames), model)
        if noise is not None:
            check_noise(noise, base.task, model, len(base.clip))
        settled = edit.like(base.task)
        if edit.method == "instruct" and edit.change.picture_guidance is None:
            scale = model.defaults.picture_scale
            settled = replace(settled, change=replace(settled.change, picture_guidance=scale))
        masks = Masks.of(edit.area, base.clip, base.inputs.geometry) if edit.area.mask else None
        other = None if edit.change.source_model is None else _source_model(edit.change.source_model, model)
        inner: dict[str, Any] = {item.name: getattr(base, item.name) for item in fields(base)}
        return PreparedEdit(**inner, edit=settled, masks=masks, source_model=other, noise=noise)

    @property
    def asked(self) -> Edit:
        """What was asked for, as it is recorded."""
        return self.edit

    @property
    def networks(self) -> str:
        """A hash of the networks beside the model; "" if there are none."""
        own = super().networks
        return own if self.source_model is None else f"{own} {self.source_model.fingerprint}".strip()

    @property
    def notes(self) -> tuple[str, ...]:
        """What is good to know before the run, a line each."""
        one = alone(self.task, len(self.clip))
        masks = () if self.masks is None else self.masks.notes(self.edit.area)
        said = [*(note for note in super().notes if note != one), *simplified(self.edit.path), *masks]
        change, method = self.edit.change, self.edit.method
        if self.noise is not None:
            said.append(told_of(self.noise))
        elif method in ("cycle", "ddib") and not change.source_prompt:
            said.append(
                f"nothing says what the picture shows, which {method} goes by: --source-prompt keeps more of it"
            )
        if change.strength == 0:
            said.append("with a strength of 0 nothing changes")
        return tuple(said)

    def outlook(self, execution: Execution) -> tuple[str, ...]:
        """What it takes to make it, a line each."""
        more = self.more_evaluations
        said = [f"{self.edit.method} evaluates the network {more} times a frame besides"] if more else []
        return (*super().outlook(execution), *said)

    @property
    def more_evaluations(self) -> int:
        """How often the network is evaluated for a frame, besides as often as for one that is drawn anew."""
        change, steps = self.edit.change, steps_of(self.task)
        terms = 1 if change.source_guidance == 1 else 2
        if self.edit.method == "cycle":
            return steps * terms
        if self.edit.method == "ddib" and self.noise is None:
            # Each round asks once more at every step, and once where the way begins.
            rounds = change.rounds or 0
            return ((steps + 1 if change.exact else steps * (1 + rounds)) + rounds) * terms
        guided = self.task.sampling.guidance_scale != (1.0,)
        if self.edit.method == "instruct" and guided and change.picture_guidance != 1:
            start = self.task.sampling.guidance_start or 0.0
            return sum(step / steps >= start for step in range(steps))
        return 0


def check_model(edit: Edit, model: LatentDiffusion) -> None:
    """Find out whether a method goes with a model.

    Raises:
        TaskError: it does not.
    """
    if edit.method == "instruct":
        refuse_others(model)
    elif model.instructs:
        raise TaskError(
            f"{model.name} is a model that is told what to do with a picture: take --method instruct, or the model "
            "that it was made from"
        )
    if model.inpaints and edit.method != "inpaint":
        raise TaskError(
            f"{model.name} is an inpainting model, which fills in what a mask leaves open: take --method inpaint and a "
            f"mask, or, for {edit.method}, the model that it was made from"
        )


def _source_model(name: str, model: LatentDiffusion) -> LatentDiffusion:
    """The model that goes into noise.

    Raises:
        ModelError: there is none.
        TaskError: its latents are not those of the model that comes out.
    """
    found = load(name, device=str(model.device), dtype=str(model.dtype).removeprefix("torch."))
    own, other = ((one.codec.channels, one.codec.scale) for one in (model, found))
    if own != other:
        raise TaskError(
            f"latents of {name} have {other[0]} channels of {other[1]} pixels, and those of {model.name} {own[0]} of "
            f"{own[1]}: what one goes into noise by, the other cannot come out of; take models of one kind"
        )
    if found.inpaints or found.instructs or found.upscaling is not None:
        raise TaskError(f"{name} makes no pictures from words alone: take another model to go into noise by")
    return found
