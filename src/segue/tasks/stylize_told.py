"""What the network is told of each frame: words, and the control pictures that lie on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, cast

import torch

from segue.diffusion.guidance import classifier_free
from segue.media.clip import to_uint8
from segue.media.spool import Spool
from segue.models.control import CONTROL_SCALE
from segue.models.ip_adapter import referring, with_tokens
from segue.tasks.stylize_prepare import Prepared, Steering
from segue.types import Conditioning, Guided

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion


@dataclass
class Telling:
    """Conditioning of frames, and of pictures that ride along.

    Args:
        prepared: the task, and what shows the network its references.
        model: ready to run.
        pictures: of the controls, by their names: of all frames, in the size that is drawn.
    """

    prepared: Prepared
    model: LatentDiffusion
    pictures: Mapping[str, Spool]

    def frames(self, part: range) -> Guided:
        """Of frames of the film."""
        shown = {
            name: spool.levels(slice(part.start, part.stop)).to(self.model.device)
            for name, spool in self.pictures.items()
        }
        return self._guided(len(part), shown)

    def source(self, part: range) -> Conditioning:
        """Of frames as they are, in the words of the source, without guidance."""
        told = self._shown([2] * len(part), self.frames(part).terms[-1].residual_inputs)
        adapter = self.prepared.adapter
        return told if adapter is None else with_tokens(told, adapter.blank(len(self.prepared.references)))

    def references(self, pictures: Sequence[Float[Tensor, "3 h w"]], controls: Sequence[Steering]) -> list[Guided]:
        """Of reference pictures, a row each, which are shown their own control pictures.

        A control whose pictures were given does not act on them, if it takes a network to find theirs.
        """
        shown, silent = dict[str, "Tensor"](), dict[str, "Tensor"]()
        own, device = torch.stack(list(pictures)), self.model.device
        for one in controls:
            annotator = one.of_references
            made = torch.zeros_like(own) if annotator is None else annotator(own)
            shown[one.name] = to_uint8(made).to(device)
            if annotator is None:
                silent[CONTROL_SCALE + one.name] = torch.zeros(len(own), device=device)
        every = self._guided(len(pictures), shown)
        every = replace(every, terms=tuple(replace(one, extra={**one.extra, **silent}) for one in every.terms))
        return [every[[number]] for number in range(len(pictures))]

    def _guided(self, count: int, shown: Mapping[str, Tensor]) -> Guided:
        sampling = self.prepared.task.sampling
        wanted, unwanted = (self._shown([row] * count, shown) for row in (0, 1))
        scale = float(sampling.guidance_scale[0])
        told = classifier_free(wanted, unwanted, scale, start=sampling.guidance_start or 0.0)
        adapter, pictures = self.prepared.adapter, self.prepared.references
        return told if adapter is None else cast("Guided", referring(told, adapter, torch.stack(pictures)))

    def _shown(self, rows: Sequence[int], shown: Mapping[str, Tensor]) -> Conditioning:
        return replace(self._texts[list(rows)], residual_inputs=dict(shown))

    @cached_property
    def _texts(self) -> Conditioning:
        """What is wanted, what is not, and what the film shows."""
        task = self.prepared.task
        return self.model.text([task.prompt or "", task.negative or "", task.beginning.source_prompt or ""])
