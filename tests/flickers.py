"""Small films that flicker, and quick tasks on them, for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segue.media import Clip, TensorFrames
from segue.media.clip import levels_of
from segue.tasks.deflicker import Deflicker
from segue.types import Progress

SIZE = (48, 32)
COUNT = 9


def textured(count: int = COUNT, size: tuple[int, int] = SIZE, seed: int = 1) -> Tensor:
    """uint8 frames of a texture that moves two pixels a frame to the right."""
    width, height = size
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 4, (width + 2 * count) // 4 + 1, generator=draw)
    wide = torch.nn.functional.interpolate(coarse, (height, 4 * coarse.shape[3]), mode="bicubic").clamp(0, 1)[0]
    frames = [wide[..., 2 * (count - number) :][..., :width] for number in range(count)]
    return (torch.stack(frames) * 255).round().byte()


def flickering(frames: Tensor, amount: float = 0.1, seed: int = 2) -> Tensor:
    """The same, each frame with another brightness."""
    gains = 1 + amount * torch.randn(len(frames), 1, 1, 1, generator=torch.Generator().manual_seed(seed))
    return (frames * gains.clamp(0.5, 1.5)).clamp(0, 255).round().byte()


def saved(path: Path, frames: Tensor, fps: float = 5) -> str:
    return str(Clip(TensorFrames(frames), fps).save(path))


def task(film: str, **changes: Any) -> Deflicker:
    """A quick one."""
    return replace(Deflicker(film, window=2, cuts="none"), **changes)


def made(task: Deflicker, **how: Any) -> Tensor:
    clip = task.run(**how)
    return levels_of(clip.frames, slice(None))


def flicker(frames: Tensor) -> float:
    return float(frames.float().mean((1, 2, 3)).diff().abs().mean())


def painted(folder: Path, frames: Tensor, numbers: tuple[int, ...], name: str = "{}.png") -> str:
    folder.mkdir()
    for number in numbers:
        saved(folder / name.format(number), frames[number : number + 1])
        (folder / name.format(number)).with_suffix(".json").unlink(missing_ok=True)
    return str(folder)


def keyed(film: str, folder: str, **changes: Any) -> Deflicker:
    return replace(Deflicker(film, keys=folder, cuts="none"), **changes)


def stopping(after: int) -> Progress:
    def stop(what: str, done: float, total: float) -> None:
        assert 0 <= done <= total
        if what == "making frames agree" and done >= after:
            raise KeyboardInterrupt

    return stop
