"""Video LDM: a model of single pictures with layers along time, and what it is told of a clip besides its words.

Blattmann et al. 2023, "Align your Latents", arXiv:2304.08818. Such a model has no layout of its own: its layers lie in
one file (`segue.models.time_files`), which is put into a model of single pictures, by a card that names both
(`segue.zoo.cards`), or by `segue.load(model, motion=FILE)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from segue.diffusion.guidance import classifier_free, in_context
from segue.errors import TaskError
from segue.models.time_files import with_time_file
from segue.models.time_inserted import CONTEXT, FPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion
    from segue.types import Conditioning, Guided


def from_file(model: LatentDiffusion, path: Path) -> LatentDiffusion:
    """The model with the layers along time of a file, by which it is known afterwards.

    Raises:
        ModelError: they cannot be put into it; see `segue.models.time_files.with_time_file`.
    """
    return replace(with_time_file(model, path), adapter=str(path.absolute()))


def context_of(
    known: Mapping[int, Float[Tensor, "c h w"]], frames: int, shape: Sequence[int]
) -> Float[Tensor, "t c+1 h w"]:
    """What layers along time are told of known frames: (m z, m), where the mask m is 1 in those and 0 in all others.

    Args:
        known: clean latents by their frames' numbers.
        frames: of the clip.
        shape: (channels, height, width) of the latents.

    Raises:
        TaskError: a frame lies outside of the clip, or is of another shape.
    """
    channels, height, width = shape
    context = torch.zeros(frames, channels + 1, height, width)
    for frame, latents in known.items():
        if not 0 <= frame < frames:
            raise TaskError(f"a clip of {frames} frames has frames 0 to {frames - 1}; {frame} was given")
        if tuple(latents.shape) != tuple(shape):
            came, expected = ("x".join(map(str, sides)) for sides in (latents.shape, shape))
            raise TaskError(f"frame {frame} has latents of {came}; expected {expected}")
        context[frame, :channels] = latents.float().cpu()
        context[frame, channels:] = 1
    return context


def told(
    wanted: Conditioning, unwanted: Conditioning, scale: float | Sequence[float], fps: float, *,
    context: Float[Tensor, "t c+1 h w"] | None = None, context_scale: float = 1.0, rescale: float = 0.0,
    start: float = 0.0,
) -> Guided:  # fmt: skip
    """What the frames of a clip are told: words, speed, and known frames, with guidance towards words and known frames.

    Args:
        wanted: the caption, one row per frame.
        unwanted: the empty caption, or a negative one, likewise.
        scale: of guidance towards the caption, one number or one per row; 1 is none.
        fps: frames per second.
        context: of `context_of`; None if no frame is known.
        context_scale: of guidance towards known frames, from 1 on; see `segue.diffusion.guidance.in_context`.
        rescale: see `Guided`.
        start: see `Guided`.
    """
    speeds = torch.full((len(wanted),), float(fps), device=wanted.text.device)

    def guided(seen: Tensor | None) -> Guided:
        extra = {FPS: speeds} if seen is None else {FPS: speeds, CONTEXT: seen.to(wanted.text.device)}
        pair = [replace(one, extra={**one.extra, **extra}) for one in (wanted, unwanted)]
        return classifier_free(pair[0], pair[1], scale, rescale, start)

    if context is None:
        return guided(None)
    return in_context(guided(context), guided(torch.zeros_like(context)), context_scale)
