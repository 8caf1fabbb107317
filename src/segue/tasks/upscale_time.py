"""The frames of an upscaled clip by a model with layers along time: those of a window are denoised together.

Blattmann et al. 2023, "Align your Latents" (arXiv:2304.08818, section 3.4): an upscaler that looks along time works in
windows of a few frames, since what it adds is near. Here neighbouring windows have frames in common, over which one
fades into the other. Each is run to its end by itself, and so a film of any length needs no more memory than two or
three of them. With one step that is what windows that are mixed at every step (`segue.temporal.overlapping`) come to.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from segue.diffusion.loop import collect
from segue.diffusion.noise import ClipNoise
from segue.diffusion.starts import from_clip_seed
from segue.models.temporal_codec import TemporalCodec
from segue.models.time_inserted import FPS, with_motion
from segue.tasks.upscale_frames import EnlargedFrames
from segue.temporal.overlapping import shared_frames, shares, windows_of
from segue.types import Guided, Kick, RowId

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion


@dataclass(frozen=True)
class Span:
    """The frames of a window, and how much each of them counts in the result."""

    frames: range
    shares: tuple[float, ...]


@dataclass
class FramesTogether(EnlargedFrames):
    """The frames of a clip, a window of which is denoised together when one of them is asked for.

    Frames begin in noise of which they share as much as the layers along time learned from. A window does not depend on
    others, nor on what was asked for before. Read in order, each is made once.

    Args:
        fps: frames per second, which the layers along time are told.
    """

    fps: float = 0.0
    _made: dict[int, Tensor] = field(default_factory=dict[int, "Tensor"], init=False)

    def check(self) -> None:
        """Find out before long work what would be in its way.

        Raises:
            TaskError: besides what `EnlargedFrames.check` says, the model cannot look at so many frames at once.
            ScheduleError: see there.
        """
        super().check()
        _ = self._together(self.model)

    def scores(self) -> dict[str, int]:
        """What the result is made of."""
        return {
            "frames": len(self), "windows": len(self.spans), "window": self._length, "row_steps": self._total,
        }  # fmt: skip

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """All windows, in order; a film that is shorter than one is a window itself."""
        overlap = shared_frames(self._length)
        groups = windows_of(len(self), self._length, overlap)
        every = shares(groups, len(self), overlap).unflatten(0, (-1, self._length)).tolist()
        return tuple(Span(range(group[0], group[-1] + 1), tuple(own)) for group, own in zip(groups, every, strict=True))

    @property
    def _length(self) -> int:
        return min(self.task.coherence.together or 1, len(self))

    @property
    def _shared(self) -> float:
        """The share of the noise's variance that all frames have in common."""
        return self.model.moving.shared_noise if self.model.moving is not None else 0.0

    def _together(self, model: LatentDiffusion) -> LatentDiffusion:
        """The model at its dial, with windows as clips."""
        motion = self.task.coherence.motion
        dialled = model if motion in (None, 1.0) else with_motion(model, motion)
        return dialled.over(self._length)

    def _decoded(self, model: LatentDiffusion, number: int) -> Float[Tensor, "1 3 h w"]:
        made = self._latents(model, number)[None]
        # A decoder that looks along time has seen the whole window: its pictures are what fades.
        return made if isinstance(model.codec, TemporalCodec) else model.codec.decode(made)

    def _latents(self, model: LatentDiffusion, number: int) -> Float[Tensor, "c h w"]:
        places = self._around(number)
        self._made = {place: made for place, made in self._made.items() if place in places}
        parts: list[Tensor] = []
        for place in places:
            if place not in self._made:
                self._made[place] = self._run_window(model, place)
            span = self.spans[place]
            inside = number - span.frames.start
            parts.append(span.shares[inside] * self._made[place][inside])
        return torch.stack(parts).sum(0)

    def _around(self, number: int) -> list[int]:
        """The windows that have a frame."""
        place = bisect_right(self.spans, number, key=lambda span: span.frames.start) - 1
        found: list[int] = []
        while place >= 0 and number in self.spans[place].frames:
            found.insert(0, place)
            place -= 1
        return found

    def _run_window(self, model: LatentDiffusion, place: int) -> Float[Tensor, "t c h w"]:
        """A window, run to its end: its latents, or its pictures, if the decoder looks along time as well."""
        together, rows = self._together(model), self._ids(self.spans[place].frames)
        begun = from_clip_seed(self.task.seed, rows, self.schedule, self._shape, model.device, self._shared)
        latents = collect(self._run(together, begun, self._cost(place)), self.schedule)
        if isinstance(together.codec, TemporalCodec):
            return torch.cat(list(together.codec.pieces(latents))).float().cpu()
        return latents

    def _ids(self, numbers: Sequence[int]) -> tuple[RowId, ...]:
        return tuple(RowId("frame", number) for number in numbers)

    def _kick(self, ids: Sequence[RowId]) -> Kick:
        return super()._kick(ids) if self._shared == 1 else ClipNoise(self.task.seed, self._shared)

    def _cond(self, numbers: Sequence[int]) -> Guided:
        told = super()._cond(numbers)
        speed = torch.full((len(numbers),), self.fps, device=self.model.device)
        return replace(told, terms=tuple(replace(term, extra={**term.extra, FPS: speed}) for term in told.terms))

    def _beside(self, number: int) -> range:
        return self.spans[self._around(number)[-1]].frames

    @property
    def _total(self) -> int:
        return self._cost(len(self.spans))

    def _cost(self, place: int) -> int:
        """Row-steps before a window, if frames are read in order; of all, for the number of windows."""
        return place * self._length * len(self.schedule)
