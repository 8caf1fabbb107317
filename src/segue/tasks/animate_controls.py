"""What the frames of a clip are drawn after: videos whose edges, depths or poses are shown to control networks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from segue.errors import TaskError
from segue.media.clip import to_uint8
from segue.media.reader import read
from segue.models.control import controlled
from segue.tasks.animate import Animate
from segue.tasks.stylize_controls import wanted
from segue.tasks.stylize_geometry import Geometry
from segue.tasks.stylize_prepare import Steering, available
from segue.types import Guided, Progress

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion


@dataclass(frozen=True)
class Controls:
    """Control networks, and what they are shown.

    Args:
        task: with nothing left open.
        model: with its controls.
        steering: of each.
    """

    task: Animate
    model: LatentDiffusion
    steering: tuple[Steering, ...] = ()

    @staticmethod
    def of(task: Animate, model: LatentDiffusion) -> Controls:
        """All that a task names, opened and found to fit.

        Raises:
            TaskError: a video has another number of frames; or this machine has no annotator for one.
            ModelError: there is no network for one.
            MediaError: a video cannot be read.
        """
        if not task.control:
            return Controls(task, model)
        found, _ = available(wanted(task.control), model)
        for one in found:
            length = len(read(Path(str(one.wanted.source))))
            if length not in (1, task.frames):
                raise TaskError(
                    f"control {one.name} follows {one.wanted.source}, which has {length} frames, and the clip has "
                    f"{task.frames}: cut them to the same frames, or give one picture for all"
                )
        return Controls(task, controlled(model, [one.control for one in found]), tuple(found))

    @property
    def fingerprint(self) -> str:
        """A hash of the networks beside the model; "" if there are none."""
        return self.model.fingerprint if self.steering else ""

    def shown(self, cond: Guided, progress: Progress) -> Guided:
        """What frames are told, and the pictures of their controls."""
        pictures = {one.name: self._pictures(one, progress).to(cond.terms[0].text.device) for one in self.steering}
        return replace(cond, terms=tuple(replace(term, residual_inputs=dict(pictures)) for term in cond.terms))

    def _pictures(self, steering: Steering, progress: Progress) -> UInt8[Tensor, "t 3 h w"]:
        size, count = self.task.sampling.size, self.task.frames
        assert size is not None
        own = read(Path(str(steering.wanted.source)))
        made = steering.pictures(own.frames, Geometry(own.size, size, "crop"), progress)
        found = list["Tensor"]()
        for number in range(len(made)):
            found.append(to_uint8(made[number : number + 1]))
            progress(f"finding {steering.name}", number + 1, len(made))
        return torch.cat(found).expand(count, -1, -1, -1) if len(found) == 1 else torch.cat(found)
