"""Frames made to agree inside the loop, with the embedded model: they do, as sharp as before, and nothing piles up."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from segue.diffusion.loop import collect, denoise
from segue.diffusion.starts import from_seeds
from segue.media.clip import TensorFrames
from segue.models.bundle import LatentDiffusion
from segue.motion.blend import Blending
from segue.motion.fields import Fields
from segue.motion.flow_match import FlowMatcher
from segue.tasks.image import Image
from segue.temporal.along import Along
from segue.temporal.deflicker import Deflickering, Moments
from segue.types import Frames, Point, RowId
from segue.zoo import load

FRAMES, STEP = 5, 4


@pytest.fixture(autouse=True)
def no_gradients() -> Generator[None]:
    with torch.no_grad():
        yield


@cache
def model() -> LatentDiffusion:
    return load("emoji-fast", device="cpu")


@cache
def source() -> Tensor:
    """A picture that slides to the right, by whole pixels."""
    picture = Image("a red apple", seed=1).run(model()).frames[0:1]
    return torch.cat([picture.roll(STEP * i, -1) for i in range(FRAMES)])


def restyled(operators: list[Any]) -> Tensor:
    """Drawn anew from the shape of each frame, with noise of its own."""
    ids = [RowId("clip", i) for i in range(FRAMES)]
    schedule = model().schedule(4, (128, 128))
    noise = from_seeds(range(FRAMES), ids, schedule, (4, 16, 16), model().device).x
    now, _ = schedule.step(torch.ones(FRAMES, dtype=torch.int64), ids)
    start = from_seeds(range(FRAMES), ids, schedule.tail(1), (4, 16, 16), model().device)
    start = type(start)(now.noised(model().codec.encode(source()), noise), start.step, start.ids)
    cond = model().text(["a green apple"] * FRAMES)
    return collect(denoise(model().denoiser, start, schedule.tail(1), cond, operators=operators), schedule.tail(1))


def apart(latents: Tensor) -> float:
    """How much neighbours differ, in levels of 256, when one is moved to the place of the other."""
    frames = model().codec.decode(latents)
    return 255 * float((frames[1:] - frames[:-1].roll(STEP, -1)).square().mean().sqrt())


def slopes(latents: Tensor) -> float:
    frames = model().codec.decode(latents)
    return float(frames.diff(dim=-1).square().mean())


def test_restyled_frames_agree_and_are_as_sharp() -> None:
    fields = Fields(FlowMatcher(), TensorFrames.rounded(source()))
    along = Along([fields], Blending(window=4))
    plain, made = restyled([]), restyled([Deflickering(model().codec, along, Moments(), "clip")])
    assert apart(made) < 0.6 * apart(plain)
    assert slopes(made) > 0.8 * slopes(plain)


def corner(pictures: Frames, noise: float) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Changes a corner by about a level, and nothing else."""
    for i in range(len(pictures)):
        picture, change = pictures[i : i + 1][0].clone(), torch.zeros(128, 128)
        picture[:, :16, :16] = (picture[:, :16, :16] * 0.996).clamp(0, 1)
        change[:16, :16] = 1
        yield i, picture, change


def test_what_the_codec_loses_does_not_pile_up() -> None:
    first = model().codec.encode(source()[:2])
    levels = torch.full((2,), 0.5, dtype=torch.float64)
    at = Point(torch.zeros(2, dtype=torch.int64), 4, levels, levels, levels, tuple(RowId("clip", i) for i in range(2)))
    ours = theirs = first
    for _ in range(10):
        ours = Deflickering(model().codec, corner, Moments(), "clip").on_denoised(ours, at)
        plain = Deflickering(model().codec, corner, Moments(), "clip", projection=False, masked=False)
        theirs = plain.on_denoised(theirs, at)
    before, after, drifted = (model().codec.decode(x)[..., 64:, 64:] for x in (first, ours, theirs))
    assert float((after - before).abs().max()) < 0.5 / 255
    assert float((drifted - before).square().mean().sqrt()) > 10 / 255
    assert torch.equal(ours[..., 4:, 4:], first[..., 4:, 4:])
