"""What the network is told of a picture that is edited: words, controls, and the picture itself where it takes it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from segue.diffusion.guidance import classifier_free, instructed
from segue.models.inpainting import inpainting
from segue.models.instruction import shown
from segue.tasks.edit_prepare import PreparedEdit
from segue.tasks.stylize_told import Telling
from segue.types import Condition, Conditioning, Frames, Guided

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion


@dataclass
class EditTelling(Telling):
    """Conditioning of frames that are edited.

    Args:
        made: `prepared`, known to be an edit.
        film: as it is, in the size that is drawn.
    """

    made: PreparedEdit = field(kw_only=True)
    film: Frames = field(kw_only=True)

    def frames(self, part: range) -> Guided:
        """Of frames of the film."""
        told, edit = super().frames(part), self.made.edit
        if edit.method == "instruct":
            unwanted, wanted = told.terms
            scale = float(self.prepared.task.sampling.guidance_scale[0])
            picture = torch.cat([shown(self.model.codec, self._picture(frame)) for frame in part])
            assert edit.change.picture_guidance is not None
            return instructed(
                wanted, unwanted, picture.to(self.model.device), scale, edit.change.picture_guidance, start=told.start
            )
        if self.model.inpaints:
            blank = torch.cat([self._blanked(frame) for frame in part])
            return replace(told, terms=tuple(replace(term, concat=blank) for term in told.terms))
        return told

    def told_of_source(self, part: range, model: LatentDiffusion | None = None) -> Condition:
        """Of frames as they are, in the words of the source, guided as it is asked for.

        Args:
            part: of the film.
            model: that goes by it, if it is not the one that the controls are of: it is shown none.
        """
        change = self.made.edit.change
        texts = (model or self.model).text([change.source_prompt or "", ""])
        pictures = {} if model is not None else super().frames(part).terms[-1].residual_inputs
        told, other = (replace(texts[[row] * len(part)], residual_inputs=dict(pictures)) for row in (0, 1))
        scale = 1.0 if change.source_guidance is None else change.source_guidance
        return told if scale == 1 else classifier_free(told, other, scale)

    def source(self, part: range) -> Conditioning:
        """Of frames as they are, without guidance."""
        told = self.told_of_source(part)
        return told.terms[-1] if isinstance(told, Guided) else told

    def _picture(self, frame: int) -> Float[Tensor, "1 3 h w"]:
        return self.film[frame : frame + 1].to(self.model.device)

    def _blanked(self, frame: int) -> Float[Tensor, "1 k h w"]:
        """What an inpainting model is shown of a frame."""
        assert self.made.masks is not None
        mask = self.made.masks.drawn(range(frame, frame + 1))[0].to(self.model.device)
        return inpainting(self.model.codec, self._picture(frame)[0], mask).to(self.model.device)
