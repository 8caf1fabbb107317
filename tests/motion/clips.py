"""Small clips for the tests of motion, and of its measures: shots that move over drawn textures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate


@dataclass(frozen=True)
class Held:
    """Frames in memory as they are: not rounded, so that laws are exact; they may leave the range of colours."""

    pictures: Tensor

    @property
    def size(self) -> tuple[int, int]:
        return self.pictures.shape[3], self.pictures.shape[2]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, window: slice, /) -> Tensor:
        return self.pictures[window]

    def backwards(self) -> Held:
        return Held(self.pictures.flip(0))


def ground(seed: int = 0, height: int = 96, width: int = 160, cell: int = 6) -> Tensor:
    """One picture (3, h, w) with something to hold on to everywhere."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // cell, width // cell, generator=random)
    return interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)[0]


def panned(count: int, seed: int = 0, size: tuple[int, int] = (64, 48), step: tuple[int, int] = (2, 1)) -> Held:
    """A window that slides over a ground, by whole pixels and there and back if it comes to the end."""
    whole, (width, height) = ground(seed), size
    reach = min((whole.shape[2] - width) // max(1, step[0]), (whole.shape[1] - height) // max(1, step[1]))
    places = [abs((number + reach) % (2 * reach) - reach) for number in range(count)]
    rows = [
        whole[:, place * step[1] : place * step[1] + height, place * step[0] : place * step[0] + width]
        for place in places
    ]
    return Held(torch.stack(rows))


def joined(*clips: Held) -> Held:
    """One after the other, with a cut between."""
    return Held(torch.cat([clip.pictures for clip in clips]))


def noisy(clip: Held, deviation: float, seed: int = 0) -> Held:
    """With white noise of its own on every frame."""
    random = torch.Generator().manual_seed(seed)
    return Held((clip.pictures + deviation * torch.randn(clip.pictures.shape, generator=random)).clamp(0, 1))


def flickering(clip: Held, amount: float, seed: int = 0) -> Held:
    """With a brightness of its own for every frame, up to `amount` more or less."""
    random = torch.Generator().manual_seed(seed)
    gains = 1 + amount * (2 * torch.rand(len(clip), 1, 1, 1, generator=random) - 1)
    return Held((clip.pictures * gains).clamp(0, 1))
