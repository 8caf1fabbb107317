"""A clip of a square that moves over a ground, and what every rival is given to restyle it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from segue.diffusion.guidance import classifier_free
from segue.media.clip import TensorFrames
from segue.models.attended import model_sites
from segue.models.attention_maps import MapReader, kept_words
from segue.models.bundle import LatentDiffusion
from segue.motion.fields import Fields
from segue.motion.match import Match, inside
from segue.temporal.moved_noise import independent
from segue.temporal.rivals.inputs import RivalInputs, Source
from segue.types import RowId

SIDE, STEPS = 64, 3
PROMPT, SHOWN = "a red apple", "a blue apple"


@dataclass(frozen=True)
class Across:
    """A matcher that knows that everything moves to the right by so many pixels a frame; nothing beyond is believed."""

    by: int = 0
    name: str = "across"

    def __call__(self, a: Tensor, b: Tensor, start: tuple[Match, Match] | None = None) -> tuple[Match, Match]:
        here, there = (round(255 * float(picture[0, 0, 0, 0])) for picture in (a, b))
        return self.match(there - here), self.match(here - there)

    def match(self, frames: int) -> Match:
        way = torch.zeros(1, 2, SIDE, SIDE)
        way[:, 0] = self.by * frames
        return Match(way, torch.zeros(1, SIDE, SIDE), inside(way), whole=True)


def clip(count: int, by: int = 0) -> TensorFrames:
    """Frames whose first pixel says which they are."""
    drawn = torch.Generator().manual_seed(3)
    wide = torch.randint(40, 200, (3, SIDE // 8, (SIDE + 8 * 16) // 8), generator=drawn, dtype=torch.uint8)
    wide = wide.repeat_interleave(8, 1).repeat_interleave(8, 2)
    frames = [wide[:, :, 8 * 16 - by * k : 8 * 16 - by * k + SIDE].clone() for k in range(count)]
    for number, frame in enumerate(frames):
        frame[:, 0, 0] = number
    return TensorFrames(torch.stack(frames))


def inputs(
    model: LatentDiffusion, count: int = 3, by: int = 0, cuts: tuple[int, ...] = (), **changed: Any
) -> RivalInputs:
    """What rivals are given; the clip moves by so many pixels a frame."""
    frames, texts = clip(count, by), model.text([PROMPT, "", SHOWN])
    latents = model.codec.encode(frames[:])
    given = RivalInputs(
        model.denoiser,
        model.schedule(STEPS, (SIDE, SIDE)),
        classifier_free(texts[[0] * count], texts[[1] * count], 3.0),
        independent(count, (latents.shape[3], latents.shape[2])).start(1, latents.shape[1]),
        Source(
            latents, texts[[2] * count], Fields(Across(by), frames, cuts=cuts), kept_words(model.text, SHOWN, PROMPT)
        ),
        0.8,
        model.codec,
        model_sites(model),
        MapReader(),
    )
    return replace(given, **changed)


def alone(given: RivalInputs, *frames: int) -> RivalInputs:
    """Of what rivals are given, some frames."""
    pick = list(frames)
    source = replace(given.source, latents=given.source.latents[pick], cond=given.source.cond[pick])
    return replace(given, cond=given.cond[pick], noise=given.noise[pick], source=source)


def plain(given: RivalInputs) -> Tensor:
    """Every frame on its own, from noised frames."""
    return given.run(given.denoiser, given.noised(), "plain", lambda what, done, total: None)


def back(given: RivalInputs, rounds: int = 1) -> Tensor:
    """Every frame on its own, from its inversion."""
    start = given.inversion(given.denoiser, rounds).state
    rows = tuple(RowId("clip", k) for k in range(len(given)))
    return given.run(given.denoiser, start.fork(range(len(given)), rows), "plain", lambda what, done, total: None)
