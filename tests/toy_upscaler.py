"""An upscaler without weights, computed element by element: it repeats the pixels that it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from segue.models.bundle import LatentDiffusion, Upscaling
from segue.models.denoiser import NetworkDenoiser
from segue.types import Call, Conditioning, over_rows
from toy import toy_model

FACTOR = 2
SIZE = (24, 16)
"""Of pictures to enlarge."""


@dataclass(frozen=True)
class Repeats:
    """x0 is the small picture, each pixel as a patch, touched by the text, the label and the noise that it began in."""

    seen: list[tuple[Call, Conditioning, tuple[int, ...]]] = field(
        default_factory=list[tuple[Call, Conditioning, tuple[int, ...]]]
    )
    remembers: bool = False

    def __call__(self, x: Tensor, time: Tensor, cond: Conditioning, call: Call) -> Tensor:
        assert cond.concat is not None
        assert cond.label is not None
        if self.remembers:
            self.seen.append((call, cond, tuple(x.shape)))
        pull = over_rows(torch.tanh(cond.text.mean(dim=(1, 2))), x)
        shown = cond.concat.repeat_interleave(FACTOR**2, 1)
        return 0.7 * shown + 0.2 * torch.tanh(x) + 0.1 * pull + 0.001 * over_rows(cond.label.float(), x)


def toy_upscaler(network: Repeats | None = None, max_batch: int = 8) -> LatentDiffusion:
    """Twice as large on each side, in 10 steps, on a grid of 2 pixels."""
    model = toy_model(max_batch)
    return replace(
        model,
        name="toy-x2",
        denoiser=NetworkDenoiser(network or Repeats(), "sample", max_batch=max_batch),
        upscaling=Upscaling(FACTOR, {"beta_schedule": "linear"}, max_noise_level=99, noise_level=10, grid=2),
    )
