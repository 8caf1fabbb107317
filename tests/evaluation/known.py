"""Clips of which all motion is known, and what is done to them, for the tests of measures."""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import ref

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from segue.media import TensorFrames
from segue.motion.match import Match
from segue.training.moving import Camera, moving_clip
from segue.training.scene import Scene
from segue.types import Frames


def scene(size: tuple[int, int] = (48, 40), frames: int = 8, seed: int = 1) -> Scene:
    """A thing before a ground, both of which move by parts of pixels."""
    return moving_clip(seed, size, frames, sprites=1, camera=Camera(pan=(0.8, -0.5), turn=0.2), speed=0.02)


def pan(by: int = 2, size: tuple[int, int] = (64, 48), frames: int = 8) -> Scene:
    """A ground that moves by whole pixels."""
    return moving_clip(2, size, frames, sprites=0, camera=Camera(pan=(float(by), 0.0)))


def whole(frames: Frames) -> Tensor:
    """All of them, where they are few."""
    return frames[0 : len(frames)]


def kept(frames: Tensor) -> TensorFrames:
    """As 256 levels."""
    return TensorFrames.rounded(frames.clamp(0, 1))


def noise(like: Tensor, deviation: float, seed: int = 5) -> Tensor:
    return deviation * torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def blurred(frames: Tensor) -> Tensor:
    """The mean of 3x3 pixels."""
    return avg_pool2d(pad(frames, (1, 1, 1, 1), mode="replicate"), 3, 1)


@dataclass(frozen=True)
class Exact:
    """The flow of a scene; which of its pictures it is asked for, it sees by looking."""

    scene: Scene
    name: str = "exact"

    def __call__(self, a: Tensor, b: Tensor, start: tuple[Match, Match] | None = None) -> tuple[Match, Match]:
        here, there = self._number(a), self._number(b)
        return self._match(here, there), self._match(there, here)

    def _number(self, picture: Tensor) -> int:
        found = [i for i in range(len(self.scene)) if torch.equal(self.scene.frames[i : i + 1], picture)]
        assert len(found) == 1
        return found[0]

    def _match(self, a: int, b: int) -> Match:
        way = self.scene.flow(a, b)
        confidence = self.scene.visible(a, b).float()
        return Match(way, torch.zeros_like(confidence), confidence, whole=False)


@dataclass
class Watched:
    """Frames that say how many of them were asked for at once, and how many pictures were held."""

    frames: Frames
    most: int = 0
    held: int = 0
    _alive: list[ref[Tensor]] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        return self.frames.size

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, window: slice, /) -> Tensor:
        found = self.frames[window]
        self._alive = [one for one in self._alive if one() is not None]
        self._alive.append(ref(found))
        self.most, self.held = max(self.most, len(found)), max(self.held, len(self._alive))
        return found
