"""A clip restyled as a codec stores it: few frames are drawn, others are moved, and only what was hidden is drawn anew.

After VideoControlNet (Hu & Xu 2023, arXiv:2307.14073): I frames in full; P frames are the one before them moved along
the source's motion, where diffusion fills in what comes into sight; B frames are interpolated. See docs/rivals.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import max_pool2d

from segue.diffusion.starts import from_latents
from segue.errors import TaskError
from segue.motion.keyframes import keyed
from segue.temporal.deflicker import Held, touched
from segue.temporal.mask import Outside, feathered
from segue.temporal.passengers import Noised
from segue.temporal.rivals.inputs import Outcome, RivalInputs
from segue.types import Operator, Progress, State, silent

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from segue.motion.fields import Fields

NAME = "codec"
_BELIEVED = 0.5
"""Confidence of a way from which on a pixel is moved along it."""
_BATCH = 4
"""Pictures that are encoded at once."""


@dataclass(frozen=True)
class CodecMode:
    """I, P and B frames.

    Args:
        between: B frames between two others.
        period: frames from one I frame to the next; 0 is one for each shot.
        feather: pixels over which what is drawn anew fades into what was moved.
    """

    between: int = 2
    period: int = 0
    feather: float = 3.0

    def __post_init__(self) -> None:
        if min(self.between, self.period, self.feather) < 0:
            raise TaskError(f"expected 0 or more, got between {self.between}, {self.period} and {self.feather}")

    def run(self, inputs: RivalInputs, progress: Progress = silent) -> Outcome:
        """The restyled clip.

        Raises:
            TaskError: it was given no fields; the model denoises groups of frames together.
        """
        if inputs.denoiser.group > 1:
            raise TaskError(
                f"the {NAME} mode draws frame after frame; this model draws {inputs.denoiser.group} at once"
            )
        fields, (height, width) = inputs.need_fields(NAME), inputs.noise.shape[2:]
        size = width * inputs.codec.scale, height * inputs.codec.scale
        if (fields.size, len(fields)) != (size, len(inputs)):
            raise ValueError(f"expected fields of {len(inputs)} frames of {size}, got {len(fields)} of {fields.size}")
        work = _Work(inputs, fields, self.feather)
        places = self.places(work.fields)
        for done, (place, before) in enumerate(places):
            work.draw(place, before)
            progress("drawing frames", done + 1, len(places))
        return work.outcome([place for place, _ in places], progress)

    def places(self, fields: Fields) -> list[tuple[int, int | None]]:
        """Frames that are drawn, each with the one that it is moved from; None for an I frame."""
        found: list[tuple[int, int | None]] = []
        number = 0
        while number < len(fields):
            first, last = fields.shot(number)
            own = list(range(first, last + 1, self.between + 1))
            own += [last] if own[-1] != last else []
            whole = first
            for place in own:
                if place == first or (self.period and place - whole >= self.period):
                    whole = place
                    found.append((place, None))
                else:
                    found.append((place, found[-1][0]))
            number = last + 1
        return found


@dataclass(frozen=True)
class Landing(Noised):
    """A picture noised to every level of a run, and as it is at the end of it."""

    def at(self, step: int) -> Float[Tensor, "c h w"]:
        """The latents with `step` steps behind them."""
        return self.x0 if step == len(self.schedule) else super().at(step)


@dataclass
class _Work:
    """Pictures that were drawn so far."""

    inputs: RivalInputs
    fields: Fields
    feather: float
    pictures: dict[int, Tensor] = field(default_factory=dict[int, "Tensor"])

    def draw(self, place: int, before: int | None) -> None:
        """An I frame, or a P frame from the one before."""
        if before is None:
            self.pictures[place] = self._drawn(self.inputs.noised().fork([place]), place)
            return
        way = self.fields.way(place, before)
        moved = way.remap(self.pictures[before][None].to(way.way)).clamp(0, 1).to(self.inputs.noise)
        hidden = (way.confidence < _BELIEVED).to(moved.device)
        self.pictures[place] = self._filled(moved, hidden, place) if bool(hidden.any()) else moved[0]

    def outcome(self, places: list[int], progress: Progress) -> Outcome:
        """All frames, those between two interpolated; and latents that are near them."""
        keys, made = Held(self.fields.size), Held(self.fields.size)
        keys.append(torch.stack([self.pictures[place] for place in places]).to(self.fields.device))
        for _, picture, _ in keyed(keys, places, self.fields, progress=progress):
            made.append(picture[None].to(self.inputs.noise))
        codec = self.inputs.codec
        latents = [codec.encode(made[start : start + _BATCH]) for start in range(0, len(made), _BATCH)]
        return Outcome(torch.cat(latents).to(self.inputs.noise), made)

    def _filled(self, moved: Float[Tensor, "1 3 h w"], hidden: Bool[Tensor, "1 h w"], place: int) -> Tensor:
        """What was hidden is drawn, while all around it is held at the noised latents of what was moved there."""
        inputs, reach = self.inputs, math.ceil(self.feather)
        # Edges of occlusions are where motion is least sure: what is drawn fades in around them, not within.
        mask = max_pool2d(hidden.float(), 2 * reach + 1, 1, reach)
        free = touched(mask > 0, inputs.codec.scale, 0)[0]
        own, noise = inputs.codec.encode(moved).to(inputs.noise), inputs.noise[[place]]
        begun = torch.where(free, inputs.source.latents[[place]], own)
        start = from_latents(begun, noise, inputs.schedule, inputs.strength, (inputs.rows[place],))
        around = Outside(free.float(), {0: Landing(own[0], noise[0], inputs.schedule)}, 0)
        drawn = self._drawn(start, place, around)
        return moved[0] + feathered(mask[0], self.feather) * (drawn - moved[0])

    def _drawn(self, start: State, place: int, *operators: Operator) -> Float[Tensor, "3 h w"]:
        told = self.inputs.cond[[place]]
        latents = self.inputs.run(self.inputs.denoiser, start, "denoising", silent, operators=operators, cond=told)
        return self.inputs.codec.decode(latents)[0].to(latents)
