"""Drawn frames made to agree once more, along the movement of the film that they were drawn from, or their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from segue.evaluation.sharpness import sharpness
from segue.evaluation.warp_error import change
from segue.media.clip import Excerpt
from segue.media.spool import Spool
from segue.motion.blend import Blending, blended
from segue.motion.followed import Followed
from segue.tasks.deflicker_known import Measured, Row
from segue.tasks.stylize_draw import Drawing
from segue.tasks.unfinished import Passed

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

FOLLOWS = 3
"""The place in a row of `Measured` of the share of a frame that moves as its source does."""
LITTLE = 0.6
"""Of the drawn film: if less moves as its source does, it is said. Of films that are made to follow it is .96 and more,
and of a picture that stands still while the source moves about .6, as plain areas tell nothing."""


@dataclass(frozen=True)
class Coming:
    """Frames of which more are on their way; those that are not there yet must not be asked for."""

    frames: Spool
    total: int

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.frames.size

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        return self.frames[slice(*window.indices(self.total))]


def strayed(follows: float | None) -> tuple[str, ...]:
    """What is said, a line each, of a drawn film of which this share moves as its source does."""
    if follows is None or follows >= LITTLE:
        return ()
    return (
        f"of what was drawn {1 - follows:.0%} does not move as the film does, and was made to agree by its own: "
        "a control that acts for longer, such as softedge, keeps it nearer to the film",
    )


@dataclass
class Agreeing:
    """Finishes frames as soon as those around them are drawn.

    Args:
        drawing: what drew them.
        drawn: as they were drawn, more and more.
        finished: as they are to be, more and more.
        measured: what is found out about each.
    """

    drawing: Drawing
    drawn: Spool
    finished: Spool
    measured: Measured
    _pictures: Iterator[tuple[int, Tensor, Tensor]] | None = field(default=None, init=False)

    def go_on(self) -> None:
        """Finish what can be."""
        for number in range(self.measured.count, len(self.finished)):
            self.measured.add(self._measure(number))
        while len(self.finished) < len(self.drawing.source) and self._is_ready(len(self.finished)):
            number = len(self.finished)
            self.finished.append(self._picture(number)[None])
            self.measured.add(self._measure(number))
            self._passed.forget(number)

    @cached_property
    def blending(self) -> Blending:
        """How frames are blended."""
        agreement = self.drawing.task.agreement
        return Blending(agreement.around or 1, grain=agreement.grain or 0.0)

    @cached_property
    def fields(self) -> Followed:
        """What is found where in the drawn film: as in its source, where it follows that."""
        found = self.drawing.fields(self.drawing.source, self.drawing.plan.shots[1:])
        return Followed(found, self._coming, folder=found.folder)

    @property
    def _coming(self) -> Coming:
        return Coming(self.drawn, len(self.drawing.source))

    @property
    def blend(self) -> float:
        """How far frames are blended."""
        return self.drawing.task.agreement.blend or 0.0 if len(self.drawing.source) > 1 else 0.0

    @cached_property
    def _passed(self) -> Passed:
        ahead = self.blending.window + 2 * self.blending.every
        return Passed(self.drawing.folder / "fields", 2 * ((self.drawing.task.shape.window or 1) + ahead))

    def _is_ready(self, number: int) -> bool:
        """Whether all that a frame is blended with is drawn."""
        total = len(self.drawing.source)
        if not self.blend:
            return number < len(self.drawn)
        end = min((first for first in (*self.drawing.plan.shots, total) if first > number), default=total)
        # Keys, whose detail is carried to others, are further apart than said where a shot has no whole number of them.
        key = min(end, number + 2 * self.blending.every + 1)
        # Beyond a cut frames are read, too, though nothing of them is believed.
        return len(self.drawn) >= min(total, max(key, number + self.blending.window + 2))

    def _picture(self, number: int) -> Float[Tensor, "3 h w"]:
        own = self.drawn[number : number + 1][0]
        if not self.blend:
            return own
        if self._pictures is None:
            total = len(self.drawing.source)
            self._pictures = blended(self._coming, self.fields, self.blending, numbers=range(number, total))
        found, picture, _ = next(self._pictures)
        assert found == number
        return torch.lerp(own, picture.cpu(), self.blend) if self.blend < 1 else picture.cpu()

    def _measure(self, number: int) -> Row:
        """See `Measured`."""
        before, here = number - 1, slice(number, number + 1)
        if not self.blend:
            return None, None, None, None
        shown, drawn = (Excerpt(each, range(number, number + 1)) for each in (self.finished, self.drawn))
        kept = sharpness(shown, drawn).kept
        share = kept.gradients if kept else None
        if not self.fields.joined(number, before):
            return None, None, share, None
        back = self.fields.way(number, before)
        device = self.fields.device
        apart = [
            change(each[before:number].to(device), each[here].to(device), back).absolute
            for each in (self.drawn, self.finished)
        ]
        return apart[0], apart[1], share, self.fields.follows(number, before)
